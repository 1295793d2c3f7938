package nexthop

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"uvs/packet"
)

// Static is a table of next hops kept by hand: what stands in for a Resolver where there is no kernel to ask, as in tests
// of the packet path over in-memory links. The zero value knows no route at all. All methods may be called at once from
// any goroutine; Lookup and Generation take no lock.
type Static struct {
	table atomic.Pointer[staticTable]

	mu         sync.Mutex // guards what follows, and is held to replace table
	asked      []packet.Addr
	heard      []packet.ARP
	discovered []packet.NDP
}

// staticTable is immutable.
type staticTable struct {
	addrs      map[packet.Addr]staticAnswer
	prefixes   []staticPrefix // longest first
	generation uint64
}

type staticAnswer struct {
	hop    *Hop
	status Status
}

type staticPrefix struct {
	net  packet.Addr
	bits int
	staticAnswer
}

func (s *Static) change(f func(*staticTable)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &staticTable{addrs: make(map[packet.Addr]staticAnswer), generation: 1}
	if t := s.table.Load(); t != nil {
		maps.Copy(next.addrs, t.addrs)
		next.prefixes, next.generation = slices.Clone(t.prefixes), t.generation+1
	}
	f(next)
	s.table.Store(next)
}

// Set makes status, and hop if it is Ready, the answer for one address.
func (s *Static) Set(dst packet.Addr, hop *Hop, status Status) {
	s.change(func(t *staticTable) { t.addrs[dst] = staticAnswer{hop, status} })
}

// SetPrefix makes status, and hop if it is Ready, the answer for the addresses of a prefix that neither Set nor a longer
// prefix speaks for.
func (s *Static) SetPrefix(p netip.Prefix, hop *Hop, status Status) {
	q := staticPrefix{packet.AddrFrom(p.Masked().Addr()), p.Bits(), staticAnswer{hop, status}}
	s.change(func(t *staticTable) {
		t.prefixes = slices.DeleteFunc(t.prefixes, func(o staticPrefix) bool { return o.net == q.net && o.bits == q.bits })
		t.prefixes = append(t.prefixes, q)
		slices.SortStableFunc(t.prefixes, func(a, b staticPrefix) int { return b.bits - a.bits })
	})
}

// Lookup returns what was set for dst, or NoRoute.
func (s *Static) Lookup(dst packet.Addr) (*Hop, Status) {
	t := s.table.Load()
	if t == nil {
		return nil, NoRoute
	}
	a, ok := t.addrs[dst]
	if !ok {
		a.status = NoRoute
		for i := range t.prefixes {
			p := &t.prefixes[i]
			if dst.Is4() == p.net.Is4() && dst.Masked(p.bits) == p.net {
				a = p.staticAnswer
				break
			}
		}
	}
	if a.status != Ready {
		return nil, a.status
	}
	return a.hop, Ready
}

// Generation changes with every Set and SetPrefix.
func (s *Static) Generation() uint64 {
	if t := s.table.Load(); t != nil {
		return t.generation
	}
	return 0
}

// Resolve notes that dst was asked for.
func (s *Static) Resolve(dst packet.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, dst)
}

// Asked are the addresses that Resolve was called with since the last call, in order.
func (s *Static) Asked() []packet.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked
	s.asked = nil
	return a
}

// HandleNDP notes a packet of neighbour discovery.
func (s *Static) HandleNDP(_ int, n *packet.NDP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discovered = append(s.discovered, *n)
}

// Discovered are the packets that HandleNDP was given since the last call, in order.
func (s *Static) Discovered() []packet.NDP {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.discovered
	s.discovered = nil
	return d
}

// HandleARP notes an ARP packet.
func (s *Static) HandleARP(_ int, a *packet.ARP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, *a)
}

// Heard are the ARP packets that HandleARP was given since the last call, in order.
func (s *Static) Heard() []packet.ARP {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heard
	s.heard = nil
	return h
}
