package decap

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/packet"
)

func TestOpenJudges(t *testing.T) {
	outer := func() *layers.IPv4 { return ip4(dip, rip, layers.IPProtocolIPv4, 0) }
	inner := func() *layers.IPv4 { return ip4(cip, vip, layers.IPProtocolUDP, 0) }
	for _, c := range []struct {
		name  string
		outer func(*layers.IPv4)
		inner func(*layers.IPv4)
		spoil func(frame []byte) []byte
		want  Verdict
	}{
		{name: "from the director to the VIP", want: Delivered},
		{name: "from an allowed network", outer: func(h *layers.IPv4) { h.SrcIP = []byte{10, 0, 1, 200} }, want: Delivered},
		{name: "to the second VIP", inner: func(h *layers.IPv4) { h.DstIP = []byte{192, 0, 2, 101} }, want: Delivered},
		{name: "outer options", outer: func(h *layers.IPv4) {
			h.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
		}, want: Delivered},
		{name: "inner fragment", inner: func(h *layers.IPv4) { h.Flags = layers.IPv4MoreFragments }, want: Delivered},
		{name: "inner TTL used up", inner: func(h *layers.IPv4) { h.TTL = 0 }, want: Delivered}, // it has arrived: nobody forwards it
		{name: "Ethernet padding", spoil: func(b []byte) []byte { return append(b, make([]byte, 20)...) }, want: Delivered},

		{name: "from elsewhere", outer: func(h *layers.IPv4) { h.SrcIP = []byte{10, 0, 0, 2} }, want: DropDirector},
		{name: "just outside an allowed network", outer: func(h *layers.IPv4) { h.SrcIP = []byte{10, 0, 2, 0} }, want: DropDirector},
		{name: "tunnel to another host", outer: func(h *layers.IPv4) { h.DstIP = []byte{10, 0, 0, 12} }, want: PassNotLocal},
		{name: "tunnel to the VIP", outer: func(h *layers.IPv4) { h.DstIP = []byte{192, 0, 2, 100} }, want: PassNotLocal},
		{name: "outer fragment", outer: func(h *layers.IPv4) { h.Flags = layers.IPv4MoreFragments }, want: DropFragment},
		{name: "another protocol", outer: func(h *layers.IPv4) { h.Protocol = layers.IPProtocolESP }, want: DropProtocol},
		{name: "IPv4 said to be IPv6", outer: func(h *layers.IPv4) { h.Protocol = layers.IPProtocolIPv6 }, want: DropInnerHeader},
		{name: "wrong outer checksum", spoil: func(b []byte) []byte { b[14+10]++; return b }, want: DropOuterHeader},
		{name: "cut in the outer header", spoil: func(b []byte) []byte { return b[:14+19] }, want: DropOuterHeader},
		{name: "cut in the inner packet", spoil: func(b []byte) []byte { return b[:len(b)-1] }, want: DropOuterHeader},
		{name: "no link header at all", spoil: func(b []byte) []byte { return b[:10] }, want: DropOuterHeader},

		{name: "another destination", inner: func(h *layers.IPv4) { h.DstIP = []byte{192, 0, 2, 102} }, want: DropNotVIP},
		{name: "destination is this host", inner: func(h *layers.IPv4) { h.DstIP = []byte{10, 0, 0, 11} }, want: DropNotVIP},
		{name: "source is the VIP", inner: func(h *layers.IPv4) { h.SrcIP = []byte{192, 0, 2, 100} }, want: DropSource},
		{name: "source is this host", inner: func(h *layers.IPv4) { h.SrcIP = []byte{10, 0, 0, 11} }, want: DropSource},
		{name: "source is multicast", inner: func(h *layers.IPv4) { h.SrcIP = []byte{224, 0, 0, 1} }, want: DropSource},
		{name: "source is loopback", inner: func(h *layers.IPv4) { h.SrcIP = []byte{127, 9, 9, 9} }, want: DropSource},
		{name: "source is nothing", inner: func(h *layers.IPv4) { h.SrcIP = []byte{0, 0, 0, 0} }, want: DropSource},
		{name: "source is everybody", inner: func(h *layers.IPv4) { h.SrcIP = []byte{255, 255, 255, 255} }, want: DropSource},
		{name: "wrong inner checksum", spoil: func(b []byte) []byte { b[34+10]++; return b }, want: DropInnerHeader},
		{name: "inner version 6", spoil: func(b []byte) []byte { b[34] = 0x65; return b }, want: DropInnerHeader},
		{name: "inner header cut", outer: func(h *layers.IPv4) {}, spoil: func(b []byte) []byte {
			return reseal(b[:34+12])
		}, want: DropInnerHeader},
		{name: "inner longer than outer", spoil: func(b []byte) []byte { return reseal(b[:len(b)-1]) }, want: DropInnerHeader},
		{name: "nothing inside", spoil: func(b []byte) []byte { return reseal(b[:34]) }, want: DropInnerHeader},
		{name: "congestion that nobody would learn of", outer: func(h *layers.IPv4) { h.TOS = ce }, want: DropCongestion},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, i := outer(), inner()
			if c.outer != nil {
				c.outer(o)
			}
			if c.inner != nil {
				c.inner(i)
			}
			frame := tunnelled(t, o, i, "payload")
			l3 := 14
			head := l3 + int(frame[l3]&15)*4
			whole := bytes.Clone(frame[head:])
			if c.spoil != nil {
				frame = c.spoil(frame)
			}
			var v packet.Vnet
			v.SetFlags(packet.VnetDataValid)
			start, end, verdict := rules(t).Open(frame, l3, &v, here)
			if verdict != c.want {
				t.Fatalf("Open() = %v, want %v", verdict, c.want)
			}
			if verdict == Delivered && (start != head || !bytes.Equal(frame[start:end], whole) || v != packet.Vnet{}) {
				t.Errorf("Open() = %d, %d, header %x: %x, want %x", start, end, v, frame[start:end], whole)
			}
		})
	}
}

// reseal mends the outer header of a frame that was cut.
func reseal(frame []byte) []byte {
	(*packet.IPv4)(frame[14:]).SetTotalLen(len(frame) - 14)
	packet.FixIPv4Checksum(frame[14:])
	return frame
}

func TestRulesRefuseWhatMakesNoSense(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, c := range []struct {
		name      string
		directors []netip.Prefix
		vips      []netip.Addr
		ok        bool
	}{
		{"one each", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a(vip)}, true},
		{"anybody", []netip.Prefix{p("0.0.0.0/0")}, []netip.Addr{a(vip)}, true},
		{"no director", nil, []netip.Addr{a(vip)}, false},
		{"no VIP", []netip.Prefix{p("10.0.0.1/32")}, nil, false},
		{"bits behind the prefix", []netip.Prefix{p("10.0.0.1/24")}, []netip.Addr{a(vip)}, false},
		{"IPv6 director", []netip.Prefix{p("2001:db8::1/128")}, []netip.Addr{a(vip)}, true},
		{"IPv6 network of directors", []netip.Prefix{p("2001:db8::/64")}, []netip.Addr{a(vip)}, true},
		{"IPv6 VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("2001:db8::1")}, true},
		{"both families", []netip.Prefix{p("10.0.0.1/32"), p("2001:db8::1/128")}, []netip.Addr{a(vip), a("2001:db8::1")}, true},
		{"IPv4-mapped director", []netip.Prefix{p("::ffff:10.0.0.1/128")}, []netip.Addr{a(vip)}, false},
		{"IPv4-mapped VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("::ffff:192.0.2.100")}, false},
		{"IPv6 VIP twice", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("2001:db8::1"), a("2001:db8::1")}, false},
		{"link-local VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("fe80::1")}, false},
		{"IPv6 multicast VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("ff02::1")}, false},
		{"no prefix", []netip.Prefix{{}}, []netip.Addr{a(vip)}, false},
		{"no address", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{{}}, false},
		{"VIP twice", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a(vip), a(vip)}, false},
		{"multicast VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("224.0.0.9")}, false},
		{"loopback VIP", []netip.Prefix{p("10.0.0.1/32")}, []netip.Addr{a("127.0.0.1")}, false},
	} {
		if _, err := NewRules(c.directors, c.vips, 0); (err == nil) != c.ok {
			t.Errorf("%s: NewRules() = %v", c.name, err)
		}
	}
	everybody, err := NewRules([]netip.Prefix{p("0.0.0.0/0")}, []netip.Addr{a(vip)}, 0)
	must(t, err)
	if !everybody.allows(packet.AddrFrom4(0xfffffffe)) || !everybody.allows(packet.AddrFrom4(1)) || everybody.allows(packet.AddrFrom(a("2001:db8::1"))) {
		t.Error("0.0.0.0/0 doesn't allow everybody")
	}
}

// The rule of RFC 6040 section 4.2 in words, for every pair of fields.
func TestCongestionMarksLeaveTheTunnel(t *testing.T) {
	for pair := range 16 {
		inner, outer := uint8(pair>>2), uint8(pair&3)
		want := inner
		switch {
		case inner == notECT && outer == ce:
			want = lost
		case inner == notECT || inner == ce: // keeps what it is
		case outer == ce:
			want = ce
		case outer == ect1:
			want = ect1 // the more severe of the two (RFC 6660)
		}
		const dscp = 46 << 2
		tos, ok := decapsulateECN(dscp|inner, 10<<2|outer)
		if ok != (want != lost) || ok && tos != dscp|want {
			t.Errorf("inner %d, outer %d: %#x, %v, want %#x", inner, outer, tos, ok, want)
		}
		frame := tunnelled(t, ip4(dip, rip, layers.IPProtocolIPv4, outer), ip4(cip, vip, layers.IPProtocolUDP, dscp|inner), "x")
		start, end, verdict := rules(t).Open(frame, 14, new(packet.Vnet), here)
		if want == lost {
			if verdict != DropCongestion {
				t.Errorf("inner %d, outer %d: %v", inner, outer, verdict)
			}
			continue
		}
		h, _, ok := packet.ParseIPv4(frame[start:end])
		if verdict != Delivered || !ok || h.TOS() != dscp|want || !packet.IPv4ChecksumOK(frame[start:end]) {
			t.Errorf("inner %d, outer %d: %v, header %x", inner, outer, verdict, frame[start:end])
		}
	}
}

func TestVirtioHeaderComesToDescribeTheInnerPacket(t *testing.T) {
	outer, inner := ip4(dip, rip, layers.IPProtocolIPv4, 0), ip4(cip, vip, layers.IPProtocolTCP, 0)
	for _, c := range []struct {
		name  string
		size  int // of segments
		spoil func(frame []byte, v *packet.Vnet)
		want  Verdict
	}{
		{name: "single segment", want: Delivered},
		{name: "super-frame", size: 1000, want: Delivered},
		{name: "super-frame with congestion control", size: 1000, spoil: func(_ []byte, v *packet.Vnet) {
			v.SetGSOType(packet.GSOTCPv4 | packet.GSOECN)
		}, want: Delivered},
		{name: "checksum before the inner packet", spoil: func(_ []byte, v *packet.Vnet) { v.SetCsumStart(34) }, want: DropOffload},
		{name: "checksum inside the inner header", spoil: func(_ []byte, v *packet.Vnet) { v.SetCsumStart(53) }, want: DropOffload},
		{name: "checksum behind the packet", spoil: func(b []byte, v *packet.Vnet) { v.SetCsumOffset(len(b) - 54 - 1) }, want: DropOffload},
		{name: "segments of nothing", size: 1000, spoil: func(_ []byte, v *packet.Vnet) { v.SetGSOSize(0) }, want: DropOffload},
		{name: "super-frame of another protocol", size: 1000, spoil: func(_ []byte, v *packet.Vnet) { v.SetGSOType(packet.GSOUDPL4) }, want: DropOffload},
		{name: "super-frame of IPv6", size: 1000, spoil: func(_ []byte, v *packet.Vnet) { v.SetGSOType(packet.GSOTCPv6) }, want: DropOffload},
		{name: "super-frame that is a fragment", size: 1000, spoil: func(b []byte, _ *packet.Vnet) {
			(*packet.IPv4)(b[34:]).SetFrag(false, true, 0)
			packet.FixIPv4Checksum(b[34:])
		}, want: DropOffload},
		{name: "TCP header longer than the packet", size: 1000, spoil: func(b []byte, _ *packet.Vnet) {
			(*packet.IPv4)(b[34:]).SetTotalLen(40 + 8)
			packet.FixIPv4Checksum(b[34:])
			(*packet.TCP)(b[54:]).SetHeaderLen(60)
		}, want: DropOffload},
	} {
		frame, v := segment(t, outer, inner, 3000, c.size)
		if c.spoil != nil {
			c.spoil(frame, &v)
		}
		gso := v.GSOType()
		start, end, verdict := rules(t).Open(frame, 14, &v, here)
		if verdict != c.want {
			t.Errorf("%s: %v, want %v", c.name, verdict, c.want)
			continue
		}
		if verdict != Delivered {
			continue
		}
		var want packet.Vnet
		want.SetFlags(packet.VnetNeedsCsum)
		want.SetCsumStart(20)
		want.SetCsumOffset(16)
		if c.size > 0 {
			want.SetGSOType(gso)
			want.SetGSOSize(c.size)
			want.SetHdrLen(40)
		}
		if start != 34 || end != len(frame) || v != want {
			t.Errorf("%s: %d, %d, %x, want %x", c.name, start, end, v, want)
		}
	}
}

func TestAllocOpenAllocatesNothing(t *testing.T) {
	r := rules(t)
	frame, v := segment(t, ip4(dip, rip, layers.IPProtocolIPv4, ce), ip4(cip, vip, layers.IPProtocolTCP, ect0), 3000, 1000)
	if n := testing.AllocsPerRun(100, func() {
		w := v
		if _, _, verdict := r.Open(frame, 14, &w, here); verdict != Delivered {
			t.Fatal(verdict)
		}
	}); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}

func BenchmarkOpen(b *testing.B) {
	r := rules(b)
	frame := tunnelled(b, ip4(dip, rip, layers.IPProtocolIPv4, 0), ip4(cip, vip, layers.IPProtocolUDP, 0), "payload")
	var v packet.Vnet
	b.ReportAllocs()
	for b.Loop() {
		if _, _, verdict := r.Open(frame, 14, &v, here); verdict != Delivered {
			b.Fatal(verdict)
		}
	}
}
