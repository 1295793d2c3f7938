package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// header is an extension header, or the payload, of a protocol.
type header struct {
	proto uint8
	bytes []byte
}

// chainOf is an IPv6 frame with the given headers, the last of which is the payload. Next headers are filled in.
func chainOf(headers ...header) []byte {
	b := make([]byte, EthLen+IPv6Len)
	PutEth(b, MAC{2}, MAC{2, 1}, EtherIPv6)
	said := -1
	first := uint8(extNone)
	for _, h := range headers {
		if said < 0 {
			first = h.proto
		} else {
			b[said] = h.proto
		}
		said = len(b)
		b = append(b, h.bytes...)
	}
	PutIPv6(b[EthLen:], len(b)-EthLen-IPv6Len, Header6{NextHeader: first, HopLimit: 64, Src: addr("2001:db8:c::7"), Dst: addr("2001:db8:9::100")})
	return b
}

// options is a header of options, n bytes long, padded.
func options(n int) []byte {
	b := make([]byte, n)
	b[1], b[2], b[3] = byte(n/8-1), 1, byte(n-4)
	return b
}

func fragmentHeader(offset int, mf bool) []byte {
	b := make([]byte, FragmentLen)
	PutFragment(b, 0, offset, mf, 0xcafe)
	return b
}

var (
	hopByHop  = header{extHopByHop, options(8)}
	dest      = header{extDestination, options(16)}
	routing   = header{extRouting, []byte{0, 2, 2, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}
	atomic    = header{extFragment, fragmentHeader(0, false)}
	ah        = header{extAuth, []byte{0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}
	udpHeader = header{ProtoUDP, []byte{0x9c, 0x41, 0, 53, 0, 10, 0, 0, 'h', 'i'}}
)

// with is h with one byte changed.
func (h header) with(at int, b byte) header {
	h.bytes = bytes.Clone(h.bytes)
	h.bytes[at] = b
	return h
}

func TestExtensionHeaders(t *testing.T) {
	many := func(n int) []header {
		var hs []header
		for range n {
			hs = append(hs, header{extDestination, options(8)})
		}
		return append(hs, udpHeader)
	}
	for _, tt := range []struct {
		name    string
		headers []header
		fault   Fault
		proto   uint8
		l4      int // behind the IPv6 header
		part    bool
	}{
		{"none", []header{udpHeader}, NoFault, ProtoUDP, 0, false},
		{"hop-by-hop", []header{hopByHop, udpHeader}, NoFault, ProtoUDP, 8, false},
		{"one of each", []header{hopByHop, dest, routing, atomic, ah, dest, udpHeader}, NoFault, ProtoUDP, 8 + 16 + 24 + 8 + 24 + 16, false},
		{"the longest chain", many(maxExtensions), NoFault, ProtoUDP, 8 * maxExtensions, false},
		{"a longer chain", many(maxExtensions + 1), FaultIPHeader, 0, 0, false},
		{"the longest options", []header{{extDestination, options(2048)}, udpHeader}, NoFault, ProtoUDP, 2048, false},
		{"options beyond the packet", []header{dest.with(1, 3), udpHeader}, FaultShort, 0, 0, false},
		{"a header cut off", []header{{extDestination, []byte{17, 0, 1}}}, FaultShort, 0, 0, false},
		{"a header that isn't there", []header{{extDestination, nil}}, FaultIPHeader, 0, 0, false},
		{"the second isn't there", []header{dest, {extRouting, nil}}, FaultShort, 0, 0, false},
		{"hop-by-hop in second place", []header{dest, hopByHop, udpHeader}, FaultIPHeader, 0, 0, false},
		{"hop-by-hop twice", []header{hopByHop, hopByHop, udpHeader}, FaultIPHeader, 0, 0, false},
		{"a source route", []header{routing.with(3, 1), udpHeader}, FaultIPHeader, 0, 0, false},
		{"a routing header of unknown type, at its end", []header{routing.with(2, 99), udpHeader}, NoFault, ProtoUDP, 24, false},
		{"AH cut off", []header{ah.with(1, 200), udpHeader}, FaultShort, 0, 0, false},
		{"an atomic fragment", []header{atomic, udpHeader}, NoFault, ProtoUDP, 8, false},
		{"two fragment headers", []header{atomic, atomic, udpHeader}, FaultIPHeader, 0, 0, false},
		{"an atomic fragment holds a first one", []header{atomic, {extFragment, fragmentHeader(0, true)}, udpHeader}, FaultIPHeader, 0, 0, false},
		{"a first fragment", []header{dest, {extFragment, fragmentHeader(0, true)}, udpHeader}, NoFault, ProtoUDP, 24, true},
		{"the last fragment", []header{{extFragment, fragmentHeader(65528, false)}, udpHeader}, NoFault, ProtoUDP, 8, true},
		{"what is behind a fragment header isn't looked at", []header{{extFragment, fragmentHeader(8, true)}, routing.with(3, 9), udpHeader}, NoFault, extRouting, 8, true},
		{"a fragment header cut off", []header{{extFragment, []byte{17, 0, 0, 1}}}, FaultShort, 0, 0, false},
		{"no next header", []header{{extNone, nil}}, NoFault, extNone, 0, false},
		{"bytes behind no next header", []header{{extNone, make([]byte, 20)}}, NoFault, extNone, 0, false},
		{"options, then no next header", []header{dest, {extNone, nil}}, NoFault, extNone, 16, false},
		{"ESP hides the rest", []header{hopByHop, {50, make([]byte, 30)}}, NoFault, 50, 8, false},
		{"ICMP of the other family", []header{{ProtoICMP, make([]byte, 8)}}, NoFault, ProtoICMP, 0, false},
		{"half an ICMPv6 header", []header{dest, {ProtoICMPv6, make([]byte, 7)}}, FaultShort, 0, 0, false},
		{"half a UDP header", []header{dest, {ProtoUDP, make([]byte, 7)}}, FaultShort, 0, 0, false},
		{"UDP length beyond the packet", []header{dest, udpHeader.with(5, 11)}, FaultL4Header, 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := append(chainOf(tt.headers...), 1, 2, 3, 4, 5, 6, 7, 8) // Ethernet padding, of which nothing may be read
			p := Packet{FragmentAt: 77, Fragment: true}
			if fault := Decode(f, &p); fault != tt.fault {
				t.Fatalf("Decode = %v, want %v", fault, tt.fault)
			}
			if tt.fault != NoFault {
				return
			}
			if p.Proto != tt.proto || p.L4 != EthLen+IPv6Len+tt.l4 || p.Fragment != tt.part {
				t.Errorf("protocol %d at %d, fragment %v, want %d at %d, %v", p.Proto, p.L4-EthLen-IPv6Len, p.Fragment, tt.proto, tt.l4, tt.part)
			}
			checkIPv6(t, &p)
			agree(t, &p)
		})
	}
}

// slowChain follows extension headers as RFC 8200 has them, one call each; n is how many came before. It returns the protocol
// and offset of what follows, and the offset of a fragment header.
func slowChain(proto uint8, b []byte, at, frag, n int) (uint8, int, int, bool) {
	isExtension := map[uint8]bool{0: true, 43: true, 44: true, 51: true, 60: true}
	if !isExtension[proto] {
		return proto, at, frag, true
	}
	if len(b) < at+8 || n == 8 {
		return 0, 0, 0, false
	}
	next, size := b[at], 8*(int(b[at+1])+1)
	switch proto {
	case 0:
		if n > 0 {
			return 0, 0, 0, false
		}
	case 43:
		if b[at+3] > 0 {
			return 0, 0, 0, false
		}
	case 51:
		size = 4 * (int(b[at+1]) + 2)
	case 44:
		if frag >= 0 {
			return 0, 0, 0, false
		}
		frag, size = at, 8
		if b[at+2] != 0 || b[at+3]&^6 != 0 {
			return next, at + 8, frag, true
		}
	}
	if len(b) < at+size {
		return 0, 0, 0, false
	}
	return slowChain(next, b, at+size, frag, n+1)
}

// checkIPv6 wants p to be what the slow twin makes of it, and its accessors to agree.
func checkIPv6(t *testing.T, p *Packet) {
	t.Helper()
	b := p.Frame[p.L3:]
	if p.IPv6().PayloadLen() != len(b)-IPv6Len {
		t.Fatalf("payload length %d of %d bytes", p.IPv6().PayloadLen(), len(b)-IPv6Len)
	}
	proto, at, frag, ok := slowChain(b[6], b[IPv6Len:], 0, -1, 0)
	if !ok || proto != p.Proto || at != p.L4-p.L3-IPv6Len {
		t.Fatalf("protocol %d at %d, the twin says %d at %d, %v: %x", p.Proto, p.L4-p.L3-IPv6Len, proto, at, ok, b)
	}
	switch {
	case frag < 0:
		if p.FragmentAt != 0 || p.Fragment || p.LaterFragment() {
			t.Fatalf("a fragment without header: %+v", p)
		}
	case p.FragmentAt != p.L3+IPv6Len+frag:
		t.Fatalf("fragment header at %d, the twin says %d", p.FragmentAt-p.L3-IPv6Len, frag)
	default:
		h := p.FragmentHeader()
		if p.Fragment != (h.Offset() != 0 || h.MF()) || p.LaterFragment() != (h.Offset() != 0) || h.NextHeader() != b[IPv6Len+frag] {
			t.Fatalf("fragment %v, later %v: %x", p.Fragment, p.LaterFragment(), *h)
		}
		if said := NextHeaderAt(b, IPv6Len+frag); said < 6 || b[said] != ProtoFragment {
			t.Fatalf("NextHeaderAt(%d) = %d", IPv6Len+frag, said)
		}
	}
	if said := NextHeaderAt(b, p.L4-p.L3); said < 6 || b[said] != p.Proto {
		t.Fatalf("NextHeaderAt(%d) = %d: %x", p.L4-p.L3, said, b)
	}
	n, ok := UnfragmentableLen(b)
	if ok != (frag < 0) || n < IPv6Len || n > p.L4-p.L3 && frag < 0 {
		t.Fatalf("UnfragmentableLen = %d, %v", n, ok)
	}
	if p.MayFragment() || p.IsICMP() != (p.Proto == ProtoICMPv6) {
		t.Fatalf("MayFragment %v, IsICMP %v", p.MayFragment(), p.IsICMP())
	}
}

// FuzzExtensionHeaders builds chains of headers: two bytes for each, protocol and length, the rest its content.
func FuzzExtensionHeaders(f *testing.F) {
	f.Add([]byte{0, 0, 60, 1, 43, 0, 44, 0, 51, 4, 60, 0, 17, 0}, []byte{0, 0, 1, 4}, 0)
	f.Add([]byte{44, 0, 17, 0}, []byte{0, 0, 0, 1, 0, 0, 0, 9}, 0)
	f.Add([]byte{44, 0, 44, 0, 6, 0}, []byte{0, 0, 0, 0}, 0)
	f.Add([]byte{60, 0, 0, 0, 17, 0}, []byte{1, 4}, 3)
	f.Add([]byte{60, 0, 60, 0, 60, 0, 60, 0, 60, 0, 60, 0, 60, 0, 60, 0, 60, 0, 17, 0}, []byte{1}, 0)
	f.Fuzz(func(t *testing.T, chain, content []byte, cut int) {
		var hs []header
		for ; len(chain) >= 2 && len(hs) < 20; chain = chain[2:] {
			n := 8 + 8*int(chain[1]&7)
			if chain[0] == extAuth {
				n = 8 + 4*int(chain[1]&7)
			}
			b := make([]byte, n)
			copy(b[2:], content)
			b[1] = chain[1] & 7
			if chain[0] == extFragment {
				b = b[:8]
			}
			hs = append(hs, header{chain[0], b})
		}
		frame := chainOf(hs...)
		if n := len(frame) - EthLen - IPv6Len; n > 0 && cut > 0 {
			frame = frame[:len(frame)-cut%(n+1)]
			(*IPv6)(frame[EthLen:]).SetPayloadLen(len(frame) - EthLen - IPv6Len)
		}
		b := frame[EthLen:]
		var p Packet
		fault := Decode(frame, &p)
		_, _, _, ok := slowChain(b[6], b[IPv6Len:], 0, -1, 0)
		if fault == NoFault {
			checkIPv6(t, &p)
			agree(t, &p)
			if p.Fragment {
				p.HeadersWhole()
			}
		} else if ok && len(b) > IPv6Len && fault == FaultIPHeader {
			t.Fatalf("Decode finds fault with the chain, the twin does not: %x", b)
		}
		var q Packet
		if DecodeQuoted(b, &q) && (!ok || fault == NoFault && (q.Proto != p.Proto || q.L4 != p.L4-EthLen || q.Fragment != p.Fragment)) {
			t.Fatalf("quoted: %+v, else: %+v", q, p)
		}
	})
}

func TestDecodeIPv6FindsFault(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		spoil       func(b []byte) []byte
		want        Fault
	}{
		{"half an IPv6 header", "syn6", func(b []byte) []byte { return b[:53] }, FaultShort},
		{"version 4", "syn6", func(b []byte) []byte { b[14] = 0x40; return b }, FaultIPHeader},
		{"payload length beyond the frame", "syn6", func(b []byte) []byte { b[19]++; return b }, FaultIPHeader},
		{"payload length 0", "syn6", func(b []byte) []byte { b[18], b[19] = 0, 0; return b }, FaultIPHeader},
		{"a jumbogram", "mld6", func(b []byte) []byte { b[19] = 0; copy(b[56:], "\xc2\x04\x00\x01\x00\x00"); return b }, FaultIPHeader},
		{"a bare header", "syn6", func(b []byte) []byte { b[19], b[20] = 0, 59; return b[:54] }, NoFault},
		{"half a TCP header", "syn6", func(b []byte) []byte { b[19] = 19; return b }, FaultShort},
		{"TCP data offset beyond the packet", "syn6", func(b []byte) []byte { b[66] = 0x70; return b }, FaultL4Header},
		{"multicast source", "syn6", func(b []byte) []byte { b[22] = 0xff; return b }, FaultAddress},
		{"loopback source", "syn6", func(b []byte) []byte { clear(b[22:37]); b[37] = 1; return b }, FaultAddress},
		{"no source", "syn6", func(b []byte) []byte { clear(b[22:38]); return b }, FaultAddress},
		{"no source, ICMPv6", "echo6", func(b []byte) []byte { clear(b[22:38]); return b }, NoFault},
		{"IPv4-mapped source", "syn6", func(b []byte) []byte { clear(b[22:32]); b[32], b[33] = 0xff, 0xff; return b }, FaultAddress},
		{"loopback destination", "syn6", func(b []byte) []byte { clear(b[38:53]); b[53] = 1; return b }, FaultAddress},
		{"no destination", "syn6", func(b []byte) []byte { clear(b[38:54]); return b }, FaultAddress},
		{"IPv4-mapped destination", "syn6", func(b []byte) []byte { clear(b[38:48]); b[48], b[49] = 0xff, 0xff; return b }, FaultAddress},
		{"IPv4-compatible addresses", "syn6", func(b []byte) []byte { clear(b[22:34]); clear(b[38:50]); return b }, NoFault},
		{"multicast destination", "udp6", func(b []byte) []byte { b[38] = 0xff; return b }, NoFault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if got := Decode(tt.spoil(frame(t, tt.frame)), &p); got != tt.want {
				t.Errorf("Decode = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDecodeQuotedIPv6(t *testing.T) {
	flow := Flow{addr("2001:db8:c::7"), addr("2001:db8:9::100"), 40001, 53, ProtoUDP}
	quoted := func(hs ...header) []byte { return chainOf(hs...)[EthLen:] }
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
		l4   int
	}{
		{"UDP", quoted(udpHeader), true, 40},
		{"eight bytes of it", quoted(udpHeader)[:48], true, 40},
		{"seven", quoted(udpHeader)[:47], false, 0},
		{"half an IPv6 header", quoted(udpHeader)[:39], false, 0},
		{"behind extension headers", quoted(hopByHop, dest, udpHeader), true, 64},
		{"extension headers cut off", quoted(hopByHop, dest, udpHeader)[:56], false, 0},
		{"an atomic fragment", quoted(atomic, udpHeader), true, 48},
		{"a first fragment", quoted(header{extFragment, fragmentHeader(0, true)}, udpHeader), true, 48},
		{"a later fragment", quoted(header{extFragment, fragmentHeader(8, true)}, udpHeader), false, 0},
		{"a source route", quoted(routing.with(3, 1), udpHeader), false, 0},
		{"ICMPv6 has no flow", quoted(header{ProtoICMPv6, make([]byte, 8)}), false, 0},
		{"no next header", quoted(header{extNone, make([]byte, 8)}), false, 0},
	} {
		q := Packet{FragmentAt: 9, TCPFlags: 9}
		if got := DecodeQuoted(tt.b, &q); got != tt.want {
			t.Errorf("%s: DecodeQuoted = %v, want %v", tt.name, got, tt.want)
		} else if got && (q.Flow != flow || q.L3 != 0 || q.L4 != tt.l4 || q.Payload != tt.l4 || q.TTL != 64 || q.TCPFlags != 0 ||
			(q.FragmentAt != 0) != bytes.Contains(tt.b, []byte{0xca, 0xfe})) {
			t.Errorf("%s: %+v", tt.name, q)
		}
	}
	longer := quoted(udpHeader)
	(*IPv6)(longer).SetPayloadLen(1400) // as much as was there, before the router cut it
	if !DecodeQuoted(longer, new(Packet)) {
		t.Error("DecodeQuoted = false for the start of a longer packet")
	}
}

// TestQuotedMappedAddress has an ICMPv6 error quote a packet whose addresses would make it one of IPv4 here.
func TestQuotedMappedAddress(t *testing.T) {
	for _, at := range []int{8, 24} {
		b := chainOf(udpHeader)[EthLen:]
		clear(b[at : at+10])
		b[at+10], b[at+11] = 0xff, 0xff
		if q := new(Packet); DecodeQuoted(b, q) {
			t.Errorf("mapped address at %d: DecodeQuoted = true, Is4 %v", at, q.Is4())
		}
	}
}

func TestUnfragmentableLen(t *testing.T) {
	for _, tt := range []struct {
		name    string
		headers []header
		n       int
		ok      bool
	}{
		{"none", []header{udpHeader}, 40, true},
		{"hop-by-hop", []header{hopByHop, udpHeader}, 48, true},
		{"destination options alone belong to what is fragmented", []header{dest, udpHeader}, 40, true},
		{"those before a routing header don't", []header{dest, routing, dest, udpHeader}, 40 + 16 + 24, true},
		{"both", []header{hopByHop, dest, routing, ah, udpHeader}, 40 + 8 + 16 + 24, true},
		{"a fragment", []header{atomic, udpHeader}, 40, false},
		{"a chain that lies", []header{dest.with(1, 9), udpHeader}, 40, false},
	} {
		if n, ok := UnfragmentableLen(chainOf(tt.headers...)[EthLen:]); n != tt.n && tt.ok || ok != tt.ok {
			t.Errorf("%s: UnfragmentableLen = %d, %v, want %d, %v", tt.name, n, ok, tt.n, tt.ok)
		}
	}
	b := chainOf(hopByHop, dest, udpHeader)[EthLen:]
	for at, want := range map[int]int{40: 6, 48: 40, 64: 48, 41: 0, 56: 0, 39: 0, 80: 0} {
		if got := NextHeaderAt(b, at); got != want {
			t.Errorf("NextHeaderAt(%d) = %d, want %d", at, got, want)
		}
	}
}

func TestHeadersWhole(t *testing.T) {
	first := header{extFragment, fragmentHeader(0, true)}
	for _, tt := range []struct {
		name    string
		headers []header
		want    bool
	}{
		{"UDP", []header{first, udpHeader}, true},
		{"TCP, all but a byte", []header{first, {ProtoTCP, make([]byte, 19)}}, false},
		{"TCP", []header{first, {ProtoTCP, make([]byte, 20)}}, true},
		{"behind options", []header{first, dest, udpHeader}, true},
		{"options cut off", []header{first, dest.with(1, 7)}, false},
		{"SCTP cut off", []header{first, {ProtoSCTP, make([]byte, 8)}}, false},
		{"ICMPv6", []header{first, {ProtoICMPv6, make([]byte, 8)}}, true},
		{"no next header", []header{first, {extNone, nil}}, true},
		{"nothing of an unknown protocol", []header{first, {99, nil}}, false},
		{"a byte of it", []header{first, {99, make([]byte, 1)}}, true},
		{"another fragment header", []header{first, atomic, udpHeader}, false},
		{"hop-by-hop", []header{first, hopByHop, udpHeader}, false},
	} {
		var p Packet
		if fault := Decode(chainOf(tt.headers...), &p); fault != NoFault || !p.Fragment {
			t.Fatalf("%s: Decode = %v", tt.name, fault)
		}
		if got := p.HeadersWhole(); got != tt.want {
			t.Errorf("%s: HeadersWhole = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPutIPv6AgreesWithGopacket(t *testing.T) {
	b := make([]byte, IPv6Len+5)
	for i := range b {
		b[i] = 0xee
	}
	PutIPv6(b, 5, Header6{TrafficClass: 0xb9, FlowLabel: 0xf12345, NextHeader: ProtoUDP, HopLimit: 17, Src: addr("2001:db8:9::100"), Dst: addr("fe80::1")})
	clear(b[IPv6Len:])
	want := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(want, gopacket.SerializeOptions{FixLengths: true},
		&layers.IPv6{Version: 6, TrafficClass: 0xb9, FlowLabel: 0x12345, NextHeader: 17, HopLimit: 17,
			SrcIP: addr("2001:db8:9::100").Netip().AsSlice(), DstIP: addr("fe80::1").Netip().AsSlice()}, gopacket.Payload(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want.Bytes()) {
		t.Errorf("PutIPv6 = %x\n   gopacket %x", b, want.Bytes())
	}
}

func TestIPv6Fields(t *testing.T) {
	b := frame(t, "udp6")[EthLen:]
	h, payload, ok := ParseIPv6(b)
	if !ok || h.TrafficClass() != 0xb8 || h.FlowLabel() != 0x12345 || h.PayloadLen() != 40 || len(payload) != 40 ||
		h.NextHeader() != ProtoUDP || h.HopLimit() != 64 || h.Src() != addr("2001:db8:c::7") || h.Dst() != addr("2001:db8:9::100") {
		t.Fatalf("ParseIPv6 = %x, %v", h, ok)
	}
	h.SetTrafficClass(0x5a)
	h.SetPayloadLen(0x1234)
	h.SetNextHeader(44)
	h.SetHopLimit(3)
	h.SetSrc(addr("2001:db8::1"))
	h.SetDst(addr("2001:db8::2"))
	if h.TrafficClass() != 0x5a || h.FlowLabel() != 0x12345 || h.PayloadLen() != 0x1234 || h.NextHeader() != 44 || h.HopLimit() != 3 ||
		h.Src() != addr("2001:db8::1") || h.Dst() != addr("2001:db8::2") || h[0]>>4 != 6 {
		t.Errorf("fields: %x", *h)
	}
	p := Packet{Flow: Flow{Dst: addr("2001:db8::2")}, Frame: b}
	if p.DecTTL(); h.HopLimit() != 2 {
		t.Errorf("hop limit %d after DecTTL of 3", h.HopLimit())
	}
	f := (*Fragment)(make([]byte, FragmentLen))
	for _, mf := range []bool{false, true} {
		PutFragment(f[:], ProtoTCP, 65528, mf, 0xdeadbeef)
		if f.NextHeader() != ProtoTCP || f.Offset() != 65528 || f.MF() != mf || f.ID() != 0xdeadbeef || f[1] != 0 {
			t.Errorf("fragment header %x", *f)
		}
	}
}

// TestSumsOfIPv6Addresses compares with the slow sum over the pseudo-header's bytes.
func TestSumsOfIPv6Addresses(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	addrs := []Addr{{}, {^uint64(0), ^uint64(0)}, {0, 1}, {1 << 63, 0}, addr("2001:db8:9::100")}
	for range 1000 {
		addrs = append(addrs, Addr{r.Uint64(), r.Uint64()})
	}
	for i, a := range addrs {
		b := addrs[r.IntN(len(addrs))]
		x, y := a.As16(), b.As16()
		if got, want := Fold(a.Sum()), slowSum(x[:], 0); !same(got, want) {
			t.Fatalf("Sum of %v: %#x, want %#x", a, got, want)
		}
		pseudo := binary.BigEndian.AppendUint32(append(append([]byte{}, x[:]...), y[:]...), uint32(i*1000))
		pseudo = append(pseudo, 0, 0, 0, ProtoTCP)
		if got, want := Fold(Pseudo6(a, b, ProtoTCP, i*1000)), slowSum(pseudo, 0); !same(got, want) {
			t.Fatalf("Pseudo6 of %v and %v: %#x, want %#x", a, b, got, want)
		}
		p := Packet{Flow: Flow{Src: a, Dst: b}}
		if !p.Is4() && p.Pseudo(ProtoTCP, i) != Pseudo6(a, b, ProtoTCP, i) {
			t.Fatalf("Pseudo of %v and %v", a, b)
		}
		c := ^slowSum(x[:], 0x1234) // over a and something else
		if got, want := UpdateDifference(c, Difference6(a, b)), ^slowSum(y[:], 0x1234); !same(^got, ^want) {
			t.Fatalf("%v to %v: checksum %#x, want %#x", a, b, got, want)
		}
		if got, want := UpdatePartial(^c, Difference6(a, b)), slowSum(y[:], 0x1234); !same(got, want) {
			t.Fatalf("%v to %v: partial sum %#x, want %#x", a, b, got, want)
		}
	}
	if a := addr("10.9.0.100"); a.Sum() != 0x0a090064 {
		t.Errorf("Sum of an IPv4 address: %#x", a.Sum())
	}
}

func TestDecodeOfIPv6AllocatesNothing(t *testing.T) {
	var p, q, whole Packet
	var sum uint16
	chain, part := chainOf(hopByHop, dest, routing, atomic, ah, dest, udpHeader), chainOf(header{extFragment, fragmentHeader(0, true)}, dest, udpHeader)
	Decode(part, &q)
	Decode(bytes.Clone(chain), &whole)
	for name, do := range map[string]func(){
		"Decode of a chain":       func() { Decode(chain, &p) },
		"DecodeQuoted of a chain": func() { DecodeQuoted(chain[EthLen:], &p) },
		"UnfragmentableLen":       func() { UnfragmentableLen(chain[EthLen:]) },
		"NextHeaderAt":            func() { NextHeaderAt(chain[EthLen:], 64) },
		"HeadersWhole":            func() { q.HeadersWhole() },
		"Difference6":             func() { sum += UpdateDifference(0, Difference6(q.Src, q.Dst)) },
		"Pseudo":                  func() { q.Pseudo(ProtoUDP, 8) },
		"DecTTL":                  func() { whole.IPv6().SetHopLimit(9); whole.DecTTL() },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
