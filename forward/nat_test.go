package forward

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"uvs/packet"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

// hasPorts says that the L4 header is one with ports and all there: it isn't in later fragments, and need not be in a
// first one.
func hasPorts(p *packet.Packet) bool {
	least := map[uint8]int{packet.ProtoTCP: 20, packet.ProtoUDP: 8, packet.ProtoSCTP: 12}
	n, known := least[p.Proto]
	return known && len(p.L4Bytes()) >= n && !p.LaterFragment()
}

// someAddr is an address of p's family made of a.
func someAddr(p *packet.Packet, a uint32) packet.Addr {
	if p.Is4() {
		return packet.AddrFrom4(a)
	}
	return packet.AddrFromWords(0x20010db8_00000000|uint64(a), uint64(a)*0x9e3779b97f4a7c15)
}

// addrSpan is where p's destination or source address lies in the packet at offset at.
func addrSpan(p *packet.Packet, at int, e end) [2]int {
	switch {
	case p.Is4() && e == destination:
		return [2]int{at + 16, at + 20}
	case p.Is4():
		return [2]int{at + 12, at + 16}
	case e == destination:
		return [2]int{at + 24, at + 40}
	}
	return [2]int{at + 8, at + 24}
}

// FuzzNAT rewrites any packet, both ways and with the checksum complete or owed, and wants: nothing else changed, a right
// checksum right and a wrong one wrong, and the way back to lead to the packet it started from.
func FuzzNAT(f *testing.F) {
	for name := range frames {
		f.Add(frame(f, name)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), false, false)
		f.Add(frame(f, name)[packet.VnetLen:], uint32(0x0a090064), uint16(80), true, true)
	}
	f.Add(sctpFrame(16)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), false, false)
	f.Add(sctpFrame(3)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), true, true)
	f.Add(sctpFrame6(16)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), false, false)
	f.Add(sctpFrame6(3)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), true, true)
	f.Fuzz(func(t *testing.T, b []byte, a uint32, port uint16, out, owed bool) {
		buf := append(make([]byte, packet.VnetLen), b...)
		p := new(packet.Packet)
		if packet.Decode(buf[packet.VnetLen:], p) != packet.NoFault {
			return
		}
		v := (*packet.Vnet)(buf)
		owed = owed && !p.Fragment && checksumAt(p) > 0
		if owed && p.Proto == packet.ProtoUDP && p.UDP().Len() != len(p.L4Bytes()) {
			return // no sender leaves such a thing to its device, which sums to the frame's end
		}
		if owed {
			owe(p, v)
		}
		before := bytes.Clone(p.Frame)
		flow := p.Flow
		was := p.Fragment || owed || valid(p)
		nat := NATIn
		oldAddr, oldPort := p.Dst, p.DstPort
		if out {
			nat = NATOut
			oldAddr, oldPort = p.Src, p.SrcPort
		}
		if p.Fragment && hasPorts(p) { // which Decode doesn't look for
			if oldPort = p.Ports().Dst(); out {
				oldPort = p.Ports().Src()
			}
		}
		to := someAddr(p, a)
		nat(p, v, to, port)

		changes := [][2]int{addrSpan(p, p.L3, end(out))}
		if p.Is4() {
			if !packet.IPv4ChecksumOK(p.Frame[p.L3:]) {
				t.Errorf("IP header checksum wrong: %x", p.Frame)
			}
			changes = append(changes, [2]int{p.L3 + 10, p.L3 + 12})
		}
		if b := to.As16(); !bytes.HasSuffix(b[:], p.Frame[changes[0][0]:changes[0][1]]) {
			t.Errorf("address in the packet is not %v", to)
		}
		if hasPorts(p) {
			at := p.L4 + 2
			if out {
				at = p.L4
			}
			if binary.BigEndian.Uint16(p.Frame[at:]) != port {
				t.Errorf("port in the packet is not %d", port)
			}
			sum := p.L4 + checksumAt(p)
			n := 2
			if p.Proto == packet.ProtoSCTP {
				n = 4
			}
			changes = append(changes, [2]int{at, at + 2}, [2]int{sum, sum + n})
		}
		if !bytes.Equal(masked(before, changes...), masked(p.Frame, changes...)) {
			t.Errorf("more has changed than should:\n%x\n%x", before, p.Frame)
		}
		var q packet.Packet
		if fault := packet.Decode(p.Frame, &q); fault == packet.NoFault && !p.Fragment && hasPorts(p) && q.Flow != p.Flow {
			t.Errorf("flow %v in the packet, %v in p", q.Flow, p.Flow)
		}

		if owed {
			if p.Proto != packet.ProtoSCTP && !v.NeedsCsum() {
				t.Error("NEEDS_CSUM is gone")
			}
			CompleteChecksum(p.Frame, v)
			if v.NeedsCsum() {
				t.Error("NEEDS_CSUM is still there")
			}
		}
		noChecksum := p.Proto == packet.ProtoUDP && before[p.L4+6] == 0 && before[p.L4+7] == 0
		switch {
		case p.Fragment:
		case p.Proto == packet.ProtoICMP && p.Is4() && owed:
			if !valid(p) {
				t.Error("completed ICMP checksum wrong")
			}
		case !hasPorts(p):
		case valid(p) != (was || noChecksum):
			t.Errorf("checksum right %v before and %v after: %x", was, valid(p), p.Frame)
		case p.Proto == packet.ProtoUDP && p.UDP().Checksum() == 0: // even where none came: IPv6 must have one
			t.Error("UDP has no checksum")
		case was:
			gopacketAgrees(t, p)
		}
		if owed || noChecksum {
			return
		}
		nat(p, v, oldAddr, oldPort)
		if p.Fragment {
			p.SrcPort, p.DstPort = 0, 0
		}
		if p.Flow != flow || !sameButZero(before, p) {
			t.Errorf("the way back leads elsewhere:\n%x\n%x", before, p.Frame)
		}
	})
}

// sameButZero says that p is as before, or that it differs only in the form that zero has in a checksum.
func sameButZero(before []byte, p *packet.Packet) bool {
	if bytes.Equal(before, p.Frame) {
		return true
	}
	b := bytes.Clone(before)
	var at []int
	if p.Is4() {
		at = append(at, p.L3+10)
	}
	if hasPorts(p) && p.Proto != packet.ProtoSCTP {
		at = append(at, p.L4+checksumAt(p))
	}
	for _, i := range at {
		if s := binary.BigEndian.Uint16(p.Frame[i:]) - binary.BigEndian.Uint16(b[i:]); s == 0xffff || s == 1 {
			copy(b[i:], p.Frame[i:i+2])
		}
	}
	return bytes.Equal(b, p.Frame)
}

func TestNATGivesChecksumlessUDPOne(t *testing.T) {
	for _, out := range []bool{false, true} {
		p, v := decode(t, frame(t, "udp6 without checksum"))
		if out {
			NATOut(p, v, addr("2001:db8:9::101"), 53)
		} else {
			NATIn(p, v, addr("2001:db8:1::11"), 5353)
		}
		if p.UDP().Checksum() == 0 || !valid(p) {
			t.Errorf("IPv6, out %v: checksum %#x, want a right one", out, p.UDP().Checksum())
		}
		p, v = decode(t, frame(t, "udp without checksum"))
		if out {
			NATOut(p, v, addr("10.9.0.100"), 53)
		} else {
			NATIn(p, v, addr("10.1.0.11"), 5353)
		}
		if p.UDP().Checksum() == 0 || !valid(p) {
			t.Errorf("out %v: checksum %#x, want a right one", out, p.UDP().Checksum())
		}
	}
}

// TestUDPChecksumIsNeverSentAsZero looks for the address and port at which the sum is all ones.
func TestUDPChecksumIsNeverSentAsZero(t *testing.T) {
	for _, name := range []string{"udp", "udp without checksum", "udp6", "udp6 without checksum"} {
		found := false
		for port := range 1 << 16 {
			p, v := decode(t, frame(t, name))
			NATIn(p, v, someAddr(p, 0x0a01000b), uint16(port))
			switch p.UDP().Checksum() {
			case 0:
				t.Fatalf("%s to port %d: checksum 0 says that there is none", name, port)
			case 0xffff:
				found = true
				if !valid(p) {
					t.Fatalf("%s to port %d: checksum wrong", name, port)
				}
			}
		}
		if !found {
			t.Errorf("%s: no port gives 0xffff; the test tests nothing", name)
		}
	}
}

func TestNATLeavesPartialSumPartial(t *testing.T) {
	for _, name := range []string{"udp", "udp6", "syn", "syn6", "syn6 behind headers"} {
		p, v := decode(t, frame(t, name))
		owe(p, v)
		NATIn(p, v, someAddr(p, 0x0a01000b), 5353)
		n := len(p.L4Bytes())
		if got, want := binary.BigEndian.Uint16(p.L4Bytes()[checksumAt(p):]), slowSum(pseudo(p, n)); got != want {
			t.Errorf("%s: checksum field %#x, want the pseudo-header's sum %#x", name, got, want)
		}
		if !v.NeedsCsum() {
			t.Errorf("%s: NEEDS_CSUM is gone", name)
		}
	}
}

// TestNATIgnoresChecksumOwedElsewhere has the device complete a checksum inside the payload, as of a tunnelled packet.
func TestNATIgnoresChecksumOwedElsewhere(t *testing.T) {
	p, v := decode(t, frame(t, "udp"))
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(p.Payload)
	v.SetCsumOffset(6)
	NATIn(p, v, addr("10.1.0.11"), 5353)
	if !valid(p) || !v.NeedsCsum() {
		t.Errorf("checksum right %v, still owed %v, want both", valid(p), v.NeedsCsum())
	}
}

func TestSCTP(t *testing.T) {
	for _, tt := range []struct {
		name          string
		port          uint16
		spoilt, owed  bool
		right, change bool
	}{
		{"right stays right", 8080, false, false, true, true},
		{"same port, nothing to do", 80, false, false, true, false},
		{"wrong stays wrong", 8080, true, false, false, false},
		{"owed is paid", 8080, true, true, true, true},
		{"owed is paid, same port", 80, true, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, v := decode(t, sctpFrame(40))
			if tt.spoilt {
				p.SCTP().SetChecksum(p.SCTP().Checksum() ^ 0x10)
			}
			if tt.owed {
				owe(p, v)
			}
			before := p.SCTP().Checksum()
			NATIn(p, v, addr("10.1.0.11"), tt.port)
			if valid(p) != tt.right || (p.SCTP().Checksum() != before) != tt.change || v.NeedsCsum() {
				t.Errorf("right %v, changed %v, owed %v", valid(p), p.SCTP().Checksum() != before, v.NeedsCsum())
			}
		})
	}
}

func TestNATOfFragments(t *testing.T) {
	for _, name := range []string{"first fragment", "last fragment"} {
		p, v := decode(t, frame(t, name))
		before := bytes.Clone(p.Frame)
		NATIn(p, v, addr("10.1.0.11"), 5353)
		if got := p.IPv4().Dst(); got != 0x0a01000b || !packet.IPv4ChecksumOK(p.Frame[p.L3:]) {
			t.Errorf("%s: destination %#x", name, got)
		}
		if first := name == "first fragment"; !first && !bytes.Equal(before[p.L4:], p.L4Bytes()) {
			t.Errorf("%s: payload has changed", name)
		} else if first && (p.UDP().DstPort() != 5353 ||
			p.UDP().Checksum() != packet.UpdatePort(0x2874, packet.Difference4(0x0a090064, 0x0a01000b), 53, 5353)) {
			t.Errorf("%s: port %d, checksum %#x", name, p.UDP().DstPort(), p.UDP().Checksum())
		}
	}
	// A first fragment without a checksum cannot be given one: the rest isn't here.
	p, v := decode(t, frame(t, "first fragment"))
	p.UDP().SetChecksum(0)
	NATIn(p, v, addr("10.1.0.11"), 5353)
	if p.UDP().Checksum() != 0 {
		t.Errorf("checksum %#x, want 0", p.UDP().Checksum())
	}
	// One cut within the ports has none to rewrite.
	b := frame(t, "first fragment")[:FrameHead+packet.IPv4Len+8]
	ip := (*packet.IPv4)(b[FrameHead:])
	ip.SetTotalLen(packet.IPv4Len + 8)
	b[FrameHead+9] = packet.ProtoTCP
	packet.FixIPv4Checksum(b[FrameHead:])
	p, v = decode(t, b)
	before := bytes.Clone(p.L4Bytes())
	NATOut(p, v, addr("10.9.0.100"), 53)
	if !bytes.Equal(before, p.L4Bytes()) {
		t.Error("a fragment of eight bytes of TCP has changed behind its IP header")
	}
}

func TestNATOfFragments6(t *testing.T) {
	p, v := decode(t, frame(t, "first fragment6"))
	from, to := p.Dst, addr("2001:db8:1::11")
	NATIn(p, v, to, 5353)
	if p.IPv6().Dst() != to || p.UDP().DstPort() != 5353 ||
		p.UDP().Checksum() != packet.UpdatePort(0x4054, packet.Difference6(from, to), 53, 5353) {
		t.Errorf("first fragment: %x", p.Frame)
	}
	p, v = decode(t, frame(t, "first fragment6"))
	p.UDP().SetChecksum(0)
	if NATOut(p, v, to, 53); p.UDP().Checksum() != 0 {
		t.Errorf("checksum %#x, want 0: the rest isn't here", p.UDP().Checksum())
	}
	p, v = decode(t, frame(t, "last fragment6"))
	before := bytes.Clone(p.Frame)
	NATIn(p, v, to, 5353)
	if p.IPv6().Dst() != to || !bytes.Equal(before[p.L3+40:], p.Frame[p.L3+40:]) {
		t.Errorf("last fragment: %x", p.Frame)
	}
}

// FuzzNATError translates ICMP errors both ways and wants the outer checksum to stay right or wrong, an IPv4 quote's header's
// to be right, and nothing else to change.
func FuzzNATError(f *testing.F) {
	for _, name := range []string{"error to VIP", "error from router", "error6 to VIP", "error6 from router", "error6 with headers"} {
		f.Add(frame(f, name)[packet.VnetLen:], uint32(0x0a01000b), uint16(8080), false, false)
		f.Add(frame(f, name)[packet.VnetLen:], uint32(0x0a090064), uint16(80), true, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, a uint32, port uint16, out, owed bool) {
		buf := append(make([]byte, packet.VnetLen), b...)
		p, q := new(packet.Packet), new(packet.Packet)
		if packet.Decode(buf[packet.VnetLen:], p) != packet.NoFault || !p.IsICMP() || p.Fragment ||
			!packet.DecodeQuoted(p.L4Bytes()[packet.ICMPLen:], q) || q.Is4() != p.Is4() {
			return
		}
		v := (*packet.Vnet)(buf)
		if owed {
			owe(p, v)
		}
		was := owed || valid(p)
		before := bytes.Clone(p.Frame)
		quote, to := p.L4+packet.ICMPLen, someAddr(p, a)
		translate, e := NATErrorIn, source
		if out {
			translate, e = NATErrorOut, destination
		}
		translate(p, v, q, to, port)
		changes := [][2]int{addrSpan(p, p.L3, !e), addrSpan(p, quote, e), {quote + q.L4, quote + q.L4 + 2}}
		if out {
			changes[2] = [2]int{quote + q.L4 + 2, quote + q.L4 + 4}
		}
		changes = append(changes, [2]int{p.L4 + 2, p.L4 + 4})
		if p.Is4() {
			changes = append(changes, [2]int{p.L3 + 10, p.L3 + 12}, [2]int{quote + 10, quote + 12})
		}
		if !bytes.Equal(masked(before, changes...), masked(p.Frame, changes...)) {
			t.Errorf("more has changed than should:\n%x\n%x", before, p.Frame)
		}
		for _, c := range changes[:2] {
			if b := to.As16(); !bytes.HasSuffix(b[:], p.Frame[c[0]:c[1]]) {
				t.Errorf("address at %d is %x, want %v", c[0], p.Frame[c[0]:c[1]], to)
			}
		}
		if got := binary.BigEndian.Uint16(p.Frame[changes[2][0]:]); got != port {
			t.Errorf("quoted port %d, want %d", got, port)
		}
		if p.Is4() && (!packet.IPv4ChecksumOK(p.Frame[p.L3:]) || slowSum(q.Frame[:q.L4]) != 0xffff) {
			t.Errorf("an IP header checksum is wrong: %x", p.Frame)
		}
		if owed {
			if p.Is4() && p.ICMP().Checksum() != 0 {
				t.Error("a checksum that the device computes has changed")
			}
			CompleteChecksum(p.Frame, v)
		}
		if valid(p) != was {
			t.Errorf("ICMP checksum right %v before, %v after", was, valid(p))
		}
	})
}

// TestServersErrorReachesTheClient is what the kernel gets wrong in IPv6: an error from behind a NAT server, about a packet of
// the client, comes out as one from the virtual service about the client's own packet.
func TestServersErrorReachesTheClient(t *testing.T) {
	p, v := decode(t, frame(t, "error6 from router"))
	q := new(packet.Packet)
	if !packet.DecodeQuoted(p.L4Bytes()[packet.ICMPLen:], q) {
		t.Fatal("DecodeQuoted = false")
	}
	vip := addr("2001:db8:9::100")
	NATErrorOut(p, v, q, vip, 80)
	r, _ := decode(t, append(make([]byte, packet.VnetLen), p.Frame...))
	if r.Src != vip || r.Dst != addr("2001:db8:c::7") || !valid(r) || r.ICMP().MTU6() != 1300 {
		t.Errorf("error from %v to %v: %x", r.Src, r.Dst, r.Frame)
	}
	want := packet.Flow{Src: addr("2001:db8:c::7"), Dst: vip, SrcPort: 40001, DstPort: 80, Proto: packet.ProtoTCP}
	if packet.DecodeQuoted(r.L4Bytes()[packet.ICMPLen:], q); q.Flow != want {
		t.Errorf("quotes %+v, want %+v", q.Flow, want)
	}
}
