package dataplane

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"uvs/dataplane/nexthop"
	"uvs/packet"
)

// signs tells who waits for a sign of life of a station on a port's segment.
type signs struct {
	waiting atomic.Int32
	mu      sync.Mutex // guards of
	of      map[announced][]chan struct{}
}

const (
	aliveTries    = 3
	aliveInterval = 400 * time.Millisecond
)

// Alive asks a neighbour on a port's segment by ARP or neighbour discovery whether it is there, in the name of from, an
// address of ours of the same family. The kernel's knowledge of it, which may be old, is neither asked nor changed.
func (p *Plane) Alive(ctx context.Context, port int, from, neighbour packet.Addr) bool {
	heard := make(chan struct{}, 1)
	k := announced{neighbour, port}
	s := &p.signs
	s.mu.Lock()
	if s.of == nil {
		s.of = make(map[announced][]chan struct{})
	}
	s.of[k] = append(s.of[k], heard)
	s.mu.Unlock()
	s.waiting.Add(1)
	defer func() {
		s.waiting.Add(-1)
		s.mu.Lock()
		defer s.mu.Unlock()
		list := s.of[k]
		for i, c := range list {
			if c == heard {
				s.of[k] = append(list[:i:i], list[i+1:]...)
			}
		}
		if len(s.of[k]) == 0 {
			delete(s.of, k)
		}
	}()
	for range aliveTries {
		p.Ask(port, nexthop.Question{Sender: from, Target: neighbour})
		next := time.NewTimer(aliveInterval)
		select {
		case <-heard:
			next.Stop()
			return true
		case <-ctx.Done():
			next.Stop()
			return false
		case <-next.C:
		}
	}
	return false
}

// tell wakes who waits for a sign of life of that station.
func (s *signs) tell(k announced) {
	if s.waiting.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.of[k] {
		select {
		case c <- struct{}{}:
		default: // it knows
		}
	}
}
