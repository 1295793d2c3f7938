package sched

import (
	"math/bits"

	"uvs/packet"
)

// The hash functions below are frozen: two directors that hash alike send a client to the same server, and the kernel's
// own directors since 4.17 hash as these do.

// fold is an address as one 32-bit word: an IPv4 address itself, of an IPv6 address its four words XORed.
func fold(a packet.Addr) uint32 {
	if a.Is4() {
		return a.V4()
	}
	hi, lo := a.Words()
	x := hi ^ lo
	return uint32(x>>32) ^ uint32(x)
}

// hash32 is the kernel's hash_32 (include/linux/hash.h): the top n bits of v times the golden ratio.
func hash32(v uint32, n uint) uint32 { return v * 0x61c88647 >> (32 - n) }

// hsiphash is the kernel's hsiphash of one 32-bit word as 64-bit machines compute it (lib/siphash.c): SipHash-1-3 with
// both halves of the key equal to key, cut to its low 32 bits.
func hsiphash(word uint32, key uint64) uint32 {
	v0, v1, v2, v3 := key^0x736f6d6570736575, key^0x646f72616e646f6d, key^0x6c7967656e657261, key^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	const length = 4 << 56 // SipHash ends with the input's length in the top byte
	block := length | uint64(word)
	v3 ^= block
	round()
	v0 ^= block
	v2 ^= 0xff
	for range 3 {
		round()
	}
	return uint32(v0 ^ v1 ^ v2 ^ v3)
}
