package conntrack

// wheel is a hashed timing wheel (Varghese and Lauck 1987, scheme 6): each head lists the entries to look at when its
// slot of time is over. A packet only writes its entry's deadline; when the slot comes, an entry with time left moves
// on. So an entry is never dropped early, and late by no more than a slot: one whose deadline came closer moves at once.
type wheel struct {
	pos    uint32 // the tick with which the slot begins that is looked at next
	linked uint32 // entries in all slots
	dying  uint32 // list of entries that are gone but for their counts
	heads  *[wheelSlots]uint32
}

const (
	slotShift  = 3 // log2 of the ticks in a slot: 0.13 s
	slotTicks  = 1 << slotShift
	wheelSlots = 2048 // four and a half minutes
)

// slotStart is the tick with which tick's slot begins.
func slotStart(tick uint32) uint32 { return tick &^ (slotTicks - 1) }

// ahead is how many slots from pos an entry with that deadline belongs.
func (w *wheel) ahead(deadline uint32) uint32 {
	d := int32(deadline - w.pos)
	if d < 0 {
		return 0 // a worker's time is a little behind that of the one who turned the wheel
	}
	return min(uint32(d)>>slotShift, wheelSlots-1)
}

// link puts an entry in the slot of its deadline, or in the farthest there is.
func (s *shard) link(slot uint32, e *entry, tick uint32) {
	if s.linked == 0 {
		s.pos = slotStart(tick) // nothing was missed
	}
	at := s.pos>>slotShift + s.ahead(e.deadline())
	head := &s.heads[at%wheelSlots]
	e.setArmed(uint16(at))
	e.setPrev(0)
	e.setNext(*head)
	if *head != 0 {
		s.entry(*head).setPrev(slot)
	}
	*head = slot
	s.linked++
}

func (s *shard) unlink(e *entry) {
	prev, next := e.prev(), e.next()
	if prev != 0 {
		s.entry(prev).setNext(next)
	} else {
		s.heads[e.armed()%wheelSlots] = next
	}
	if next != 0 {
		s.entry(next).setPrev(prev)
	}
	s.linked--
}

// arm sets e's deadline, and moves e if it would be looked at too late.
func (s *shard) arm(slot uint32, e *entry, deadline, tick uint32) {
	e.setDeadline(deadline)
	if armed := e.armed() - uint16(s.pos>>slotShift); s.ahead(deadline) < uint32(armed) {
		s.unlink(e)
		s.link(slot, e, tick)
	}
}

// due returns the first entry of the next slot that is over at tick, or 0 if there is none: then everything was looked
// at. It turns the wheel past empty slots, of which every 64th counts as work.
func (s *shard) due(tick uint32, budget *int) uint32 {
	for ; int32(tick-s.pos) >= slotTicks; s.pos += slotTicks {
		if s.linked == 0 {
			s.pos = slotStart(tick)
			break
		}
		if slot := s.heads[s.pos>>slotShift%wheelSlots]; slot != 0 {
			return slot
		}
		if s.pos>>slotShift%64 == 0 {
			*budget--
		}
	}
	return 0
}
