package control

import "uvs/service"

// serviceSlots gives virtual services their Index. A deleted service's slot isn't free at once: its removed servers may
// have connections that count under it, and if the service is added again meanwhile it gets this very slot back.
type serviceSlots struct {
	free     []uint32
	next     uint32
	retained map[service.Key]uint32 // of deleted services with servers in the trash
	retired  [2][]uint32            // given up in this and the last tick; counters may not have settled
}

func newServiceSlots() serviceSlots { return serviceSlots{retained: map[service.Key]uint32{}} }

// take returns a slot for a service. stale says that connections of an earlier one still count under it.
func (s *serviceSlots) take(k service.Key) (index uint32, stale bool) {
	if index, stale = s.retained[k]; stale {
		delete(s.retained, k)
		return index, true
	}
	if n := len(s.free); n > 0 {
		index = s.free[n-1]
		s.free = s.free[:n-1]
		return index, false
	}
	s.next++
	return s.next - 1, false
}

// give returns the slot of a deleted service, which keeps it while it has servers in the trash.
func (s *serviceSlots) give(k service.Key, index uint32, inTrash bool) {
	if inTrash {
		s.retained[k] = index
	} else {
		s.retired[0] = append(s.retired[0], index)
	}
}

// release gives up the slot of a deleted service whose last server was forgotten.
func (s *serviceSlots) release(k service.Key) {
	if index, ok := s.retained[k]; ok {
		delete(s.retained, k)
		s.retired[0] = append(s.retired[0], index)
	}
}

// tick makes the slots free that were given up before the last tick.
func (s *serviceSlots) tick() {
	s.free = append(s.free, s.retired[1]...)
	s.retired[1], s.retired[0] = s.retired[0], nil
}
