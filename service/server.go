package service

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"uvs/packet"
)

// RealServer is one real server of one virtual service. It lives from its first -a until the last connection bound to it
// is gone, through every change of its weight and through removal and return (the kernel's trash). Its identity never
// changes; the rest is atomic, written by control and, for the counts, by the connection table.
type RealServer struct {
	// Service is the virtual service that it belongs to.
	Service Key
	// Addr is the RIP with the server's port. DR and TUN cannot change the port: control puts the service's here.
	Addr netip.AddrPort
	// IP is Addr's address as the packet path has it.
	IP packet.Addr
	// Index is the server's slot in the ServerIndex and in counter arrays.
	Index uint32

	method     atomic.Uint32
	asked      atomic.Uint32
	encap      atomic.Uint32
	weight     atomic.Int32
	staged     atomic.Int32
	lastWeight atomic.Int32
	upper      atomic.Uint32
	lower      atomic.Uint32
	available  atomic.Bool
	overloaded atomic.Bool

	active     atomic.Int32
	inactive   atomic.Int32
	persistent atomic.Int32

	latency latency
}

// NewRealServer returns an available real server that forwards by method m. Its Index is set by ServerIndex.Add.
func NewRealServer(service Key, addr netip.AddrPort, m Method, weight int32) *RealServer {
	rs := &RealServer{Service: service, Addr: addr, IP: packet.AddrFrom(addr.Addr())}
	rs.method.Store(uint32(m))
	rs.asked.Store(uint32(m))
	rs.SetWeight(weight)
	rs.available.Store(true)
	return rs
}

// String is the server as messages show it, such as "10.0.0.11:80".
func (rs *RealServer) String() string { return rs.Addr.String() }

// Method is the forwarding method of new connections; a connection keeps the one it began with.
func (rs *RealServer) Method() Method { return Method(rs.method.Load()) }

// SetMethod changes the forwarding method of new connections.
func (rs *RealServer) SetMethod(m Method) { rs.method.Store(uint32(m)) }

// Asked is the forwarding method that was asked for. It differs from Method for a server that is the director itself: that is
// served as Local whatever was asked for, but its connections have the states and the counts of the method that was.
func (rs *RealServer) Asked() Method { return Method(rs.asked.Load()) }

// SetAsked records the forwarding method that was asked for.
func (rs *RealServer) SetAsked(m Method) { rs.asked.Store(uint32(m)) }

// Weight is the share of new connections; 0 means quiesced.
func (rs *RealServer) Weight() int32 { return rs.weight.Load() }

// LastWeight is the last staged weight that wasn't 0. mh builds its table from it, so that quiescing moves no client.
func (rs *RealServer) LastWeight() int32 { return rs.lastWeight.Load() }

// SetWeight changes the weight at once.
func (rs *RealServer) SetWeight(w int32) {
	rs.StageWeight(w)
	rs.CommitWeight()
}

// StagedWeight is the weight that the next table brings: what a scheduler's Changed and Prepare go by, while Pick still
// sees Weight. Thus a change of many weights comes into force with the lists it belongs to, and not while those are
// being built.
func (rs *RealServer) StagedWeight() int32 { return rs.staged.Load() }

// StageWeight sets the staged weight.
func (rs *RealServer) StageWeight(w int32) {
	if w != 0 {
		rs.lastWeight.Store(w)
	}
	rs.staged.Store(w)
}

// CommitWeight puts the staged weight into force.
func (rs *RealServer) CommitWeight() { rs.weight.Store(rs.staged.Load()) }

// Readmit stages the weight of a server that was removed and comes back: like a new one it has no earlier weight.
func (rs *RealServer) Readmit(w int32) {
	rs.lastWeight.Store(w)
	rs.staged.Store(w)
}

// Encap says how the method Tunnel encapsulates.
func (rs *RealServer) Encap() Encap {
	v := rs.encap.Load()
	return Encap{Kind: EncapKind(v >> 24), Checksum: EncapChecksum(v >> 16), Port: uint16(v)}
}

// SetEncap changes how the method Tunnel encapsulates.
func (rs *RealServer) SetEncap(e Encap) {
	rs.encap.Store(uint32(e.Kind)<<24 | uint32(e.Checksum)<<16 | uint32(e.Port))
}

// Thresholds are the connection counts at which the server becomes overloaded (upper) and stops being so (lower); 0
// means none.
func (rs *RealServer) Thresholds() (upper, lower uint32) { return rs.upper.Load(), rs.lower.Load() }

// SetThresholds changes the thresholds. A raised or removed upper one ends an overload, as in ip_vs_ctl.c.
func (rs *RealServer) SetThresholds(upper, lower uint32) {
	if upper == 0 || upper > rs.upper.Load() {
		rs.overloaded.Store(false)
	}
	rs.upper.Store(upper)
	rs.lower.Store(lower)
}

// Available says that the server is in its service's list. One that was removed keeps its connections but is not
// available, until it is added again.
func (rs *RealServer) Available() bool { return rs.available.Load() }

// SetAvailable records that the server was removed from its service or returned to it.
func (rs *RealServer) SetAvailable(yes bool) { rs.available.Store(yes) }

// Overloaded says that the upper threshold was reached and the lower one not yet undercut.
func (rs *RealServer) Overloaded() bool { return rs.overloaded.Load() }

// Eligible says that the server may take a new connection: neither quiesced nor overloaded.
func (rs *RealServer) Eligible() bool { return rs.weight.Load() > 0 && !rs.overloaded.Load() }

// Active is the number of connections that IPVS counts as active: TCP between its first SYN and the first FIN.
func (rs *RealServer) Active() int32 { return rs.active.Load() }

// Inactive is the number of other connections: closing TCP, all UDP.
func (rs *RealServer) Inactive() int32 { return rs.inactive.Load() }

// Persistent is the number of persistence templates.
func (rs *RealServer) Persistent() int32 { return rs.persistent.Load() }

// Refs is the number of entries that point at the server; at 0 it may be forgotten.
func (rs *RealServer) Refs() int {
	return int(rs.active.Load()) + int(rs.inactive.Load()) + int(rs.persistent.Load())
}

// Bind counts a new connection, inactive or active, and applies the upper threshold (ip_vs_conn.c, ip_vs_bind_dest).
func (rs *RealServer) Bind(active bool) {
	if active {
		rs.active.Add(1)
	} else {
		rs.inactive.Add(1)
	}
	if u := rs.upper.Load(); u != 0 && rs.total() >= u {
		rs.overloaded.Store(true)
	}
}

// Unbind counts off a connection that is gone and applies the lower threshold: below it, or without one below three
// quarters of the upper, an overload ends (ip_vs_unbind_dest).
func (rs *RealServer) Unbind(active bool) {
	if active {
		rs.active.Add(-1)
	} else {
		rs.inactive.Add(-1)
	}
	switch upper, lower := rs.Thresholds(); {
	case lower != 0:
		if rs.total() < lower {
			rs.overloaded.Store(false)
		}
	case upper != 0:
		if 4*uint64(rs.total()) < 3*uint64(upper) {
			rs.overloaded.Store(false)
		}
	default:
		rs.overloaded.Store(false)
	}
}

// SetActive moves a connection from inactive to active or back.
func (rs *RealServer) SetActive(active bool) {
	if active {
		rs.inactive.Add(-1)
		rs.active.Add(1)
	} else {
		rs.active.Add(-1)
		rs.inactive.Add(1)
	}
}

// BindTemplate counts a persistence template; thresholds don't see them.
func (rs *RealServer) BindTemplate() { rs.persistent.Add(1) }

// UnbindTemplate counts off a persistence template.
func (rs *RealServer) UnbindTemplate() { rs.persistent.Add(-1) }

func (rs *RealServer) total() uint32 { return uint32(rs.active.Load() + rs.inactive.Load()) }

const (
	chunkBits = 10
	chunkSize = 1 << chunkBits
	maxChunks = 1 << 10
)

// ServerIndex names real servers by small numbers, so that a connection entry needs no pointer. Readers take no lock; Add
// and Remove belong to control alone, one at a time.
type ServerIndex struct {
	chunks [maxChunks]atomic.Pointer[[chunkSize]atomic.Pointer[RealServer]]
	next   uint32
	free   []uint32
}

// NoServer is the index of no server.
const NoServer = ^uint32(0)

// Add gives rs a slot and sets its Index.
func (x *ServerIndex) Add(rs *RealServer) error {
	var i uint32
	switch n := len(x.free); {
	case n > 0:
		i = x.free[n-1]
		x.free = x.free[:n-1]
	case x.next == maxChunks*chunkSize:
		return fmt.Errorf("add real server %v: %d real servers are the most one director can have", rs, x.next)
	default:
		i = x.next
		x.next++
	}
	c := x.chunks[i>>chunkBits].Load()
	if c == nil {
		c = new([chunkSize]atomic.Pointer[RealServer])
		x.chunks[i>>chunkBits].Store(c)
	}
	rs.Index = i
	c[i&(chunkSize-1)].Store(rs)
	return nil
}

// Remove frees the slot of rs. No entry may point at it any more: Refs must be 0 and rs unpublished for long enough that
// no worker is still about to bind a connection to it.
func (x *ServerIndex) Remove(rs *RealServer) {
	if x.At(rs.Index) == rs {
		x.chunks[rs.Index>>chunkBits].Load()[rs.Index&(chunkSize-1)].Store(nil)
		x.free = append(x.free, rs.Index)
	}
}

// At returns the server in slot i, or nil.
func (x *ServerIndex) At(i uint32) *RealServer {
	if i >= maxChunks*chunkSize {
		return nil
	}
	c := x.chunks[i>>chunkBits].Load()
	if c == nil {
		return nil
	}
	return c[i&(chunkSize-1)].Load()
}

// Free is how many more servers can be added.
func (x *ServerIndex) Free() int { return maxChunks*chunkSize - int(x.next) + len(x.free) }

// Cap is one more than the highest slot ever given out: the length that counter arrays need.
func (x *ServerIndex) Cap() int { return int(x.next) }
