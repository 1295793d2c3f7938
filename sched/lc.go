package sched

import "uvs/service"

// lc is least-connection as ip_vs_lc.c decides it: the eligible server with the least overhead (256 for each active
// connection, 1 for each inactive one). The weight only says whether the server takes part. Ties go to the earlier in
// the list, the server added later.
//
// A decision reads every server of the list once; it keeps no state.
type lc struct{ stateless }

// Pick implements service.Scheduler.
func (lc) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	var best *service.RealServer
	var least int64
	for _, rs := range servers {
		if !rs.Eligible() {
			continue
		}
		if o := overhead(rs); best == nil || o < least {
			best, least = rs, o
		}
	}
	return best
}
