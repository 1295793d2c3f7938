package sched

import (
	"time"

	"uvs/service"
)

// lblc is locality-based least-connection as ip_vs_lblc.c decides it, for clusters of caches: connections to one
// destination address stay with one server. A remembered server is left when it is gone, quiesced, or has more active
// connections than its weight while some server of the service has less than half its own; the upper threshold does not
// count here. Then, and for a new destination, wlc decides and the decision is remembered.
//
// A remembered destination costs the lock of one of 1024 buckets and no allocation; a new one costs a wlc decision and
// an allocation of some 60 bytes. Memory is bounded, see destinations.
type lblc struct {
	stateless
	known *destinations[*service.RealServer]
}

func newLBLC(expiration time.Duration) *lblc {
	return &lblc{known: newDestinations[*service.RealServer](expiration)}
}

// Pick implements service.Scheduler.
func (l *lblc) Pick(r *service.Request, servers []*service.RealServer) *service.RealServer {
	l.known.tick(r.Now)
	b := l.known.bucket(r.Flow.Dst)
	b.mu.Lock()
	var rs *service.RealServer
	if e := b.findLocked(r.Flow.Dst); e != nil {
		e.used = r.Now
		rs = e.what
	}
	b.mu.Unlock()
	if rs != nil && rs.Available() && rs.Weight() > 0 && !crowded(rs, servers) {
		return rs
	}
	if rs = leastPerWeight(servers); rs == nil {
		return nil
	}
	b.mu.Lock()
	if e := b.findLocked(r.Flow.Dst); e != nil {
		e.used, e.what = r.Now, rs
	} else {
		l.known.insertLocked(b, r.Flow.Dst, r.Now, rs)
	}
	b.mu.Unlock()
	return rs
}

// Fork implements service.Forker.
func (l *lblc) Fork(r *service.Request) service.Scheduler {
	return &lblc{known: l.known.fork(r.Flow.Dst, func(rs *service.RealServer) *service.RealServer { return rs })}
}

// crowded says that rs has more active connections than its weight while some server has room for twice as many as it
// has (is_overloaded in ip_vs_lblc.c; nothing to do with thresholds).
func crowded(rs *service.RealServer, servers []*service.RealServer) bool {
	if rs.Active() <= rs.Weight() {
		return false
	}
	for _, other := range servers {
		if 2*int64(other.Active()) < int64(other.Weight()) {
			return true
		}
	}
	return false
}
