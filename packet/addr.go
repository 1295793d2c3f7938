package packet

import (
	"cmp"
	"encoding/binary"
	"net/netip"
)

// Addr is an IPv4 or IPv6 address as the packet path carries it: comparable, hashable and without the pointer that a
// netip.Addr holds, so that it may lie in mapped memory and costs the garbage collector nothing. IPv4 addresses are kept
// as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2); such an address never comes from an IPv6 packet, whose decoder refuses
// it. The zero Addr is "no address" and also ::.
type Addr struct{ hi, lo uint64 }

const v4Prefix = 0xffff << 32

// AddrFrom4 returns the address of an IPv4 address in host order.
func AddrFrom4(a uint32) Addr { return Addr{lo: v4Prefix | uint64(a)} }

// AddrFrom16 returns the address of 16 bytes in network order.
func AddrFrom16(b *[16]byte) Addr {
	return Addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// AddrFrom returns a, its zone dropped; the invalid netip.Addr gives the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	b := a.As16()
	return AddrFrom16(&b)
}

// Is4 says that a is an IPv4 address.
func (a Addr) Is4() bool { return a.hi == 0 && a.lo>>32 == 0xffff }

// IsZero says that a is no address.
func (a Addr) IsZero() bool { return a == Addr{} }

// V4 is the IPv4 address in host order. It means nothing unless Is4.
func (a Addr) V4() uint32 { return uint32(a.lo) }

// As16 is the address as 16 bytes in network order.
func (a Addr) As16() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return b
}

// Words returns the two halves of the address, as material for a hash function.
func (a Addr) Words() (hi, lo uint64) { return a.hi, a.lo }

// AddrFromWords is the reverse of Words.
func AddrFromWords(hi, lo uint64) Addr { return Addr{hi, lo} }

// IsMulticast6 says that a is an IPv6 multicast address (RFC 4291 section 2.7).
func (a Addr) IsMulticast6() bool { return a.hi>>56 == 0xff }

// IsLinkLocal6 says that a is an IPv6 address that means something on its own segment alone (RFC 4291 section 2.5.6).
func (a Addr) IsLinkLocal6() bool { return a.hi>>54 == 0xfe80>>6 }

// IsLoopback says that a is one of the addresses by which a host talks to itself: 127.0.0.0/8, ::1.
func (a Addr) IsLoopback() bool { return a.Is4() && a.V4()>>24 == 127 || a == Addr{lo: 1} }

// Netip is a as the rest of the program has it; the zero Addr gives the invalid netip.Addr.
func (a Addr) Netip() netip.Addr {
	if a.IsZero() {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.As16()).Unmap()
}

// Compare is negative if a comes before b in numerical order, positive if behind it; IPv4 addresses are among
// ::ffff:0:0/96.
func (a Addr) Compare(b Addr) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
}

// Masked keeps the first bits of the address (0 to 32 for IPv4, 0 to 128 for IPv6) and clears the others.
func (a Addr) Masked(bits int) Addr {
	if a.Is4() {
		if bits >= 32 {
			return a
		}
		return Addr{lo: v4Prefix | a.lo&0xffffffff&^(1<<(32-max(bits, 0))-1)}
	}
	switch {
	case bits >= 128:
		return a
	case bits > 64:
		return Addr{a.hi, a.lo &^ (1<<(128-bits) - 1)}
	case bits > 0:
		return Addr{a.hi &^ (1<<(64-bits) - 1), 0}
	default:
		return Addr{}
	}
}

// Mask4 keeps the bits of an IPv4 address that mask (host order) has set. ipvsadm allows masks with holes.
func (a Addr) Mask4(mask uint32) Addr { return AddrFrom4(a.V4() & mask) }

// String is the address in the usual notation.
func (a Addr) String() string { return a.Netip().String() }
