package sched

import "uvs/service"

// sed is shortest expected delay as ip_vs_sed.c decides it: the eligible server with the least (active+1) per unit of
// weight. Inactive connections don't count, so for UDP, which is always inactive, it stays with the heaviest server.
// Ties go to the earlier in the list, the server added later.
//
// A decision reads every server of the list once; it keeps no state.
type sed struct{ stateless }

// Pick implements service.Scheduler.
func (sed) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	return shortestDelay(servers, false)
}

// shortestDelay is sed's decision; with idleFirst it is nq's: the first eligible server without an active connection
// wins outright.
func shortestDelay(servers []*service.RealServer, idleFirst bool) *service.RealServer {
	var best *service.RealServer
	var bestDelay, bestWeight int64
	for _, rs := range servers {
		if !rs.Eligible() {
			continue
		}
		active, w := int64(rs.Active()), int64(rs.Weight())
		if idleFirst && active == 0 {
			return rs
		}
		if best == nil || (active+1)*bestWeight < bestDelay*w {
			best, bestDelay, bestWeight = rs, active+1, w
		}
	}
	return best
}
