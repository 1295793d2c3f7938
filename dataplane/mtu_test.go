package dataplane

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/conntrack"
	"uvs/dataplane/fragment"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// narrow makes the way to server 11 one of that MTU.
func (d *director) narrow(mtu int) {
	d.hops.Set(server11, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: mtu}, nexthop.Ready)
}

// superFrame is a TCP super-frame of n bytes from the client, to be cut every 1460, its checksum left to the device.
func superFrame(t testing.TB, n int, df bool) (packet.Vnet, []byte) {
	t.Helper()
	ip := layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 77}
	if df {
		ip.Flags = layers.IPv4DontFragment
	}
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	f := frame(t, gatewayMAC, cliMAC, &ip, tcp(client.Port(), 80, "PA"), gopacket.Payload(data))
	sum := packet.Fold(packet.Pseudo4(0xc0000207, vip4, packet.ProtoTCP, len(f)-34))
	binary.BigEndian.PutUint16(f[50:], sum)
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetGSOType(packet.GSOTCPv4)
	v.SetGSOSize(1460)
	v.SetHdrLen(54)
	v.SetCsumStart(34)
	v.SetCsumOffset(16)
	return v, f
}

// gathered puts the datagrams in sent frames together, each of at most mtu bytes.
func gathered(t testing.TB, frames [][]byte, mtu int) (whole [][]byte) {
	t.Helper()
	g := fragment.New(fragment.Limits{})
	for _, f := range frames {
		var p packet.Packet
		if fault := packet.Decode(f[packet.VnetLen:], &p); fault != packet.NoFault {
			t.Fatalf("sent frame has fault %d: %x", fault, f)
		}
		switch {
		case p.IPLen() > mtu:
			t.Errorf("sent %d bytes on a way of %d", p.IPLen(), mtu)
		case !p.Fragment:
			whole = append(whole, f)
		default:
			if d, _ := g.Add(f[packet.VnetLen:], 1); d != nil {
				whole = append(whole, d.Buf())
			}
		}
	}
	return whole
}

func TestSuperFramesOnNarrowWays(t *testing.T) {
	for _, m := range []service.Method{service.Route, service.Masq} {
		open := func(mtu int) *director {
			d := newDirector(t, nil)
			d.serve(service.TCP, m, "10.1.0.11:8080")
			d.run()
			d.inject(0, fromClient(t, client, "S", ""))
			d.narrow(mtu)
			return d
		}
		d := open(1500)
		v, f := superFrame(t, 10*1460+5, true)
		d.mem[0].InjectVnet(v, f)
		if sent := one(t, d.run()[1]); len(sent) != packet.VnetLen+len(f) || (*packet.Vnet)(sent).GSOSize() != 1460 {
			t.Errorf("%v: a super-frame whose segments fit did not go on whole", m)
		}
		d = open(1400)
		d.mem[0].InjectVnet(v, f)
		if _, msg := icmpOf(t, one(t, d.run()[0])); msg.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || msg.Seq != 1400 {
			t.Errorf("%v: a super-frame with DF whose segments don't fit was answered by %v mtu %d", m, msg.TypeCode, msg.Seq)
		}
		d = open(1400)
		v, f = superFrame(t, 10*1460+5, false)
		d.mem[0].InjectVnet(v, bytes.Clone(f))
		var data []byte
		for _, w := range gathered(t, d.run()[1], 1400) {
			seg := parse(t, w).Layer(layers.LayerTypeTCP).(*layers.TCP)
			if int(seg.Seq) != 1000+len(data) {
				t.Fatalf("%v: segment begins at %d, want %d", m, seg.Seq, 1000+len(data))
			}
			var p packet.Packet
			packet.Decode(w[packet.VnetLen:], &p)
			ip := p.IPv4()
			if sum := packet.Sum(p.L4Bytes(), packet.Pseudo4(ip.Src(), ip.Dst(), ip.Proto(), len(p.L4Bytes()))); packet.Fold(sum) != 0xffff {
				t.Fatalf("%v: segment with a wrong checksum", m)
			}
			data = append(data, seg.Payload...)
		}
		if !bytes.Equal(data, f[54:]) {
			t.Errorf("%v: %d bytes arrived, want the %d that were sent", m, len(data), len(f)-54)
		}
		d.accounted()
	}
}

func TestNarrowWays(t *testing.T) {
	for _, tt := range []struct {
		mtu  int
		want Verdict
	}{
		{1500, ForwardedDR}, {576, ForwardedDR}, {296, ForwardedDR}, {68, ForwardedDR},
		{24, DropTooBig}, // less than RFC 791 allows: no room for a header and eight bytes
	} {
		d := newDirector(t, nil)
		d.serve(service.UDP, service.Route, "10.1.0.11:53")
		d.run()
		d.narrow(tt.mtu)
		f := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 9},
			&layers.UDP{SrcPort: 4000, DstPort: 53}, payload(60_000)) // jumbo, as between a guest and its host
		whole := gathered(t, d.inject(0, f)[1], tt.mtu)
		if d.verdicts()[tt.want] != 1 || (tt.want == ForwardedDR) != (len(whole) == 1) {
			t.Errorf("MTU %d: %d datagrams arrived, verdicts %v, want %v", tt.mtu, len(whole), d.verdicts(), tt.want)
		}
		d.accounted()
	}
}

func TestADatagramTooLongForATunnelIsDropped(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.UDP, service.Tunnel, "10.1.0.11:53")
	d.run()
	const n = 0xffff - packet.IPv4Len - packet.UDPLen
	udp := make([]byte, packet.UDPLen+n)
	binary.BigEndian.PutUint16(udp[0:], 4000)
	binary.BigEndian.PutUint16(udp[2:], 53)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	var out [2][][]byte
	for at := 0; at < len(udp); at += 1480 {
		ip := layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 9, FragOffset: uint16(at / 8), Protocol: layers.IPProtocolUDP}
		end := min(at+1480, len(udp))
		if end < len(udp) {
			ip.Flags = layers.IPv4MoreFragments
		}
		out = d.inject(0, frame(t, gatewayMAC, cliMAC, &ip, bytesOf(udp[at:end])))
	}
	if len(out[1]) != 0 || d.verdicts()[DropTooBig] == 0 || d.verdicts()[ForwardedTUN] != 0 {
		t.Errorf("sent %d frames, verdicts %v", len(out[1]), d.verdicts())
	}
	d.accounted()
}

func TestAnAnswerWhoseTimeRanOutLeavesItsConnectionAlone(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	d.inject(0, fromClient(t, client, "S", ""))
	d.inject(1, fromServer(t, 11, client, "SA", ""))
	d.inject(0, fromClient(t, client, "A", ""))
	fin := fromServer(t, 11, client, "FA", "")
	fin[packet.EthLen+8] = 1
	packet.FixIPv4Checksum(fin[packet.EthLen:])
	ip, m := icmpOf(t, one(t, d.inject(1, fin)[1]))
	if m.TypeCode != layers.CreateICMPv4TypeCode(11, 0) || ip.SrcIP.String() != "10.1.0.1" {
		t.Errorf("the server was told %v by %v", m.TypeCode, ip.SrcIP)
	}
	flow := packet.Flow{Src: packet.AddrFrom(client.Addr()), Dst: packet.AddrFrom4(vip4), SrcPort: client.Port(), DstPort: 80, Proto: packet.ProtoTCP}
	var c conntrack.Conn
	if !d.conns.Find(&flow, conntrack.In, d.now, &c) || c.State != conntrack.Established {
		t.Errorf("the connection is in %v, want %v", c.State, conntrack.Established)
	}
	d.accounted()
}
