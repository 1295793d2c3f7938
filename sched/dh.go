package sched

import (
	"sync/atomic"

	"uvs/service"
)

const (
	hashBits    = 8
	hashBuckets = 1 << hashBits
)

// hashTable is the assignment of sh and dh: nil buckets when there are no servers at all.
type hashTable [hashBuckets]*service.RealServer

// dh is destination hashing as ip_vs_dh.c decides it: the address that the client asked for chooses one of 256 buckets,
// over which the servers were dealt out in turn, whatever their weights. When the bucket's server is quiesced,
// overloaded or gone, the connection is refused; nothing is tried beside it. A service with one VIP uses one server.
//
// A decision costs one multiplication and one load. The table is built by Prepare and swapped whole.
type dh struct {
	table atomic.Pointer[hashTable]
}

// Pick implements service.Scheduler.
func (d *dh) Pick(r *service.Request, _ []*service.RealServer) *service.RealServer {
	t := d.table.Load()
	if t == nil {
		return nil
	}
	rs := t[hash32(fold(r.Flow.Dst), hashBits)]
	if rs == nil || !rs.Available() || !rs.Eligible() {
		return nil
	}
	return rs
}

// Changed implements service.Scheduler.
func (d *dh) Changed(service.Change) {}

// Prepare implements service.Scheduler.
func (d *dh) Prepare(servers []*service.RealServer) {
	t := new(hashTable)
	if n := len(servers); n > 0 {
		for i := range t {
			t[i] = servers[i%n]
		}
	}
	d.table.Store(t)
}
