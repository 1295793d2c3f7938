package sched

import "uvs/service"

// ovf is weighted overflow as ip_vs_ovf.c decides it: the heaviest eligible server that has not more active connections
// than its weight; it thus takes weight+1 of them before the next one's turn comes. When all have more, none is picked.
// Ties go to the earlier in the list, the server added later.
//
// A decision reads every server of the list once; it keeps no state.
type ovf struct{ stateless }

// Pick implements service.Scheduler.
func (ovf) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	var best *service.RealServer
	var heaviest int32
	for _, rs := range servers {
		if w := rs.Weight(); w > heaviest && rs.Active() <= w && rs.Eligible() {
			best, heaviest = rs, w
		}
	}
	return best
}
