package sched

import "uvs/service"

// fo is weighted fail-over as ip_vs_fo.c decides it: the heaviest eligible server takes everything. Ties go to the
// earlier in the list, the server added later.
//
// A decision reads every server of the list once; it keeps no state.
type fo struct{ stateless }

// Pick implements service.Scheduler.
func (fo) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	var best *service.RealServer
	var heaviest int32
	for _, rs := range servers {
		if w := rs.Weight(); w > heaviest && rs.Eligible() {
			best, heaviest = rs, w
		}
	}
	return best
}
