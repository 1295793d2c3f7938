package service

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
)

// NewMarks makes the classifier of a list of rules; of none it is nil, which Table.Mark takes too. The slice is kept. The
// error says which rule makes no sense.
func NewMarks(rules []MarkRule) (*Marks, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	if len(rules) > MaxMarkRules {
		return nil, fmt.Errorf("%d mark rules, the most is %d: %w", len(rules), MaxMarkRules, ErrRange)
	}
	m := &Marks{rules: rules, marks: make([]uint32, len(rules))}
	for i := range rules {
		if err := rules[i].Check(); err != nil {
			return nil, fmt.Errorf("mark rule %d: %w", i+1, err)
		}
		m.marks[i] = rules[i].Mark
	}
	blocks := (len(rules) + blockRules - 1) / blockRules
	m.groups = (blocks + 63) / 64
	for kind := range numAspects {
		b := &aspectBuilder{aspect: aspect{kind: kind, sets: make([]ruleSet, 1)}, scratch: make([]uint64, blocks)}
		if b.build(rules) {
			m.aspects = append(m.aspects, b.aspect)
		}
	}
	return m, nil
}

// Rules are what the classifier was made of, not to be changed.
func (m *Marks) Rules() []MarkRule { return m.rules }

// Check says what is wrong with a rule. The error wraps ErrInvalid.
func (r *MarkRule) Check() error {
	var err error
	switch hasPorts := !r.SrcPorts.Any() || !r.DstPorts.Any(); {
	case r.Mark == 0:
		err = errors.New("the mark is 0, which means none")
	case r.Interface < AnyInterface:
		err = fmt.Errorf("no interface has the index %d", r.Interface)
	case r.Src.IsValid() && r.Dst.IsValid() && r.Src.Addr().Is4() != r.Dst.Addr().Is4():
		err = fmt.Errorf("source %v and destination %v are of different families", r.Src, r.Dst)
	case r.Src.Addr().Is4In6() || r.Dst.Addr().Is4In6():
		err = errors.New("an IPv4 address is written as IPv6")
	case r.Proto != 0 && r.Proto != TCP && r.Proto != UDP && r.Proto != SCTP:
		err = fmt.Errorf("no service has the protocol %v", r.Proto)
	case hasPorts && (r.SrcPorts.First > r.SrcPorts.Last || r.DstPorts.First > r.DstPorts.Last):
		err = errors.New("a range of ports ends before it begins")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

// portsOf is what an aspect of ports asks of a rule.
func portsOf(kind aspectKind, r *MarkRule) PortRange {
	if kind == aspectSrcPort {
		return r.SrcPorts
	}
	return r.DstPorts
}

// prefixOf is what an aspect of addresses asks of a rule.
func prefixOf(kind aspectKind, r *MarkRule) netip.Prefix {
	if kind == aspectSrc {
		return r.Src
	}
	return r.Dst
}

// aspectBuilder makes one aspect's sets.
type aspectBuilder struct {
	aspect
	scratch []uint64 // a set as one word a block
}

// build says whether any rule cares for this aspect at all.
func (b *aspectBuilder) build(rules []MarkRule) bool {
	b.wild = make([]uint64, len(b.scratch))
	switch b.kind {
	case aspectWhere:
		b.buildWheres(rules)
		return true
	case aspectSrc, aspectDst:
		return b.buildPrefixes(rules)
	default:
		return b.buildPorts(rules)
	}
}

// dontCare notes that rule i takes every packet in this aspect.
func (b *aspectBuilder) dontCare(i int) {
	block := i / blockRules
	b.wild[block] |= 1 << (i % blockRules)
	b.wildBlocks[block/64] |= 1 << (block % 64)
}

func (b *aspectBuilder) flip(i int) { b.scratch[i/blockRules] ^= 1 << (i % blockRules) }

// add makes a set of what scratch has and returns its class. An empty one is class 0.
func (b *aspectBuilder) add() uint32 {
	s := ruleSet{at: uint32(len(b.words))}
	for block, word := range b.scratch {
		if word != 0 {
			s.blocks[block/64] |= 1 << (block % 64)
			b.words = append(b.words, word)
		}
	}
	if len(b.words) == int(s.at) {
		return 0
	}
	for g := 1; g < maxGroups; g++ {
		s.ranks[g] = s.ranks[g-1] + uint16(bits.OnesCount64(s.blocks[g-1]))
	}
	b.sets = append(b.sets, s)
	return uint32(len(b.sets) - 1)
}

// union is the class of the rules of a class and some more.
func (b *aspectBuilder) union(class uint32, rules []int) uint32 {
	s := b.sets[class]
	for block := range b.scratch {
		b.scratch[block] = s.word(b.words, block)
	}
	for _, i := range rules {
		b.flip(i)
	}
	return b.add()
}

// buildWheres makes a set for each interface that a rule names, and one for all others, with each kind of protocol. They
// are whole: nothing is wild.
func (b *aspectBuilder) buildWheres(rules []MarkRule) {
	interfaces := 1
	for i := range rules {
		interfaces = max(interfaces, rules[i].Interface+2)
	}
	b.wheres = make([]uint16, interfaces*protoKinds)
	for port := AnyInterface; port < interfaces-1; port++ {
		for _, proto := range [protoKinds]Proto{0, TCP, UDP, SCTP} {
			clear(b.scratch)
			for i := range rules {
				if rules[i].takes(port, proto) {
					b.flip(i)
				}
			}
			b.wheres[whereIndex(port, uint8(proto))] = uint16(b.add())
		}
	}
}

// takes says that a rule agrees with packets of a protocol that came in by a port. Protocol 0 is one without ports.
func (r *MarkRule) takes(port int, proto Proto) bool {
	if r.Interface != AnyInterface && r.Interface != port {
		return false
	}
	if r.Proto == 0 {
		return proto != 0 || r.SrcPorts.Any() && r.DstPorts.Any()
	}
	return r.Proto == proto
}

// buildPrefixes makes a set for each prefix: its rules, and those of all prefixes around it.
func (b *aspectBuilder) buildPrefixes(rules []MarkRule) bool {
	byPrefix := map[netip.Prefix][]int{}
	for i := range rules {
		p := prefixOf(b.kind, &rules[i])
		if !p.IsValid() {
			b.dontCare(i)
			continue
		}
		p = p.Masked()
		byPrefix[p] = append(byPrefix[p], i)
	}
	var lists [2][]prefixRules
	for p, rules := range byPrefix {
		pr := newPrefixRules(p, rules)
		lists[family(pr.addr)] = append(lists[family(pr.addr)], pr)
	}
	for f, list := range lists {
		slices.SortFunc(list, prefixRules.compare)
		b.prefixes[f].root = b.prefixes[f].build(b, list, 0)
	}
	return len(byPrefix) > 0
}

// buildPorts makes a set for each stretch of ports between the ends of ranges.
func (b *aspectBuilder) buildPorts(rules []MarkRule) bool {
	changes := map[int][]int{} // rules that begin or end with a port
	for i := range rules {
		r := portsOf(b.kind, &rules[i])
		if r.Any() {
			b.dontCare(i)
			continue
		}
		changes[int(r.First)] = append(changes[int(r.First)], i)
		changes[int(r.Last)+1] = append(changes[int(r.Last)+1], i)
	}
	if len(changes) == 0 {
		return false
	}
	b.ports = new([1 << 16]uint16)
	ends := slices.Sorted(maps.Keys(changes))
	for n, from := range ends {
		for _, i := range changes[from] {
			b.flip(i)
		}
		to := 1 << 16
		if n+1 < len(ends) {
			to = ends[n+1]
		}
		if class := uint16(b.add()); from < to {
			for port := from; port < to; port++ {
				b.ports[port] = class
			}
		}
	}
	return true
}
