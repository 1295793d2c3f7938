package nexthop

import (
	"net/netip"
	"slices"
	"sync"

	"uvs/packet"
)

// Static is a table of next hops kept by hand: what stands in for a Resolver where there is no kernel to ask, as in tests
// of the packet path over in-memory links. The zero value knows no route at all. All methods may be called at once from
// any goroutine.
type Static struct {
	mu         sync.RWMutex
	addrs      map[packet.Addr]staticAnswer
	prefixes   []staticPrefix // longest first
	generation uint64
	asked      []packet.Addr
	heard      []packet.ARP
}

type staticAnswer struct {
	hop    *Hop
	status Status
}

type staticPrefix struct {
	prefix netip.Prefix
	staticAnswer
}

// Set makes status, and hop if it is Ready, the answer for one address.
func (s *Static) Set(dst packet.Addr, hop *Hop, status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addrs == nil {
		s.addrs = make(map[packet.Addr]staticAnswer)
	}
	s.addrs[dst] = staticAnswer{hop, status}
	s.generation++
}

// SetPrefix makes status, and hop if it is Ready, the answer for the addresses of a prefix that neither Set nor a longer
// prefix speaks for.
func (s *Static) SetPrefix(p netip.Prefix, hop *Hop, status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefixes = slices.DeleteFunc(s.prefixes, func(q staticPrefix) bool { return q.prefix == p.Masked() })
	s.prefixes = append(s.prefixes, staticPrefix{p.Masked(), staticAnswer{hop, status}})
	slices.SortStableFunc(s.prefixes, func(a, b staticPrefix) int { return b.prefix.Bits() - a.prefix.Bits() })
	s.generation++
}

// Lookup returns what was set for dst, or NoRoute.
func (s *Static) Lookup(dst packet.Addr) (*Hop, Status) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := s.addrs[dst]
	if !ok {
		a = staticAnswer{status: NoRoute}
		ip := dst.Netip()
		for i := range s.prefixes {
			if s.prefixes[i].prefix.Contains(ip) {
				a = s.prefixes[i].staticAnswer
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
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.generation
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
