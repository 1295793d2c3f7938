package conntrack

import (
	"time"

	"uvs/service"
)

// Cuts is what Cut did: connections that wait for their next packet to be reset, connections that are simply gone, and
// templates.
type Cuts struct{ Reset, Dropped, Templates int }

// cutLife is how long a connection that was cut waits for its next packet, if it wouldn't have ended sooner. It refers to
// its real server until then without being counted there, and control may give the slot of a removed server to another
// one two minutes later at the earliest.
const cutLife = 100 * time.Second

// Cut ends all connections and templates of the servers that doomed chooses, which must be quiesced already, or others
// take their place. It is called with a shard's lock held.
//
// The table knows no sequence numbers, so that a TCP connection cannot be reset right now: it is taken off its server's
// counts and its template, and stays in the state CLOSE until its next packet, from either side, by which both can be
// (the outcome is then that it is Cut), or for a hundred seconds. Everything else is gone at once: the next datagram of a
// UDP flow is scheduled afresh, as is a client whose template was dropped.
func (t *Table) Cut(doomed func(*service.RealServer) bool, now int64) Cuts {
	return t.end(doomed, now, true)
}

// Forsake ends the templates of the servers that doomed chooses, their flows that aren't connections (UDP), and TCP
// connections that are just being opened: the next datagram, the client's next SYN and the next connection of a persistent
// client are scheduled afresh. Other TCP and SCTP go on. It is for servers that cannot serve; the rest is as for Cut.
func (t *Table) Forsake(doomed func(*service.RealServer) bool, now int64) Cuts {
	return t.end(doomed, now, false)
}

func (t *Table) end(doomed func(*service.RealServer) bool, now int64, connections bool) (n Cuts) {
	tick := tickOf(now)
	chosen := func(e *entry) bool {
		rs := t.server(e)
		return rs != nil && e.life()&lifeCut == 0 && doomed(rs)
	}
	// No connection may come by a template while the others are cut, nor may it go before those that hang on it.
	t.each(t.templates, func(s *shard, slot uint32, e *entry) {
		if chosen(e) {
			t.putAside(s, slot, e)
		}
	})
	t.each(t.conns, func(s *shard, slot uint32, e *entry) {
		p := service.Proto(e.proto())
		switch {
		case !connections && (p == service.TCP && !e.opening() || p == service.SCTP), !chosen(e):
		case connections && p == service.TCP && e.state() != TimeWait && e.state() != Close && e.flags()&NoCPort == 0:
			t.cut(s, slot, e, tick)
			n.Reset++
		default:
			t.drop(s, slot, e, true)
			n.Dropped++
		}
	})
	t.each(t.templates, func(s *shard, slot uint32, e *entry) {
		if chosen(e) && e.children() == 0 {
			t.drop(s, slot, e, true)
			n.Templates++
		}
	})
	return n
}

// opening says that a TCP connection isn't established yet.
func (e *entry) opening() bool {
	s := e.state()
	return (s == SynRecv || s == SynSent || s == SynAck) && e.flags()&NoCPort == 0
}

// each calls f for every entry in shards, with its shard's lock held. f may drop it.
func (t *Table) each(shards []shard, f func(s *shard, slot uint32, e *entry)) {
	for i := range shards {
		s := &shards[i]
		s.lock()
		for n, slot := 1, s.stride; slot < s.fresh; n, slot = n+1, slot+s.stride {
			if n%(slotsPerWork*quantum) == 0 {
				s.unlock()
				s.lock()
			}
			if e := s.at(slot); e != nil {
				f(s, slot, e)
			}
		}
		s.unlock()
	}
}

// putAside makes a template not be found any more; it stays for the connections that hang on it.
func (t *Table) putAside(s *shard, slot uint32, e *entry) {
	t.unindex(s, slot, e)
	e.setVirtualPort(deadPort)
	e.setServerPort(deadPort)
}

// cut takes a TCP connection off its server and its template, and leaves it to its next packet.
func (t *Table) cut(s *shard, slot uint32, e *entry, tick uint32) {
	rs := t.server(e)
	e.endSetup(rs)
	s.setState(slot, e, Close, rs)
	rs.Unbind(false)
	if f := e.flags(); f&Watched != 0 { // for its server it is over
		s.tellOf(slot, e, Closed)
		e.setFlags(f &^ Watched)
	}
	if ref := e.control(); ref != 0 {
		e.setControl(0, 0)
		t.leave(ref, true)
	}
	e.setLife(e.life() | lifeCut)
	s.hasten(slot, e, tick+timeoutTicks(cutLife), tick)
}

// hasten lets e end at a tick, unless it does so sooner.
func (s *shard) hasten(slot uint32, e *entry, deadline, tick uint32) {
	if int32(e.deadline()-deadline) > 0 {
		s.arm(slot, e, deadline, tick)
	}
}
