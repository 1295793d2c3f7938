package sched

import "uvs/service"

// forker is a scheduler whose Pick changes something that the next Pick depends on.
type forker interface {
	// fork returns a scheduler that decides r as this one would. Nothing that it does afterwards changes this one.
	fork(r *service.Request) service.Scheduler
}

// Fork returns a scheduler that decides the request r as s would decide it next, ties, cursors and drawn numbers included,
// and whose decision leaves s as it is: what explain asks. It is for one Pick, by the list that s would be given. Fork(nil)
// is nil.
func Fork(s service.Scheduler, r *service.Request) service.Scheduler {
	if f, ok := s.(forker); ok {
		return f.fork(r)
	}
	return s // decides by what it reads; its Pick changes nothing
}

// Operand says in numbers what a scheduler by that name sees in a server, as far as it compares servers one by one: its
// load, and what it is divided by. ok is false for schedulers that go by turns, draws or tables.
func Operand(scheduler string, rs *service.RealServer) (load, weight int64, ok bool) {
	switch scheduler {
	case "wlc", "lblc", "lblcr", "twos":
		return overhead(rs), int64(rs.Weight()), true
	case "lc":
		return overhead(rs), 1, true
	case "sed", "nq":
		return int64(rs.Active()) + 1, int64(rs.Weight()), true
	case "ovf":
		return int64(rs.Active()), int64(rs.Weight()), true
	}
	return 0, 0, false
}
