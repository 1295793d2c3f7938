package sched

import "uvs/service"

// Operand says in numbers what the scheduler of that name sees in a server, as far as it compares servers one by one: its
// load, and what that is divided by. ok is false for schedulers that go by turns, draws or tables.
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
