package conntrack

import (
	"time"

	"uvs/packet"
)

// Expect makes the entry of a connection that is announced but not begun, such as FTP's data connections: in state LISTEN,
// counted as inactive, no packet accounted. n.Flow.SrcPort is 0 if the client's port isn't known: then the first packet
// of that client to n.Flow's destination, from whatever port, is the connection's (In finds it, with NoCPort among the
// flags that once), unless it belongs to another already. n.Dir and n.Event don't matter. Inserted; Hit, if there is
// an entry, which waits anew if c shows it to lead to the same server and port; or Full.
func (t *Table) Expect(n *NewConn, c *Conn) Outcome {
	var k Key
	if t.Hash(&n.Flow, In, &k); k.kind == keyNone || !reachable(n.Flow.Src, n.Server, n.Method, n.RS) {
		t.refused.Add(1)
		return Full
	}
	r, tick := t.rules.Load(), tickOf(n.Now)
	s := &t.conns[k.shard]
	slot, e, ok := t.seek(s, &k, tick)
	if !ok {
		return Full
	}
	defer s.unlock()
	if e != nil {
		if _, _, server := s.tuple(slot, e); server == n.Server && e.serverPort() == n.ServerPort {
			s.setState(slot, e, Listen, t.server(e))
			s.arm(slot, e, tick+r.ticks[Listen], tick)
		}
		s.fill(c, slot, e, In, n.Now)
		return Hit
	}
	if !t.admit() {
		return Full
	}
	slot, e = s.take()
	e.init(n)
	s.setTuple(slot, e, n.Flow.Src, n.Flow.Dst, n.Server)
	if n.Flow.SrcPort == 0 {
		e.setFlags(e.flags() | NoCPort)
	}
	e.setPackets(0)
	e.setControl(0, 0)
	e.putState(Listen)
	e.setDeadline(tick + r.ticks[Listen])
	s.states[Listen]++
	s.inserts++
	if n.RS != nil {
		n.RS.Bind(false)
	}
	t.enter(s, slot, e, &k, tick)
	s.fill(c, slot, e, In, n.Now)
	return Inserted
}

// claim gives the entry that is expected from any port of k's client the port of k, and says whether there was one. It
// moves to the shard of its new key; the two are not locked together, so that for a moment it is nowhere.
func (t *Table) claim(k *Key, tick uint32) bool {
	client, virtual := k.addresses()
	var any Key
	t.Hash(&packet.Flow{Src: client, Dst: virtual, DstPort: k.oport, Proto: k.proto}, In, &any)

	s := &t.conns[any.shard]
	s.lock()
	slot, e := t.findLive(s, &any, tick)
	if e == nil || e.flags()&NoCPort == 0 {
		s.unlock()
		return false
	}
	moved := *e
	_, _, server := s.tuple(slot, e)
	t.unindex(s, slot, e)
	s.unlink(e)
	s.states[e.state()]--
	s.give(slot, e)
	s.unlock()
	t.expected.Add(-1)
	moved.setFlags(moved.flags() &^ NoCPort)
	moved.setClientPort(k.cport)

	s = &t.conns[k.shard]
	_, other, ok := t.seek(s, k, tick)
	if !ok || other != nil {
		t.abandon(&moved)
		if ok {
			s.unlock()
		}
		return ok
	}
	slot, e = s.take()
	gen := e.gen()
	*e = moved
	e.setGen(gen)
	e.setLife(moved.life() &^ (lifeLive | lifeIndexed))
	s.setTuple(slot, e, client, virtual, server)
	s.states[e.state()]++
	t.enter(s, slot, e, k, tick)
	s.unlock()
	return true
}

// abandon takes back the counts of an entry that found no place to move to.
func (t *Table) abandon(e *entry) {
	if rs := t.server(e); rs != nil {
		rs.Unbind(e.flags()&Inactive == 0)
	}
	if e.control() != 0 {
		t.leave(e.control(), true)
	}
	t.entries.Add(-1)
}

// Extend makes a connection live for d more at least, though no packet comes, and says whether it lives.
func (t *Table) Extend(id ID, d time.Duration, now int64) bool {
	n := uint32(id>>slotBits) % (1 << shardBits)
	if id&templateFlag != 0 || n >= uint32(len(t.conns)) {
		return false
	}
	s, slot, tick := &t.conns[n], uint32(id)%maxSlots, tickOf(now)
	s.lock()
	defer s.unlock()
	e := s.at(slot)
	if e == nil || e.gen() != uint32(id>>(shardBits+slotBits)) || e.expired(tick) || e.life()&lifeCut != 0 {
		return false
	}
	if deadline := tick + timeoutTicks(d); int32(deadline-e.deadline()) > 0 {
		s.arm(slot, e, deadline, tick)
	}
	return true
}
