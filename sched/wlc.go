package sched

import "uvs/service"

// wlc is weighted least-connection as ip_vs_wlc.c decides it: the eligible server with the least overhead (256 for each
// active connection, 1 for each inactive one) per unit of weight. Ties go to the earlier in the list, the server added
// later.
//
// A decision reads every server of the list once; it keeps no state.
type wlc struct{ stateless }

// Pick implements service.Scheduler.
func (wlc) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	return leastPerWeight(servers)
}

// leastPerWeight is wlc's decision, which lblc and lblcr fall back on.
func leastPerWeight(servers []*service.RealServer) *service.RealServer {
	var best *service.RealServer
	var bestOverhead, bestWeight int64
	for _, rs := range servers {
		if !rs.Eligible() {
			continue
		}
		// o/w < bestOverhead/bestWeight, multiplied out to stay in integers.
		o, w := overhead(rs), int64(rs.Weight())
		if best == nil || o*bestWeight < bestOverhead*w {
			best, bestOverhead, bestWeight = rs, o, w
		}
	}
	return best
}
