package conntrack

// Walk calls yield for every entry, templates included, in no order, until it returns false. It copies a few at a time,
// so that workers wait no longer than for each other; an entry made or gone meanwhile may be missed.
func (t *Table) Walk(now int64, yield func(*Conn) bool) {
	var copies [quantum]Conn
	for _, shards := range [...][]shard{t.conns, t.templates} {
		for i := range shards {
			for slot := shards[i].stride; slot != 0; {
				var n int
				n, slot = shards[i].copy(copies[:], slot, now)
				for j := range n {
					if !yield(&copies[j]) {
						return
					}
				}
			}
		}
	}
}

// copy fills copies with the entries from a slot on. next is where to go on, or 0 at the end.
func (s *shard) copy(copies []Conn, slot uint32, now int64) (n int, next uint32) {
	s.lock()
	defer s.unlock()
	tick := tickOf(now)
	for end := slot + 8*quantum*s.stride; slot < s.fresh; slot += s.stride {
		if n == len(copies) || slot == end {
			return n, slot
		}
		e := s.at(slot)
		if e == nil || e.expired(tick) && (e.flags()&Template == 0 || e.children() == 0) {
			continue
		}
		s.fill(&copies[n], slot, e, In, now)
		n++
	}
	return n, 0
}

// Stats is a count of what is in the table and of what happened.
type Stats struct {
	// Conns and Templates are the entries now, those included whose time is up but whose counts weren't taken back yet;
	// States tells them apart by state.
	Conns, Templates int
	States           [NumStates]int
	// Memory is the number of bytes taken from Config.Alloc.
	Memory int
	// Inserts, Expirations and Refused count entries made, entries gone and Full answers.
	Inserts, Expirations, Refused uint64
	// LockWaits counts how often a worker found a shard locked.
	LockWaits uint64
}

// Stats sums the counts of all shards.
func (t *Table) Stats() Stats {
	st := Stats{Memory: int(t.pool.total.Load()), Refused: t.refused.Load()}
	for _, shards := range [...][]shard{t.conns, t.templates} {
		for i := range shards {
			s := &shards[i]
			s.lock()
			for state, n := range s.states {
				st.States[state] += int(n)
			}
			st.Inserts += s.inserts
			st.Expirations += s.expirations
			st.LockWaits += s.waits
			s.unlock()
		}
	}
	for state, n := range st.States {
		if State(state) >= TemplateNone {
			st.Templates += n
		} else {
			st.Conns += n
		}
	}
	return st
}
