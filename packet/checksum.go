package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// Sum adds the bytes of b, taken as big-endian 16-bit words, to the unfolded sum s (RFC 1071). An odd last byte is padded
// with a zero, so b must have an even length unless it is the last part.
func Sum(b []byte, s uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	s, carry = bits.Add64(s, 0, carry)
	s += carry // cannot carry again: s is 0 if it did before
	if len(b) >= 4 {
		s, carry = bits.Add64(s, uint64(binary.BigEndian.Uint32(b)), 0)
		s += carry
		b = b[4:]
	}
	if len(b) >= 2 {
		s, carry = bits.Add64(s, uint64(binary.BigEndian.Uint16(b)), 0)
		s += carry
		b = b[2:]
	}
	if len(b) == 1 {
		s, carry = bits.Add64(s, uint64(b[0])<<8, 0)
		s += carry
	}
	return s
}

// Fold brings an unfolded sum to 16 bits, end-around carries added. It does not complement.
func Fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// Pseudo4 is the unfolded sum of the IPv4 pseudo-header (RFC 9293 section 3.1); addresses in host order, n the length in
// bytes of the L4 header and payload.
func Pseudo4(src, dst uint32, proto uint8, n int) uint64 {
	return uint64(src) + uint64(dst) + uint64(proto) + uint64(n)
}

// Pseudo6 is the unfolded sum of the IPv6 pseudo-header (RFC 8200 section 8.1); n is the length in bytes of the L4 header
// and payload.
func Pseudo6(src, dst Addr, proto uint8, n int) uint64 {
	return src.sum() + dst.sum() + uint64(proto) + uint64(n)
}

// sum is the unfolded sum of the address's bytes as an IPv6 packet has them, below 2^34.
func (a Addr) sum() uint64 {
	return a.hi>>32 + a.hi&0xffffffff + a.lo>>32 + a.lo&0xffffffff
}

// Sum is the unfolded sum of the address's bytes as a packet of its family has them: what it adds to a pseudo-header.
func (a Addr) Sum() uint64 {
	if a.Is4() {
		return uint64(a.V4())
	}
	return a.sum()
}

// Update16 returns the checksum c after the 16-bit word old below it became new (RFC 1624 equation 3).
func Update16(c, old, new uint16) uint16 {
	return ^Fold(uint64(^c) + uint64(^old) + uint64(new))
}

// Update32 is Update16 for two words at once, such as an IPv4 address.
func Update32(c uint16, old, new uint32) uint16 {
	return ^Fold(uint64(^c) + uint64(^old) + uint64(new))
}

// Difference4 is what an IPv4 address (host order) that took the place of old adds to a sum, in ones' complement.
func Difference4(old, new uint32) uint64 { return uint64(^old) + uint64(new) }

// Difference6 is Difference4 for IPv6 addresses.
func Difference6(old, new Addr) uint64 {
	return 4*0xffffffff - old.sum() + new.sum() // all bits set are a zero: the complement of each of the four words
}

// UpdateDifference returns the checksum c after bytes below it changed by d (see Difference4).
func UpdateDifference(c uint16, d uint64) uint16 { return ^Fold(uint64(^c) + d) }

// UpdatePartial returns the uncomplemented pseudo-header sum c, as it lies in a checksum field that is still to be
// completed (virtio's NEEDS_CSUM), after an address below it changed by d (see Difference4).
func UpdatePartial(c uint16, d uint64) uint16 { return Fold(uint64(c) + d) }

// UpdatePort is UpdateDifference for an address, which changed by d, and a port at once.
func UpdatePort(c uint16, d uint64, old, new uint16) uint16 {
	return ^Fold(uint64(^c) + d + uint64(^old) + uint64(new))
}

// UpdateSum returns the checksum c after bytes below it that summed up to old came to sum up to new, both unfolded.
func UpdateSum(c uint16, old, new uint64) uint16 {
	return ^Fold(uint64(^c) + uint64(^Fold(old)) + uint64(Fold(new)))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// noCRC stands for the checksum field. Were it a variable of CRC32c, it would be allocated.
var noCRC = make([]byte, 4)

// CRC32c is the checksum of the SCTP packet b, common header included and its checksum field taken as 0 (RFC 9260
// section 6.8). b must have SCTPLen bytes.
func CRC32c(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, noCRC)
	return crc32.Update(c, castagnoli, b[SCTPLen:])
}

// Word is the 16-bit word at the start of b.
func Word(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

// SetWord writes the 16-bit word w, such as a checksum, to the start of b.
func SetWord(b []byte, w uint16) { binary.BigEndian.PutUint16(b, w) }
