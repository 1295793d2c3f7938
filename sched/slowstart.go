package sched

import (
	"slices"
	"sync/atomic"
	"time"

	"uvs/service"
)

// SlowStart lets servers that come into a service take their share of the new connections little by little, whatever the
// scheduler. It belongs to one virtual service and to one goroutine at a time; what Wrap returns belongs to the workers.
//
// The scheduler decides as ever. But a server that is starting must be admitted: over the connections of the service it has at
// most the part of its fair share that its time so far is of the whole, and what is too much for it is decided once more by a
// second scheduler of the same kind, which knows only the servers that aren't starting. So weights need not be divisible, a
// least-connection scheduler doesn't flood the server that has none, and a client that a hash leads to a server either goes there
// or to where it would go if that server weren't there, and changes over once. When nobody else can take a connection, the
// server that is starting takes it.
//
// What a fair share is goes by the scheduler (fairShares): by weight; the same for all with rr and lc, which ignore weights; all
// connections with fo and ovf, which fill one server before the next; and with the hashes that part of the server's clients.
type SlowStart struct {
	starts []*start
	picks  *atomic.Uint32 // decisions of the service while servers start
}

// start is a server that is starting.
type start struct {
	rs            *service.RealServer
	begin, length int64 // on the clock of Request.Now, ns
	// credit is how many connections it may take now, in units of 1/creditOne, below, and above the number of decisions up to
	// which it was reckoned.
	credit atomic.Uint64
}

const (
	creditOne = 1 << 24
	creditCap = 2 * creditOne // what a server may save up while the scheduler doesn't choose it
	// leastShare is the part of its share that a server begins with.
	leastShare = 0.05
)

// share is a server's fair share of the connections, as a rule.
type share uint8

const (
	byWeight share = iota
	alike
	whole
	bySource
	byDestination
)

// fairShares are those that aren't by weight.
var fairShares = map[string]share{
	"rr": alike, "lc": alike, "fo": whole, "ovf": whole, "sh": bySource, "mh": bySource, "dh": byDestination,
}

// Begin has a server start now, for so long. One that is starting already starts anew.
func (s *SlowStart) Begin(rs *service.RealServer, now int64, length time.Duration) {
	s.End(rs)
	if length <= 0 {
		return
	}
	if s.picks == nil {
		s.picks = new(atomic.Uint32)
	}
	x := &start{rs: rs, begin: now, length: int64(length)}
	x.credit.Store(uint64(s.picks.Load()) << 32)
	s.starts = append(s.starts, x)
}

// End takes a server's slow start from it.
func (s *SlowStart) End(rs *service.RealServer) {
	s.starts = slices.DeleteFunc(s.starts, func(x *start) bool { return x.rs == rs })
}

// Share is the part of its fair share that a server may have: 1 if it isn't starting.
func (s *SlowStart) Share(rs *service.RealServer, now int64) float64 {
	for _, x := range s.starts {
		if x.rs == rs {
			return x.share(now)
		}
	}
	return 1
}

// Over says that servers were starting and none is any more, so that the scheduler may be published bare.
func (s *SlowStart) Over(now int64) bool {
	return len(s.starts) > 0 && !slices.ContainsFunc(s.starts, func(x *start) bool { return x.share(now) < 1 })
}

// Wrap returns what decides in full's place while servers of the list are starting, else full itself: then slow start costs
// nothing. full is New(name, flags), prepared for the list; the weights are the staged ones.
func (s *SlowStart) Wrap(c *Config, name string, flags service.SchedFlags, full service.Scheduler, servers []*service.RealServer, now int64) service.Scheduler {
	s.starts = slices.DeleteFunc(s.starts, func(x *start) bool { return x.share(now) >= 1 })
	if len(s.starts) == 0 || full == nil {
		return full
	}
	starting := make(map[*service.RealServer]*admission, len(s.starts))
	for _, x := range s.starts {
		starting[x.rs] = &admission{start: x}
	}
	w := &slowStart{full: full, picks: s.picks, starting: starting, kind: fairShares[name], flags: flags}
	sum := 0.0
	for _, rs := range servers {
		sum += w.counts(rs)
		if starting[rs] == nil {
			w.settled = append(w.settled, rs)
		}
	}
	if len(w.settled) == len(servers) {
		return full
	}
	for rs, a := range starting {
		if a.fair = 1; w.kind != whole && sum > 0 {
			a.fair = w.counts(rs) / sum
		}
	}
	rest, err := c.New(name, flags)
	if err != nil {
		panic("sched: " + err.Error()) // full has the same name
	}
	rest.Prepare(w.settled)
	w.rest = rest
	return w
}

// share is the part that the server may have at a time.
func (x *start) share(now int64) float64 {
	elapsed := now - x.begin
	if elapsed >= x.length {
		return 1
	}
	return leastShare + (1-leastShare)*float64(max(elapsed, 0))/float64(x.length)
}

// slowStart decides while servers are starting. All but the counters never changes.
type slowStart struct {
	full, rest service.Scheduler
	settled    []*service.RealServer // what rest decides on
	starting   map[*service.RealServer]*admission
	picks      *atomic.Uint32
	kind       share
	flags      service.SchedFlags
}

// admission is a start in one table.
type admission struct {
	*start
	fair float64 // the server's share of the service's connections when it has started
}

// counts is what a server adds to the whole that shares are of.
func (w *slowStart) counts(rs *service.RealServer) float64 {
	weight := float64(max(rs.StagedWeight(), 0))
	if w.kind == alike {
		return min(weight, 1)
	}
	return weight
}

// Pick implements service.Scheduler.
func (w *slowStart) Pick(r *service.Request, servers []*service.RealServer) *service.RealServer {
	n := w.picks.Add(1)
	rs := w.full.Pick(r, servers)
	a := w.starting[rs] // nil for nil
	if a == nil || w.admits(a, r, n) {
		return rs
	}
	if other := w.rest.Pick(r, w.settled); other != nil {
		return other
	}
	return rs
}

// admits says that the server may take this connection, the n-th.
func (w *slowStart) admits(a *admission, r *service.Request, n uint32) bool {
	part := a.share(r.Now)
	if part >= 1 {
		return true
	}
	switch w.kind {
	case bySource:
		return a.chosen(sourceKey(&r.Flow, w.flags), part)
	case byDestination:
		return a.chosen(fold(r.Flow.Dst), part)
	}
	return a.earned(n, part*a.fair)
}

// chosen says that a key of a hash is among the part of its keys that the server has already. It never leaves it.
func (a *admission) chosen(key uint32, part float64) bool {
	return float64(hsiphash(key, uint64(mhServerWord(a.rs))<<16|uint64(a.rs.Addr.Port()))) < part*(1<<32)
}

// earned says that the server has earned a connection, and takes that from it. It earns rate for each decision.
func (a *admission) earned(n uint32, rate float64) bool {
	for {
		was := a.credit.Load()
		since := max(int32(n-uint32(was>>32)), 0) // another worker may have been quicker
		credit := min(float64(uint32(was))+float64(since)*rate*creditOne, creditCap)
		admitted := credit >= creditOne
		if admitted {
			credit -= creditOne
		}
		if a.credit.CompareAndSwap(was, uint64(uint32(was>>32)+uint32(since))<<32|uint64(credit)) {
			return admitted
		}
	}
}

// Fork implements service.Forker.
func (w *slowStart) Fork(r *service.Request) service.Scheduler {
	f := *w
	f.full, f.rest = service.Fork(w.full, r), service.Fork(w.rest, r)
	f.picks = new(atomic.Uint32)
	f.picks.Store(w.picks.Load())
	f.starting = make(map[*service.RealServer]*admission, len(w.starting))
	for rs, a := range w.starting {
		x := &start{rs: rs, begin: a.begin, length: a.length}
		x.credit.Store(a.credit.Load())
		f.starting[rs] = &admission{start: x, fair: a.fair}
	}
	return &f
}

// Changed implements service.Scheduler. The schedulers inside are told by who has them; what is here is made anew.
func (*slowStart) Changed(service.Change) {}

// Prepare implements service.Scheduler.
func (*slowStart) Prepare([]*service.RealServer) {}
