package dataplane

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"uvs/conntrack"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// Local ports of probes: from where Linux takes its own by default; and of passages in the host's name some below, by which a
// socket filter tells what may be their answers from the bulk of the host's own.
const (
	probePorts     = 28232
	probeFirstPort = 32768

	FirstHostProbePort = 16384
	LastHostProbePort  = 32767
)

// probes are those that are out. With thousands of them, a client's packet still meets no lock and no map: its ports lead it
// past the bitmap, or, where a client happens to have the port of a probe, its address past sources.
type probes struct {
	sources atomic.Pointer[[]packet.Addr] // the addresses that they were sent from; nil if none is out
	ports   [1 << 16 / 64]atomic.Uint64   // the bits of local ports in use

	mu    sync.Mutex // guards the rest
	count map[packet.Addr]int
	flows map[packet.Flow]*probe // by the answer's flow
}

// newProbe is pr, not yet registered.
func newProbe(pr *Probe) *probe {
	b := new(probe)
	b.conn = conntrack.Conn{
		Client: pr.From, Virtual: pr.To, Server: pr.Server, VirtualPort: pr.Port, ServerPort: pr.ServerPort,
		Method: pr.Method, Service: service.NoServer, RS: pr.RS,
	}
	b.query = forward.Query{
		Flow: packet.Flow{Src: pr.From, Dst: pr.To, DstPort: pr.Port, Proto: packet.ProtoTCP},
		Seq:  rand.Uint32(), Len: pr.Len, Uncut: pr.Uncut,
	}
	switch {
	case pr.Kind == ProbeDatagram:
		b.query.Proto = packet.ProtoUDP
	case pr.Kind == ProbeEcho && pr.To.Is4():
		b.query.Proto, b.query.DstPort = packet.ProtoICMP, 0
	case pr.Kind == ProbeEcho:
		b.query.Proto, b.query.DstPort = packet.ProtoICMPv6, 0
	}
	return b
}

// open registers a probe under a local port that no other has, and is false if there is none.
func (ps *probes) open(b *probe) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	first, n := probeFirstPort, probePorts
	if b.passage != nil && b.passage.fromHost {
		first, n = FirstHostProbePort, LastHostProbePort-FirstHostProbePort+1
	}
	begin := rand.N(n)
	for i := range n {
		if port := uint16(first + (begin+i)%n); !ps.hasPort(port) {
			ps.enter(b, port)
			return true
		}
	}
	return false
}

// enter registers a probe under a local port. ps.mu is held.
func (ps *probes) enter(b *probe, port uint16) {
	b.query.SrcPort, b.conn.ClientPort = port, port
	if ps.flows == nil {
		ps.flows, ps.count = make(map[packet.Flow]*probe), make(map[packet.Addr]int)
	}
	ps.flows[b.answerFlow()] = b
	if ps.count[b.query.Src]++; ps.count[b.query.Src] == 1 {
		ps.publish()
	}
	ps.ports[port/64].Or(1 << (port % 64))
}

func (ps *probes) close(b *probe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	port := b.query.SrcPort
	ps.ports[port/64].And(^(uint64(1) << (port % 64)))
	delete(ps.flows, b.answerFlow())
	if ps.count[b.query.Src]--; ps.count[b.query.Src] == 0 {
		delete(ps.count, b.query.Src)
		ps.publish()
	}
}

// publish makes sources what count says. ps.mu is held.
func (ps *probes) publish() {
	if len(ps.count) == 0 {
		ps.sources.Store(nil)
		return
	}
	list := make([]packet.Addr, 0, len(ps.count))
	for a := range ps.count {
		list = append(list, a)
	}
	ps.sources.Store(&list)
}

// answerFlow is the flow of what the server answers, as it comes in.
func (b *probe) answerFlow() packet.Flow {
	f := b.query.Flow.Reverse()
	if b.conn.Method == service.Masq {
		f.Src = b.conn.Server
		if f.Proto == packet.ProtoTCP || f.Proto == packet.ProtoUDP {
			f.SrcPort = b.conn.ServerPort
		}
	}
	return f
}

// out says that there are probes.
func (ps *probes) out() bool { return ps.sources.Load() != nil }

func (ps *probes) hasPort(port uint16) bool { return ps.ports[port/64].Load()&(1<<(port%64)) != 0 }

// has says that a probe may have been sent from a port of an address.
func (ps *probes) has(port uint16, a packet.Addr) bool {
	if !ps.hasPort(port) {
		return false
	}
	list := ps.sources.Load()
	return list != nil && slices.Contains(*list, a)
}

// find returns the probe that packets of a flow answer, or nil.
func (ps *probes) find(f packet.Flow) *probe {
	if !ps.has(f.DstPort, f.Dst) {
		return nil
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.flows[f]
}
