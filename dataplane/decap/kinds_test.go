package decap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

// kind is a kind of tunnel: what stands between the IP headers.
type kind struct {
	name     string
	proto    layers.IPProtocol // of the outer header; 0 says the inner packet's family
	checksum bool
	remote   bool
}

var kinds = []kind{
	{name: "IPIP"},
	{name: "GRE", proto: layers.IPProtocolGRE},
	{name: "GRE with checksum", proto: layers.IPProtocolGRE, checksum: true},
	{name: "GUE", proto: layers.IPProtocolUDP},
	{name: "GUE with checksum", proto: layers.IPProtocolUDP, checksum: true},
	{name: "GUE with remote checksum", proto: layers.IPProtocolUDP, checksum: true, remote: true},
}

func ip6(src, dst string, p layers.IPProtocol, class uint8) *layers.IPv6 {
	return &layers.IPv6{Version: 6, TrafficClass: class, HopLimit: 64, NextHeader: p, SrcIP: addr(src).AsSlice(), DstIP: addr(dst).AsSlice()}
}

// bytesOf serializes layers as they are, but for lengths and checksums.
func bytesOf(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	return bytes.Clone(serialize(t, l...))
}

// query is a UDP datagram with payload to the VIP, or a TCP segment, from the client, in IP of either family.
func query(t testing.TB, v6, tcp bool, class uint8, payload string) []byte {
	proto := layers.IPProtocolUDP
	if tcp {
		proto = layers.IPProtocolTCP
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = ip4(cip, vip, proto, class)
	if v6 {
		ip = ip6(cip6, vip6, proto, class)
	}
	if tcp {
		h := &layers.TCP{SrcPort: 1234, DstPort: 80, Seq: 1000, ACK: true, Window: 500}
		must(t, h.SetNetworkLayerForChecksum(ip))
		return bytesOf(t, ip, h, gopacket.Payload(payload))
	}
	h := &layers.UDP{SrcPort: 1234, DstPort: 53}
	must(t, h.SetNetworkLayerForChecksum(ip))
	return bytesOf(t, ip, h, gopacket.Payload(payload))
}

// l4At is where the transport header of a query is.
func l4At(inner []byte) int {
	if inner[0]>>4 == 6 {
		return 40
	}
	return 20
}

// pack puts inner into a tunnel of a kind over IP of either family, in an Ethernet frame.
func (k kind) pack(t testing.TB, over6 bool, class uint8, inner []byte) []byte {
	return k.packTo(t, over6, class, inner, DefaultGUEPort)
}

// packTo is pack for any UDP port of GUE.
func (k kind) packTo(t testing.TB, over6 bool, class uint8, inner []byte, port uint16) []byte {
	t.Helper()
	inner6 := inner[0]>>4 == 6
	proto, etherType := layers.IPProtocolIPv4, layers.EthernetTypeIPv4
	if inner6 {
		proto, etherType = layers.IPProtocolIPv6, layers.EthernetTypeIPv6
	}
	outerProto := k.proto
	if outerProto == 0 {
		outerProto = proto
	}
	frame := *eth
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = ip4(dip, rip, outerProto, class)
	if over6 {
		ip, frame.EthernetType = ip6(dip6, rip6, outerProto, class), layers.EthernetTypeIPv6
	}
	l := []gopacket.SerializableLayer{&frame, ip}
	switch k.proto {
	case layers.IPProtocolGRE:
		l = append(l, &layers.GRE{Protocol: etherType, ChecksumPresent: k.checksum})
	case layers.IPProtocolUDP:
		gue := []byte{0, byte(proto), 0, 0}
		if k.remote {
			inner = bytes.Clone(inner)
			at := l4At(inner)
			field := at + map[bool]int{true: 16, false: 6}[inner[at-20+9] == 6 && !inner6 || inner6 && inner[6] == 6]
			gue = []byte{2, byte(proto), 0, 1, 0x80, 0, 0, 0, 0, byte(at), 0, byte(field)}
			binary.BigEndian.PutUint16(inner[field:], pseudoOf(inner))
		}
		u := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(port)}
		must(t, u.SetNetworkLayerForChecksum(ip))
		inner = append(gue, inner...)
		b := bytesOf(t, append(l, u, gopacket.Payload(inner))...)
		if !k.checksum {
			at := 14 + l4At(b[14:])
			b[at+6], b[at+7] = 0, 0
		}
		return b
	}
	return bytesOf(t, append(l, gopacket.Payload(inner))...)
}

// pseudoOf is the folded sum of a query's pseudo-header.
func pseudoOf(ip []byte) uint16 {
	at := l4At(ip)
	n, proto, addrs := len(ip)-at, ip[9], ip[12:20]
	if at == 40 {
		proto, addrs = ip[6], ip[8:40]
	}
	return packet.Fold(packet.Sum(addrs, uint64(n)+uint64(proto)))
}

func TestEveryKindOfTunnelIsOpened(t *testing.T) {
	r := rules(t)
	for _, k := range kinds {
		for i := range 8 {
			over6, inner6, tcp := i&1 != 0, i&2 != 0, i&4 != 0
			name := fmt.Sprintf("%s, over IPv6 %v, IPv6 inside %v, TCP %v", k.name, over6, inner6, tcp)
			want := query(t, inner6, tcp, 0, "an odd payload")
			frame := append(k.pack(t, over6, 0, want), 0, 0, 0) // Ethernet padding
			var v packet.Vnet
			start, end, verdict := r.Open(frame, 14, &v, here)
			if verdict != Delivered {
				t.Errorf("%s: %v", name, verdict)
				continue
			}
			got := bytes.Clone(frame[start:end])
			if v.NeedsCsum() != k.remote {
				t.Errorf("%s: header %x", name, v)
			}
			if v.NeedsCsum() { // what the stack takes as done
				at := v.CsumStart() + v.CsumOffset()
				binary.BigEndian.PutUint16(got[at:], ^packet.Fold(packet.Sum(got[v.CsumStart():], 0)))
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: opened\n%x, want\n%x", name, got, want)
			}
			// Each bit of a whole packet behind the outer header is protected, if there is a checksum.
			if k.checksum {
				for at := 14 + l4At(frame[14:]); at < len(frame)-3; at++ {
					bad := append(k.pack(t, over6, 0, want), 0, 0, 0)
					bad[at] ^= 0x10
					if _, _, verdict := r.Open(bad, 14, new(packet.Vnet), here); verdict == Delivered {
						t.Fatalf("%s: byte %d of %x is wrong, and nobody noticed", name, at, bad)
					}
				}
			}
		}
	}
}

func TestCongestionMarksOfEveryFamily(t *testing.T) {
	for i := range 4 {
		over6, inner6 := i&1 != 0, i&2 != 0
		for pair := range 16 {
			in, out := uint8(pair>>2), uint8(pair&3)
			frame := kinds[0].pack(t, over6, 10<<2|out, query(t, inner6, false, 46<<2|in, "x"))
			start, end, verdict := rules(t).Open(frame, 14, new(packet.Vnet), here)
			want, ok := decapsulateECN(46<<2|in, 10<<2|out)
			if !ok {
				if verdict != DropCongestion {
					t.Errorf("inner %d, outer %d: %v", in, out, verdict)
				}
				continue
			}
			o, ok := parseOuter(frame[start:max(start, end)])
			if verdict != Delivered || !ok || o.tos != want {
				t.Errorf("over IPv6 %v, IPv6 inside %v, inner %d, outer %d: %v, class %#x, want %#x", over6, inner6, in, out, verdict, o.tos, want)
			}
		}
	}
}

func TestKindsAreJudged(t *testing.T) {
	gre, greSum, gue, gueSum, remote := kinds[1], kinds[2], kinds[3], kinds[4], kinds[5]
	q4, q6 := query(t, false, false, 0, "payload"), query(t, true, false, 0, "payload")
	const l4, over6L4 = 34, 54
	for _, c := range []struct {
		name  string
		frame []byte
		spoil func(b []byte, v *packet.Vnet) []byte
		want  Verdict
	}{
		{"GRE with a key", gre.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4] = 0x20; return b }, DropTunnelHeader},
		{"GRE of another protocol", gre.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+2] = 0x65; return b }, DropTunnelHeader},
		{"GRE that says IPv6 of IPv4", gre.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+2], b[l4+3] = 0x86, 0xdd; return b }, DropInnerHeader},
		{"GRE with a wrong checksum", greSum.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+4]++; return b }, DropChecksum},
		{"GRE cut short", gre.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { return reseal(b[:l4+3]) }, DropTunnelHeader},
		{"GUE to another port", gue.packTo(t, false, 0, q4, 6081), nil, DropProtocol},
		{"GUE control message", gue.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+8] |= 0x20; return b }, DropTunnelHeader},
		{"GUE of another protocol", gue.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+9] = 6; return b }, DropTunnelHeader},
		{"GUE with a wrong checksum", gueSum.pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[over6L4+6]++; return b }, DropChecksum},
		{"GUE whose UDP length lies", gue.pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[over6L4+4]++; return b }, DropTunnelHeader},
		{"GUE cut short", gue.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte {
			(*packet.UDP)(b[l4:]).SetLen(11)
			return reseal(b[:l4+11])
		}, DropTunnelHeader},
		{"remote checksum without one of UDP", remote.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte { b[l4+6], b[l4+7] = 0, 0; return b }, DropChecksum},
		{"remote checksum in the IP header", remote.pack(t, false, 0, q4), func(b []byte, _ *packet.Vnet) []byte {
			b[l4+17], b[l4+19] = 10, 10
			(*packet.UDP)(b[l4:]).SetChecksum(0)
			(*packet.UDP)(b[l4:]).SetChecksum(^packet.Fold(packet.Sum(b[l4:], packet.Pseudo4(number(addr(dip)), number(addr(rip)), 17, len(b)-l4))))
			return b
		}, DropOffload},
		{"remote checksum of what the card merged", remote.pack(t, false, 0, q4), func(b []byte, v *packet.Vnet) []byte {
			v.SetGSOType(packet.GSOUDPL4)
			v.SetGSOSize(3)
			return b
		}, DropOffload},
		{"UDP's own checksum left to the card", gueSum.pack(t, false, 0, q4), func(b []byte, v *packet.Vnet) []byte {
			b[l4+6]++
			v.SetFlags(packet.VnetNeedsCsum)
			v.SetCsumStart(l4)
			v.SetCsumOffset(6)
			return b
		}, Delivered},
		{"several outer packets in one", gueSum.pack(t, false, 0, q4), func(b []byte, v *packet.Vnet) []byte {
			v.SetFlags(packet.VnetNeedsCsum)
			v.SetCsumStart(l4)
			v.SetCsumOffset(6)
			v.SetGSOType(packet.GSOUDPL4)
			v.SetGSOSize(20)
			return b
		}, DropOffload},
		{"IPv6 from elsewhere", gre.pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[14+23]++; return b }, DropDirector},
		{"IPv6 tunnel to another host", gre.pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[14+39]++; return b }, PassNotLocal},
		{"IPv6 fragment", gre.pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[14+6] = 44; return b }, DropFragment},
		{"IPv6 to no VIP", kinds[0].pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[over6L4+39]++; return b }, DropNotVIP},
		{"IPv6 from the VIP", kinds[0].pack(t, false, 0, q6), func(b []byte, _ *packet.Vnet) []byte {
			copy(b[l4+8:], addr(vip6).AsSlice())
			return b
		}, DropSource},
		{"IPv6 from this host", kinds[0].pack(t, false, 0, q6), func(b []byte, _ *packet.Vnet) []byte {
			copy(b[l4+8:], addr(rip6).AsSlice())
			return b
		}, DropSource},
		{"IPv6 from a link-local address", kinds[0].pack(t, false, 0, q6), func(b []byte, _ *packet.Vnet) []byte {
			copy(b[l4+8:], addr("fe80::1").AsSlice())
			return b
		}, DropSource},
		{"IPv6 from an IPv4-mapped address", kinds[0].pack(t, false, 0, q6), func(b []byte, _ *packet.Vnet) []byte {
			copy(b[l4+8:], net.ParseIP(cip).To16())
			return b
		}, DropSource},
		{"IPv6 inside that says it is longer", kinds[0].pack(t, true, 0, q6), func(b []byte, _ *packet.Vnet) []byte { b[over6L4+5]++; return b }, DropInnerHeader},
	} {
		var v packet.Vnet
		frame := c.frame
		if c.spoil != nil {
			frame = c.spoil(frame, &v)
		}
		if _, _, got := rules(t).Open(frame, 14, &v, here); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	none, err := NewRules([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, []netip.Addr{addr(vip)}, 0)
	must(t, err)
	if _, _, got := none.Open(gue.pack(t, false, 0, q4), 14, new(packet.Vnet), here); got != DropProtocol {
		t.Errorf("GUE where none is taken: %v", got)
	}
}

// TestMergedSegmentsOfEveryKind: what the card merged keeps the tunnel headers of the first segment, and the inner checksum is
// only the pseudo-header's sum.
func TestMergedSegmentsOfEveryKind(t *testing.T) {
	for _, k := range kinds {
		if k.remote {
			continue
		}
		for i := range 4 {
			over6, inner6 := i&1 != 0, i&2 != 0
			inner := query(t, inner6, true, 0, string(make([]byte, 3000)))
			at := l4At(inner)
			for _, merged := range []bool{false, true} {
				frame := k.pack(t, over6, 0, inner) // the tunnel's checksum is of the packet as it will be
				base := len(frame) - len(inner)
				if merged && k.checksum {
					spoilTunnelChecksum(frame) // of a merged one it is the first segment's
				}
				binary.BigEndian.PutUint16(frame[base+at+16:], pseudoOf(inner))
				var v packet.Vnet
				v.SetFlags(packet.VnetNeedsCsum)
				v.SetCsumStart(base + at)
				v.SetCsumOffset(16)
				if merged {
					v.SetGSOType(packet.GSOTCPv4)
					if inner6 {
						v.SetGSOType(packet.GSOTCPv6)
					}
					v.SetGSOSize(1000)
				}
				start, end, verdict := rules(t).Open(frame, 14, &v, here)
				if verdict != Delivered || start != base || end != len(frame) || !v.NeedsCsum() || v.CsumStart() != at || v.CsumOffset() != 16 ||
					merged && (v.GSOSize() != 1000 || v.HdrLen() != at+20) {
					t.Errorf("%s, over IPv6 %v, IPv6 inside %v, merged %v: %v, %d to %d, header %x", k.name, over6, inner6, merged, verdict, start, end, v)
				}
			}
		}
	}
}

func spoilTunnelChecksum(frame []byte) {
	at := 14 + l4At(frame[14:])
	if frame[at]&0x80 != 0 && frame[at+1] == 0 { // GRE
		frame[at+4]++
		return
	}
	frame[at+6]++
}

func TestAllocOpenOfEveryKindAllocatesNothing(t *testing.T) {
	r := rules(t)
	for _, k := range kinds {
		for i := range 4 {
			frame := k.pack(t, i&1 != 0, 0, query(t, i&2 != 0, true, 0, "payload"))
			scratch := slices.Clone(frame)
			if n := testing.AllocsPerRun(100, func() {
				copy(scratch, frame)
				var v packet.Vnet
				if _, _, verdict := r.Open(scratch, 14, &v, here); verdict != Delivered {
					t.Fatal(verdict)
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", k.name, n)
			}
		}
	}
}
