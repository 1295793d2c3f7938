package decap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"uvs/packet"
)

// Addresses is a set of IPv4 addresses in host order.
type Addresses map[uint32]struct{}

// has says that a is in the set.
func (s Addresses) has(a uint32) bool {
	_, ok := s[a]
	return ok
}

// Rules say whose tunnelled packets are taken, and for which virtual addresses. They don't change.
type Rules struct {
	directors []prefix
	vips      Addresses
}

// prefix is a range of addresses in host order.
type prefix struct{ addr, mask uint32 }

// NewRules returns the rules for tunnels that begin at one of directors and packets to one of vips. All are IPv4 so far.
func NewRules(directors []netip.Prefix, vips []netip.Addr) (*Rules, error) {
	if len(directors) == 0 {
		return nil, errors.New("no director is allowed: name the addresses that tunnelled packets may come from")
	}
	if len(vips) == 0 {
		return nil, errors.New("no virtual address: name those that this server serves")
	}
	r := &Rules{vips: make(Addresses)}
	for _, p := range directors {
		if !p.IsValid() || !p.Addr().Is4() {
			return nil, fmt.Errorf("director %v: only IPv4 directors are possible so far", p)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("director %v: bits are set behind the prefix; the network is %v", p, p.Masked())
		}
		// Shifted by 32, a uint32 is 0: the mask of a prefix of no bits.
		r.directors = append(r.directors, prefix{number(p.Addr()), ^uint32(0) << (32 - p.Bits())})
	}
	for _, a := range vips {
		if !a.Is4() {
			return nil, fmt.Errorf("virtual address %v: only IPv4 addresses are possible so far", a)
		}
		n := number(a)
		if badSource(n) || n>>28 == 0xe {
			return nil, fmt.Errorf("virtual address %v is none that packets can be sent to", a)
		}
		if r.vips.has(n) {
			return nil, fmt.Errorf("virtual address %v is given twice", a)
		}
		r.vips[n] = struct{}{}
	}
	return r, nil
}

// number is an IPv4 address in host order.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// allows says that a tunnel may begin at src.
func (r *Rules) allows(src uint32) bool {
	for _, p := range r.directors {
		if src&p.mask == p.addr {
			return true
		}
	}
	return false
}

// badSource says that no packet on a wire has the source address a (RFC 1122 section 3.2.1.3): "this" network, loopback,
// multicast, class E, broadcast.
func badSource(a uint32) bool { return a>>28 >= 0xe || a>>24 == 127 || a>>24 == 0 }

// Open judges the tunnelled packet in frame, whose outer IP header begins at l3, and finds the packet inside,
// frame[start:end]. It is to be used only if the verdict is Delivered. It is changed in place where the tunnel's
// congestion marks say so, and v, the frame's virtio-net header, comes to describe it: offsets count from start. local
// are the host's own addresses.
//
// An inner checksum is neither verified nor completed, but for what v says of it: the director completes it, and the
// host's stack verifies it.
func (r *Rules) Open(frame []byte, l3 int, v *packet.Vnet, local Addresses) (start, end int, verdict Verdict) {
	if l3 < 0 || l3 > len(frame) {
		return 0, 0, DropOuterHeader
	}
	outer, payload, ok := packet.ParseIPv4(frame[l3:])
	switch {
	case !ok || !packet.IPv4ChecksumOK(frame[l3:]):
		return 0, 0, DropOuterHeader
	case !local.has(outer.Dst()):
		return 0, 0, PassNotLocal
	case outer.IsFragment():
		return 0, 0, DropFragment
	case !r.allows(outer.Src()):
		return 0, 0, DropDirector
	}
	// The kinds of tunnel differ in what stands between the outer header and the inner one.
	switch outer.Proto() {
	case packet.ProtoIPIP: // RFC 2003: nothing
		start = l3 + outer.HeaderLen()
	default:
		return 0, 0, DropProtocol
	}
	n, verdict := r.inner(payload, outer.TOS(), local)
	if verdict != Delivered {
		return 0, 0, verdict
	}
	if !rebase(v, start, payload[:n]) {
		return 0, 0, DropOffload
	}
	return start, start + n, Delivered
}

// inner judges the packet at the start of b, takes over the outer header's congestion mark, and returns its length: what
// stands behind it is padding.
func (r *Rules) inner(b []byte, outerTOS uint8, local Addresses) (int, Verdict) {
	ip, _, ok := packet.ParseIPv4(b)
	if !ok || !packet.IPv4ChecksumOK(b) {
		return 0, DropInnerHeader
	}
	src := ip.Src()
	switch {
	case badSource(src) || r.vips.has(src) || local.has(src):
		return 0, DropSource // the stack would drop one of its own addresses as well, but would not say so
	case !r.vips.has(ip.Dst()):
		return 0, DropNotVIP
	}
	tos, ok := decapsulateECN(ip.TOS(), outerTOS)
	if !ok {
		return 0, DropCongestion
	}
	if tos != ip.TOS() {
		ip.SetTOS(tos)
		packet.FixIPv4Checksum(b)
	}
	return ip.TotalLen(), Delivered
}
