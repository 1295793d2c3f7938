package ftp

import (
	"math/rand/v2"
	"testing"
)

func TestShift(t *testing.T) {
	var s Shift
	if s.Seq(7) != 7 || s.Ack(7) != 7 || !s.None() {
		t.Error("a new shift shifts")
	}
	s.edit(5027, 16, 17) // the recorded reply: 5020, 46 bytes, becomes one longer
	for _, c := range []struct{ seq, want uint32 }{{5020, 5020}, {5027, 5027}, {5042, 5042}, {5043, 5044}, {5066, 5067}} {
		if got := s.Seq(c.seq); got != c.want {
			t.Errorf("Seq(%d) = %d, want %d", c.seq, got, c.want)
		}
	}
	for _, c := range []struct{ ack, want uint32 }{{5020, 5020}, {5027, 5027}, {5028, 5027}, {5043, 5027}, {5044, 5043}, {5067, 5066}} {
		if got := s.Ack(c.ack); got != c.want {
			t.Errorf("Ack(%d) = %d, want %d", c.ack, got, c.want)
		}
	}
	for _, c := range []struct{ left, right, l, r uint32 }{
		{5000, 5010, 5000, 5010}, {5044, 5067, 5043, 5066}, {5020, 5067, 5020, 5066},
		{5020, 5030, 5020, 5027}, // the text in part
		{5030, 5067, 5043, 5066},
		{5030, 5035, 5043, 5043},
	} {
		if l, r := s.Block(c.left, c.right); l != c.l || r != c.r {
			t.Errorf("Block(%d, %d) = %d, %d, want %d, %d", c.left, c.right, l, r, c.l, c.r)
		}
	}
}

// TestShiftAgreesWithTheBytes edits a stream of numbered bytes, twice, and compares with where each byte came to lie.
func TestShiftAgreesWithTheBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		base := random.Uint32()
		if random.IntN(2) == 0 {
			base = -uint32(random.IntN(200)) // wraps
		}
		var s Shift
		// out[i] is the receiver's number of the sender's byte i; -1 in changed text.
		const n = 300
		out, at := make([]int, n+1), 0
		first := 20 + random.IntN(50)
		edits := [2][3]int{{first, 1 + random.IntN(20), 1 + random.IntN(20)}}
		edits[1] = [3]int{first + 60 + random.IntN(50), 1 + random.IntN(20), 1 + random.IntN(20)}
		from := 0
		for e, edit := range edits {
			s.edit(base+uint32(edit[0]), edit[1], edit[2])
			if e == 0 {
				from = edit[0] + edit[1] // known exactly from here on
			}
		}
		for i := 0; i <= n; i++ {
			out[i] = at
			at++
			for _, edit := range edits {
				if i >= edit[0] && i < edit[0]+edit[1] {
					out[i] = -1
					if at--; i == edit[0]+edit[1]-1 {
						at += edit[2]
					}
				}
			}
		}
		for i := from; i <= n; i++ {
			if out[i] < 0 {
				continue
			}
			if got, want := s.Seq(base+uint32(i)), base+uint32(out[i]); got != want {
				t.Fatalf("edits %v: Seq(%d) = %d, want %d", edits, i, got-base, out[i])
			}
			// An acknowledgement of all before byte i.
			if got := s.Ack(base + uint32(out[i])); got != base+uint32(i) {
				t.Fatalf("edits %v: Ack(%d) = %d, want %d", edits, out[i], got-base, i)
			}
		}
		// An acknowledgement never runs ahead of what it acknowledges, nor goes back.
		last := uint32(0)
		for a := out[from]; a <= out[n]; a++ {
			got := s.Ack(base+uint32(a)) - base
			if got < last || got <= n && out[got] > a {
				t.Fatalf("edits %v: Ack(%d) = %d after %d", edits, a, got, last)
			}
			last = got
		}
	}
}
