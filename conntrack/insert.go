package conntrack

import (
	"time"

	"uvs/packet"
	"uvs/service"
)

// NewConn is a connection to be made.
type NewConn struct {
	// Flow is the first packet's, from client to VIP.
	Flow packet.Flow
	// Server and ServerPort are where it goes, whatever RS says: the port may be the packet's own.
	Server     packet.Addr
	ServerPort uint16
	Method     service.Method
	// Flags may have OnePacket and Watched (and, from sync and FTP, others). The table sets NoOutput, Inactive and Template itself.
	Flags Flags
	// Service is the counters slot of the virtual service.
	Service uint32
	// Mark is the packet's firewall mark.
	Mark uint32
	// RS is the real server, nil for Bypass.
	RS *service.RealServer
	// Template is the template that it hangs on, or 0.
	Template ID
	// Dir is the first packet's direction: Out where the server opens the connection. Flow is the client's even so.
	Dir Dir
	// Event is the first packet's (packet.Packet.Event).
	Event uint8
	// About says that the packet is not the connection's own but an ICMP error about it: the state stays None, for three
	// seconds.
	About bool
	// Now is the time.
	Now int64
}

// aboutLife is how long a connection lives that only an ICMP error has spoken of: the kernel's provisional timer.
const aboutLife = 3 * time.Second

// Insert makes an entry for a new connection, counts it at its server as the kernel does (inactive, then by its first
// state) and accounts its first packet; n.Template's timer starts again. Inserted; Hit, if another worker was faster and
// c is its entry; or Full. With OnePacket nothing is stored: the server's counts and thresholds are moved and moved back,
// c is filled with ID 0, and the outcome is Inserted.
func (t *Table) Insert(n *NewConn, c *Conn) Outcome {
	if n.Flags&OnePacket != 0 {
		return t.onePacket(n, c)
	}
	var k Key
	if t.Hash(&n.Flow, In, &k); k.kind == keyNone || !reachable(n.Flow.Src, n.Server, n.Method, n.RS) {
		t.refused.Add(1)
		return Full
	}
	r, tick := t.rules.Load(), tickOf(n.Now)
	t.pool.look(tick)
	s := &t.conns[k.shard]
	slot, e, ok := t.seek(s, &k, tick)
	if !ok {
		return Full
	}
	defer s.unlock()
	if e != nil {
		e.countPacket()
		t.step(s, r, slot, e, t.server(e), In, n.Event, n.Now)
		s.fill(c, slot, e, In, n.Now)
		return Hit
	}
	if !t.admit() {
		return Full
	}
	slot, e = s.take()
	e.init(n)
	s.setTuple(slot, e, n.Flow.Src, n.Flow.Dst, n.Server)
	s.states[None]++
	s.inserts++
	if n.RS != nil {
		n.RS.Bind(false)
	}
	if n.Flags&Watched != 0 && !s.tellOpened(n, connID(e.gen(), s.id, slot), Opened) {
		e.setFlags(e.flags() &^ Watched)
	}
	t.hang(e, n, tick)
	if n.About {
		e.setDeadline(tickOf(n.Now + int64(aboutLife)))
	} else {
		e.setDeadline(tick + r.ticks[t.transition(s, r, slot, e, n.RS, n.Dir, n.Event)])
		e.timeSetup(n.RS, n.Now)
	}
	t.enter(s, slot, e, &k, tick)
	s.fill(c, slot, e, n.Dir, n.Now)
	return Inserted
}

// seek locks shard s of k. It returns the live entry under k, or none and there is room to make one. Without room ok is
// false and nothing locked.
func (t *Table) seek(s *shard, k *Key, tick uint32) (slot uint32, e *entry, ok bool) {
	s.lock()
	for tries := 0; ; tries++ {
		if slot, e = t.findLive(s, k, tick); e != nil && e.life()&lifeCut != 0 {
			t.drop(s, slot, e, false)
			slot, e = 0, nil
		}
		if e != nil || s.reserve(&t.pool) {
			return slot, e, true
		}
		s.unlock()
		if tries == maxTries {
			t.refused.Add(1)
			return 0, nil, false
		}
		t.pool.refill(tick, true)
		s.lock()
	}
}

// enter makes a new entry, which is complete, known to lookups and to the wheel. k is its key.
func (t *Table) enter(s *shard, slot uint32, e *entry, k *Key, tick uint32) {
	e.setLife(e.life() | lifeLive | lifeIndexed)
	if e.flags()&NoCPort != 0 {
		t.expected.Add(1)
	}
	s.link(slot, e, tick)
	s.add(slot, In, k.hash)
	if e.replyIndexed() {
		s.add(slot, Out, s.entryHash(&t.hash, slot, e, Out))
	}
	s.grow(&t.pool, &t.hash)
}

// maxTries is how often an insertion asks for memory. Others may take what it got.
const maxTries = 3

// admit counts one more entry, unless there are too many.
func (t *Table) admit() bool {
	if t.entries.Add(1) <= t.maxEntries {
		return true
	}
	t.entries.Add(-1)
	t.refused.Add(1)
	return false
}

// init writes the fields of a new connection, but for its addresses, template, timer and place in lists.
func (e *entry) init(n *NewConn) {
	flags := n.Flags&^(Template|NoOutput) | Inactive
	if noOutput(n.Method, n.RS) {
		flags |= NoOutput
	}
	rs := uint32(service.NoServer)
	if n.RS != nil {
		rs = n.RS.Index
	}
	e.setPorts(n.Flow.Proto, n.Flow.SrcPort, n.Flow.DstPort, n.ServerPort)
	e.setKind(n.Method, flags, rs, n.Service)
	e.putState(None)
	e.setPackets(1)
	e.setMark(n.Mark)
}

// noOutput says that connections begin as those of whose answers the director sees nothing: all but NAT's. A server that is
// the director itself counts as what was asked for.
func noOutput(m service.Method, rs *service.RealServer) bool {
	if m == service.Local && rs != nil {
		m = rs.Asked()
	}
	return m != service.Masq
}

// hang puts a new connection on its template, if it has one that is still there.
func (t *Table) hang(e *entry, n *NewConn, tick uint32) {
	e.setControl(0, 0)
	if n.Template != 0 && t.join(n.Template, tick, n.Flags&OnePacket != 0) {
		e.setControl(uint32(n.Template), uint16(n.Template>>32))
	}
}

// onePacket does for a packet of a one-packet service what the kernel's short-lived entry does: the server has one more
// inactive connection for a moment, which may start or end an overload.
func (t *Table) onePacket(n *NewConn, c *Conn) Outcome {
	if n.RS != nil {
		n.RS.Bind(false)
	}
	var e entry
	e.init(n)
	e.setPackets(0) // the kernel counts the packet at the template, if there is one
	e.setDeadline(tickOf(n.Now))
	if service.Proto(n.Flow.Proto) == service.UDP {
		e.putState(UDPNormal)
	}
	t.hang(&e, n, tickOf(n.Now))
	e.fill(c, 0, In, n.Now)
	c.Client, c.Virtual, c.Server = n.Flow.Src, n.Flow.Dst, n.Server
	if n.RS != nil {
		n.RS.Unbind(false)
	}
	if n.Flags&Watched != 0 {
		t.tellOutside(n, Passed)
	}
	return Inserted
}
