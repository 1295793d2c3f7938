package decap

import (
	"errors"
	"fmt"
	"net/netip"

	"uvs/packet"
)

// Addresses is a set of addresses.
type Addresses map[packet.Addr]struct{}

// has says that a is in the set.
func (s Addresses) has(a packet.Addr) bool {
	_, ok := s[a]
	return ok
}

// Rules say whose tunnelled packets are taken, and for which virtual addresses. They don't change.
type Rules struct {
	directors []prefix
	vips      Addresses
	guePort   uint16
}

// prefix is a range of addresses.
type prefix struct {
	addr packet.Addr
	bits int
}

// NewRules returns the rules for tunnels that begin at one of directors and packets to one of vips, each of either family.
// guePort is the UDP port that GUE comes to; 0 if none is to be taken.
func NewRules(directors []netip.Prefix, vips []netip.Addr, guePort uint16) (*Rules, error) {
	if len(directors) == 0 {
		return nil, errors.New("no director is allowed: name the addresses that tunnelled packets may come from")
	}
	if len(vips) == 0 {
		return nil, errors.New("no virtual address: name those that this server serves")
	}
	r := &Rules{vips: make(Addresses), guePort: guePort}
	for _, p := range directors {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("director %v is no IPv4 or IPv6 network", p)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("director %v: bits are set behind the prefix; the network is %v", p, p.Masked())
		}
		r.directors = append(r.directors, prefix{packet.AddrFrom(p.Addr()), p.Bits()})
	}
	for _, vip := range vips {
		a := packet.AddrFrom(vip)
		switch {
		case vip.Is4In6() || badSource(a):
			return nil, fmt.Errorf("virtual address %v is none that packets can be sent to", vip)
		case r.vips.has(a):
			return nil, fmt.Errorf("virtual address %v is given twice", vip)
		}
		r.vips[a] = struct{}{}
	}
	return r, nil
}

// allows says that a tunnel may begin at src.
func (r *Rules) allows(src packet.Addr) bool {
	for _, p := range r.directors {
		if p.addr.Is4() == src.Is4() && src.Masked(p.bits) == p.addr.Masked(p.bits) {
			return true
		}
	}
	return false
}

// from says that tunnels may begin at an address of IPv6, or of IPv4 if v6 is false.
func (r *Rules) from(v6 bool) bool {
	for _, p := range r.directors {
		if p.addr.Is4() != v6 {
			return true
		}
	}
	return false
}

// badSource says that no packet from a client has the source address a. Of IPv4 (RFC 1122 section 3.2.1.3): "this" network,
// loopback, multicast, class E, broadcast. Of IPv6: unspecified, loopback, IPv4-mapped, link-local, multicast.
func badSource(a packet.Addr) bool {
	if a.Is4() {
		n := a.V4()
		return n>>28 >= 0xe || n>>24 == 127 || n>>24 == 0
	}
	hi, lo := a.Words()
	return hi == 0 && lo <= 1 || hi>>54 == 0xfe80>>6 || hi>>56 == 0xff
}
