package dataplane

import (
	"sync"

	"uvs/conntrack"
	"uvs/service"
)

// ledger is one worker's counters. The worker holds mu for a whole batch and then counts by plain additions; a reader
// waits for at most a batch, and the worker for a reader no longer than copying a block takes.
type ledger struct {
	mu       sync.Mutex
	received uint64
	bytes    uint64
	verdicts [numVerdicts]uint64
	services perIndex[service.Counters] // by VirtualService.Index
	servers  perIndex[service.Counters] // by RealServer.Index
	symptoms perIndex[service.Symptoms] // likewise
}

// perIndex is an array that grows without moving: with 100,000 servers, one more must not cost a batch the copy of all.
type perIndex[T any] struct{ blocks []*[perBlock]T }

const perBlock = 512

// at returns the i-th element, or nil if there is none; service.NoServer is never one.
func (a *perIndex[T]) at(i uint32) *T {
	if b := i / perBlock; b < uint32(len(a.blocks)) {
		return &a.blocks[b][i%perBlock]
	}
	return nil
}

// lacks returns the blocks that a lacks for n elements.
func (a *perIndex[T]) lacks(n int) (blocks []*[perBlock]T) {
	for have := len(a.blocks); (have+len(blocks))*perBlock < n; {
		blocks = append(blocks, new([perBlock]T))
	}
	return blocks
}

// makeRoom lets w count a table's services and servers, which it hasn't seen yet. What takes time is done without w.mu; but for
// Publish, which calls this, nobody grows the arrays.
func (w *path) makeRoom(t *service.Table) {
	services, servers, hops := w.services.lacks(t.ServiceSlots), w.servers.lacks(t.ServerSlots), w.hops.lacks(t.ServerSlots)
	symptoms := w.symptoms.lacks(t.ServerSlots)
	if len(services)+len(servers)+len(hops) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services.blocks = append(w.services.blocks, services...)
	w.servers.blocks = append(w.servers.blocks, servers...)
	w.hops.blocks = append(w.hops.blocks, hops...)
	w.symptoms.blocks = append(w.symptoms.blocks, symptoms...)
}

func (l *ledger) in(c *conntrack.Conn, bytes int) {
	if s := l.services.at(c.Service); s != nil {
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
	if s := l.servers.at(c.RS); s != nil {
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
}

func (l *ledger) out(c *conntrack.Conn, bytes int) {
	if s := l.services.at(c.Service); s != nil {
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
	if s := l.servers.at(c.RS); s != nil {
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
}

func (l *ledger) conn(vs *service.VirtualService, rs *service.RealServer) {
	if s := l.services.at(vs.Index); s != nil {
		s.Conns++
	}
	if s := l.servers.at(rs.Index); s != nil {
		s.Conns++
	}
}
