package fragment

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"uvs/packet"
)

// frag describes a fragment to make: the payload bytes from at to end, of a datagram in which byte i of the payload is
// pattern(i).
type frag struct {
	v6      bool
	src     uint32
	id      uint16
	at, end int
	mf, df  bool
	tos     uint8
	options int // bytes of no-operations; of IPv6, of a hop-by-hop header, a multiple of 8
	salt    byte
}

func pattern(i int) byte { return byte(i*7 ^ i>>8) }

func (f frag) frame() []byte {
	if f.src == 0 {
		f.src = 0xc0000209
	}
	if f.v6 {
		return f.frame6()
	}
	n := packet.IPv4Len + f.options
	b := make([]byte, packet.EthLen+n+f.end-f.at)
	packet.PutEth(b, packet.MAC{2, 0, 0, 0, 9, 1}, packet.MAC{2, 0, 0, 0, 9, 0xfe}, packet.EtherIPv4)
	h := b[packet.EthLen:]
	packet.PutIPv4(h, len(h), packet.Header4{TOS: f.tos, ID: f.id, TTL: 64, Proto: packet.ProtoUDP, Src: f.src, Dst: 0x0a090064})
	h[0] = 0x40 | byte(n/4)
	for i := packet.IPv4Len; i < n; i++ {
		h[i] = 1
	}
	(*packet.IPv4)(h).SetFrag(f.df, f.mf, f.at)
	packet.FixIPv4Checksum(h)
	for i := f.at; i < f.end; i++ {
		h[n+i-f.at] = pattern(i) ^ f.salt
	}
	return b
}

func addr6(n uint32) packet.Addr {
	return packet.AddrFromWords(0x20010db8_00000000|uint64(n), uint64(n))
}

func (f frag) frame6() []byte {
	at := packet.EthLen + packet.IPv6Len + f.options
	data := at + packet.FragmentLen
	b := make([]byte, data+f.end-f.at)
	packet.PutEth(b, packet.MAC{2, 0, 0, 0, 9, 1}, packet.MAC{2, 0, 0, 0, 9, 0xfe}, packet.EtherIPv6)
	h := packet.Header6{TrafficClass: f.tos, NextHeader: packet.ProtoFragment, HopLimit: 64, Src: addr6(f.src), Dst: addr6(0x0a090064)}
	if f.options > 0 {
		h.NextHeader = 0
		copy(b[packet.EthLen+packet.IPv6Len:], []byte{packet.ProtoFragment, byte(f.options/8 - 1), 1, byte(f.options - 4)})
	}
	packet.PutIPv6(b[packet.EthLen:], len(b)-packet.EthLen-packet.IPv6Len, h)
	packet.PutFragment(b[at:], packet.ProtoUDP, f.at, f.mf, 0xabcd0000|uint32(f.id))
	for i := f.at; i < f.end; i++ {
		b[data+i-f.at] = pattern(i) ^ f.salt
	}
	return b
}

// consistent checks the gatherer's books: lists, map, memory and counters tell the same story.
func consistent(t *testing.T, g *Gatherer) {
	t.Helper()
	n, bytes, pieces := 0, 0, 0
	for d := g.oldest; d != nil; d = d.next {
		if d.next == nil && g.newest != d || d.next != nil && d.next.prev != d {
			t.Fatal("list of datagrams is broken")
		}
		if g.byKey[d.key] != d || len(d.pieces) == 0 {
			t.Fatalf("datagram %v is not in the map, or empty", d.key)
		}
		n++
		bytes += d.bytes
		pieces += len(d.pieces)
	}
	bySource, sourceBytes := 0, 0
	for a, s := range g.sources {
		own := 0
		for d := s.oldest; d != nil; d = d.srcNext {
			if d.key.source() != a || d.src != s || d.srcNext == nil && s.newest != d {
				t.Fatal("list of a source's datagrams is broken")
			}
			own += d.bytes
			bySource++
		}
		if own != s.bytes || own == 0 || own > g.limits.PerSource {
			t.Fatalf("source %v is charged %d bytes for %d", a, s.bytes, own)
		}
		sourceBytes += own
	}
	if n != len(g.byKey) || n != bySource || bytes != g.bytes || bytes != sourceBytes || bytes > g.limits.Bytes {
		t.Fatalf("%d datagrams of %d bytes; map has %d, sources %d of %d, gatherer is charged %d", n, bytes,
			len(g.byKey), bySource, sourceBytes, g.bytes)
	}
	st := g.Stats()
	sum := st.Reassembled + st.Held + st.Duplicate + st.Overlapping + st.Malformed + st.Stale + st.TimedOut + st.Evicted + st.MixedECN
	if st.Held != uint64(pieces) || st.Received != sum {
		t.Fatalf("%d pieces held; %+v", pieces, st)
	}
}

// feed gives the gatherer fragments a millisecond apart and returns what became whole and how many were discarded.
func feed(t *testing.T, g *Gatherer, frags ...frag) (whole []*Datagram, discarded int) {
	t.Helper()
	for i, f := range frags {
		d, n := g.Add(f.frame(), int64(time.Hour)+int64(i)*int64(time.Millisecond))
		discarded += n
		if d != nil {
			whole = append(whole, d)
		}
		consistent(t, g)
	}
	return whole, discarded
}

// payloadOf is what follows IP header and hop-by-hop header of a whole datagram.
func payloadOf(t *testing.T, frame []byte) []byte {
	t.Helper()
	b := frame[packet.EthLen:]
	if b[0]>>4 == 4 {
		ip, payload, ok := packet.ParseIPv4(b)
		if !ok || !packet.IPv4ChecksumOK(b) || ip.IsFragment() {
			t.Fatalf("the whole's header is wrong: %x", b[:20])
		}
		return payload
	}
	ip, payload, ok := packet.ParseIPv6(b)
	if ok && ip.NextHeader() == 0 {
		n := 8 + 8*int(payload[1])
		ok = payload[0] == packet.ProtoUDP
		payload = payload[n:]
	} else {
		ok = ok && ip.NextHeader() == packet.ProtoUDP
	}
	if !ok {
		t.Fatalf("the whole's header is wrong: %x", b[:40])
	}
	return payload
}

func checkWhole(t *testing.T, d *Datagram, n int) {
	t.Helper()
	var p packet.Packet
	packet.Decode(d.Frame(), &p) // L4 is a mere pattern
	payload := payloadOf(t, d.Frame())
	if len(payload) != n || len(d.Buf()) != packet.VnetLen+len(d.Frame()) || *d.Vnet() != (packet.Vnet{}) {
		t.Fatalf("the whole has %d bytes, want %d", len(payload), n)
	}
	for i, x := range payload {
		if x != pattern(i) {
			t.Fatalf("byte %d of the whole is %#x, want %#x", i, x, pattern(i))
		}
	}
}

func TestAdd(t *testing.T) {
	a, b, c := frag{at: 0, end: 48, mf: true}, frag{at: 48, end: 96, mf: true}, frag{at: 96, end: 100}
	for _, tt := range []struct {
		name      string
		frags     []frag
		whole     bool
		discarded int
		stats     Stats // Received is the number of frags
	}{
		{"in order", []frag{a, b, c}, true, 0, Stats{Reassembled: 3, Datagrams: 1}},
		{"backwards", []frag{c, b, a}, true, 0, Stats{Reassembled: 3, Datagrams: 1}},
		{"middle last", []frag{c, a, b}, true, 0, Stats{Reassembled: 3, Datagrams: 1}},
		{"first missing", []frag{b, c}, false, 0, Stats{Held: 2}},
		{"last missing", []frag{a, b}, false, 0, Stats{Held: 2}},
		{"one twice", []frag{a, a, b, c}, true, 1, Stats{Reassembled: 3, Duplicate: 1, Datagrams: 1}},
		{"last twice", []frag{c, c, a, b}, true, 1, Stats{Reassembled: 3, Duplicate: 1, Datagrams: 1}},
		{"twice with other bytes: the first counts", []frag{a, {at: 0, end: 48, mf: true, salt: 9}, b, c}, true, 1,
			Stats{Reassembled: 3, Duplicate: 1, Datagrams: 1}},
		{"within two others", []frag{a, b, {at: 40, end: 56, mf: true}, c}, true, 1, Stats{Reassembled: 3, Duplicate: 1, Datagrams: 1}},
		{"overlap to the left", []frag{a, {at: 40, end: 96, mf: true}, c}, false, 2, Stats{Overlapping: 2, Held: 1}},
		{"overlap to the right", []frag{b, {at: 0, end: 56, mf: true}, c}, false, 2, Stats{Overlapping: 2, Held: 1}},
		{"overlap on both sides", []frag{{at: 40, end: 48, mf: true}, {at: 0, end: 96, mf: true}, c}, false, 2, Stats{Overlapping: 2, Held: 1}},
		{"overlap across a gap", []frag{a, c, {at: 40, end: 104, mf: true}}, false, 3, Stats{Overlapping: 3}},
		{"beyond the end", []frag{c, {at: 104, end: 112, mf: true}}, false, 2, Stats{Overlapping: 2}},
		{"another end behind", []frag{c, {at: 96, end: 101}}, false, 2, Stats{Overlapping: 2}},
		{"another end before", []frag{c, {at: 48, end: 90}}, false, 2, Stats{Overlapping: 2}},
		{"an end before what is there", []frag{b, {at: 8, end: 16}}, false, 2, Stats{Overlapping: 2}},
		{"an end within what is there", []frag{b, {at: 56, end: 64}}, false, 2, Stats{Overlapping: 2}},
		{"not a multiple of 8", []frag{a, {at: 48, end: 95, mf: true}, b, c}, true, 1, Stats{Reassembled: 3, Malformed: 1, Datagrams: 1}},
		{"empty", []frag{{at: 48, end: 48}, a, b, c}, true, 1, Stats{Reassembled: 3, Malformed: 1, Datagrams: 1}},
		{"no fragment", []frag{{at: 0, end: 48}}, false, 1, Stats{Malformed: 1}},
		{"beyond 64 KiB", []frag{{at: 65528, end: 65536}}, false, 1, Stats{Malformed: 1}},
		{"the longest", []frag{{at: 0, end: 65512, mf: true}, {at: 65512, end: 65515}}, true, 0, Stats{Reassembled: 2, Datagrams: 1}},
		{"too long with the first's options", []frag{{at: 0, end: 65472, mf: true, options: 40}, {at: 65472, end: 65515}}, false, 2, Stats{Malformed: 2}},
		{"another identification", []frag{a, b, {id: 1, at: 96, end: 100}}, false, 0, Stats{Held: 3}},
		{"another source", []frag{a, b, {src: 7, at: 96, end: 100}}, false, 0, Stats{Held: 3}},
	} {
		both(t, tt.name, func(t *testing.T, v6 bool) {
			g := New(Limits{})
			whole, discarded := feed(t, g, of(v6, tt.frags)...)
			if (len(whole) == 1) != tt.whole || discarded != tt.discarded {
				t.Fatalf("%d whole, %d discarded, want %v and %d", len(whole), discarded, tt.whole, tt.discarded)
			}
			tt.stats.Received = uint64(len(tt.frags))
			if got := g.Stats(); got != tt.stats {
				t.Errorf("Stats() = %+v,\nwant      %+v", got, tt.stats)
			}
			if tt.whole {
				n := 0
				for _, f := range tt.frags {
					n = max(n, f.end)
				}
				checkWhole(t, whole[0], n)
				if g.bytes != 0 || g.Deadline() != 0 {
					t.Errorf("%d bytes still held, deadline %d", g.bytes, g.Deadline())
				}
			}
		})
	}
}

// both runs a test for IPv4 and for IPv6.
func both(t *testing.T, name string, f func(t *testing.T, v6 bool)) {
	t.Run(name, func(t *testing.T) { f(t, false) })
	t.Run(name+" of IPv6", func(t *testing.T) { f(t, true) })
}

// of are frags in one of the families.
func of(v6 bool, frags []frag) []frag {
	frags = slices.Clone(frags)
	for i := range frags {
		frags[i].v6 = v6
	}
	return frags
}

func TestAddOfNoIPv4(t *testing.T) {
	g := New(Limits{})
	for _, b := range [][]byte{nil, make([]byte, 13), make([]byte, 14), make([]byte, 60)} {
		if d, n := g.Add(b, 1); d != nil || n != 1 {
			t.Errorf("Add of %d bytes = %v, %d, want nil, 1", len(b), d, n)
		}
	}
	consistent(t, g)
}

func TestFragmentsTimeOut(t *testing.T) {
	g := New(Limits{})
	start := int64(time.Hour)
	g.Add(frag{id: 1, at: 0, end: 48, mf: true}.frame(), start)
	g.Add(frag{id: 2, at: 0, end: 48, mf: true}.frame(), start+int64(10*time.Second))
	g.Add(frag{id: 1, at: 48, end: 96, mf: true}.frame(), start+int64(20*time.Second)) // doesn't prolong it
	if got := g.Deadline(); got != start+int64(30*time.Second) {
		t.Errorf("Deadline() = %d, want 30 s after the first fragment", got-start)
	}
	if n := g.Expire(start + int64(30*time.Second) - 1); n != 0 {
		t.Errorf("%d expired before their time", n)
	}
	if n := g.Expire(start + int64(30*time.Second)); n != 2 {
		t.Errorf("%d fragments expired after 30 s, want 2", n)
	}
	consistent(t, g)
	d, n := g.Add(frag{id: 2, at: 48, end: 50}.frame(), start+int64(40*time.Second))
	if d != nil || n != 1 {
		t.Errorf("a datagram is whole %v, %d expired; want its first fragment expired by Add", d != nil, n)
	}
	consistent(t, g)
	g.Expire(start + int64(time.Hour))
	if st := g.Stats(); st.TimedOut != 4 || st.Held != 0 || len(g.sources) != 0 || len(g.byKey) != 0 || g.Deadline() != 0 {
		t.Errorf("Stats() = %+v with %d sources", st, len(g.sources))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	g := New(Limits{Bytes: 100_000, PerSource: 30_000})
	now := int64(1)
	for id := range 1000 { // one source
		g.Add(frag{src: 1, id: uint16(id), at: 0, end: 1480, mf: true}.frame(), now)
		consistent(t, g)
	}
	held := g.Stats().Held
	if held < 10 || held > 20 {
		t.Errorf("%d fragments of one source held in 30000 bytes", held)
	}
	if g.byKey[key{packet.AddrFrom4(1), packet.AddrFrom4(0x0a090064), 999, packet.ProtoUDP}] == nil {
		t.Error("the newest gave way to older ones")
	}
	g.Add(frag{src: 2, id: 1, at: 0, end: 1480, mf: true}.frame(), now)
	if g.Stats().Held != held+1 {
		t.Error("another source pays for the first")
	}
	for src := range 1000 { // many
		g.Add(frag{src: uint32(100 + src), at: 0, end: 1480, mf: true}.frame(), now)
		consistent(t, g)
	}
	if st := g.Stats(); st.Held < 40 || st.Held > 60 || st.Evicted+st.Held != st.Received {
		t.Errorf("Stats() = %+v", st)
	}
	if g.sources[packet.AddrFrom4(1)] != nil {
		t.Error("the oldest are still there")
	}
}

func TestTooLargeForAnyRoom(t *testing.T) {
	for _, l := range []Limits{{Bytes: 4000, PerSource: 100_000}, {Bytes: 100_000, PerSource: 4000}} {
		g := New(l)
		_, discarded := feed(t, g, frag{id: 1, src: 5, at: 0, end: 8, mf: true}, frag{at: 0, end: 1480, mf: true},
			frag{at: 1480, end: 2960, mf: true}, frag{at: 2960, end: 4440, mf: true})
		if st := g.Stats(); st.Evicted < 3 || uint64(discarded) != st.Evicted || st.Held > 1 {
			t.Errorf("%+v: %d discarded, %+v", l, discarded, st)
		}
	}
}

func TestNumberOfPiecesIsBounded(t *testing.T) {
	g := New(Limits{PerSource: 8 << 20})
	for i := range maxPieces {
		g.Add(frag{at: 16 * i, end: 16*i + 8, mf: true}.frame(), 1)
	}
	if st := g.Stats(); st.Held != maxPieces {
		t.Fatalf("Stats() = %+v", st)
	}
	if _, n := g.Add(frag{at: 8, end: 16, mf: true}.frame(), 1); n != maxPieces+1 {
		t.Errorf("%d discarded, want all", n)
	}
	consistent(t, g)
}

// TestIdentificationComesRound has a source lose a fragment and use its identification again much later.
func TestIdentificationComesRound(t *testing.T) {
	g := New(Limits{})
	frags := []frag{{id: 7, at: 0, end: 48, mf: true, salt: 1}}
	for i := range 65 {
		frags = append(frags, frag{id: uint16(100 + i), at: 0, end: 48, mf: true})
	}
	frags = append(frags, frag{id: 7, at: 48, end: 100})
	if whole, n := feed(t, g, frags...); len(whole) != 0 || n != 1 || g.Stats().Stale != 1 {
		t.Errorf("%d whole, %d discarded: old and new bytes were mixed", len(whole), n)
	}
	if whole, _ := feed(t, g, frag{id: 7, at: 0, end: 48, mf: true}); len(whole) != 1 {
		t.Error("the new datagram does not become whole")
	}
	g = New(Limits{MaxDistance: -1})
	if whole, _ := feed(t, g, frags...); len(whole) != 1 {
		t.Error("with no limit of distance the datagram should be whole")
	}
}

func TestECN(t *testing.T) {
	for _, tt := range []struct {
		a, b uint8
		want int // -1: dropped
	}{
		{0, 0, 0}, {2, 2, 2}, {1, 1, 1}, {3, 3, 3},
		{2, 3, 3}, {3, 2, 3}, {1, 3, 3}, {1, 2, 1}, {2, 1, 2},
		{0, 3, -1}, {3, 0, -1}, {0, 2, -1}, {1, 0, -1},
	} {
		both(t, fmt.Sprint(tt.a, " and ", tt.b), func(t *testing.T, v6 bool) {
			g := New(Limits{})
			whole, n := feed(t, g, of(v6, []frag{{at: 0, end: 48, mf: true, tos: 0xb8 | tt.a}, {at: 48, end: 50, tos: 0xb8 | tt.b}})...)
			got := -1
			if len(whole) == 1 {
				b := whole[0].Frame()[14:]
				if got = int((*packet.IPv4)(b).TOS()) - 0xb8; v6 {
					got = int((*packet.IPv6)(b).TrafficClass()) - 0xb8
				}
				checkWhole(t, whole[0], 50)
			} else if n != 2 || g.Stats().MixedECN != 2 {
				t.Errorf("%d and %d: %d discarded", tt.a, tt.b, n)
			}
			if got != tt.want {
				t.Errorf("ECN %d and %d make %d, want %d", tt.a, tt.b, got, tt.want)
			}
		})
	}
}

func TestDF(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b bool
		want bool
	}{{"none", false, false, false}, {"all", true, true, true}, {"the longest", true, false, true}, {"the shorter", false, true, false}} {
		whole, _ := feed(t, New(Limits{}), frag{at: 0, end: 48, mf: true, df: tt.a}, frag{at: 48, end: 50, df: tt.b})
		if got := (*packet.IPv4)(whole[0].Frame()[14:]).DF(); got != tt.want {
			t.Errorf("DF on %s: whole has DF %v, want %v", tt.name, got, tt.want)
		}
	}
}

func emitted(t *testing.T, d *Datagram, whole []byte, mtu int) (sizes []int, again []*Datagram) {
	t.Helper()
	g := New(Limits{})
	if !d.Emit(whole, mtu, func(head, body []byte) {
		f := append(bytes.Clone(head[packet.VnetLen:]), body...)
		sizes = append(sizes, len(f)-packet.EthLen)
		if w, _ := g.Add(f, 1); w != nil {
			again = append(again, w)
		}
	}) {
		t.Fatalf("Emit to %d = false", mtu)
	}
	return sizes, again
}

func TestEmit(t *testing.T) {
	uneven := []frag{{at: 0, end: 8, mf: true}, {at: 8, end: 1000, mf: true}, {at: 1000, end: 1016, mf: true}, {at: 1016, end: 1333}}
	for _, tt := range []struct {
		name  string
		frags []frag
		mtu   int
		sizes []int
	}{
		{"as they came", uneven, 1500, []int{28, 1012, 36, 337}},
		{"no limit", uneven, 0, []int{28, 1012, 36, 337}},
		{"just as long as the mtu", uneven, 1012, []int{28, 1012, 36, 337}},
		{"one is too long: all are cut anew", uneven, 1011, []int{1004, 369}},
		{"a small way", uneven, 576, []int{572, 572, 249}},
		{"came backwards, goes in order", []frag{uneven[3], uneven[2], uneven[1], uneven[0]}, 1500, []int{28, 1012, 36, 337}},
		{"small, though the whole would fit", []frag{{at: 0, end: 48, mf: true}, {at: 48, end: 60}}, 1500, []int{68, 32}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole, _ := feed(t, New(Limits{}), tt.frags...)
			d := whole[0]
			if d.Pieces() != len(tt.frags) {
				t.Errorf("Pieces() = %d, want %d", d.Pieces(), len(tt.frags))
			}
			sizes, again := emitted(t, d, d.Frame(), tt.mtu)
			if !slices.Equal(sizes, tt.sizes) {
				t.Errorf("sizes %v, want %v", sizes, tt.sizes)
			}
			if len(again) != 1 || !bytes.Equal(again[0].Frame(), d.Frame()) {
				t.Error("what was sent does not make the datagram")
			}
		})
	}
}

func TestEmitOfAnotherLength(t *testing.T) {
	whole, _ := feed(t, New(Limits{}), frag{at: 0, end: 480, mf: true}, frag{at: 480, end: 1333})
	d := whole[0]
	if d.Largest() != 873 {
		t.Fatalf("Largest() = %d, want 873", d.Largest())
	}
	longer := append(bytes.Clone(d.Frame()), make([]byte, 700)...)
	(*packet.IPv4)(longer[14:]).SetTotalLen(len(longer) - 14)
	packet.FixIPv4Checksum(longer[14:])
	if sizes, again := emitted(t, d, longer, 1500); !slices.Equal(sizes, []int{868, 868, 357}) || len(again) != 1 {
		t.Errorf("sizes %v", sizes)
	}
	refuse := func(_, _ []byte) { t.Error("emitted") }
	if d.Emit(longer[:30], 1500, refuse) || d.Emit(nil, 1500, refuse) || d.Emit(longer, 27, refuse) {
		t.Error("Emit of what cannot be sent = true")
	}
}
