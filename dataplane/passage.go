package dataplane

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// A Passage is a probe that is a conversation: all packets of one flow of ours with one chosen real server. Who writes and reads
// them has an IP stack of his own (package dialer). It goes the same ways as a probe, with a queue at each end, and what a
// queue has no room for is lost and counted, as on a wire:
//
//	Send ------------> departures -> slow path: path.deliver --> wire
//	                                                               |
//	receive, failed <-- arrivals <-- path.probed (any worker) <----+
type Passage struct {
	probe
	plane    *Plane
	fromHost bool
	receive  func(ip []byte)
	failed   func(ProbeAnswer)
	closed   atomic.Bool
}

// The queues have room for what thousands of conversations send and hear in the time that a busy machine takes to come to
// whoever empties them: the goroutines of all those conversations may be before him.
const (
	departureQueue = 8192
	arrivalQueue   = 8192
	departureTries = 16
	keptRoom       = 2048 // what a place in the queue of arrivals keeps of memory; a super-frame's is given back
)

// OpenPassage opens a passage for packets between pr.From, under a local port that no other probe has, and pr.To and its port.
// Its Kind is ProbeConnect for TCP's, ProbeDatagram for UDP's. It is nil if no local port is free.
//
// receive is given each packet that comes back, from its IP header on, as a client would see it: a NAT server's in the name of the
// virtual service. Checksums have been looked at, or don't matter. failed is told of ICMP errors about what was sent
// (ProbeError), that it came back as it was (ProbeReturned), or that answers go to the host (ProbeAstray). A goroutine of
// Run's calls both: they must not block, nor keep what they are given.
func (p *Plane) OpenPassage(pr *Probe, receive func(ip []byte), failed func(ProbeAnswer)) *Passage {
	g := &Passage{probe: *newProbe(pr), plane: p, fromHost: pr.FromHost, receive: receive, failed: failed}
	g.passage = g
	p.arrivals.filled.Do(p.arrivals.fill)
	if !p.probes.open(&g.probe) {
		return nil
	}
	return g
}

// Port is the local port.
func (g *Passage) Port() uint16 { return g.query.SrcPort }

// Close ends the passage; its port is free for others. What comes in for it from now on is refused as any stray packet.
func (g *Passage) Close() {
	if !g.closed.Swap(true) {
		g.plane.probes.close(&g.probe)
	}
}

// departure is a packet on its way to the slow path.
type departure struct {
	of    *Passage
	frame *[]byte
}

var departureFrames = sync.Pool{New: func() any { return new([]byte) }}

// Send sends an IP packet of the passage's flow, given in pieces, with complete checksums. It doesn't block for long; false says
// that the queue was full. A packet whose next hop isn't known is lost, too.
func (g *Passage) Send(ip ...[]byte) bool {
	buf := departureFrames.Get().(*[]byte)
	b := append((*buf)[:0], make([]byte, forward.FrameHead)...)
	for _, piece := range ip {
		b = append(b, piece...)
	}
	etherType := uint16(packet.EtherIPv6)
	if g.query.Dst.Is4() {
		etherType = packet.EtherIPv4
	}
	packet.PutEth(b[packet.VnetLen:], packet.MAC{}, packet.MAC{}, etherType)
	*buf = b
	for range departureTries {
		select {
		case g.plane.slow.departures <- departure{g, buf}:
			return true
		default:
			runtime.Gosched() // let the slow path have its turn
		}
	}
	g.plane.arrivals.lost.Add(1)
	departureFrames.Put(buf)
	return false
}

// depart sends first and what else is queued, up to a batch.
func (s *slowPath) depart(first departure, now int64) {
	sent := append(s.departed[:0], first)
	s.mu.Lock()
	s.begin(now)
	s.sendPassage(first)
more:
	for range slowBatch {
		select {
		case d := <-s.departures:
			s.sendPassage(d)
			sent = append(sent, d)
		default:
			break more
		}
	}
	s.mu.Unlock()
	s.flush()
	for i, d := range sent {
		departureFrames.Put(d.frame)
		sent[i] = departure{}
	}
	s.departed = sent
}

// sendPassage sends a passage's packet.
func (s *slowPath) sendPassage(d departure) {
	c := &d.of.conn
	hop, way := s.serverHop(c)
	if hop == nil {
		if way == nexthop.Pending {
			s.plane.cfg.NextHops.Resolve(c.Server)
		}
		return
	}
	s.sendOwn(hop, &link.Frame{Buf: *d.frame}, c)
}

// arrivals are what has come back for passages and their owners haven't seen yet.
type arrivals struct {
	free, full chan *arrival // all places are in either
	filled     sync.Once     // free has its places, from the first passage on
	lost       atomic.Uint64 // packets of passages that there was no room for
}

// arrival is a frame that came back, or, where it is empty, other news of a passage.
type arrival struct {
	of   *Passage
	buf  []byte // virtio-net header and frame
	news ProbeAnswer
}

func (a *arrivals) init() {
	a.free, a.full = make(chan *arrival, arrivalQueue), make(chan *arrival, arrivalQueue)
}

// fill makes the places.
func (a *arrivals) fill() {
	places := make([]arrival, arrivalQueue)
	for i := range places {
		a.free <- &places[i]
	}
}

// offer copies a frame for its passage's owner.
func (a *arrivals) offer(g *Passage, f *link.Frame) {
	select {
	case at := <-a.free:
		at.of, at.buf = g, append(at.buf[:0], f.Buf...)
		a.full <- at
	default:
		a.lost.Add(1)
	}
}

// failed tells a passage's owner other news.
func (a *arrivals) failed(g *Passage, news ProbeAnswer) {
	select {
	case at := <-a.free:
		at.of, at.buf, at.news = g, at.buf[:0], news
		a.full <- at
	default:
		a.lost.Add(1)
	}
}

// run hands arrivals to their passages' owners until ctx ends.
func (a *arrivals) run(ctx context.Context) error {
	var p packet.Packet
	for {
		select {
		case <-ctx.Done():
			return nil
		case at := <-a.full:
			a.hand(at, &p)
		}
	}
}

// hand hands one to its owner. p is scratch.
func (a *arrivals) hand(at *arrival, p *packet.Packet) {
	g := at.of
	switch f := (link.Frame{Buf: at.buf}); {
	case g.closed.Load():
	case len(at.buf) == 0:
		g.failed(at.news)
	case packet.Decode(f.Eth(), p) == packet.NoFault && !p.Fragment:
		if g.conn.Method == service.Masq {
			forward.NATOut(p, f.Vnet(), g.conn.Virtual, g.conn.VirtualPort)
		}
		g.receive(p.Frame[p.L3:])
	}
	at.of = nil
	if cap(at.buf) > keptRoom {
		at.buf = nil
	}
	a.free <- at
}
