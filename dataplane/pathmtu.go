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
	pathMTUMax   = 4096             // servers remembered
)

// pathMTUs are the path MTUs to real servers behind tunnels that routers on the way reported. Readers take no lock.
type pathMTUs struct {
	mu  sync.Mutex // serialises writers
	all atomic.Pointer[map[packet.Addr]pathMTU]
}

type pathMTU struct {
	mtu   int
	until int64
}

// limit returns mtu, or less if a router on the way to server said so.
func (m *pathMTUs) limit(server packet.Addr, mtu int, now int64) int {
	all := m.all.Load()
	if all == nil {
		return mtu
	}
	if p, ok := (*all)[server]; ok && now < p.until {
		return min(mtu, p.mtu)
	}
	return mtu
}

// learn remembers what a router said. Reports are rare, or say the same again, so the map is copied.
func (m *pathMTUs) learn(server packet.Addr, mtu int, now int64) {
	if server.Is4() {
		mtu = max(mtu, pathMTUMin)
	} else {
		mtu = max(mtu, ipv6MinMTU)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[packet.Addr]pathMTU)
	if all := m.all.Load(); all != nil {
		if old, ok := (*all)[server]; ok && old.mtu == mtu && old.until-now > int64(pathMTULife-pathMTUFresh) {
			return
		}
		maps.Copy(next, *all)
		maps.DeleteFunc(next, func(_ packet.Addr, p pathMTU) bool { return now >= p.until })
	}
	if _, known := next[server]; !known && len(next) >= pathMTUMax {
		return
	}
	next[server] = pathMTU{mtu, now + int64(pathMTULife)}
	m.all.Store(&next)
}
