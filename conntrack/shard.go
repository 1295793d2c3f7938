package conntrack

import (
	"sync"

	"uvs/service"
)

// shard is a part of the table with a lock of its own: its entries, their index and their timers. The first shards hold
// connections, the others templates.
//
// Lock order: a connection shard's mu, a template shard's mu, pool.mu. Two connection shards' locks are never held
// together, nor two template shards'.
type shard struct {
	mu    sync.Mutex
	waits uint64 // how often mu wasn't free; this and all below is guarded by mu

	// What every lookup reads lies in the first two cache lines.
	index
	slabs []*slab
	wheel

	free        uint32 // first free slot, linked by next
	fresh       uint32 // the first slot never used; slot 0 stands for none
	id          uint32 // number among the connection shards, or among the template shards
	stride      uint32 // lines of an entry, from one slot to the next: 1 for IPv4, 2 for IPv6
	servers     *service.ServerIndex
	states      [NumStates]uint32
	inserts     uint64
	expirations uint64
	pass        uint32 // the pass of ExpireRemoved that cursor belongs to
	cursor      uint32 // the slot that it looks at next
	progress    progress
	engine      engineIndex // of a template shard
	events      []Event     // what happened to watched connections, of fixed capacity; nil while nobody watches
	watch       *watch

	_ [64]byte // the next shard's lock is on another cache line
}

func (s *shard) lock() {
	if !s.mu.TryLock() {
		s.mu.Lock()
		s.waits++
	}
}

func (s *shard) unlock() { s.mu.Unlock() }

// wide says that s holds entries for IPv6.
func (s *shard) wide() bool { return s.stride == 2 }

// entryMemory is the kind of memory that s takes for entries.
func (s *shard) entryMemory() memoryKind {
	if s.wide() {
		return entry6Memory
	}
	return entryMemory
}

// entry returns the line with number slot; in a shard for IPv6 entries lie at even numbers only.
func (s *shard) entry(slot uint32) *entry {
	return (*entry)(s.slabs[slot/slabLines][slot%slabLines*entrySize:])
}

// at returns the entry that lives in a slot, or nil.
func (s *shard) at(slot uint32) *entry {
	if slot == 0 || slot >= s.fresh || slot&(s.stride-1) != 0 {
		return nil
	}
	if e := s.entry(slot); e.life()&(lifeLive|lifeDying) == lifeLive {
		return e
	}
	return nil
}

// reserve makes sure that a new entry with its items finds room.
func (s *shard) reserve(p *pool) bool {
	if s.free == 0 && s.fresh == uint32(len(s.slabs))*slabLines {
		if s.fresh >= maxSlots {
			return false
		}
		more := p.take(s.entryMemory())
		if more == nil {
			return false
		}
		s.slabs = append(s.slabs, more)
		if s.fresh == 0 {
			s.fresh, s.heads = s.stride, new([wheelSlots]uint32)
		}
	}
	return s.index.reserve(p, 2)
}

// take returns a free slot; reserve was called before.
func (s *shard) take() (uint32, *entry) {
	slot := s.free
	if slot == 0 {
		slot = s.fresh
		s.fresh += s.stride
		e := s.entry(slot)
		e.setGen(1)
		return slot, e
	}
	e := s.entry(slot)
	s.free = e.next()
	return slot, e
}

// give frees a slot.
func (s *shard) give(slot uint32, e *entry) {
	e.setLife(0)
	e.setGen(max((e.gen()+1)&genMask, 1))
	e.setNext(s.free)
	s.free = slot
}

// setState moves e to another state, and its server's counts with it.
func (s *shard) setState(slot uint32, e *entry, state State, rs *service.RealServer) {
	s.states[e.state()]--
	s.states[state]++
	e.putState(state)
	switch f, active := e.flags(), state.active(); {
	case rs == nil:
	case active && f&Inactive != 0:
		e.setFlags(f &^ Inactive)
		rs.SetActive(true)
		if f&Watched != 0 {
			s.tellOf(slot, e, Activated)
		}
	case !active && f&Inactive == 0:
		e.setFlags(f | Inactive)
		rs.SetActive(false)
		if f&Watched != 0 {
			s.tellOf(slot, e, Deactivated)
		}
	}
}
