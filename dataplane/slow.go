package dataplane

import (
	"context"
	"sync/atomic"
	"time"

	"uvs/dataplane/fragment"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
)

const (
	slowQueue = 1024                   // frames that wait for the slow path
	slowBatch = 64                     // frames it takes before it transmits
	slowTick  = 100 * time.Millisecond // fragments, held packets and announcements are looked after this often
	askQueue  = 256                    // questions of the resolver's that wait to be sent by it
)

// slowPath does what may wait or allocate: it answers ARP and neighbour discovery, gathers fragments and announces our
// addresses. It runs the
// same code as the workers on whole datagrams.
type slowPath struct {
	path
	queue      chan queued
	asks       chan ask
	injections chan *injection
	departures chan departure
	departed   []departure // scratch
	woken      chan struct{}
	retry      atomic.Bool
	unsent     atomic.Uint64 // questions that found asks full
	gather     *fragment.Gatherer
	announce   announcer
	groups     []listener // by port

	ftpSweepAt   int64
	lastConflict int64 // last time one about addresses was logged
}

// queued is a frame on its way to the slow path, copied out of its ring.
type queued struct {
	port  int
	frame link.Frame
}

// ask is a question of the resolver's, to be sent out of a port.
type ask struct {
	port int
	nexthop.Question
}

func newSlowPath(p *Plane) (*slowPath, error) {
	links, err := openLinks(len(p.cfg.Ports), p.cfg.OpenTx, p.cfg.Ports)
	if err != nil {
		return nil, err
	}
	s := &slowPath{
		queue:      make(chan queued, slowQueue),
		injections: make(chan *injection, probeQueue),
		departures: make(chan departure, departureQueue),
		asks:       make(chan ask, askQueue),
		woken:      make(chan struct{}, 1),
		gather:     fragment.New(fragment.Limits{}),
	}
	s.path.init(p, links)
	s.announce.init(p.cfg.AnnounceInterval)
	s.groups = make([]listener, len(p.cfg.Ports))
	s.attach, s.replaced = p.cfg.OpenTx, s.rejoin
	s.cameUp = func(port int) {
		s.announce.again(port, s.looked)
		s.groups[port].again(s.looked)
	}
	return s, nil
}

func (s *slowPath) close() error { return closeLinks(s.tx) }

// offer hands a copy of a frame to the slow path, which then owns its verdict.
func (s *slowPath) offer(port int, f *link.Frame) Verdict {
	if len(s.queue) == cap(s.queue) {
		return DropSlowPathFull // spare the copy
	}
	c := queued{port: port, frame: copyFrame(f)}
	select {
	case s.queue <- c:
		return verdictNone
	default:
		return DropSlowPathFull
	}
}

// askLater queues a question of the resolver's.
func (s *slowPath) askLater(port int, q nexthop.Question) {
	select {
	case s.asks <- ask{port, q}:
	default:
		s.unsent.Add(1)
	}
}

// wake makes the slow path look at the configuration and at its held packets.
func (s *slowPath) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

func (s *slowPath) run(ctx context.Context) error {
	tick := time.NewTicker(slowTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.leave()
			return nil
		case q := <-s.queue:
			s.step(BootTime(), &q)
		case a := <-s.asks:
			s.ask(a)
		case in := <-s.injections:
			s.inject(in, BootTime())
		case d := <-s.departures:
			s.depart(d, BootTime())
		case <-s.woken:
			s.step(BootTime(), nil)
		case <-tick.C:
			s.step(BootTime(), nil)
		}
	}
}

// ask sends a question of the resolver's from the MAC address that the port has now.
func (s *slowPath) ask(a ask) {
	q, b := &s.ports[a.port], s.answer()
	switch {
	case !a.Target.Is4():
		b = forward.NeighbourSolicit(b, q.mac, a.Sender, a.To, a.Target)
	case a.To == (packet.MAC{}):
		b = forward.ARPRequest(b, q.mac, a.Sender.V4(), packet.Broadcast, a.Target.V4())
	default:
		b = forward.ARPRequest(b, q.mac, a.Sender.V4(), a.To, a.Target.V4())
	}
	s.tx[a.port].Send(b, nil)
	s.flush()
}

// step handles first and whatever else is queued, up to a batch, then what time asks for.
func (s *slowPath) step(now int64, first *queued) {
	news := s.retry.Swap(false)
	if news {
		s.lookSoon()
		s.announce.rerouted = true
	}
	s.watchLinks(now)
	s.mu.Lock()
	s.begin(now)
	if first != nil {
		s.takeAll(first)
	}
	if news && len(s.held) > 0 || s.heldDue(now) {
		s.retryHeld()
	}
	if n := s.gather.Expire(now); n > 0 {
		s.verdicts[DropFragment] += uint64(n)
	}
	s.announceDue()
	s.inquire()
	s.listenersDue()
	s.ftpSweep()
	s.mu.Unlock()
	s.flush()
}

// takeAll brings first and what else is queued, up to a batch, to their verdicts.
func (s *slowPath) takeAll(first *queued) {
	if s.tap != nil {
		s.listen(true)
		defer s.listen(false)
	}
	s.take(first)
	for range slowBatch {
		select {
		case q := <-s.queue:
			s.take(&q)
		default:
			return
		}
	}
}

// take brings a queued frame to its verdict.
func (s *slowPath) take(c *queued) {
	q, f := &s.ports[c.port], &c.frame
	if s.tap != nil {
		s.tap.begin(&s.path, c.port, f)
	}
	v, frames := s.decide(q, f)
	if v != verdictNone {
		s.verdicts[v] += frames
	}
	if s.tap != nil {
		s.tap.end(&s.path, v)
	}
}

// decide is the verdict on a queued frame, and on how many it is: on the others of its datagram too. It is verdictNone while
// the frame is set aside.
func (s *slowPath) decide(q *port, f *link.Frame) (v Verdict, frames uint64) {
	if (*packet.Eth)(f.Eth()).Type() == packet.EtherARP {
		return s.arp(q, f), 1
	}
	if p := s.pkt; packet.Decode(f.Eth(), p) == packet.NoFault && p.IsNeighbourDiscovery() {
		return s.discovery(q, f), 1
	}
	return s.takeFragment(q, f)
}
