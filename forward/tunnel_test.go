package forward

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

// Frames of IPv6 to be tunnelled, recorded as the director got them.
var frames6 = map[string]string{
	// [2001:db8:c::7]:40001 > [2001:db8:9::100]:80 SYN seq 1000 win 64240 mss 1460, hop limit 64
	"syn": "0200000009010200000009fe86dd 6000000000180640 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c410050000003e8000000006002faf0a02e0000020405b4",
	// the same PSH ACK with 50 bytes, class 0xb8, flow label 0x12345, hop limit 9
	"data": "0200000009010200000009fe86dd 6b81234500460609 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c410050000003e9000013895018faf018de0000 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3dae1e8eff6fd040b121920272e353c434a5158",
	// [2001:db8:c::7]:40001 > [2001:db8:9::100]:53 UDP, 32 bytes
	"udp": "0200000009010200000009fe86dd 6000000000281140 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c41003500285f83 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
}

// tunnels are all ways to encapsulate, to a real server of either family.
func tunnels() (list []*Tunnel) {
	for _, ends := range [][2]string{{"10.1.0.1", "10.1.0.11"}, {"2001:db8:1::1", "2001:db8:1::11"}} {
		for _, t := range []Tunnel{
			{Kind: IPIP}, {Kind: GRE}, {Kind: GRE, Checksum: true},
			{Kind: GUE, Port: 6080}, {Kind: GUE, Port: 6080, Checksum: true}, {Kind: GUE, Port: 5555, RemoteChecksum: true},
		} {
			for _, disc := range []bool{true, false} {
				t.Src, t.Dst, t.PMTUDisc = addr(ends[0]), addr(ends[1]), disc
				list = append(list, &t)
			}
		}
	}
	return list
}

func (t *Tunnel) String() string {
	return fmt.Sprintf("kind %d to %v, checksum %v, remote %v, pmtu_disc %v", t.Kind, t.Dst, t.Checksum, t.RemoteChecksum, t.PMTUDisc)
}

// unwrap checks the headers that tun has put in front of a packet, as slowly as a suspicious receiver, and returns the frame
// without them.
func unwrap(t *testing.T, tun *Tunnel, f []byte) []byte {
	t.Helper()
	b := f[FrameHead:]
	var proto, tos, ttl uint8
	var df bool
	var id uint16
	pseudo := make([]byte, 0, 40)
	etherType := binary.BigEndian.Uint16(f[FrameHead-2:])
	if tun.Dst.Is4() {
		ip, payload, ok := packet.ParseIPv4(b)
		if !ok || etherType != packet.EtherIPv4 || ip.HeaderLen() != 20 || ip.TotalLen() != len(b) || slowSum(b[:20]) != 0xffff ||
			ip.Src() != tun.Src.V4() || ip.Dst() != tun.Dst.V4() {
			t.Fatalf("%v: outer header %x", tun, b[:20])
		}
		proto, tos, ttl, df, id = ip.Proto(), ip.TOS(), ip.TTL(), ip.DF(), ip.ID()
		pseudo, b = append(pseudo, b[12:20]...), payload
	} else {
		ip, payload, ok := packet.ParseIPv6(b)
		if !ok || etherType != packet.EtherIPv6 || len(payload) != len(b)-40 || ip.Src() != tun.Src || ip.Dst() != tun.Dst || ip.FlowLabel() != 0 {
			t.Fatalf("%v: outer header %x", tun, b[:40])
		}
		proto, tos, ttl = ip.NextHeader(), ip.TrafficClass(), ip.HopLimit()
		pseudo, b = append(pseudo, b[8:40]...), payload
	}
	innerProto, remote := proto, packet.GUE{}
	switch tun.Kind {
	case GRE:
		h, payload, ok := packet.ParseGRE(b)
		if proto != packet.ProtoGRE || !ok || h.HasChecksum() != tun.Checksum || tun.Checksum && slowSum(b) != 0xffff {
			t.Fatalf("%v: protocol %d, GRE %x", tun, proto, b[:8])
		}
		innerProto = map[uint16]uint8{packet.EtherIPv4: packet.ProtoIPIP, packet.EtherIPv6: packet.ProtoIPv6}[h.Type()]
		b = payload
	case GUE:
		u := (*packet.UDP)(b)
		if proto != packet.ProtoUDP || u.DstPort() != tun.Port || u.SrcPort() < 32768 || u.SrcPort() > 60999 || u.Len() != len(b) {
			t.Fatalf("%v: protocol %d, UDP %x", tun, proto, b[:8])
		}
		switch pseudo = append(pseudo, 0, packet.ProtoUDP, byte(len(b)>>8), byte(len(b))); {
		case !tun.Checksum && !tun.RemoteChecksum:
			if u.Checksum() != 0 {
				t.Fatalf("%v: UDP checksum %x", tun, u.Checksum())
			}
		case u.Checksum() == 0 || slowSum(pseudo, b) != 0xffff:
			t.Fatalf("%v: UDP checksum %x is wrong", tun, u.Checksum())
		}
		g, payload, ok := packet.ParseGUE(b[8:])
		if !ok || g.Remote && !tun.RemoteChecksum {
			t.Fatalf("%v: GUE %x", tun, b[8:20])
		}
		innerProto, remote, b = g.Proto, g, payload
	}
	b = bytes.Clone(b)
	if remote.Remote {
		binary.BigEndian.PutUint16(b[remote.Field:], ^slowSum(b[remote.Start:]))
	}
	var innerTOS, innerTTL uint8
	var innerDF bool
	switch innerProto {
	case packet.ProtoIPIP:
		in := (*packet.IPv4)(b)
		innerTOS, innerTTL, innerDF, etherType = in.TOS(), in.TTL(), in.DF(), packet.EtherIPv4
	case packet.ProtoIPv6:
		in := (*packet.IPv6)(b)
		innerTOS, innerTTL, etherType = in.TrafficClass(), in.HopLimit(), packet.EtherIPv6
	default:
		t.Fatalf("%v: inner protocol %d", tun, innerProto)
	}
	if ttl != innerTTL || df != (innerDF && tun.PMTUDisc && tun.Dst.Is4()) || tun.Dst.Is4() && (id == 0) != df || tos&0xfc != innerTOS&0xfc {
		t.Fatalf("%v: outer header %x of inner %x", tun, f[FrameHead:], b[:20])
	}
	out := append(bytes.Clone(f[:FrameHead]), b...)
	binary.BigEndian.PutUint16(out[FrameHead-2:], etherType)
	return out
}

// toTunnel are packets of both families, by name, with virtio-net header.
func toTunnel(t testing.TB) map[string][]byte {
	list := map[string][]byte{
		"IPv4 syn": frame(t, "syn"), "IPv4 udp": frame(t, "udp"), "IPv4 options": frame(t, "syn options"), "IPv4 echo": frame(t, "echo"),
		"IPv4 fragment": frame(t, "last fragment"), "IPv4 without checksum": frame(t, "udp without checksum"), "IPv4 odd": tcpFrame(packet.TCPAck, 1001),
	}
	for name, s := range frames6 {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		list["IPv6 "+name] = append(make([]byte, packet.VnetLen), b...)
	}
	return list
}

func TestEveryTunnelCarriesEveryPacket(t *testing.T) {
	for name, f := range toTunnel(t) {
		for _, tun := range tunnels() {
			p, v := decode(t, bytes.Clone(f))
			n := tun.HeadLen(p, v)
			head, body := tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), p, v)
			if len(head) != FrameHead+n || !bytes.Equal(head[:packet.VnetLen], make([]byte, packet.VnetLen)) {
				t.Fatalf("%s: head of %d bytes, want %d: %x", name, len(head), FrameHead+n, head)
			}
			if got := unwrap(t, tun, append(bytes.Clone(head), body...)); !bytes.Equal(got, f) {
				t.Errorf("%s: %v: carries\n%x, want\n%x", name, tun, got, f)
			}
		}
	}
}

// owed makes p's TCP or UDP checksum one that the device is to complete; false if p has none.
func owed(p *packet.Packet, v *packet.Vnet) bool {
	at := checksumOffset(p.Proto)
	if at < 0 || p.Fragment || packet.Word(p.L4Bytes()[at:]) == 0 {
		return false
	}
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(p.L4)
	v.SetCsumOffset(at)
	packet.SetWord(p.L4Bytes()[at:], packet.Fold(p.Pseudo(p.Proto, len(p.L4Bytes()))))
	return true
}

// TestTunnelsCompleteOrPassOnTheChecksum: what the device was to complete is complete inside, but for remote checksum offload,
// where the receiver does that.
func TestTunnelsCompleteOrPassOnTheChecksum(t *testing.T) {
	n := 0
	for name, f := range toTunnel(t) {
		for _, tun := range tunnels() {
			p, v := decode(t, bytes.Clone(f))
			if !owed(p, v) {
				continue
			}
			n++
			undone := bytes.Clone(p.Frame[p.L3:])
			head, body := tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), p, v)
			if got := unwrap(t, tun, append(bytes.Clone(head), body...)); !bytes.Equal(got, f) {
				t.Errorf("%s: %v: carries\n%x, want\n%x", name, tun, got, f)
			}
			if bytes.Equal(body, undone) != tun.RemoteChecksum {
				t.Errorf("%s: %v: inner packet %x", name, tun, body)
			}
			if v.NeedsCsum() {
				t.Errorf("%s: %v: something is left to the device", name, tun)
			}
		}
	}
	if n < 6*24 {
		t.Errorf("only %d packets were looked at", n)
	}
}

// TestTunnelBytes compares with what gopacket builds.
func TestTunnelBytes(t *testing.T) {
	src4, dst4, src6, dst6 := addr("10.1.0.1"), addr("10.1.0.11"), addr("2001:db8:1::1"), addr("2001:db8:1::11")
	syn, syn6 := toTunnel(t)["IPv4 syn"], toTunnel(t)["IPv6 syn"]
	ip := func(a packet.Addr) []byte { return a.Netip().AsSlice() }
	outer4 := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: p, SrcIP: ip(src4), DstIP: ip(dst4)}
	}
	outer6 := func(p layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: ip(src6), DstIP: ip(dst6)}
	}
	gre := func(e layers.EthernetType, csum bool) *layers.GRE {
		return &layers.GRE{Protocol: e, ChecksumPresent: csum}
	}
	for _, tt := range []struct {
		name  string
		tun   Tunnel
		inner []byte
		owed  bool
		outer func(sport uint16) []gopacket.SerializableLayer
		gue   string
	}{
		{"IPv4 in IPv4", Tunnel{Src: src4, Dst: dst4}, syn, false,
			func(uint16) []gopacket.SerializableLayer { return []gopacket.SerializableLayer{outer4(4)} }, ""},
		{"IPv4 in IPv6", Tunnel{Src: src6, Dst: dst6}, syn, false,
			func(uint16) []gopacket.SerializableLayer { return []gopacket.SerializableLayer{outer6(4)} }, ""},
		{"IPv6 in IPv6", Tunnel{Src: src6, Dst: dst6}, syn6, true,
			func(uint16) []gopacket.SerializableLayer { return []gopacket.SerializableLayer{outer6(41)} }, ""},
		{"IPv4 in GRE over IPv6", Tunnel{Kind: GRE, Src: src6, Dst: dst6}, syn, false,
			func(uint16) []gopacket.SerializableLayer {
				return []gopacket.SerializableLayer{outer6(47), gre(layers.EthernetTypeIPv4, false)}
			}, ""},
		{"IPv6 in GRE with checksum over IPv6", Tunnel{Kind: GRE, Checksum: true, Src: src6, Dst: dst6}, syn6, false,
			func(uint16) []gopacket.SerializableLayer {
				return []gopacket.SerializableLayer{outer6(47), gre(layers.EthernetTypeIPv6, true)}
			}, ""},
		{"IPv4 in GRE with checksum over IPv4", Tunnel{Kind: GRE, Checksum: true, Src: src4, Dst: dst4}, syn, true,
			func(uint16) []gopacket.SerializableLayer {
				return []gopacket.SerializableLayer{outer4(47), gre(layers.EthernetTypeIPv4, true)}
			}, ""},
		{"IPv6 in GUE with checksum over IPv6", Tunnel{Kind: GUE, Port: 6080, Checksum: true, Src: src6, Dst: dst6}, syn6, true,
			func(sport uint16) []gopacket.SerializableLayer {
				o, u := outer6(17), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: 6080}
				_ = u.SetNetworkLayerForChecksum(o)
				return []gopacket.SerializableLayer{o, u}
			}, "00290000"},
		{"IPv4 in GUE with remote checksum over IPv6", Tunnel{Kind: GUE, Port: 6080, RemoteChecksum: true, Src: src6, Dst: dst6}, syn, true,
			func(sport uint16) []gopacket.SerializableLayer {
				o, u := outer6(17), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: 6080}
				_ = u.SetNetworkLayerForChecksum(o)
				return []gopacket.SerializableLayer{o, u}
			}, "02040001 80000000 0014 0024"},
		{"IPv6 in GUE with remote checksum over IPv4", Tunnel{Kind: GUE, Port: 6080, RemoteChecksum: true, Src: src4, Dst: dst4}, syn6, true,
			func(sport uint16) []gopacket.SerializableLayer {
				o, u := outer4(17), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: 6080}
				_ = u.SetNetworkLayerForChecksum(o)
				return []gopacket.SerializableLayer{o, u}
			}, "02290001 80000000 0028 0038"},
	} {
		tt.tun.PMTUDisc = true
		p, v := decode(t, bytes.Clone(tt.inner))
		if tt.owed {
			owed(p, v)
		}
		head, body := tt.tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), p, v)
		got := append(bytes.Clone(head[FrameHead:]), body...)
		var sport uint16
		if tt.tun.Kind == GUE {
			sport = binary.BigEndian.Uint16(head[FrameHead+tt.tun.ipLen():])
		}
		l := tt.outer(sport)
		if o, ok := l[0].(*layers.IPv4); ok && !p.Is4() {
			o.Flags, o.Id = 0, binary.BigEndian.Uint16(got[4:]) // IPv6 has no DF bit to copy
		}
		gue, err := hex.DecodeString(strings.ReplaceAll(tt.gue, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		buf := gopacket.NewSerializeBuffer()
		l = append(l, gopacket.Payload(append(gue, body...)))
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, buf.Bytes()) {
			t.Errorf("%s:\n got %x\nwant %x", tt.name, got, buf.Bytes())
		}
	}
}

// FuzzTunnel wraps any frame into any tunnel.
func FuzzTunnel(f *testing.F) {
	i := uint8(0)
	for _, b := range toTunnel(f) {
		f.Add(b[packet.VnetLen:], i, uint16(0), uint16(0))
		f.Add(b[packet.VnetLen:], i+5, uint16(34), uint16(16))
		i += 7
	}
	f.Fuzz(func(t *testing.T, b []byte, which uint8, start, offset uint16) {
		var p packet.Packet
		if packet.Decode(b, &p) != packet.NoFault {
			return
		}
		list := tunnels()
		tun := list[int(which)%len(list)]
		v := new(packet.Vnet)
		if start != 0 {
			if int(start) < p.L4 || int(start)+int(offset)+2 > len(p.Frame) {
				return // the data path refuses these
			}
			v.SetFlags(packet.VnetNeedsCsum)
			v.SetCsumStart(int(start))
			v.SetCsumOffset(int(offset))
		}
		if len(p.Frame)+MaxTunnelLen > 0xffff {
			return
		}
		want := bytes.Clone(p.Frame)
		if v2 := *v; start != 0 {
			CompleteChecksum(want, &v2)
		}
		head, body := tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), &p, v)
		if got := unwrap(t, tun, append(bytes.Clone(head), body...)); !same(got[packet.VnetLen:], want, int(start)+int(offset)) {
			t.Fatalf("%v: carries\n%x, want\n%x", tun, got[packet.VnetLen:], want)
		}
	})
}

// same says that two frames are equal, but that the checksum at a place may be either form of zero.
func same(a, b []byte, at int) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if len(a) != len(b) || at == 0 {
		return false
	}
	x, y := packet.Word(a[at:]), packet.Word(b[at:])
	return (x == 0 || x == 0xffff) && (y == 0 || y == 0xffff) && bytes.Equal(masked(a, [2]int{at, at + 2}), masked(b, [2]int{at, at + 2}))
}
