package fragment

import (
	"bytes"
	"slices"
	"testing"

	"uvs/packet"
)

func TestFragmentsOfBothFamiliesDoNotMix(t *testing.T) {
	a, b := frag{at: 0, end: 48, mf: true}, frag{v6: true, at: 48, end: 50}
	if whole, n := feed(t, New(Limits{}), a, b); len(whole) != 0 || n != 0 {
		t.Errorf("%d whole, %d discarded", len(whole), n)
	}
}

// TestFirstFragmentOfIPv6 is RFC 8200 section 4.5 and RFC 7112: all headers in the first, and in their place.
func TestFirstFragmentOfIPv6(t *testing.T) {
	const next, data = packet.EthLen + packet.IPv6Len, packet.EthLen + packet.IPv6Len + packet.FragmentLen
	for _, tt := range []struct {
		name   string
		change func(b []byte)
		want   bool
	}{
		{"UDP", func([]byte) {}, true},
		{"TCP cut off", func(b []byte) { b[next] = packet.ProtoTCP }, false},
		{"SCTP cut off", func(b []byte) { b[next] = packet.ProtoSCTP }, false},
		{"ICMPv6", func(b []byte) { b[next] = packet.ProtoICMPv6 }, true},
		{"a protocol not known here", func(b []byte) { b[next] = packet.ProtoGRE }, true},
		{"no next header", func(b []byte) { b[next] = 59 }, true},
		{"destination options, and nothing behind them", func(b []byte) { b[next] = 60; copy(b[data:], "\x11\x00\x01\x04") }, false},
		{"destination options cut off", func(b []byte) { b[next] = 60; copy(b[data:], "\x11\x01\x01\x0c") }, false},
		{"another fragment header", func(b []byte) { b[next] = 44; copy(b[data:], "\x3b\x00\x00\x00") }, false},
		{"hop-by-hop behind the fragment header", func(b []byte) { b[next] = 0; copy(b[data:], "\x3b\x00\x01\x04") }, false},
		{"a source route", func(b []byte) { b[next] = 43; copy(b[data:], "\x3b\x00\x02\x01") }, false},
	} {
		g := New(Limits{})
		f := frag{v6: true, at: 0, end: 8, mf: true}.frame()
		tt.change(f)
		d, discarded := g.Add(f, 1)
		consistent(t, g)
		if got := discarded == 0 && g.Stats().Held == 1; got != tt.want || d != nil || g.Stats().Malformed != uint64(discarded) {
			t.Errorf("%s: held %v, want %v; %+v", tt.name, got, tt.want, g.Stats())
		}
	}
}

// TestHeadersOfLaterFragments has them say another next header: the first's counts.
func TestHeadersOfLaterFragments(t *testing.T) {
	g := New(Limits{})
	last := frag{v6: true, at: 48, end: 50, options: 16}.frame()
	last[packet.EthLen+packet.IPv6Len+16] = packet.ProtoTCP
	g.Add(last, 1)
	d, _ := g.Add(frag{v6: true, at: 0, end: 48, mf: true, options: 8}.frame(), 1)
	if d == nil {
		t.Fatal("not whole")
	}
	checkWhole(t, d, 50)
	if d.Largest() != 40+8+8+48 {
		t.Errorf("Largest() = %d", d.Largest())
	}
}

// TestSourcesOfIPv6 has one network with all of its addresses: it has one account, and no identification comes round.
func TestSourcesOfIPv6(t *testing.T) {
	g := New(Limits{Bytes: 100_000, PerSource: 30_000})
	for i := range 1000 {
		f := frag{v6: true, src: 1, id: uint16(i), at: 0, end: 1480, mf: true}.frame()
		f[packet.EthLen+23] = byte(i) // the source's last byte
		g.Add(f, 1)
		consistent(t, g)
	}
	if held := g.Stats().Held; held < 10 || held > 20 || len(g.sources) != 1 {
		t.Errorf("%d fragments of %d sources held in 30000 bytes", held, len(g.sources))
	}
	frags := []frag{{id: 7, at: 0, end: 48, mf: true}}
	for i := range 65 {
		frags = append(frags, frag{id: uint16(100 + i), at: 0, end: 48, mf: true})
	}
	frags = append(frags, frag{id: 7, at: 48, end: 100})
	if whole, n := feed(t, New(Limits{}), of(true, frags)...); len(whole) != 1 || n != 0 {
		t.Errorf("%d whole, %d discarded; want the datagram after 65 others", len(whole), n)
	}
}

func TestEmitIPv6(t *testing.T) {
	uneven := of(true, []frag{{at: 0, end: 8, mf: true, options: 8}, {at: 8, end: 1000, mf: true, options: 8},
		{at: 1000, end: 1016, mf: true, options: 8}, {at: 1016, end: 1333, options: 8}})
	const head = 40 + 8 + 8
	for _, tt := range []struct {
		name  string
		frags []frag
		mtu   int
		sizes []int
		as    bool // they came, with their identification
	}{
		{"as they came", uneven, 1500, []int{head + 8, head + 992, head + 16, head + 317}, true},
		{"no limit", uneven, 0, []int{head + 8, head + 992, head + 16, head + 317}, true},
		{"just as long as the mtu", uneven, head + 992, []int{head + 8, head + 992, head + 16, head + 317}, true},
		{"one is too long: all are cut anew", uneven, head + 991, []int{head + 984, head + 349}, false},
		{"came backwards", []frag{uneven[3], uneven[2], uneven[1], uneven[0]}, 1500, []int{head + 8, head + 992, head + 16, head + 317}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole, _ := feed(t, New(Limits{}), tt.frags...)
			d := whole[0]
			sizes, again := emitted(t, d, d.Frame(), tt.mtu)
			if !slices.Equal(sizes, tt.sizes) {
				t.Errorf("sizes %v, want %v", sizes, tt.sizes)
			}
			if len(again) != 1 || !bytes.Equal(again[0].Frame(), d.Frame()) || (again[0].how.ID == d.how.ID) != tt.as {
				t.Errorf("what was sent does not make the datagram: %+v", again)
			}
		})
	}
	whole, _ := feed(t, New(Limits{}), of(true, []frag{{at: 0, end: 480, mf: true}, {at: 480, end: 1333}})...)
	d := whole[0]
	longer := append(bytes.Clone(d.Frame()), make([]byte, 700)...)
	(*packet.IPv6)(longer[14:]).SetPayloadLen(len(longer) - 14 - 40)
	if sizes, again := emitted(t, d, longer, 1500); !slices.Equal(sizes, []int{896, 896, 48 + 337}) || len(again) != 1 {
		t.Errorf("longer: sizes %v", sizes)
	}
	refuse := func(_, _ []byte) { t.Error("emitted") }
	if d.Emit(longer[:50], 1500, refuse) || d.Emit(nil, 1500, refuse) || d.Emit(longer, 55, refuse) || d.Emit(frag{at: 0, end: 8}.frame(), 1500, refuse) {
		t.Error("Emit of what cannot be sent = true")
	}
}
