package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// slowSum is RFC 1071 as the RFC writes it: word by word, folded at every step.
func slowSum(b []byte, s uint16) uint16 {
	t := uint32(s)
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		if t += w; t > 0xffff {
			t = t&0xffff + 1
		}
	}
	return uint16(t)
}

// same says that two folded sums are the same number in ones' complement, where 0 has two forms.
func same(a, b uint16) bool { return a%0xffff == b%0xffff }

func FuzzSum(f *testing.F) {
	for _, name := range []string{"syn", "udp", "data", "echo"} {
		f.Add(frame(f, name), uint64(0))
	}
	f.Add([]byte{}, uint64(0xffff_ffff_ffff_ffff))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, s uint64) {
		got, want := Fold(Sum(b, s)), slowSum(b, Fold(s))
		if !same(got, want) {
			t.Errorf("Fold(Sum(%x, %#x)) = %#x, want %#x", b, s, got, want)
		}
		if got == 0 && (len(b) > 0 && want != 0) {
			t.Errorf("Fold(Sum(%x, %#x)) = 0, want %#x: a sum of anything is never plus zero", b, s, want)
		}
	})
}

func TestSumOfEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 200)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for from := range 9 {
		for to := from; to <= len(b); to++ {
			if got, want := Fold(Sum(b[from:to], 0)), slowSum(b[from:to], 0); !same(got, want) {
				t.Fatalf("Fold(Sum(b[%d:%d])) = %#x, want %#x", from, to, got, want)
			}
		}
	}
	for i := range b {
		b[i] = 0xff
	}
	for to := range b {
		if got, want := Fold(Sum(b[:to], 0xffff_ffff_ffff_ffff)), slowSum(b[:to], 0xffff); got != want {
			t.Fatalf("all ones, %d bytes: %#x, want %#x", to, got, want)
		}
	}
}

// FuzzUpdate changes an address and a port in a block of bytes and wants the mended checksum to hold.
func FuzzUpdate(f *testing.F) {
	f.Add(frame(f, "syn")[14:], uint32(0x0a01000b), uint16(8080))
	f.Add(make([]byte, 20), uint32(0), uint16(0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}, uint32(0xffffffff), uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, addr uint32, port uint16) {
		if len(b) < 8 {
			return
		}
		c := ^slowSum(b[:len(b)&^1], 0)
		partial := slowSum(b[:4], 0) // as if the address alone were summed
		oldAddr, oldPort := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:])
		binary.BigEndian.PutUint32(b, addr)
		c32 := Update32(c, oldAddr, addr)
		if got := slowSum(b[:len(b)&^1], 0); !same(got, ^c32) {
			t.Errorf("Update32 = %#x, sum is %#x", c32, got)
		}
		if got := UpdatePartial(partial, Difference4(oldAddr, addr)); !same(got, slowSum(b[:4], 0)) {
			t.Errorf("UpdatePartial = %#x, want %#x", got, slowSum(b[:4], 0))
		}
		binary.BigEndian.PutUint16(b[4:], port)
		sum := slowSum(b[:len(b)&^1], 0)
		if got := Update16(c32, oldPort, port); !same(sum, ^got) {
			t.Errorf("Update16 = %#x, sum is %#x", got, sum)
		}
		if got := UpdatePort(c, Difference4(oldAddr, addr), oldPort, port); !same(sum, ^got) {
			t.Errorf("UpdatePort = %#x, sum is %#x", got, sum)
		}
		old := uint64(oldAddr) + uint64(oldPort)
		if got := UpdateSum(c, old, uint64(addr)+uint64(port)); !same(sum, ^got) {
			t.Errorf("UpdateSum = %#x, sum is %#x", got, sum)
		}
	})
}

// TestUpdateOfAllSmallWords walks every old word over the edges of the new one and the checksum.
func TestUpdateOfAllSmallWords(t *testing.T) {
	edges := []uint16{0, 1, 2, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff}
	for old := range 1 << 16 {
		for _, new := range edges {
			for _, rest := range edges {
				before := Fold(uint64(old) + uint64(rest))
				after := Fold(uint64(new) + uint64(rest))
				if got := ^Update16(^before, uint16(old), new); !same(got, after) {
					t.Fatalf("Update16(%#x, %#x, %#x): sum %#x, want %#x", ^before, old, new, got, after)
				}
			}
		}
	}
}

// slowCRC32c is RFC 9260 appendix A's polynomial, bit by bit.
func slowCRC32c(b []byte) uint32 {
	c := ^uint32(0)
	for i, x := range b {
		if i >= 8 && i < 12 {
			x = 0
		}
		c ^= uint32(x)
		for range 8 {
			c = c>>1 ^ -(c&1)&0x82f63b78
		}
	}
	return ^c
}

func TestCRC32cIsThatOfSCTP(t *testing.T) {
	b := make([]byte, 300)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for n := SCTPLen; n < len(b); n++ {
		if got, want := CRC32c(b[:n]), slowCRC32c(b[:n]); got != want {
			t.Fatalf("CRC32c of %d bytes = %#x, want %#x", n, got, want)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"40", 40}, {"1460", 1460}, {"64000", 64000}} {
		b.Run(size.name, func(b *testing.B) {
			data := make([]byte, size.n)
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			for b.Loop() {
				Sum(data, 0)
			}
		})
	}
}

func BenchmarkUpdatePort(b *testing.B) {
	b.ReportAllocs()
	c := uint16(1)
	for b.Loop() {
		c = UpdatePort(c, Difference4(0x0a090064, 0x0a01000b), 80, 8080)
	}
}
