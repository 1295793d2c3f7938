package sched

import "uvs/service"

// nq is never-queue as ip_vs_nq.c decides it: the first eligible server in the list without an active connection,
// whatever its weight; when all are busy, as sed. For UDP, which is always inactive, it stays with the first of the
// list, the server added last.
//
// A decision reads the list up to the first idle server; it keeps no state.
type nq struct{ stateless }

// Pick implements service.Scheduler.
func (nq) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	return shortestDelay(servers, true)
}
