package dataplane

import (
	"sync"

	"uvs/dataplane/link"
	"uvs/service"
)

// Stats are the frames that went through a Plane, or through one of its workers. Received is the sum of the others.
type Stats struct {
	Received  uint64
	Bytes     uint64 // of the received frames, Ethernet header included
	Forwarded uint64
	Answered  uint64
	Passed    uint64
	Dropped   uint64
	Held      uint64 // waiting now: in the slow path's queue, for a next hop, for their datagram's other fragments
	// Unsent are the questions given to Ask that found its queue full.
	Unsent uint64
	// LostOfPassages are the packets of passages, either way, that found a full queue.
	LostOfPassages uint64
	// Verdicts has the counts by verdict.
	Verdicts [numVerdicts]uint64
}

func (s *Stats) add(l *ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Received += l.received
	s.Bytes += l.bytes
	for v, n := range l.verdicts {
		s.Verdicts[v] += n
	}
}

// settle sums the verdicts by class.
func (s *Stats) settle() {
	for v, n := range s.Verdicts {
		switch v := Verdict(v); {
		case v.Dropped():
			s.Dropped += n
		case v.Passed():
			s.Passed += n
		case v.Answered():
			s.Answered += n
		default:
			s.Forwarded += n
		}
	}
	if sum := s.Dropped + s.Passed + s.Answered + s.Forwarded; s.Received > sum {
		s.Held = s.Received - sum
	}
}

// Stats sums all workers and the slow path.
func (p *Plane) Stats() Stats {
	var s Stats
	s.add(&p.slow.ledger) // first: what it has counted, a worker has received
	for _, w := range p.workers {
		s.add(&w.ledger)
	}
	s.Unsent, s.LostOfPassages = p.slow.unsent.Load(), p.arrivals.lost.Load()
	s.settle()
	return s
}

// WorkerStats are the counts of worker i. Frames that it handed to the slow path, which all workers share, count as held.
func (p *Plane) WorkerStats(i int) Stats {
	var s Stats
	s.add(&p.workers[i].ledger)
	s.settle()
	return s
}

// Workers is the number of workers.
func (p *Plane) Workers() int { return len(p.workers) }

// LinkStats sums the counters of all links on a port, of those too whose interface has disappeared.
func (p *Plane) LinkStats(port int) link.Stats {
	var sum link.Stats
	p.eachPath(func(w *path) {
		w.mu.Lock() // a link may be replaced
		l := w.tx[port]
		sum.Add(w.legs[port].past)
		w.mu.Unlock()
		sum.Add(l.Stats())
	})
	return sum
}

// AddCounters adds every worker's counts to services, by VirtualService.Index, and servers, by RealServer.Index. They count
// since the process began: a slot that is used again goes on counting.
func (p *Plane) AddCounters(services, servers []service.Counters) {
	p.eachPath(func(w *path) {
		addSlots(&w.mu, services, &w.services, (*service.Counters).Add)
		addSlots(&w.mu, servers, &w.servers, (*service.Counters).Add)
	})
}

// addSlots lets mu, which guards more, go between two blocks.
func addSlots[T any](mu *sync.Mutex, sum []T, more *perIndex[T], add func(*T, T)) {
	for n := 0; len(sum) > 0; n++ {
		mu.Lock()
		if n == len(more.blocks) {
			mu.Unlock()
			return
		}
		block := more.blocks[n]
		some := sum[:min(perBlock, len(sum))]
		for i := range some {
			add(&some[i], block[i])
		}
		mu.Unlock()
		sum = sum[len(some):]
	}
}
