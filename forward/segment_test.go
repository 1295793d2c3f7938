package forward

import (
	"bytes"
	"encoding/binary"
	"testing"

	"uvs/packet"
)

// superFrame is a TCP or UDP super-frame with a checksum owed, n bytes of payload in segments of size.
func superFrame(proto uint8, n, size int) []byte {
	l4 := packet.TCPLen + 12
	if proto == packet.ProtoUDP {
		l4 = packet.UDPLen
	}
	ip := make([]byte, 20+l4+n)
	packet.PutIPv4(ip, len(ip), packet.Header4{TOS: 2, ID: 0xfffe, DF: true, TTL: 63, Proto: proto, Src: 0xc0000207, Dst: 0x0a090064})
	ports := (*packet.Ports)(ip[20:])
	ports.SetSrc(40001)
	ports.SetDst(80)
	for i := range n {
		ip[20+l4+i] = byte(i ^ i>>8)
	}
	f := onWire(ip)
	v := (*packet.Vnet)(f)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetHdrLen(14 + 20 + l4)
	v.SetGSOSize(size)
	v.SetCsumStart(34)
	if proto == packet.ProtoUDP {
		(*packet.UDP)(ip[20:]).SetLen(l4 + n)
		v.SetGSOType(packet.GSOUDPL4)
		v.SetCsumOffset(6)
	} else {
		h := (*packet.TCP)(ip[20:])
		h.SetSeq(0xffffff00)
		h.SetAck(7)
		h.SetHeaderLen(l4)
		h.SetFlags(packet.TCPAck | packet.TCPPsh | packet.TCPFin | packet.TCPCwr)
		copy(ip[40:], "\x01\x01\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02")
		v.SetGSOType(packet.GSOTCPv4 | packet.GSOECN)
		v.SetCsumOffset(16)
	}
	copy(f[FrameHead:], ip)
	return f
}

// FuzzSegment cuts super-frames and wants the segments to be what a device would make, with the whole stream in them.
func FuzzSegment(f *testing.F) {
	f.Add(false, uint16(64000), uint16(1448), uint8(0), uint8(0))
	f.Add(false, uint16(64000), uint16(1448), uint8(0), uint8(1))
	f.Add(false, uint16(64000), uint16(1448), uint8(0), uint8(2))
	f.Add(true, uint16(64000), uint16(1472), uint8(1), uint8(0))
	f.Add(true, uint16(64000), uint16(1472), uint8(1), uint8(1))
	f.Add(true, uint16(64000), uint16(1472), uint8(1), uint8(2))
	f.Add(false, uint16(1), uint16(1448), uint8(1), uint8(0))
	f.Add(false, uint16(1), uint16(1448), uint8(1), uint8(1))
	f.Add(false, uint16(1), uint16(1448), uint8(1), uint8(2))
	f.Add(true, uint16(1449), uint16(1), uint8(0), uint8(0))
	f.Add(true, uint16(1449), uint16(1), uint8(0), uint8(1))
	f.Add(true, uint16(1449), uint16(1), uint8(0), uint8(2))
	f.Add(false, uint16(2897), uint16(1448), uint8(0), uint8(0))
	f.Add(false, uint16(2897), uint16(1448), uint8(0), uint8(1))
	f.Add(false, uint16(2897), uint16(1448), uint8(0), uint8(2))
	for i := range uint8(len(tunnels())) {
		f.Add(i%2 == 0, uint16(10001), uint16(1401), i+1, i%3)
	}
	f.Fuzz(func(t *testing.T, udp bool, n, size uint16, tunnel, family uint8) {
		proto := uint8(packet.ProtoTCP)
		if udp {
			proto = packet.ProtoUDP
		}
		if n > 65000 || n == 0 || size == 0 || int(n)/int(size) > 2000 {
			return
		}
		in := superFrame(proto, int(n), int(size))
		switch family {
		case 1:
			in = superFrame6(proto, int(n), int(size), nil)
		case 2:
			in = superFrame6(proto, int(n), int(size), extensions)
		}
		p, v := decode(t, in)
		before := bytes.Clone(in)
		var tun *Tunnel
		if list := tunnels(); tunnel > 0 {
			tun = list[(int(tunnel)-1)%len(list)]
		}
		buf := make([]byte, SegmentRoom(p, v))
		var c collect
		if !Segment(buf, p, v, tun, c.emit) {
			t.Fatal("Segment = false")
		}
		c.check(t)
		if !bytes.Equal(in, before) {
			t.Fatal("the super-frame itself has changed")
		}
		count := (int(n) + int(size) - 1) / int(size)
		if len(c.frames) != count || count != Segments(p, v) {
			t.Fatalf("%d segments, want %d", len(c.frames), count)
		}
		var stream []byte
		for i, seg := range c.frames {
			if tun != nil {
				seg = unwrap(t, tun, seg)
			}
			checkSegment(t, p, seg, i, i == count-1, len(stream))
			q, _ := decode(t, seg)
			if got := len(q.Frame) - q.Payload; got != min(int(size), int(n)-len(stream)) {
				t.Fatalf("segment %d has %d bytes", i, got)
			}
			stream = append(stream, q.Frame[q.Payload:]...)
		}
		if !bytes.Equal(stream, p.Frame[p.Payload:]) {
			t.Fatal("the stream has changed")
		}
		if SegmentRoom(p, v) > 0 && Segment(buf[1:], p, v, tun, func(_, _ []byte) { t.Fatal("emitted") }) {
			t.Fatal("Segment with a byte too little = true")
		}
	})
}

func checkSegment(t *testing.T, p *packet.Packet, seg []byte, i int, last bool, at int) {
	t.Helper()
	q, v := decode(t, seg)
	if *v != (packet.Vnet{}) || !bytes.Equal(q.Frame[:14], p.Frame[:14]) || q.Flow != p.Flow || q.TTL != p.TTL {
		t.Fatalf("segment %d: %x", i, seg[:FrameHead+20])
	}
	if !p.Is4() {
		length := [2]int{p.L3 + 4, p.L3 + 6}
		if !bytes.Equal(masked(q.Frame[:q.L4], length), masked(p.Frame[:p.L4], length)) {
			t.Fatalf("segment %d: headers %x, want those of %x", i, q.Frame[q.L3:q.L4], p.Frame[p.L3:p.L4])
		}
	} else if q.IPv4().ID() != p.IPv4().ID()+uint16(i) || q.IPv4().DF() != p.IPv4().DF() || q.IPv4().TOS() != p.IPv4().TOS() {
		t.Fatalf("segment %d: %x", i, seg[:FrameHead+20])
	}
	if !valid(q) || q.Proto == packet.ProtoUDP && q.UDP().Checksum() == 0 {
		t.Fatalf("segment %d: checksum wrong: %x", i, seg)
	}
	gopacketAgrees(t, q)
	if q.Proto == packet.ProtoUDP {
		if q.UDP().Len() != len(q.L4Bytes()) {
			t.Fatalf("segment %d: UDP length %d", i, q.UDP().Len())
		}
		return
	}
	want := p.TCPFlags
	if !last {
		want &^= packet.TCPPsh | packet.TCPFin
	}
	if i > 0 {
		want &^= packet.TCPCwr
	}
	h := q.TCP()
	if q.TCPFlags != want || h.Seq() != p.TCP().Seq()+uint32(at) || h.Ack() != p.TCP().Ack() ||
		!bytes.Equal(q.Frame[q.L4+20:q.Payload], p.Frame[p.L4+20:p.Payload]) || binary.BigEndian.Uint16(q.L4Bytes()[14:]) !=
		binary.BigEndian.Uint16(p.L4Bytes()[14:]) {
		t.Fatalf("segment %d: flags %#x, want %#x; seq %#x", i, q.TCPFlags, want, h.Seq())
	}
}

func TestSegmentRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *packet.Packet, v *packet.Vnet)
	}{
		{"no super-frame", func(_ *packet.Packet, v *packet.Vnet) { v.SetGSOType(packet.GSONone) }},
		{"segments of no size", func(_ *packet.Packet, v *packet.Vnet) { v.SetGSOSize(0) }},
		{"TCP said to be UDP", func(_ *packet.Packet, v *packet.Vnet) { v.SetGSOType(packet.GSOUDPL4) }},
		{"of IPv6", func(_ *packet.Packet, v *packet.Vnet) { v.SetGSOType(packet.GSOTCPv6) }},
		{"to be cut into IP fragments", func(_ *packet.Packet, v *packet.Vnet) { v.SetGSOType(packet.GSOUDP) }},
		{"a fragment", func(p *packet.Packet, _ *packet.Vnet) { p.Fragment = true }},
		{"no payload", func(p *packet.Packet, _ *packet.Vnet) { p.Frame = p.Frame[:p.Payload] }},
	} {
		p, v := decode(t, superFrame(packet.ProtoTCP, 3000, 1448))
		tt.change(p, v)
		if Segments(p, v) != 0 || SegmentRoom(p, v) != 0 ||
			Segment(make([]byte, 10000), p, v, nil, func(_, _ []byte) { t.Fatal("emitted") }) {
			t.Errorf("%s: Segments = %d", tt.name, Segments(p, v))
		}
	}
	for _, tt := range []struct {
		frame []byte
		typ   uint8
	}{
		{superFrame(packet.ProtoUDP, 3000, 1448), packet.GSOTCPv4},
		{superFrame6(packet.ProtoUDP, 3000, 1448, nil), packet.GSOTCPv6},
		{superFrame6(packet.ProtoTCP, 3000, 1448, nil), packet.GSOTCPv4},
		{superFrame6(packet.ProtoTCP, 3000, 1448, nil), packet.GSOUDPL4},
	} {
		p, v := decode(t, tt.frame)
		v.SetGSOType(tt.typ)
		if Segments(p, v) != 0 {
			t.Errorf("protocol %d of IPv4 %v said to be of type %d is cut", p.Proto, p.Is4(), tt.typ)
		}
	}
}
