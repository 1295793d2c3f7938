package sched

import (
	"math/bits"
	"testing"

	"uvs/packet"
	"uvs/service"
)

// The reference values of hash_32 and of SipHash-1-3 are what the recorded kernel decided with; see traces_test.go. Here
// stand the properties the tables have by design.

func TestSourceHashTableQuirks(t *testing.T) {
	// 100+300+200+50 in list order: the first takes 100, the second the other 156, the others nothing.
	list := servers{server(4, 100, 0, 0), server(3, 300, 0, 0), server(2, 200, 0, 0), server(1, 0, 0, 0)}
	if got := shares(list); got != [4]int{100, 156, 0, 0} {
		t.Errorf("shares of weights 100, 300, 200, 0 are %v, want 100, 156, 0, 0", got)
	}
	list = servers{server(4, 1, 0, 0), server(3, 0, 0, 0), server(2, 2, 0, 0), server(1, 60, 0, 0)}
	if got := shares(list); got != [4]int{4, 4, 8, 240} {
		t.Errorf("shares of weights 1, 0, 2, 60 are %v, want 4, 4, 8, 240", got)
	}
}

func shares(list servers) (n [4]int) {
	s := newSH(0)
	s.Prepare(list)
	for _, rs := range s.table.Load() {
		for i := range list {
			if list[i] == rs {
				n[i]++
			}
		}
	}
	return n
}

func TestSourceHashFallbackStaysPut(t *testing.T) {
	list := servers{server(3, 1, 0, 0), server(2, 1, 0, 0), server(1, 1, 0, 0)}
	plain, fallback := prepared(t, "sh", 0, list), prepared(t, "sh", service.SchedFlag1, list)
	home := make([]*service.RealServer, 200)
	for n := range home {
		home[n] = plain.Pick(request(n), list)
	}
	list[1].SetWeight(0)
	for n := range home {
		p, f := plain.Pick(request(n), list), fallback.Pick(request(n), list)
		switch {
		case home[n] == list[1] && (p != nil || f == nil || f == list[1]):
			t.Errorf("client %d of the quiesced server: picked %v, with fallback %v", n, p, f)
		case home[n] != list[1] && (p != home[n] || f != home[n]):
			t.Errorf("client %d moved from %v to %v, with fallback %v", n, home[n], p, f)
		}
	}
}

func TestPortFlagCanBeSwitched(t *testing.T) {
	list := make(servers, 20)
	for i := range list {
		list[i] = server(i+1, 1, 0, 0)
	}
	for _, name := range []string{"sh", "mh"} {
		s := prepared(t, name, 0, list)
		a, b := request(1), request(1)
		differ := func() bool {
			for b.Flow.SrcPort = 1; b.Flow.SrcPort < 200; b.Flow.SrcPort++ {
				if s.Pick(a, list) != s.Pick(b, list) {
					return true
				}
			}
			return false
		}
		if differ() {
			t.Errorf("%s: the client's port counts without the flag", name)
		}
		s.Changed(service.Change{Kind: service.ServiceEdited, Before: list, After: list, Flags: service.SchedFlag2})
		if !differ() {
			t.Errorf("%s: the client's port doesn't count with the flag", name)
		}
	}
}

func TestMaglevMovesFewClients(t *testing.T) {
	list := make(servers, 10)
	for i := range list {
		list[i] = server(i+1, 1, 0, 0)
	}
	m := newMH(0)
	m.Prepare(list)
	before := *m.table.Load()
	for i, rs := range list {
		n := 0
		for _, b := range before {
			if b == rs {
				n++
			}
		}
		if n < mhSize/10-1 || n > mhSize/10+1 {
			t.Errorf("server %d of 10 has %d of %d buckets", i, n, mhSize)
		}
	}
	m.Prepare(list[1:])
	moved := 0
	for i, rs := range m.table.Load() {
		if before[i] != list[0] && rs != before[i] {
			moved++
		}
	}
	if moved > mhSize/20 {
		t.Errorf("removing one server of 10 moved %d of %d buckets of the others", moved, mhSize)
	}
	list[3].SetWeight(0)
	m.Prepare(list)
	if *m.table.Load() != before {
		t.Error("quiescing a server changed the table")
	}
}

func TestMaglevHugeWeightsAreShifted(t *testing.T) {
	list := servers{server(1, 1<<31-1, 0, 0), server(2, 1<<30, 0, 0), server(3, 1, 0, 0)}
	c := mhCandidates(list)
	if c[0].turns != 63 || c[1].turns != 32 || c[2].turns != 1 {
		t.Errorf("turns %d, %d, %d, want 63, 32, 1", c[0].turns, c[1].turns, c[2].turns)
	}
}

func TestMaglevIgnoresServersNeverWeighted(t *testing.T) {
	list := servers{server(1, 0, 0, 0), server(2, 1, 0, 0)}
	m := newMH(0)
	m.Prepare(list)
	for i, rs := range m.table.Load() {
		if rs != list[1] {
			t.Fatalf("bucket %d is %v's", i, rs)
		}
	}
}

func TestFoldXORsIPv6(t *testing.T) {
	a := packet.AddrFrom16(&[16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 0, 0, 0xff, 0, 0, 0, 0, 7})
	if got, want := fold(a), uint32(0x20010db8^0x00010002^0x0000ff00^0x00000007); got != want {
		t.Errorf("fold(%v) = %#x, want %#x", a, got, want)
	}
	if got := fold(packet.AddrFrom4(0x0a090064)); got != 0x0a090064 {
		t.Errorf("fold(10.9.0.100) = %#x", got)
	}
}

// sipTwin is SipHash-1-3 as the paper states it, byte by byte for any input, to check hsiphash against.
func sipTwin(in []byte, k0, k1 uint64) uint64 {
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	half := func(a, b, c, d int, s, t int) {
		v[a] += v[b]
		v[c] += v[d]
		v[b] = bits.RotateLeft64(v[b], s) ^ v[a]
		v[d] = bits.RotateLeft64(v[d], t) ^ v[c]
		v[a] = bits.RotateLeft64(v[a], 32)
	}
	round := func() { half(0, 1, 2, 3, 13, 16); half(2, 1, 0, 3, 17, 21) }
	padded := append([]byte(nil), in...)
	for len(padded)%8 != 7 {
		padded = append(padded, 0)
	}
	padded = append(padded, byte(len(in)))
	for ; len(padded) > 0; padded = padded[8:] {
		var m uint64
		for i := range 8 {
			m |= uint64(padded[i]) << (8 * i)
		}
		v[3] ^= m
		round()
		v[0] ^= m
	}
	v[2] ^= 0xff
	for range 3 {
		round()
	}
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func FuzzHSipHash(f *testing.F) {
	f.Add(uint32(0), uint64(mhKey1))
	f.Add(uint32(0xc0000201), uint64(mhKey2)) // 192.0.2.1
	f.Fuzz(func(t *testing.T, word uint32, key uint64) {
		in := []byte{byte(word), byte(word >> 8), byte(word >> 16), byte(word >> 24)}
		if got, want := hsiphash(word, key), uint32(sipTwin(in, key, key)); got != want {
			t.Errorf("hsiphash(%#x, %#x) = %#x, want %#x", word, key, got, want)
		}
	})
}
