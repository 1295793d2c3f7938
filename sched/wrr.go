package sched

import (
	"sync/atomic"

	"uvs/service"
)

// wrr is weighted round-robin as ip_vs_wrr.c decides it, in sweeps over the list with a falling bar: the next server
// after the cursor whose weight reaches the bar; at the end of the list the bar falls by the greatest common divisor of
// the weights, and from below 1 it goes back to the top (the highest weight, less divisor-1, so that the last sweep is
// at 1). It is not smooth: weights 4 and 1 give A A A A B.
//
// Any change to the list, even an edit that changes nothing, puts the cursor back to the head of the list but keeps the
// bar, clamped to the new top or moved to the last step above a multiple of the new divisor; hence a new service's first
// sweep usually is at 1, each server once. A refused request puts the cursor to the head and the bar to the top, but
// for one that began in the middle of a sweep at 1, which changes nothing.
//
// A decision costs at most four sweeps, usually a step or two, and one compare-and-swap: cursor and bar are one word, so
// workers share them without a lock and a worker that loses the race decides again.
type wrr struct {
	params atomic.Pointer[wrrParams]
	state  atomic.Uint64 // wrrState

	// The rest belongs to Changed and Prepare. Changes gather here, so that requests don't meet half of them.
	weights map[*service.RealServer]int32
	counts  map[int32]int // how many servers have a weight above 0
	next    wrrParams
	bar     int64
	changed bool // next and bar are to be put into force
}

// wrrParams derive from the weights.
type wrrParams struct {
	top  int64 // where the bar starts; 0 when all weights are 0
	step int64 // how far it falls at the end of a sweep
}

// wrrState is the chosen server's index plus one (0: before the head) above the bar's 32 bits.
type wrrState uint64

func makeWRRState(after int, bar int64) wrrState { return wrrState(after)<<32 | wrrState(uint32(bar)) }

func (s wrrState) after() int { return int(s >> 32) }
func (s wrrState) bar() int64 { return int64(uint32(s)) }

func newWRR() *wrr {
	w := &wrr{counts: map[int32]int{}}
	w.params.Store(&wrrParams{step: 1})
	return w
}

// Pick implements service.Scheduler.
func (w *wrr) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	for {
		was := wrrState(w.state.Load())
		p := w.params.Load()
		if p.top == 0 {
			return nil
		}
		rs, now := p.pick(servers, was)
		if w.state.CompareAndSwap(uint64(was), uint64(now)) {
			return rs
		}
	}
}

// Fork implements service.Forker.
func (w *wrr) Fork(*service.Request) service.Scheduler {
	f := new(wrr)
	f.params.Store(w.params.Load())
	f.state.Store(w.state.Load())
	return f
}

// pick is the decision: the server, and the state after it.
func (p *wrrParams) pick(servers []*service.RealServer, s wrrState) (*service.RealServer, wrrState) {
	first := s.after() // 0 when this request starts at the head
	if first > len(servers) {
		first = 0 // a worker that still holds a shorter list
	}
	i, bar := first, s.bar()
	stop := -1           // where a second round ends that began in the middle of the list
	lastSweep := false   // this sweep sees the whole list with the bar at its lowest
	restarted := false   // the bar went back to the top once
	heaviest := int64(0) // eligible weight seen in this sweep
	for {
		whole := i == 0
		for ; i < len(servers); i++ {
			if rs := servers[i]; !rs.Overloaded() {
				weight := int64(rs.Weight())
				if weight >= bar && weight > 0 {
					return rs, makeWRRState(i+1, bar)
				}
				heaviest = max(heaviest, weight)
			}
			if i == stop {
				return nil, makeWRRState(first, bar) // the cursor stays
			}
		}
		fall := p.step
		if target := max(heaviest, p.step); whole && bar-fall > target {
			// No server reaches the bar before it has fallen to the heaviest: the kernel sweeps once for each step
			// down to there, which takes seconds when the only heavy server of some millions is overloaded.
			fall = (bar - target + p.step - 1) / p.step * p.step
		}
		bar -= fall
		if bar <= 0 {
			bar = p.top
			if lastSweep || first == 0 {
				return nil, makeWRRState(0, bar)
			}
			restarted = true
		}
		lastSweep = bar <= p.step
		if lastSweep && restarted && first != 0 {
			stop = first - 1
		}
		i, heaviest = 0, 0
	}
}

// Changed implements service.Scheduler.
func (w *wrr) Changed(c service.Change) {
	if c.Kind == service.ServiceEdited {
		return
	}
	if !w.changed {
		w.changed = true
		w.bar = wrrState(w.state.Load()).bar()
	}
	if w.weights == nil {
		w.weigh(c.After)
	} else {
		w.reweigh(c)
	}
	if w.bar == 0 || w.bar > w.next.top {
		w.bar = w.next.top
	} else if w.next.step > 1 {
		w.bar = w.bar/w.next.step*w.next.step + 1
	}
}

// Prepare implements service.Scheduler. The first one starts the sequence: the bar at the top, the cursor at the head.
func (w *wrr) Prepare(servers []*service.RealServer) {
	if w.weights == nil {
		w.weigh(servers)
		w.bar, w.changed = w.next.top, true
	}
	if w.changed {
		w.changed = false
		p := w.next
		w.params.Store(&p)
		w.state.Store(uint64(makeWRRState(0, w.bar)))
	}
}

// weigh takes up a whole list.
func (w *wrr) weigh(servers []*service.RealServer) {
	w.weights = make(map[*service.RealServer]int32, len(servers))
	for _, rs := range servers {
		w.put(rs)
	}
	w.derive()
}

// reweigh takes up one change. Ten thousand changes to one service in a row must not look at the whole list each time.
func (w *wrr) reweigh(c service.Change) {
	old, had := w.weights[c.Server]
	if had && old > 0 {
		if w.counts[old]--; w.counts[old] == 0 {
			delete(w.counts, old)
		}
	}
	if c.Kind == service.ServerRemoved {
		delete(w.weights, c.Server)
	} else {
		w.put(c.Server)
	}
	w.derive()
}

func (w *wrr) put(rs *service.RealServer) {
	weight := rs.StagedWeight()
	w.weights[rs] = weight
	if weight > 0 {
		w.counts[weight]++
	}
}

// derive makes the parameters from the different weights there are.
func (w *wrr) derive() {
	var divisor, heaviest int64
	for weight := range w.counts {
		heaviest = max(heaviest, int64(weight))
		divisor = gcd(divisor, int64(weight))
	}
	divisor = max(divisor, 1)
	w.next = wrrParams{top: heaviest - (divisor - 1), step: divisor}
}

// gcd is the greatest common divisor; gcd(0, b) is b.
func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
