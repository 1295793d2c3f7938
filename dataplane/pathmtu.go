package dataplane

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"uvs/packet"
)

const (
	pathMTULife  = 10 * time.Minute // RFC 1191 section 6.3; Linux's net.ipv4.route.mtu_expires
	pathMTUFresh = pathMTULife / 10 // a report that says the same again is not news for so long
	pathMTUMin   = 552              // Linux's net.ipv4.route.min_pmtu: who reports less wants to do harm to all clients; of IPv6 ipv6MinMTU
	pathMTUMax   = 4096             // addresses remembered
)

// pathMTUs are path MTUs that routers on the way reported, by the address that it leads to. Readers take no lock.
type pathMTUs struct {
	mu  sync.Mutex // serialises writers
	all atomic.Pointer[map[packet.Addr]pathMTU]
}

type pathMTU struct {
	mtu   int
	until int64
}

// limit returns mtu, or less if a router on the way there said so.
func (m *pathMTUs) limit(to packet.Addr, mtu int, now int64) int {
	all := m.all.Load()
	if all == nil {
		return mtu
	}
	if p, ok := (*all)[to]; ok && now < p.until {
		return min(mtu, p.mtu)
	}
	return mtu
}

// learn remembers what a router said. Reports are rare, or say the same again, so the map is copied.
func (m *pathMTUs) learn(to packet.Addr, mtu int, now int64) {
	if to.Is4() {
		mtu = max(mtu, pathMTUMin)
	} else {
		mtu = max(mtu, ipv6MinMTU)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[packet.Addr]pathMTU)
	if all := m.all.Load(); all != nil {
		if old, ok := (*all)[to]; ok && old.mtu == mtu && old.until-now > int64(pathMTULife-pathMTUFresh) {
			return
		}
		maps.Copy(next, *all)
		maps.DeleteFunc(next, func(_ packet.Addr, p pathMTU) bool { return now >= p.until })
	}
	if _, known := next[to]; !known && len(next) >= pathMTUMax {
		return
	}
	next[to] = pathMTU{mtu, now + int64(pathMTULife)}
	m.all.Store(&next)
}
