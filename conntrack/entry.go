package conntrack

import (
	"encoding/binary"

	"uvs/service"
)

// entry is a view of one entry: a cache line without pointers, in the machine's byte order. Connections and templates
// share the layout; what a template alone has lies over what it lacks. An entry for IPv6 has its addresses in a line of
// their own behind this one (addresses), and nothing in the first twelve bytes.
//
//	0 client address    12 client port     24 real server     40 next in list       52 mark, or a template's timeout
//	4 virtual address   14 virtual port    28 service         44 previous in list   56 generation of the slot
//	8 server address    16 server port     32 packets         48 template, or a     60 wheel slot
//	                    18 flags           36 deadline           template's         62 template's generation
//	                    20 protocol, state, method, life         connections
//
// An entry's mutable part is written with its shard's lock held.
type entry [entrySize]byte

const entrySize = 64

// What the life byte says: whether the slot is free, and where the entry is known.
const (
	lifeLive    = 1 << iota // in use; found by lookups while indexed
	lifeIndexed             // in the index
	lifeDying               // on the dying list: gone for everybody, its counts not yet taken back
	lifeTimed               // its set-up is being timed: setup.go
	lifeAssured             // the connection has told its template that it was established
	lifeEngine              // a template found by its data, in engineIndex instead of the index
	lifeForeign             // an IPv4 entry whose server has an IPv6 address, which only the real server knows
	lifeCut                 // a connection that was taken off its server, and waits to be reset
)

func (e *entry) u16(at int) uint16       { return binary.NativeEndian.Uint16(e[at:]) }
func (e *entry) u32(at int) uint32       { return binary.NativeEndian.Uint32(e[at:]) }
func (e *entry) setU16(at int, v uint16) { binary.NativeEndian.PutUint16(e[at:], v) }
func (e *entry) setU32(at int, v uint32) { binary.NativeEndian.PutUint32(e[at:], v) }

func (e *entry) client4() uint32        { return e.u32(0) } // the addresses of an IPv4 entry, in host order
func (e *entry) virtual4() uint32       { return e.u32(4) }
func (e *entry) server4() uint32        { return e.u32(8) }
func (e *entry) clientPort() uint16     { return e.u16(12) }
func (e *entry) virtualPort() uint16    { return e.u16(14) }
func (e *entry) serverPort() uint16     { return e.u16(16) }
func (e *entry) flags() Flags           { return Flags(e.u16(18)) }
func (e *entry) proto() uint8           { return e[20] }
func (e *entry) state() State           { return State(e[21]) }
func (e *entry) method() service.Method { return service.Method(e[22]) }
func (e *entry) life() uint8            { return e[23] }
func (e *entry) rs() uint32             { return e.u32(24) }
func (e *entry) service() uint32        { return e.u32(28) }
func (e *entry) deadline() uint32       { return e.u32(36) }
func (e *entry) next() uint32           { return e.u32(40) }
func (e *entry) prev() uint32           { return e.u32(44) }
func (e *entry) control() uint32        { return e.u32(48) } // of a connection: a template's reference, or 0
func (e *entry) children() uint32       { return e.u32(48) } // of a template
func (e *entry) mark() uint32           { return e.u32(52) } // of a connection
func (e *entry) timeout() uint32        { return e.u32(52) } // of a template, in ticks
func (e *entry) gen() uint32            { return e.u32(56) }
func (e *entry) armed() uint16          { return e.u16(60) } // low bits of the wheel slot it is linked in
func (e *entry) controlGen() uint16     { return e.u16(62) }

func (e *entry) setClientPort(p uint16)        { e.setU16(12, p) }
func (e *entry) setVirtualPort(p uint16)       { e.setU16(14, p) }
func (e *entry) setServerPort(p uint16)        { e.setU16(16, p) }
func (e *entry) setFlags(f Flags)              { e.setU16(18, uint16(f)) }
func (e *entry) putState(s State)              { e[21] = uint8(s) }
func (e *entry) setLife(l uint8)               { e[23] = l }
func (e *entry) setPackets(n uint32)           { e.setU32(32, n) }
func (e *entry) setDeadline(t uint32)          { e.setU32(36, t) }
func (e *entry) setNext(s uint32)              { e.setU32(40, s) }
func (e *entry) setPrev(s uint32)              { e.setU32(44, s) }
func (e *entry) setChildren(n uint32)          { e.setU32(48, n) }
func (e *entry) setMark(m uint32)              { e.setU32(52, m) }
func (e *entry) setTimeout(t uint32)           { e.setU32(52, t) }
func (e *entry) setGen(g uint32)               { e.setU32(56, g) }
func (e *entry) setArmed(s uint16)             { e.setU16(60, s) }
func (e *entry) setControl(r uint32, g uint16) { e.setU32(48, r); e.setU16(62, g) }

// packets is what the client sent.
func (e *entry) packets() uint32 {
	if e.life()&lifeTimed != 0 {
		return e.u32(32) & countMask
	}
	return e.u32(32)
}

// countPacket counts one packet from the client. While e is timed stepSetup sees to it that there is room.
func (e *entry) countPacket() { e.setU32(32, e.u32(32)+1) }

func (e *entry) setPorts(proto uint8, client, virtual, server uint16) {
	e.setU16(12, client)
	e.setU16(14, virtual)
	e.setU16(16, server)
	e[20] = proto
}

func (e *entry) setKind(m service.Method, f Flags, rs, svc uint32) {
	e[22] = uint8(m)
	e.setFlags(f)
	e.setU32(24, rs)
	e.setU32(28, svc)
}

// matches says that e, an IPv4 entry, is indexed under k.
func (e *entry) matches(k *Key) bool {
	if e.client4() != k.client || e.clientPort() != k.cport || e.proto() != k.proto {
		return false
	}
	if k.dir == Out {
		return e.server4() == k.other && e.serverPort() == k.oport
	}
	return e.virtual4() == k.other && e.virtualPort() == k.oport
}

// replyIndexed says that the server's answers pass the director, so that e is found by them too.
func (e *entry) replyIndexed() bool {
	return e.flags()&Template == 0 && answersPass(e.method())
}

// answersPass says that a server's answers pass the director under this forwarding method.
func answersPass(m service.Method) bool { return m == service.Masq || m == service.Local }

// expired says that e's time is up.
func (e *entry) expired(tick uint32) bool { return int32(tick-e.deadline()) >= 0 }

// A tick is the unit of deadlines. 32 bits of them wrap after 2.3 years, which is no matter as long as no timeout is
// longer than half of that.
const (
	tickShift  = 24 // 16.8 ms
	maxTimeout = 1 << 30
)

func tickOf(now int64) uint32 { return uint32(now >> tickShift) }

// fill copies e into c, but for the addresses.
func (e *entry) fill(c *Conn, id ID, dir Dir, now int64) {
	c.ID = id
	c.ClientPort, c.VirtualPort, c.ServerPort = e.clientPort(), e.virtualPort(), e.serverPort()
	c.Proto, c.Method, c.State, c.Dir, c.Flags = service.Proto(e.proto()), e.method(), e.state(), dir, e.flags()
	c.Service, c.RS, c.Packets = e.service(), e.rs(), e.packets()
	c.Mark, c.Control = 0, 0
	if c.Flags&Template == 0 {
		c.Mark = e.mark()
		if r := e.control(); r != 0 {
			c.Control = templateID(r, e.controlGen())
		}
	}
	c.Expires = now + int64(int32(e.deadline()-tickOf(now)))<<tickShift
}

// The parts of an ID. A connection's is its generation (24 bits), shard (11) and slot (25); a template's has the top bit,
// the generation (16) and the reference, which is its shard (7) and slot (25): entries of connections have room for no
// more.
const (
	slotBits     = 25
	maxSlots     = 1 << slotBits
	shardBits    = 11
	templateBits = 7
	genMask      = 1<<24 - 1
	templateFlag = ID(1) << 63
)

func connID(gen, shard, slot uint32) ID {
	return ID(gen)<<(shardBits+slotBits) | ID(shard)<<slotBits | ID(slot)
}

func templateID(ref uint32, gen uint16) ID { return templateFlag | ID(gen)<<32 | ID(ref) }
