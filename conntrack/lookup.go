package conntrack

import (
	"uvs/packet"
	"uvs/service"
)

// In does everything for a packet from the client under one lock: it finds the entry of f (client to VIP), judges it
// (conn_reuse_mode, expire_nodest_conn), steps its state, re-arms its timer, counts the packet and fills c. event is the
// packet's (packet.Packet.Event): TCP's flags or SCTP's deciding chunk. Miss, MissReused, MissNoServer, Hit, NoServer or Cut.
func (t *Table) In(f *packet.Flow, event uint8, now int64, c *Conn) Outcome {
	var k Key
	t.Hash(f, In, &k)
	return t.InHashed(&k, event, now, c)
}

// InHashed is In for the key of a flow.
func (t *Table) InHashed(k *Key, event uint8, now int64, c *Conn) Outcome {
	if k.kind == keyNone {
		return Miss
	}
	r, tick := t.rules.Load(), tickOf(now)
	s := &t.conns[k.shard]
	s.lock()
	slot, e := t.findLive(s, k, tick)
	claimed := false
	if e == nil && t.expected.Load() > 0 {
		s.unlock()
		claimed = t.claim(k, tick)
		s.lock()
		slot, e = t.findLive(s, k, tick)
	}
	if e == nil {
		s.unlock()
		return Miss
	}
	rs := t.server(e)
	o := judge(r, e, rs, event)
	switch o {
	case Hit:
		e.countPacket()
		t.step(s, r, slot, e, rs, In, event, now)
		s.fill(c, slot, e, In, now)
		if claimed {
			c.Flags |= NoCPort
		}
	case NoServer:
		s.fill(c, slot, e, In, now)
	case Cut:
		s.hasten(slot, e, tick+r.ticks[Close], tick)
		s.fill(c, slot, e, In, now)
	default:
		t.doom(s, slot, e)
	}
	s.unlock()
	return o
}

// judge says what becomes of a packet from the client that belongs to e (ip_vs_core.c, ip_vs_in_hook): Hit, NoServer, Cut,
// or a miss, after which the entry must go.
func judge(r *rules, e *entry, rs *service.RealServer, event uint8) Outcome {
	if e.life()&lifeCut != 0 {
		if opens(service.Proto(e.proto()), event) {
			return MissReused
		}
		return Cut
	}
	if opens(service.Proto(e.proto()), event) {
		if r.ExpireNodestConn && rs != nil && rs.Weight() == 0 {
			return MissReused
		}
		if r.ConnReuseMode != 0 && e.control() == 0 {
			switch e.state() {
			case TimeWait, Close, SCTPClosed:
				return MissReused
			case FinWait:
				if r.ConnReuseMode&2 != 0 && e.flags()&NoOutput != 0 {
					return MissReused
				}
			}
		}
	}
	if rs != nil && !rs.Available() {
		if r.ExpireNodestConn {
			return MissNoServer
		}
		return NoServer
	}
	return Hit
}

// opens says that a packet asks for a new connection: TCP's SYN, SCTP's INIT.
func opens(proto service.Proto, event uint8) bool {
	return proto == service.TCP && event&packet.TCPSyn != 0 || proto == service.SCTP && event == packet.SCTPInit
}

// Out does the same for a packet from a real server: f.Src is the server's address and port, f.Dst the client's. Only
// connections whose answers pass the director (NAT, Local) are found. Miss, Hit or Cut: a removed server's answers still
// belong to their connections.
func (t *Table) Out(f *packet.Flow, event uint8, now int64, c *Conn) Outcome {
	var k Key
	t.Hash(f, Out, &k)
	return t.OutHashed(&k, event, now, c)
}

// OutHashed is Out for the key of a flow.
func (t *Table) OutHashed(k *Key, event uint8, now int64, c *Conn) Outcome {
	if k.kind == keyNone {
		return Miss
	}
	r, tick := t.rules.Load(), tickOf(now)
	s := &t.conns[k.shard]
	s.lock()
	slot, e := t.findLive(s, k, tick)
	if e == nil {
		s.unlock()
		return Miss
	}
	o := Hit
	if e.life()&lifeCut == 0 {
		t.step(s, r, slot, e, t.server(e), Out, event, now)
	} else {
		s.hasten(slot, e, tick+r.ticks[Close], tick)
		o = Cut
	}
	s.fill(c, slot, e, Out, now)
	s.unlock()
	return o
}

// Find looks without touching state, timer or counters: for ICMP errors and for explain. dir says which tuple f is, as
// for In or Out; a packet quoted in an ICMP error is to be reversed first.
func (t *Table) Find(f *packet.Flow, dir Dir, now int64, c *Conn) bool {
	var k Key
	if t.Hash(f, dir, &k); k.kind == keyNone {
		return false
	}
	s := &t.conns[k.shard]
	s.lock()
	slot, e := t.findLive(s, &k, tickOf(now))
	if e != nil {
		s.fill(c, slot, e, dir, now)
	}
	s.unlock()
	return e != nil
}

// findLive finds the entry under k. Those whose time is up are removed, though the wheel hasn't come to them.
func (t *Table) findLive(s *shard, k *Key, tick uint32) (uint32, *entry) {
	for {
		slot, e := s.find(k)
		if e == nil || !e.expired(tick) {
			return slot, e
		}
		t.drop(s, slot, e, false)
	}
}

// Lookup fills c with the entry that id names, if it still lives.
func (t *Table) Lookup(id ID, now int64, c *Conn) bool {
	slot, tick := uint32(id)%maxSlots, tickOf(now)
	if id&templateFlag != 0 {
		s := t.templateShard(uint32(id))
		if s == nil {
			return false
		}
		s.lock()
		e := s.template(id)
		alive := e != nil && t.revive(s, slot, e, tick)
		if alive {
			s.fill(c, slot, e, In, now)
		}
		s.unlock()
		return alive
	}
	n := uint32(id>>slotBits) % (1 << shardBits)
	if n >= uint32(len(t.conns)) {
		return false
	}
	s := &t.conns[n]
	s.lock()
	e := s.at(slot)
	alive := e != nil && e.gen() == uint32(id>>(shardBits+slotBits)) && !e.expired(tick)
	if alive {
		s.fill(c, slot, e, In, now)
	}
	s.unlock()
	return alive
}

// unindex takes e out of the index.
func (t *Table) unindex(s *shard, slot uint32, e *entry) {
	if e.life()&lifeEngine != 0 {
		e.setLife(e.life() &^ lifeEngine)
		s.engine.remove(s, slot, e)
		return
	}
	if e.life()&lifeIndexed == 0 {
		return
	}
	e.setLife(e.life() &^ lifeIndexed)
	s.remove(slot, In, s.entryHash(&t.hash, slot, e, In))
	if e.replyIndexed() {
		s.remove(slot, Out, s.entryHash(&t.hash, slot, e, Out))
	}
}

// doom makes e gone for everybody at once, but leaves its counts to the next Advance: in the kernel such an entry expires
// at the next tick, so that the scheduler, asked right now, still sees it counted.
func (t *Table) doom(s *shard, slot uint32, e *entry) {
	t.unindex(s, slot, e)
	s.unlink(e)
	e.setLife(e.life() | lifeDying)
	e.setNext(s.dying)
	s.dying = slot
	t.sweeper.note(s.id)
}

// drop removes e, which is linked in the wheel, and takes its counts back.
func (t *Table) drop(s *shard, slot uint32, e *entry, forced bool) {
	t.unindex(s, slot, e)
	s.unlink(e)
	t.release(s, slot, e, forced)
}

// release takes the counts of e back and frees its slot. forced is a connection that didn't expire by itself: an unused
// template goes with it, unless it is assured.
func (t *Table) release(s *shard, slot uint32, e *entry, forced bool) {
	f := e.flags()
	if f&NoCPort != 0 {
		t.expected.Add(-1)
	}
	rs := t.server(e)
	e.endSetup(rs)
	switch {
	case rs == nil || e.life()&lifeCut != 0:
	case f&Template != 0:
		rs.UnbindTemplate()
	default:
		rs.Unbind(f&Inactive == 0)
	}
	if f&Template == 0 && e.control() != 0 {
		t.leave(e.control(), forced)
	}
	if f&Template != 0 {
		s.engine.forget(slot)
	}
	if f&Watched != 0 {
		s.tellOf(slot, e, Closed)
	}
	s.states[e.state()]--
	s.expirations++
	s.give(slot, e)
	t.entries.Add(-1)
}
