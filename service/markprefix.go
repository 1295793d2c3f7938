package service

import (
	"cmp"
	"math/bits"
	"net/netip"

	"uvs/packet"
)

// prefixTree tells the class of an address by its longest prefix: a tree of 256 ways a node that skips the bytes which all
// prefixes below have in common, so that hosts of one network lie two or three nodes deep, IPv6's too.
type prefixTree struct {
	nodes []prefixNode
	root  uint32 // a class, or a node if isNode is set; and so is everything called a reference
}

const isNode = 1 << 31

// prefixNode decides on one byte of an address, or, without children, on nothing but the bits it compares.
type prefixNode struct {
	hi, lo, maskHi, maskLo uint64       // what an address must have here
	outside                uint32       // the class of one that hasn't
	inside                 uint32       // the class of one that has, in a node without children
	children               *[256]uint32 // references by the next byte
	low                    bool         // that byte is in lo
	shift                  uint8        // and there it stands
}

// class is the class of an address.
func (t *prefixTree) class(a packet.Addr) uint32 {
	hi, lo := a.Words()
	ref := t.root
	for ref&isNode != 0 {
		n := &t.nodes[ref&^isNode]
		if (hi^n.hi)&n.maskHi|(lo^n.lo)&n.maskLo != 0 {
			return n.outside
		}
		if n.children == nil {
			return n.inside
		}
		word := hi
		if n.low {
			word = lo
		}
		ref = n.children[byte(word>>n.shift)]
	}
	return ref
}

// prefixRules are the rules that name one prefix.
type prefixRules struct {
	addr  packet.Addr
	bits  int // 0 to 128; IPv4's are behind the 96 of ::ffff:0:0
	rules []int
}

func newPrefixRules(p netip.Prefix, rules []int) prefixRules {
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	return prefixRules{packet.AddrFrom(p.Addr()), n, rules}
}

// compare orders by address, then by length.
func (p prefixRules) compare(q prefixRules) int {
	phi, plo := p.addr.Words()
	qhi, qlo := q.addr.Words()
	return cmp.Or(cmp.Compare(phi, qhi), cmp.Compare(plo, qlo), cmp.Compare(p.bits, q.bits))
}

// byteAt is the byte of an address that begins with bit n.
func byteAt(a packet.Addr, n int) byte {
	hi, lo := a.Words()
	if n < 64 {
		return byte(hi >> (56 - n))
	}
	return byte(lo >> (120 - n))
}

// commonBits is how many bits two addresses begin with alike.
func commonBits(a, b packet.Addr) int {
	ahi, alo := a.Words()
	bhi, blo := b.Words()
	if ahi != bhi {
		return bits.LeadingZeros64(ahi ^ bhi)
	}
	return 64 + bits.LeadingZeros64(alo^blo)
}

// node makes a node for the addresses that begin with n bits of a.
func (t *prefixTree) node(a packet.Addr, n int, outside uint32) (ref uint32, made *prefixNode) {
	hi, lo := a.Words()
	// Shifts of 64 and more give 0.
	t.nodes = append(t.nodes, prefixNode{
		hi: hi, lo: lo, maskHi: ^(^uint64(0) >> min(n, 64)), maskLo: ^(^uint64(0) >> max(n-64, 0)), outside: outside,
	})
	return uint32(len(t.nodes)-1) | isNode, &t.nodes[len(t.nodes)-1]
}

// build makes the tree of a sorted list of distinct prefixes, around which prefixes of the given class lie, and returns
// its reference.
func (t *prefixTree) build(b *aspectBuilder, list []prefixRules, around uint32) uint32 {
	switch len(list) {
	case 0:
		return around
	case 1:
		inside := b.union(around, list[0].rules)
		ref, n := t.node(list[0].addr, list[0].bits, around)
		n.inside = inside
		return ref
	}
	key := list[0].addr
	common := commonBits(key, list[len(list)-1].addr)
	for i := range list {
		common = min(common, list[i].bits)
	}
	depth := common &^ 7 // below 128: of two prefixes alike in all bits one would be shorter
	own := around
	if list[0].bits == depth { // at most one, and the first in order
		own = b.union(around, list[0].rules)
		list = list[1:]
	}
	children := new([256]uint32)
	for i := range children {
		children[i] = own
	}
	// Prefixes that end within this byte, the shorter ones first: each lies in those before it or beside them.
	for end := depth + 1; end <= depth+8; end++ {
		for _, p := range list {
			if p.bits == end {
				first := int(byteAt(p.addr, depth))
				class := b.union(children[first], p.rules)
				for i := range 1 << (depth + 8 - end) {
					children[first+i] = class
				}
			}
		}
	}
	for len(list) > 0 {
		var longer []prefixRules
		at := byteAt(list[0].addr, depth)
		for len(list) > 0 && byteAt(list[0].addr, depth) == at {
			if list[0].bits > depth+8 {
				longer = append(longer, list[0])
			}
			list = list[1:]
		}
		children[at] = t.build(b, longer, children[at])
	}
	ref, n := t.node(key, depth, around)
	n.children, n.low = children, depth >= 64
	n.shift = uint8(56 - depth%64)
	return ref
}
