package conntrack

import (
	"time"

	"uvs/packet"
	"uvs/service"
)

// TemplateKey names a persistence template.
type TemplateKey struct {
	// Proto is the service's, 0 for a fwmark service.
	Proto service.Proto
	// Client is the client's address under the service's mask.
	Client packet.Addr
	// Virtual is the VIP, or MarkAddr of a fwmark service's mark; VirtualPort is 0 there, on port-zero services and on
	// FTP's. It is of Client's family.
	Virtual     packet.Addr
	VirtualPort uint16
}

// MarkAddr is what stands for the VIP in the templates of a fwmark service: its mark written as an address of the
// client's family, in the first four bytes as the kernel has it (ip_vs_core.c, ip_vs_sched_persist): 0.0.0.7 or 0:7::.
func MarkAddr(mark uint32, client packet.Addr) packet.Addr {
	if client.Is4() {
		return packet.AddrFrom4(mark)
	}
	return packet.AddrFromWords(uint64(mark)<<32, 0)
}

// NewTemplate is a template to be made.
type NewTemplate struct {
	TemplateKey
	// Server and ServerPort are where its connections go; the port is 0 where VirtualPort is.
	Server     packet.Addr
	ServerPort uint16
	Method     service.Method
	Service    uint32
	RS         *service.RealServer
	// Timeout is the service's persistence timeout.
	Timeout time.Duration
	// Data is what the service's persistence engine tells clients apart by beside their address, such as a Call-ID; nil
	// without one. It is copied.
	Data []byte
	// Now is the time.
	Now int64
}

// deadPort is the port of templates that were put aside.
const deadPort = 0xffff

// busyTimeout is what a template's timeout becomes when it runs out while connections hang on it.
var busyTimeout = timeoutTicks(time.Minute)

// FindTemplate fills c with the template of k: Hit. It is Miss if there is none, and MissNoServer if there was one whose
// server is gone, or quiesced with expire_quiescent_template=1: that one is put aside under port 65535 and left to time
// out. The template's timer doesn't start again here but when Insert puts a connection on it.
func (t *Table) FindTemplate(k *TemplateKey, now int64, c *Conn) Outcome {
	return t.FindTemplateData(k, nil, now, c)
}

// FindTemplateData is FindTemplate for a template with data from a persistence engine.
func (t *Table) FindTemplateData(k *TemplateKey, data []byte, now int64, c *Conn) Outcome {
	var key Key
	if !t.templateKey(k, &key) {
		return Miss
	}
	s := &t.templates[key.shard]
	s.lock()
	o := t.findTemplate(s, &key, data, now, c)
	s.unlock()
	return o
}

func (t *Table) findTemplate(s *shard, k *Key, data []byte, now int64, c *Conn) Outcome {
	var slot uint32
	var e *entry
	if len(data) == 0 {
		slot, e = s.find(k)
	} else {
		slot, e = s.engine.find(s, k, data)
	}
	if e == nil || !t.revive(s, slot, e, tickOf(now)) {
		return Miss
	}
	if !t.usable(e) {
		t.putAside(s, slot, e)
		return MissNoServer
	}
	s.fill(c, slot, e, In, now)
	return Hit
}

// InsertTemplate makes a template: Inserted; Hit, if another worker was faster and c is its template, with its server;
// or Full.
func (t *Table) InsertTemplate(n *NewTemplate, c *Conn) Outcome {
	var k Key
	if !t.templateKey(&n.TemplateKey, &k) || n.RS == nil || !reachable(n.Client, n.Server, n.Method, n.RS) {
		t.refused.Add(1)
		return Full
	}
	tick := tickOf(n.Now)
	t.pool.look(tick)
	s := &t.templates[k.shard]
	s.lock()
	defer s.unlock()
	for tries := 0; ; tries++ {
		if t.findTemplate(s, &k, n.Data, n.Now, c) == Hit {
			return Hit
		}
		if s.reserve(&t.pool) {
			break
		}
		if tries == maxTries {
			t.refused.Add(1)
			return Full
		}
		s.unlock()
		t.pool.refill(tick, true)
		s.lock()
	}
	if !t.admit() {
		return Full
	}
	slot, e := s.take()
	flags := Template
	if noOutput(n.Method, n.RS) {
		flags |= NoOutput
	}
	e.setPorts(uint8(n.Proto), 0, n.VirtualPort, n.ServerPort)
	s.setTuple(slot, e, n.Client, n.Virtual, n.Server)
	e.setKind(n.Method, flags, n.RS.Index, n.Service)
	e.putState(TemplateNone)
	e.setPackets(0)
	e.setChildren(0)
	e.setTimeout(timeoutTicks(n.Timeout))
	e.setDeadline(tick + e.timeout())
	n.RS.BindTemplate()
	s.states[TemplateNone]++
	s.inserts++
	s.link(slot, e, tick)
	if len(n.Data) == 0 {
		e.setLife(e.life() | lifeLive | lifeIndexed)
		s.add(slot, In, k.hash)
		s.grow(&t.pool, &t.hash)
	} else {
		e.setLife(e.life() | lifeLive | lifeEngine)
		s.engine.add(s, slot, e, n.Data)
	}
	s.fill(c, slot, e, In, n.Now)
	return Inserted
}

// templateKey makes the key of a template. ok is false if the table has no templates for such addresses.
func (t *Table) templateKey(tk *TemplateKey, k *Key) (ok bool) {
	h := t.hash.client(uint8(tk.Proto), tk.Client, 0)
	*k = Key{
		hash:   t.hash.tuple(h, In, tk.Virtual, tk.VirtualPort),
		shard:  uint32(h >> t.templateShift),
		client: tk.Client.V4(), other: tk.Virtual.V4(), oport: tk.VirtualPort,
		proto: uint8(tk.Proto), dir: In, kind: keyIPv4,
	}
	if !tk.Client.Is4() || !tk.Virtual.Is4() {
		k.widen(tk.Client, tk.Virtual, uint32(len(t.templates))/2)
	}
	return k.kind != keyNone
}

// templateShard returns the shard of a template's reference, or nil if there is no such shard.
func (t *Table) templateShard(ref uint32) *shard {
	if n := ref >> slotBits; n < uint32(len(t.templates)) {
		return &t.templates[n]
	}
	return nil
}

// template returns the template that id names, or nil if it is gone. s is locked.
func (s *shard) template(id ID) *entry {
	if e := s.at(uint32(id) % maxSlots); e != nil && uint16(e.gen()) == uint16(id>>32) {
		return e
	}
	return nil
}

// revive says whether template e still lives. When its time is up, it goes unless connections hang on it: then it gets
// 60 seconds more, and every time from now on (ip_vs_conn.c, ip_vs_conn_expire), or by KeepTemplateTimeout its own time.
func (t *Table) revive(s *shard, slot uint32, e *entry, tick uint32) bool {
	if !e.expired(tick) {
		return true
	}
	if e.children() == 0 {
		t.drop(s, slot, e, false)
		return false
	}
	if !t.rules.Load().KeepTemplateTimeout {
		e.setTimeout(busyTimeout)
	}
	deadline := e.deadline()
	for int32(tick-deadline) >= 0 {
		deadline += e.timeout()
	}
	s.arm(slot, e, deadline, tick)
	return true
}

// join hangs a new connection on a template, whose timer starts again, and says whether the template was still there. A
// one-packet connection is gone as soon as it is there.
func (t *Table) join(id ID, tick uint32, onePacket bool) bool {
	s := t.templateShard(uint32(id))
	if s == nil || id&templateFlag == 0 {
		return false
	}
	s.lock()
	e := s.template(id)
	if e != nil {
		if onePacket {
			e.setPackets(e.packets() + 1)
		} else {
			e.setChildren(e.children() + 1)
		}
		s.arm(uint32(id)%maxSlots, e, tick+e.timeout(), tick)
	}
	s.unlock()
	return e != nil
}

// leave takes a connection off its template. withUnused drops the template too if that was its last, unless one of them
// was established.
func (t *Table) leave(ref uint32, withUnused bool) {
	s := t.templateShard(ref)
	s.lock()
	slot := ref % maxSlots
	e := s.entry(slot)
	e.setChildren(e.children() - 1)
	if withUnused && e.children() == 0 && e.state() != TemplateAssured {
		t.drop(s, slot, e, true)
	}
	s.unlock()
}

// assure records at a template that one of its connections was established.
func (t *Table) assure(ref uint32) {
	s := t.templateShard(ref)
	s.lock()
	if e := s.entry(ref % maxSlots); e.state() != TemplateAssured {
		s.setState(ref%maxSlots, e, TemplateAssured, nil)
	}
	s.unlock()
}
