package dataplane

import (
	"sync"

	"uvs/conntrack"
	"uvs/service"
)

// ledger is one worker's counters. The worker holds mu for a whole batch and then counts by plain additions; a reader
// waits for at most a batch.
type ledger struct {
	mu       sync.Mutex
	received uint64
	bytes    uint64
	verdicts [numVerdicts]uint64
	services []service.Counters // by VirtualService.Index
	servers  []service.Counters // by RealServer.Index
}

// grow makes room for a table's services and servers. mu is held.
func (l *ledger) grow(t *service.Table) {
	if n := t.ServiceSlots; n > len(l.services) {
		l.services = append(l.services, make([]service.Counters, n-len(l.services))...)
	}
	if n := t.ServerSlots; n > len(l.servers) {
		l.servers = append(l.servers, make([]service.Counters, n-len(l.servers))...)
	}
}

func (l *ledger) in(c *conntrack.Conn, bytes int) {
	if i := c.Service; uint64(i) < uint64(len(l.services)) { // service.NoServer is no index on any machine
		s := &l.services[i]
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
	if i := c.RS; uint64(i) < uint64(len(l.servers)) {
		s := &l.servers[i]
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
}

func (l *ledger) out(c *conntrack.Conn, bytes int) {
	if i := c.Service; uint64(i) < uint64(len(l.services)) { // service.NoServer is no index on any machine
		s := &l.services[i]
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
	if i := c.RS; uint64(i) < uint64(len(l.servers)) {
		s := &l.servers[i]
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
}

func (l *ledger) conn(vs *service.VirtualService, rs *service.RealServer) {
	if i := vs.Index; uint64(i) < uint64(len(l.services)) {
		l.services[i].Conns++
	}
	if i := rs.Index; uint64(i) < uint64(len(l.servers)) {
		l.servers[i].Conns++
	}
}
