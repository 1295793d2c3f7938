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
	if i := int(c.Service); i < len(l.services) {
		s := &l.services[i]
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
	if i := int(c.RS); i < len(l.servers) {
		s := &l.servers[i]
		s.InPkts++
		s.InBytes += uint64(bytes)
	}
}

func (l *ledger) out(c *conntrack.Conn, bytes int) {
	if i := int(c.Service); i < len(l.services) {
		s := &l.services[i]
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
	if i := int(c.RS); i < len(l.servers) {
		s := &l.servers[i]
		s.OutPkts++
		s.OutBytes += uint64(bytes)
	}
}

func (l *ledger) conn(vs *service.VirtualService, rs *service.RealServer) {
	if i := int(vs.Index); i < len(l.services) {
		l.services[i].Conns++
	}
	if i := int(rs.Index); i < len(l.servers) {
		l.servers[i].Conns++
	}
}
