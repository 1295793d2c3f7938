package packet

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func addr(s string) Addr { return AddrFrom(netip.MustParseAddr(s)) }

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		frame string
		want  Packet // Frame is not compared
	}{
		{"syn", Packet{Flow: Flow{addr("192.0.2.7"), addr("10.9.0.100"), 40001, 80, ProtoTCP},
			L3: 14, L4: 34, Payload: 58, TCPFlags: TCPSyn, TTL: 64}},
		{"syn options", Packet{Flow: Flow{addr("192.0.2.8"), addr("10.9.0.100"), 40004, 80, ProtoTCP},
			L3: 14, L4: 38, Payload: 62, TCPFlags: TCPSyn, TTL: 64}},
		{"data", Packet{Flow: Flow{addr("10.1.0.11"), addr("192.0.2.99"), 8080, 1234, ProtoTCP},
			L3: 14, L4: 34, Payload: 54, TCPFlags: TCPPsh | TCPAck, TTL: 64}},
		{"udp", Packet{Flow: Flow{addr("192.0.2.1"), addr("10.9.0.100"), 1, 81, ProtoUDP},
			L3: 14, L4: 34, Payload: 42, TTL: 64}},
		{"first fragment", Packet{Flow: Flow{addr("192.0.2.9"), addr("10.9.0.100"), 0, 0, ProtoUDP},
			L3: 14, L4: 34, Payload: 34, TTL: 64, Fragment: true}},
		{"last fragment", Packet{Flow: Flow{addr("192.0.2.9"), addr("10.9.0.100"), 0, 0, ProtoUDP},
			L3: 14, L4: 34, Payload: 34, TTL: 64, Fragment: true}},
		{"echo", Packet{Flow: Flow{addr("192.0.2.7"), addr("10.9.0.100"), 0, 0, ProtoICMP},
			L3: 14, L4: 34, Payload: 34, TTL: 64}},
		{"sctp", Packet{Flow: Flow{addr("192.0.2.7"), addr("10.9.0.100"), 5000, 80, ProtoSCTP},
			L3: 14, L4: 34, Payload: 46, TTL: 64}},
		{"syn6", Packet{Flow: Flow{addr("2001:db8:c::7"), addr("2001:db8:9::100"), 40001, 80, ProtoTCP},
			L3: 14, L4: 54, Payload: 78, TCPFlags: TCPSyn, TTL: 64}},
		{"udp6", Packet{Flow: Flow{addr("2001:db8:c::7"), addr("2001:db8:9::100"), 40001, 53, ProtoUDP},
			L3: 14, L4: 54, Payload: 62, TTL: 64}},
		{"first fragment6", Packet{Flow: Flow{addr("2001:db8:c::9"), addr("2001:db8:9::100"), 0, 0, ProtoUDP},
			L3: 14, L4: 62, Payload: 62, TTL: 64, Fragment: true, FragmentAt: 54}},
		{"last fragment6", Packet{Flow: Flow{addr("2001:db8:c::9"), addr("2001:db8:9::100"), 0, 0, ProtoUDP},
			L3: 14, L4: 62, Payload: 62, TTL: 64, Fragment: true, FragmentAt: 54}},
		{"atomic fragment6", Packet{Flow: Flow{addr("2001:db8:c::9"), addr("2001:db8:9::100"), 5001, 53, ProtoUDP},
			L3: 14, L4: 62, Payload: 70, TTL: 64, FragmentAt: 54}},
		{"echo6", Packet{Flow: Flow{addr("2001:db8:c::7"), addr("2001:db8:9::100"), 0, 0, ProtoICMPv6},
			L3: 14, L4: 54, Payload: 54, TTL: 64}},
		{"mld6", Packet{Flow: Flow{Addr{}, addr("ff02::16"), 0, 0, ProtoICMPv6}, L3: 14, L4: 62, Payload: 62, TTL: 1}},
		{"chain6", Packet{Flow: Flow{addr("2001:db8:c::7"), addr("2001:db8:9::100"), 40001, 80, ProtoTCP},
			L3: 14, L4: 110, Payload: 134, TCPFlags: TCPSyn, TTL: 64}},
	} {
		t.Run(tt.frame, func(t *testing.T) {
			f := frame(t, tt.frame)
			padded := append(bytes.Clone(f), make([]byte, 7)...)
			got := Packet{Payload: 999, TCPFlags: 99, Fragment: !tt.want.Fragment, FragmentAt: 99} // of the packet before
			if fault := Decode(padded, &got); fault != NoFault {
				t.Fatalf("Decode = %v, want NoFault", fault)
			}
			if !bytes.Equal(got.Frame, f) {
				t.Errorf("Frame has %d bytes, want %d: padding belongs to no packet", len(got.Frame), len(f))
			}
			if got.IPLen() != len(f)-EthLen {
				t.Errorf("IPLen() = %d, want %d", got.IPLen(), len(f)-EthLen)
			}
			got.Frame = nil
			if g, w := got, tt.want; g.Flow != w.Flow || g.L3 != w.L3 || g.L4 != w.L4 || g.Payload != w.Payload ||
				g.TCPFlags != w.TCPFlags || g.TTL != w.TTL || g.Fragment != w.Fragment || g.FragmentAt != w.FragmentAt {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			got.Frame = f
			if agree(t, &got); got.Is4() == (tt.frame[len(tt.frame)-1] == '6') || got.LaterFragment() != strings.HasPrefix(tt.frame, "last") {
				t.Errorf("Is4() = %v, LaterFragment() = %v", got.Is4(), got.LaterFragment())
			}
		})
	}
}

func TestDecodeFindsFault(t *testing.T) {
	fix := func(b []byte) { FixIPv4Checksum(b[EthLen:]) }
	for _, tt := range []struct {
		name, frame string
		spoil       func(b []byte) []byte
		want        Fault
	}{
		{"empty", "syn", func(b []byte) []byte { return nil }, FaultShort},
		{"half an Ethernet header", "syn", func(b []byte) []byte { return b[:13] }, FaultShort},
		{"half an IP header", "syn", func(b []byte) []byte { return b[:33] }, FaultShort},
		{"ARP", "arp", func(b []byte) []byte { return b }, FaultEtherType},
		{"version 5", "syn", func(b []byte) []byte { b[14] = 0x55; return b }, FaultIPHeader},
		{"header of 16 bytes", "syn", func(b []byte) []byte { b[14] = 0x44; return b }, FaultIPHeader},
		{"total length below the header's", "syn", func(b []byte) []byte { b[16], b[17] = 0, 19; return b }, FaultIPHeader},
		{"total length beyond the frame", "syn", func(b []byte) []byte { b[17]++; return b }, FaultIPHeader},
		{"loose source route", "source route", func(b []byte) []byte { return b }, FaultIPHeader},
		{"strict source route", "source route", func(b []byte) []byte { b[34] = 137; fix(b); return b }, FaultIPHeader},
		{"option beyond the header", "source route", func(b []byte) []byte { b[34], b[35] = 7, 9; fix(b); return b }, FaultIPHeader},
		{"option without length", "syn options", func(b []byte) []byte { b[37] = 7; fix(b); return b }, FaultIPHeader},
		{"option of length 0", "syn options", func(b []byte) []byte { b[34], b[35] = 7, 0; fix(b); return b }, FaultIPHeader},
		{"end of options hides the rest", "syn options", func(b []byte) []byte { b[34], b[35] = 0, 131; fix(b); return b }, NoFault},
		{"record route", "source route", func(b []byte) []byte { b[34] = 7; fix(b); return b }, NoFault},
		{"header checksum", "syn", func(b []byte) []byte { b[25]++; return b }, FaultIPChecksum},
		{"header checksum with options", "syn options", func(b []byte) []byte { b[34] = 0; return b }, FaultIPChecksum},
		{"multicast source", "syn", func(b []byte) []byte { b[26] = 224; fix(b); return b }, FaultAddress},
		{"broadcast source", "syn", func(b []byte) []byte { copy(b[26:], "\xff\xff\xff\xff"); fix(b); return b }, FaultAddress},
		{"loopback source", "syn", func(b []byte) []byte { b[26] = 127; fix(b); return b }, FaultAddress},
		{"source of this network", "syn", func(b []byte) []byte { b[26] = 0; fix(b); return b }, FaultAddress},
		{"half a TCP header", "syn", func(b []byte) []byte { b[17] = 39; fix(b); return b }, FaultShort},
		{"TCP data offset 4", "syn", func(b []byte) []byte { b[46] = 0x40; return b }, FaultL4Header},
		{"TCP data offset beyond the packet", "syn", func(b []byte) []byte { b[46] = 0x70; return b }, FaultL4Header},
		{"half a UDP header", "udp", func(b []byte) []byte { b[17] = 27; fix(b); return b }, FaultShort},
		{"UDP length 7", "udp", func(b []byte) []byte { b[39] = 7; return b }, FaultL4Header},
		{"UDP length beyond the packet", "udp", func(b []byte) []byte { b[39]++; return b }, FaultL4Header},
		{"UDP length within the packet", "udp", func(b []byte) []byte { b[39]--; return b }, NoFault},
		{"half an ICMP header", "echo", func(b []byte) []byte { b[17] = 27; fix(b); return b }, FaultShort},
		{"half an SCTP header", "sctp", func(b []byte) []byte { b[17] = 31; fix(b); return b }, FaultShort},
		{"nothing behind a fragment's header", "last fragment", func(b []byte) []byte { b[17] = 20; fix(b); return b }, NoFault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if got := Decode(tt.spoil(frame(t, tt.frame)), &p); got != tt.want {
				t.Errorf("Decode = %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzDecode wants no panic, offsets within the frame, and agreement with gopacket on what both understand.
func FuzzDecode(f *testing.F) {
	for name := range frames {
		f.Add(frame(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		var p Packet
		if Decode(b, &p) != NoFault {
			return
		}
		if !bytes.Equal(in, b) {
			t.Fatal("Decode wrote to the frame")
		}
		if p.L3 != EthLen || p.L4 < p.L3+IPv4Len || p.Payload < p.L4 || len(p.Frame) < p.Payload || len(p.Frame) > len(b) {
			t.Fatalf("offsets: L3 %d, L4 %d, payload %d, frame %d of %d", p.L3, p.L4, p.Payload, len(p.Frame), len(b))
		}
		if p.Is4() != (b[EthLen]>>4 == 4) || p.Src.Is4() != p.Is4() {
			t.Fatalf("from %v to %v: version %d", p.Src, p.Dst, b[EthLen]>>4)
		}
		if !p.Is4() {
			checkIPv6(t, &p)
		} else if p.IPv4().TotalLen() != p.IPLen() || !IPv4ChecksumOK(p.Frame[p.L3:]) || p.FragmentAt != 0 {
			t.Fatalf("IP header lies: total length %d of %d", p.IPv4().TotalLen(), p.IPLen())
		}
		switch {
		case p.Fragment:
		case p.Proto == ProtoTCP:
			if h := p.TCP(); h.SrcPort() != p.SrcPort || h.DstPort() != p.DstPort || p.Payload != p.L4+h.HeaderLen() {
				t.Fatalf("TCP header says otherwise: %+v", p)
			}
		case p.Proto == ProtoUDP:
			if h := p.UDP(); h.SrcPort() != p.SrcPort || h.DstPort() != p.DstPort || len(p.L4Bytes()) < h.Len() {
				t.Fatalf("UDP header says otherwise: %+v", p)
			}
		}
		if p.IsICMP() && !p.Fragment {
			var q Packet
			DecodeQuoted(p.L4Bytes()[ICMPLen:], &q)
		}
		agree(t, &p)
	})
}

// agree compares p with gopacket's reading of the same frame.
func agree(t *testing.T, p *Packet) {
	t.Helper()
	g := gopacket.NewPacket(p.Frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	var src, dst net.IP
	var ttl uint8
	switch ip := g.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst, ttl = ip.SrcIP, ip.DstIP, ip.TTL
		if uint8(ip.Protocol) != p.Proto {
			t.Errorf("protocol %d, gopacket says %d", p.Proto, ip.Protocol)
		}
	case *layers.IPv6:
		src, dst, ttl = ip.SrcIP, ip.DstIP, ip.HopLimit
		if ip.TrafficClass != p.IPv6().TrafficClass() || ip.FlowLabel != p.IPv6().FlowLabel() {
			t.Errorf("class %#x label %#x, gopacket says %#x and %#x", p.IPv6().TrafficClass(), p.IPv6().FlowLabel(), ip.TrafficClass, ip.FlowLabel)
		}
	default:
		if p.Is4() || p.IPv6().NextHeader() != extHopByHop { // gopacket reads what is in hop-by-hop options, and may dislike it
			t.Fatalf("gopacket sees no IP packet: %v", g.ErrorLayer())
		}
		return
	}
	if s, _ := netip.AddrFromSlice(src); AddrFrom(s) != p.Src {
		t.Errorf("source %v, gopacket says %v", p.Src, s)
	}
	if d, _ := netip.AddrFromSlice(dst); AddrFrom(d) != p.Dst {
		t.Errorf("destination %v, gopacket says %v", p.Dst, d)
	}
	if ttl != p.TTL {
		t.Errorf("ttl %d, gopacket says %d", p.TTL, ttl)
	}
	if f, ok := g.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment); ok && p.FragmentAt != 0 {
		h := p.FragmentHeader()
		if int(f.FragmentOffset)*8 != h.Offset() || f.MoreFragments != h.MF() || f.Identification != h.ID() || uint8(f.NextHeader) != h.NextHeader() {
			t.Errorf("fragment header %x, gopacket says %+v", *h, f)
		}
	}
	if tcp, ok := g.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && !p.Fragment && p.Proto == ProtoTCP {
		if uint16(tcp.SrcPort) != p.SrcPort || uint16(tcp.DstPort) != p.DstPort || tcp.SYN != (p.TCPFlags&TCPSyn != 0) ||
			len(tcp.LayerPayload()) != len(p.Frame)-p.Payload {
			t.Errorf("TCP %+v, gopacket says %+v", p, tcp)
		}
	}
	if udp, ok := g.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && !p.Fragment && p.Proto == ProtoUDP {
		if uint16(udp.SrcPort) != p.SrcPort || uint16(udp.DstPort) != p.DstPort || int(udp.Length) != p.UDP().Len() {
			t.Errorf("UDP %+v, gopacket says %+v", p, udp)
		}
	}
}

func TestDecodeQuoted(t *testing.T) {
	quote := func(t *testing.T) []byte { return frame(t, "icmp error")[42:] }
	var q Packet
	if !DecodeQuoted(quote(t), &q) {
		t.Fatal("DecodeQuoted = false for 28 bytes of TCP")
	}
	want := Flow{addr("10.9.0.100"), addr("192.0.2.7"), 80, 40001, ProtoTCP}
	if q.Flow != want || q.L3 != 0 || q.L4 != 20 || q.Fragment || q.TTL != 62 {
		t.Errorf("got %+v, want flow %+v", q, want)
	}
	for _, tt := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  bool
	}{
		{"checksum and total length mean nothing", func(b []byte) []byte { b[2], b[10] = 0xff, 99; return b }, true},
		{"a first fragment", func(b []byte) []byte { b[6] = 0x20; return b }, true},
		{"a later fragment", func(b []byte) []byte { b[7] = 1; return b }, false},
		{"seven bytes of TCP", func(b []byte) []byte { return b[:27] }, false},
		{"no whole IP header", func(b []byte) []byte { return b[:19] }, false},
		{"options cut off", func(b []byte) []byte { b[0] = 0x4f; return b }, false},
		{"header of 16 bytes", func(b []byte) []byte { b[0] = 0x44; return b }, false},
		{"version 6", func(b []byte) []byte { b[0] = 0x65; return b }, false},
		{"ICMP has no flow", func(b []byte) []byte { b[9] = ProtoICMP; return b }, false},
		{"UDP", func(b []byte) []byte { b[9] = ProtoUDP; return b }, true},
		{"SCTP", func(b []byte) []byte { b[9] = ProtoSCTP; return b }, true},
	} {
		if got := DecodeQuoted(tt.spoil(quote(t)), &q); got != tt.want {
			t.Errorf("%s: DecodeQuoted = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func FuzzDecodeQuoted(f *testing.F) {
	f.Add(frame(f, "icmp error")[42:])
	f.Add(frame(f, "syn options")[14:])
	f.Add(frame(f, "first fragment")[14:])
	f.Add(frame(f, "udp")[14:])
	f.Add(frame(f, "icmp error6")[62:])
	for _, name := range []string{"first fragment6", "last fragment6", "atomic fragment6", "chain6", "udp6"} {
		f.Add(frame(f, name)[14:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := Packet{L4: 9999}
		if !DecodeQuoted(b, &q) {
			return
		}
		if q.L3 != 0 || q.L4 < IPv4Len || len(q.Frame) < q.L4+8 || q.Payload != q.L4 {
			t.Fatalf("offsets: %+v", q)
		}
		if h := q.Ports(); h.Src() != q.SrcPort || h.Dst() != q.DstPort {
			t.Fatalf("ports: %+v", q)
		}
		if q.Is4() != (b[0]>>4 == 4) || q.Src.Is4() != q.Is4() || q.LaterFragment() {
			t.Fatalf("from %v to %v: version %d", q.Src, q.Dst, b[0]>>4)
		}
		if !q.Is4() {
			if q.L4 < IPv6Len || AddrFrom16((*[16]byte)(b[8:])) != q.Src || AddrFrom16((*[16]byte)(b[24:])) != q.Dst {
				t.Fatalf("addresses: %+v", q)
			}
			return
		}
		if binary.BigEndian.Uint32(b[12:]) != q.Src.V4() || q.IPv4().FragOffset() != 0 {
			t.Fatalf("addresses: %+v", q)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	var p Packet
	for name := range frames {
		f := frame(t, name)
		if n := testing.AllocsPerRun(100, func() { Decode(f, &p) }); n != 0 {
			t.Errorf("Decode of %s allocates %v times", name, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"syn", "syn options", "udp", "syn6", "udp6", "chain6"} {
		b.Run(name, func(b *testing.B) {
			f := frame(b, name)
			var p Packet
			b.ReportAllocs()
			for b.Loop() {
				if Decode(f, &p) != NoFault {
					b.Fatal("fault")
				}
			}
		})
	}
}
