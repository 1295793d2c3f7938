package conntrack

import (
	"slices"
	"sync/atomic"

	"uvs/packet"
	"uvs/service"
)

// Watched marks an entry whose life is told to whoever watches the table: uvs's own flag, which the kernel hasn't.
const Watched Flags = 0x4000

// EventKind is what happened to a watched connection.
type EventKind uint8

// The kinds of event.
const (
	Opened      EventKind = iota // it is new, and counts as inactive
	Activated                    // it counts as active from now on
	Deactivated                  // it counts as inactive again
	Closed                       // it is gone
	Passed                       // a one-packet connection, opened and gone
	Refused                      // a connection that found no server
)

// Event is something that happened to a watched connection.
type Event struct {
	// Seq is greater than those of all earlier events of the table.
	Seq  uint64
	ID   ID
	Kind EventKind
	// Service is the counters slot of the virtual service. The rest is for Opened, Passed and Refused: RS is the real
	// server's slot or service.NoServer, Control the template that the connection hangs on or 0, Flow that of its first
	// packet, Now when it came.
	Service, RS uint32
	Control     ID
	Now         int64
	Flow        packet.Flow
}

const (
	// watchRoom is how many events a shard keeps until they are taken. New connections leave the last quarter to what happens
	// to those that were told of.
	watchRoom  = 128
	watchOpens = watchRoom * 3 / 4
)

// watch is the table's part of watching: what no shard has for itself.
type watch struct {
	seq    atomic.Uint64
	missed atomic.Uint64
	torn   atomic.Uint64
	full   [1 << shardBits / 64]atomic.Uint64 // a bit for each connection shard that has events
}

// Watch begins to keep events of the connections that are inserted with the flag Watched, until Unwatch. It costs some
// megabytes; the events of a shard lie in memory of fixed size, under the lock that is held for the packet anyway. There is
// one watcher, who calls Events often.
func (t *Table) Watch() {
	for i := range t.conns {
		s := &t.conns[i]
		events := make([]Event, 0, watchRoom)
		s.lock()
		s.events = events
		s.unlock()
	}
}

// Unwatch ends it and forgets the events that there are.
func (t *Table) Unwatch() {
	for i := range t.conns {
		s := &t.conns[i]
		s.lock()
		s.events = nil
		s.unlock()
	}
	for i := range t.watch.full {
		t.watch.full[i].Store(0)
	}
}

// Events appends what happened since the last call to events, in order, and forgets it. A connection's own events are always in
// their order; another one's may come a call late.
func (t *Table) Events(events []Event) []Event {
	from := len(events)
	for i := range (len(t.conns) + 63) / 64 {
		word := t.watch.full[i].Swap(0)
		for n := 0; word != 0; n, word = n+1, word>>1 {
			if word&1 == 0 {
				continue
			}
			s := &t.conns[i*64+n]
			s.lock()
			events = append(events, s.events...)
			s.events = s.events[:0]
			s.unlock()
		}
	}
	slices.SortFunc(events[from:], func(a, b Event) int { return int(int64(a.Seq - b.Seq)) })
	return events
}

// Missed counts the new connections that weren't told of for want of room, and torn the later events of others that
// weren't: the watcher has then to look after its connections by Lookup.
func (t *Table) Missed() (missed, torn uint64) { return t.watch.missed.Load(), t.watch.torn.Load() }

// Refuse tells the watcher of a connection that found no server.
func (t *Table) Refuse(f *packet.Flow, svc uint32, now int64) {
	t.tellOutside(&NewConn{Flow: *f, Service: svc, Now: now}, Refused)
}

// tellOutside tells of a connection that has no entry, in the shard where it would be.
func (t *Table) tellOutside(n *NewConn, kind EventKind) {
	var k Key
	if t.Hash(&n.Flow, In, &k); k.kind == keyNone {
		return
	}
	s := &t.conns[k.shard]
	s.lock()
	s.tellOpened(n, 0, kind)
	s.unlock()
}

// tellOpened tells of a new connection, and says whether there was room. s is locked.
func (s *shard) tellOpened(n *NewConn, id ID, kind EventKind) bool {
	e := s.tell(kind)
	if e == nil {
		return false
	}
	e.ID, e.Service, e.RS, e.Control, e.Now, e.Flow = id, n.Service, service.NoServer, n.Template, n.Now, n.Flow
	if n.RS != nil {
		e.RS = n.RS.Index
	}
	return true
}

// tellOf tells what happened to e. s is locked.
func (s *shard) tellOf(slot uint32, e *entry, kind EventKind) {
	if v := s.tell(kind); v != nil {
		v.ID, v.Service = connID(e.gen(), s.id, slot), e.service()
	}
}

// tell makes room for an event, or counts one that there is no room for. s is locked.
func (s *shard) tell(kind EventKind) *Event {
	n := len(s.events)
	switch fresh := kind == Opened || kind == Passed || kind == Refused; {
	case cap(s.events) == 0:
		return nil // nobody watches any more
	case fresh && n >= watchOpens:
		s.watch.missed.Add(1)
		return nil
	case n == cap(s.events):
		s.watch.torn.Add(1)
		return nil
	}
	if n == 0 {
		s.watch.full[s.id/64].Or(1 << (s.id % 64))
	}
	s.events = s.events[:n+1]
	e := &s.events[n]
	*e = Event{Seq: s.watch.seq.Add(1), Kind: kind}
	return e
}
