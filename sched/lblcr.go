package sched

import (
	"slices"
	"time"

	"uvs/service"
)

// lblcr is locality-based least-connection with replication as ip_vs_lblcr.c decides it: connections to one destination
// address go to the least loaded member of a set of servers that belongs to it (as wlc, over the members that are there
// and eligible; of equals the one that joined last). When that member is crowded as lblc has it, or none is left, wlc
// picks among all and its choice joins the set. A set of several that hasn't changed for the expiration time loses its
// most loaded member; that member may still take the very connection that found it.
//
// A remembered destination costs the lock of one of 1024 buckets and no allocation; a new one or a new member costs a
// wlc decision and an allocation. Memory is bounded, see destinations.
type lblcr struct {
	stateless
	known *destinations[serverSet]
}

// serverSet is the servers of one destination, the latest first.
type serverSet struct {
	members []*service.RealServer
	changed int64 // Request.Now when a member came or went
}

func newLBLCR(expiration time.Duration) *lblcr {
	return &lblcr{known: newDestinations[serverSet](expiration)}
}

// Pick implements service.Scheduler.
func (l *lblcr) Pick(r *service.Request, servers []*service.RealServer) *service.RealServer {
	l.known.tick(r.Now)
	b := l.known.bucket(r.Flow.Dst)
	b.mu.Lock()
	var rs *service.RealServer
	if e := b.findLocked(r.Flow.Dst); e != nil {
		e.used = r.Now
		rs = e.what.least()
		if len(e.what.members) > 1 && r.Now-e.what.changed > l.known.expiration.Load() {
			e.what.dropMost(r.Now)
		}
	}
	b.mu.Unlock()
	if rs != nil && !crowded(rs, servers) {
		return rs
	}
	if rs = leastPerWeight(servers); rs == nil {
		return nil
	}
	b.mu.Lock()
	if e := b.findLocked(r.Flow.Dst); e != nil {
		e.used = r.Now
		e.what.add(rs, r.Now)
	} else {
		l.known.insertLocked(b, r.Flow.Dst, r.Now, serverSet{[]*service.RealServer{rs}, r.Now})
	}
	b.mu.Unlock()
	return rs
}

// Fork implements service.Forker.
func (l *lblcr) Fork(r *service.Request) service.Scheduler {
	return &lblcr{known: l.known.fork(r.Flow.Dst, func(s serverSet) serverSet {
		s.members = slices.Clone(s.members)
		return s
	})}
}

// least is the eligible member, still in its service, with the least overhead per weight, or nil.
func (s *serverSet) least() *service.RealServer {
	var best *service.RealServer
	var bestOverhead, bestWeight int64
	for _, rs := range s.members {
		if !rs.Eligible() || !rs.Available() {
			continue
		}
		o, w := overhead(rs), int64(rs.Weight())
		if best == nil || o*bestWeight < bestOverhead*w {
			best, bestOverhead, bestWeight = rs, o, w
		}
	}
	return best
}

// dropMost removes the member with the most overhead per weight; quiesced members stay.
func (s *serverSet) dropMost(now int64) {
	most := -1
	var mostOverhead, mostWeight int64
	for i, rs := range s.members {
		o, w := overhead(rs), int64(rs.Weight())
		if w > 0 && (most < 0 || o*mostWeight > mostOverhead*w) {
			most, mostOverhead, mostWeight = i, o, w
		}
	}
	if most >= 0 {
		s.members = slices.Delete(s.members, most, most+1)
		s.changed = now
	}
}

// add puts rs first unless it is a member.
func (s *serverSet) add(rs *service.RealServer, now int64) {
	if !slices.Contains(s.members, rs) {
		s.members = slices.Insert(s.members, 0, rs)
		s.changed = now
	}
}
