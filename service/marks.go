package service

import (
	"math/bits"
	"net/netip"

	"uvs/packet"
)

// AnyInterface in a MarkRule stands for all of them.
const AnyInterface = -1

// MaxMarkRules is the most rules that one classifier takes.
const MaxMarkRules = 1 << 14

// PortRange is the ports from First to Last, both included, in host order. The zero value is every port.
type PortRange struct{ First, Last uint16 }

// Any says that the range is every port.
func (r PortRange) Any() bool { return r == PortRange{} || r == PortRange{0, 65535} }

// MarkRule gives a mark to the packets from clients that meet all of its conditions. It stands in for netfilter's MARK
// target, which a packet taken by AF_PACKET has never passed.
type MarkRule struct {
	// Mark is what such a packet gets, never 0.
	Mark uint32
	// Interface is the index of the port that the packet came in by, or AnyInterface.
	Interface int
	// Src and Dst are where it comes from and goes to; the invalid netip.Prefix is anywhere, in both families.
	Src, Dst netip.Prefix
	// Proto is its protocol, 0 for every one.
	Proto Proto
	// SrcPorts and DstPorts are its ports. A rule with ports and without protocol takes TCP, UDP and SCTP.
	SrcPorts, DstPorts PortRange
}

// host returns the one address that the rule's destination is, if it is one.
func (r *MarkRule) host() (packet.Addr, bool) {
	if !r.Dst.IsValid() || !r.Dst.IsSingleIP() {
		return packet.Addr{}, false
	}
	return packet.AddrFrom(r.Dst.Addr()), true
}

// Marks is a list of rules made ready for packets: of the rules that a packet meets the first in order decides. It is
// immutable and may be shared by successive tables.
//
// It is an aggregated bit vector (Baboescu and Varghese, "Scalable packet classification", SIGCOMM 2001): for each
// aspect of a packet (interface and protocol, addresses, ports) one lookup yields the set of rules that agree with it,
// and the sets are intersected. A set is kept as one bit for each block of 64 rules, and the words of those blocks alone
// that have a rule; what a rule doesn't care about is kept apart, once for all packets. So a thousand rules cost the
// lookups that ten cost, the intersection of one more word, and as many blocks as may decide: nearly always one.
type Marks struct {
	rules   []MarkRule
	marks   []uint32 // by rule
	aspects []aspect
	groups  int // words of one bit a block
}

// An aspect is one thing about a packet that rules ask for. The first one of a Marks is always where.
type aspect struct {
	kind aspectKind
	// wild are the rules that don't care, a word for each block, and wildBlocks the blocks that have such a rule.
	wild       []uint64
	wildBlocks [maxGroups]uint64
	sets       []ruleSet // by class; class 0 has no rule
	words      []uint64  // of all sets

	wheres   []uint16         // class by interface and kind of protocol; see whereIndex
	prefixes [2]prefixTree    // class by address, IPv4 and IPv6
	ports    *[1 << 16]uint16 // class by port
}

type aspectKind uint8

const (
	aspectWhere aspectKind = iota
	aspectSrc
	aspectDst
	aspectSrcPort
	aspectDstPort
	numAspects
)

const (
	blockRules = 64
	maxGroups  = MaxMarkRules / blockRules / 64
)

// ruleSet is the rules that want one class of an aspect: a bit for each block that has one, and where in words the words
// of those blocks begin.
type ruleSet struct {
	blocks [maxGroups]uint64
	at     uint32
	ranks  [maxGroups]uint16 // words before those of each group
}

// word is the set's part in a block.
func (s *ruleSet) word(words []uint64, block int) uint64 {
	g, bit := block/64, uint64(1)<<(block%64)
	if s.blocks[g]&bit == 0 {
		return 0
	}
	return words[int(s.at)+int(s.ranks[g])+bits.OnesCount64(s.blocks[g]&(bit-1))]
}

// Of returns the mark of a packet from a client that came in by the port with that index, or 0. It does not allocate.
func (m *Marks) Of(f *packet.Flow, port int) uint32 {
	var classes [numAspects]*ruleSet
	for i := range m.aspects {
		a := &m.aspects[i]
		classes[i] = &a.sets[a.class(f, port)]
	}
	for g := range m.groups {
		candidates := ^uint64(0)
		for i := range m.aspects {
			candidates &= m.aspects[i].wildBlocks[g] | classes[i].blocks[g]
		}
		for ; candidates != 0; candidates &= candidates - 1 {
			block := g*64 + bits.TrailingZeros64(candidates)
			rules := ^uint64(0)
			for i := range m.aspects {
				a := &m.aspects[i]
				rules &= a.wild[block] | classes[i].word(a.words, block)
			}
			if rules != 0 {
				return m.marks[block*blockRules+bits.TrailingZeros64(rules)]
			}
		}
	}
	return 0
}

// class is what f is in the aspect's eyes.
func (a *aspect) class(f *packet.Flow, port int) uint32 {
	switch a.kind {
	case aspectSrc:
		return a.prefixes[family(f.Src)].class(f.Src)
	case aspectDst:
		return a.prefixes[family(f.Dst)].class(f.Dst)
	case aspectSrcPort:
		return uint32(a.ports[f.SrcPort])
	case aspectDstPort:
		return uint32(a.ports[f.DstPort])
	default:
		i := whereIndex(port, f.Proto)
		if uint(i) >= uint(len(a.wheres)) {
			i = whereIndex(AnyInterface, f.Proto) // an interface that no rule names
		}
		return uint32(a.wheres[i])
	}
}

// family is 0 for IPv4, 1 for IPv6.
func family(a packet.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// protoKinds are the protocols that a set of its own is made for; all others are one more.
const protoKinds = 4

// whereIndex is the place of an interface and a protocol in aspect.wheres. AnyInterface comes first.
func whereIndex(port int, proto uint8) int {
	kind := 0
	switch Proto(proto) {
	case TCP:
		kind = 1
	case UDP:
		kind = 2
	case SCTP:
		kind = 3
	}
	return (port+1)*protoKinds + kind
}
