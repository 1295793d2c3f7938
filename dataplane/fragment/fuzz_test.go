package fragment

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"uvs/packet"
)

// twin is the gatherer as one would write it who had bytes and time to waste: for each datagram, which bytes came.
type twin map[uint16]*twinDatagram

type twinDatagram struct {
	came  []bool
	total int // -1: not known
}

// add returns whether the datagram became whole and whether the fragment was kept.
func (w twin) add(f frag) (whole, kept bool) {
	d := w[f.id]
	if d == nil {
		d = &twinDatagram{came: make([]bool, 0x10000), total: -1}
		w[f.id] = d
	}
	top, have := 0, 0
	for i, c := range d.came {
		if c {
			top, have = i+1, have+1
		}
	}
	if d.total >= 0 && (f.end > d.total || !f.mf && f.end != d.total) || !f.mf && f.end < top {
		delete(w, f.id)
		return false, false
	}
	there := 0
	for i := f.at; i < f.end; i++ {
		if d.came[i] {
			there++
		}
	}
	switch there {
	case f.end - f.at:
		return false, false
	case 0:
	default:
		delete(w, f.id)
		return false, false
	}
	for i := f.at; i < f.end; i++ {
		d.came[i] = true
	}
	if !f.mf {
		d.total = f.end
	}
	if have+f.end-f.at == d.total {
		delete(w, f.id)
		return true, true
	}
	return false, true
}

// FuzzAdd gives any sequence of well-formed fragments to the gatherer and to its slow twin and wants the same verdicts.
// Four bytes make a fragment: offset in words, length, identification and flags.
func FuzzAdd(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add([]byte{0, 6, 0, 1, 6, 6, 0, 1, 12, 1, 0, 0}, v6)            // in order
		f.Add([]byte{12, 1, 0, 0, 6, 6, 0, 1, 0, 6, 0, 1}, v6)            // backwards
		f.Add([]byte{0, 6, 0, 1, 5, 6, 0, 1, 0, 6, 0, 1, 6, 2, 0, 0}, v6) // an overlap, then anew
		f.Add([]byte{0, 6, 0, 1, 0, 6, 1, 1, 6, 3, 1, 2, 6, 3, 0, 2}, v6) // two at once
	}
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		g, w := New(Limits{MaxDistance: -1}), twin{}
		for n := 0; len(b) >= 4 && n < 64; b, n = b[4:], n+1 {
			fr := frag{v6: v6, at: int(b[0]) * 8, id: uint16(b[2] & 3), mf: b[3]&1 != 0}
			fr.end = fr.at + int(b[1])*8
			if !fr.mf {
				fr.end -= int(b[3]>>1) & 7
			}
			if fr.end <= fr.at || fr.at == 0 && !fr.mf {
				continue
			}
			held := g.Stats().Held
			d, discarded := g.Add(fr.frame(), int64(time.Hour))
			whole, kept := w.add(fr)
			if (d != nil) != whole {
				t.Fatalf("fragment %d, %+v: whole %v, want %v", n, fr, d != nil, whole)
			}
			if kept != (discarded == 0) || kept && d == nil && g.Stats().Held != held+1 {
				t.Fatalf("fragment %d, %+v: %d discarded, want kept %v", n, fr, discarded, kept)
			}
			consistent(t, g)
			if d != nil {
				checkWhole(t, d, len(payloadOf(t, d.Frame())))
			}
		}
	})
}

// FuzzRoundTrip cuts a datagram anyhow, gives the pieces in any order, some twice, and wants the datagram back and then
// the pieces in order.
func FuzzRoundTrip(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(uint64(1), uint16(2008), uint8(0), v6)
		f.Add(uint64(2), uint16(100), uint8(40), v6)
		f.Add(uint64(3), uint16(65000), uint8(4), v6)
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint16, options uint8, v6 bool) {
		n, opts := int(size), int(options)&^3%44
		if v6 {
			opts &^= 7
		}
		if n < 9 || n+packet.IPv4Len+opts > 0xffff {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var frags []frag
		for at := 0; at < n; {
			end := min(n, at+8*(1+r.IntN(1+n/16)))
			if at == 0 && end == n {
				end = 8
			}
			frags = append(frags, frag{v6: v6, at: at, end: end, mf: end < n, options: opts})
			at = end
		}
		var want [][]byte
		for _, f := range frags {
			want = append(want, f.frame())
		}
		g := New(Limits{Bytes: 1 << 24, PerSource: 1 << 24})
		var d *Datagram
		for _, i := range r.Perm(len(frags)) {
			if d != nil {
				t.Fatal("whole before the last fragment")
			}
			d, _ = g.Add(want[i], 1)
			if r.IntN(4) == 0 && d == nil {
				if _, n := g.Add(want[i], 1); n != 1 {
					t.Fatal("a repeated fragment is not discarded")
				}
			}
		}
		if d == nil {
			t.Fatal("not whole after the last fragment")
		}
		consistent(t, g)
		checkWhole(t, d, n)
		i := 0
		if !d.Emit(d.Frame(), 0, func(head, body []byte) {
			if got := append(bytes.Clone(head[packet.VnetLen:]), body...); i >= len(want) || !bytes.Equal(got, want[i]) {
				t.Fatalf("piece %d is %x", i, got)
			}
			i++
		}) || i != len(want) {
			t.Fatalf("%d pieces, want %d", i, len(want))
		}
	})
}

// FuzzAddRaw gives the gatherer any bytes at all, cut into frames, and wants no panic and books in order.
func FuzzAddRaw(f *testing.F) {
	for _, s := range []string{
		// 192.0.2.9:50001 > 10.9.0.100:53 UDP, first 48 of 108 bytes, id 503 MF
		"0200000009010200000009fe08004500004401f7200040118c3cc00002090a090064c3510035006c287401080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3dae1e8eff6fd040b12",
		// the next 48 bytes, at offset 48
		"0200000009010200000009fe08004500004401f7200640118c36c00002090a0900641920272e353c434a51585f666d747b828990979ea5acb3bac1c8cfd6dde4ebf2f900070e151c232a31383f464d545b62",
		// the last 12 bytes, at offset 96
		"0200000009010200000009fe08004500002001f7000c4011ac54c00002090a0900646970777e858c939aa1a8afb6",
		// 2001:db8:c::9 > 2001:db8:9::100, hop-by-hop, fragment 1f4 of UDP: first 16 bytes
		"0200000009010200000009fe86dd6000000000200040 20010db8000c00000000000000000009 20010db8000900000000000000000100 2c00010400000000 11000001000001f4 1389003500188405 0102030405060708",
		// the last 8 bytes, at offset 16
		"0200000009010200000009fe86dd6000000000182c40 20010db8000c00000000000000000009 20010db8000900000000000000000100 11000010000001f4 090a0b0c0d0e0f10",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, len(b))
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		g := New(Limits{Bytes: 10_000})
		n = max(n, 14)
		for now := int64(0); len(b) > 0; now += int64(10 * time.Second) {
			cut := min(n, len(b))
			d, _ := g.Add(b[:cut], now)
			if d != nil {
				var p packet.Packet
				if packet.Decode(d.Frame(), &p) == packet.NoFault && p.Fragment {
					t.Fatalf("the whole is a fragment: %x", d.Frame())
				}
				if !d.Emit(d.Frame(), 1500, func(_, _ []byte) {}) && d.Largest() < 1500 {
					t.Fatalf("Emit of %x = false", d.Frame())
				}
			}
			consistent(t, g)
			b = b[cut:]
		}
	})
}

func BenchmarkTwoFragments(b *testing.B) {
	frames := [][]byte{frag{at: 0, end: 1480, mf: true}.frame(), frag{at: 1480, end: 2008}.frame()}
	g := New(Limits{})
	emit := func(_, _ []byte) {}
	b.ReportAllocs()
	for b.Loop() {
		g.Add(frames[0], 1)
		d, _ := g.Add(frames[1], 1)
		d.Emit(d.Frame(), 1500, emit)
	}
}

// BenchmarkFlood is an attacker's: first fragments of datagrams that never become whole.
func BenchmarkFlood(b *testing.B) {
	f := frag{at: 0, end: 8, mf: true}.frame()
	g := New(Limits{})
	ip := (*packet.IPv4)(f[packet.EthLen:])
	b.ReportAllocs()
	id := uint16(0)
	for b.Loop() {
		id++
		ip.SetID(id)
		ip.SetSrc(0xc0000000 | uint32(id&0xfff))
		g.Add(f, 1)
	}
}
