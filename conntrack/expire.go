package conntrack

import "sync/atomic"

// sweeper shares out the work of Advance among the workers that call it.
type sweeper struct {
	dying  [1 << shardBits / 64]atomic.Uint64 // a bit for each connection shard that has dying entries
	swept  atomic.Int64                       // the slot of time up to which all wheels were turned
	first  atomic.Uint32                      // spreads workers over the shards
	wanted atomic.Uint32                      // passes of ExpireRemoved asked for
	passed atomic.Uint32                      // and done
}

// progress is how far the sweeper has come with one shard. Written with its lock held, read without.
type progress struct {
	swept  atomic.Int64
	passed atomic.Uint32
}

const (
	// quantum is how many entries are looked at before the shard's lock is let go for a moment.
	quantum = 32
	// slotsPerWork is how many slots of a pass through the whole table count as the work of one expiry.
	slotsPerWork = 8
)

// note records that a connection shard has dying entries.
func (w *sweeper) note(shard uint32) { w.dying[shard/64].Or(1 << (shard % 64)) }

// Advance does about budget entries' worth of expiry. Workers call it once per batch or idle wake-up, some times a
// second; it is cheap when nothing is due. It returns true if it stopped for its budget.
func (t *Table) Advance(now int64, budget int) (more bool) {
	w, tick := &t.sweeper, tickOf(now)
	t.pool.look(tick)
	if !t.bury(&budget) {
		return true
	}
	if slot := now >> (tickShift + slotShift); slot > w.swept.Load() {
		// Templates after connections and a slot behind them: what hangs on a template goes first.
		if !t.turn(t.conns, slot, tick, tick, &budget) || !t.turn(t.templates, slot, tick, tick-slotTicks, &budget) {
			return true
		}
		w.swept.Store(slot)
	}
	if pass := w.wanted.Load(); pass != w.passed.Load() {
		if !t.pass(t.conns, pass, &budget) || !t.pass(t.templates, pass, &budget) {
			return true
		}
		w.passed.Store(pass)
	}
	return false
}

// bury takes back the counts of dying entries. It returns false if the budget ran out.
func (t *Table) bury(budget *int) bool {
	for i := range (len(t.conns) + 63) / 64 {
		word := &t.sweeper.dying[i]
		for n, set := 0, word.Load(); set != 0; n, set = n+1, set>>1 {
			if set&1 == 0 {
				continue
			}
			s := &t.conns[i*64+n]
			s.lock()
			for s.dying != 0 && *budget > 0 {
				slot := s.dying
				e := s.entry(slot)
				s.dying = e.next()
				t.release(s, slot, e, false)
				*budget--
			}
			done := s.dying == 0
			if done {
				word.And(^(uint64(1) << n))
			}
			s.unlock()
			if !done {
				return false
			}
		}
	}
	return true
}

// used leaves out the shards for IPv6 as long as there was no IPv6.
func (t *Table) used(shards []shard) []shard {
	if t.pool.wide.Load() {
		return shards
	}
	return shards[:len(shards)/2]
}

// turn turns the wheels of shards to the slots that are over at tick due. It returns false if the budget ran out.
func (t *Table) turn(shards []shard, slot int64, tick, due uint32, budget *int) bool {
	shards = t.used(shards)
	first := t.sweeper.first.Add(1)
	for i := range uint32(len(shards)) {
		s := &shards[(first+i)%uint32(len(shards))]
		if s.progress.swept.Load() >= slot {
			continue
		}
		if !t.sweep(s, tick, due, budget) {
			return false
		}
		s.progress.swept.Store(slot)
	}
	return true
}

func (t *Table) sweep(s *shard, tick, due uint32, budget *int) (done bool) {
	s.lock()
	defer s.unlock()
	for n := 1; ; n++ {
		slot := s.due(due, budget)
		if slot == 0 {
			return true
		}
		if *budget <= 0 {
			return false
		}
		if n%quantum == 0 {
			s.unlock()
			s.lock()
			continue
		}
		*budget--
		e := s.entry(slot)
		switch {
		case !e.expired(tick):
			s.unlink(e)
			s.link(slot, e, tick)
		case e.flags()&Template != 0:
			t.revive(s, slot, e, tick)
		default:
			t.drop(s, slot, e, false)
		}
	}
}

// ExpireRemoved is to be called after a server was removed: with expire_nodest_conn=1, Advance then drops all entries
// whose server is gone, as the kernel does in the background (ip_vs_conn.c, ip_vs_expire_nodest_conn_flush). Otherwise
// it does nothing.
func (t *Table) ExpireRemoved() {
	if t.rules.Load().ExpireNodestConn {
		t.sweeper.wanted.Add(1)
	}
}

// pass looks for entries whose server is gone in all shards. It returns false if the budget ran out.
func (t *Table) pass(shards []shard, pass uint32, budget *int) bool {
	shards = t.used(shards)
	first := t.sweeper.first.Add(1)
	for i := range uint32(len(shards)) {
		s := &shards[(first+i)%uint32(len(shards))]
		if s.progress.passed.Load() == pass {
			continue
		}
		if !t.passShard(s, pass, budget) {
			return false
		}
		s.progress.passed.Store(pass)
	}
	return true
}

func (t *Table) passShard(s *shard, pass uint32, budget *int) (done bool) {
	s.lock()
	defer s.unlock()
	if s.pass != pass {
		s.pass, s.cursor = pass, s.stride
	}
	for n := 1; s.cursor < s.fresh; n++ {
		if *budget <= 0 {
			return false
		}
		slot := s.cursor
		s.cursor += s.stride
		if n%slotsPerWork == 0 {
			*budget--
		}
		if n%quantum == 0 {
			s.unlock()
			s.lock()
		}
		e := s.at(slot)
		if e == nil || e.flags()&Template != 0 && e.children() > 0 {
			continue
		}
		if rs := t.server(e); rs != nil && !rs.Available() && e.life()&lifeCut == 0 {
			t.drop(s, slot, e, true)
			*budget--
		}
	}
	return true
}
