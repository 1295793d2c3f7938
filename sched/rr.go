package sched

import (
	"sync/atomic"

	"uvs/service"
)

// rr is round-robin as ip_vs_rr.c decides it: the next eligible server after the one chosen last, wrapping round at the
// end of the list. The cursor follows its server through additions; when its server is removed it moves to the one
// before it. Nothing else moves it, and a refused request leaves it where it was.
//
// A decision costs one compare-and-swap and as many steps as servers are passed over. Workers share the cursor without a
// lock: a worker that loses the race decides again, so that the sequence is the kernel's.
type rr struct {
	// cursor is the chosen server's distance from the end of the list, 1 for the last, 0 when none was chosen yet.
	// Servers are added at the head, so this number stays right while an index would not.
	cursor atomic.Uint32
}

// Pick implements service.Scheduler.
func (r *rr) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	n := uint32(len(servers))
	for {
		was := r.cursor.Load()
		i := n // as if before the head, where a cursor stands that has not moved yet
		if was <= n {
			i = n - was
		}
		var found *service.RealServer
		for range servers {
			if i++; i >= n {
				i = 0
			}
			if servers[i].Eligible() {
				found = servers[i]
				break
			}
		}
		if found == nil {
			return nil
		}
		if r.cursor.CompareAndSwap(was, n-i) {
			return found
		}
	}
}

// Fork implements service.Forker.
func (r *rr) Fork(*service.Request) service.Scheduler {
	f := new(rr)
	f.cursor.Store(r.cursor.Load())
	return f
}

// Changed implements service.Scheduler: it keeps the cursor on its server, or on the one before a removed one.
func (r *rr) Changed(c service.Change) {
	if c.Kind != service.ServerRemoved {
		return
	}
	gone := uint32(0) // the removed server's distance from the end
	for i, rs := range c.Before {
		if rs == c.Server {
			gone = uint32(len(c.Before) - i)
			break
		}
	}
	for gone != 0 {
		was := r.cursor.Load()
		now := was
		switch {
		case was > gone:
			now = was - 1
		case was == gone && gone == uint32(len(c.Before)):
			now = 0 // the first of the list: nothing before it but the head
		}
		// was == gone otherwise: the server before it moves up to this very distance.
		if r.cursor.CompareAndSwap(was, now) {
			return
		}
	}
}

// Prepare implements service.Scheduler.
func (r *rr) Prepare([]*service.RealServer) {}
