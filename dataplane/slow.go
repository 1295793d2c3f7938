package dataplane

import (
	"context"
	"sync/atomic"
	"time"

	"uvs/dataplane/fragment"
	"uvs/dataplane/link"
	"uvs/packet"
)

const (
	slowQueue = 1024                   // frames that wait for the slow path
	slowBatch = 64                     // frames it takes before it transmits
	slowTick  = 100 * time.Millisecond // fragments, held packets and announcements are looked after this often
	sendQueue = 256                    // frames of others that wait to be sent by it
)

// slowPath does what may wait or allocate: it answers ARP, gathers fragments and announces our addresses. It runs the
// same code as the workers on whole datagrams.
type slowPath struct {
	path
	queue    chan queued
	sends    chan outgoing
	woken    chan struct{}
	retry    atomic.Bool
	unsent   atomic.Uint64 // frames that found sends full
	gather   *fragment.Gatherer
	announce announcer

	ftpSweepAt   int64
	lastConflict int64 // last time one about addresses was logged
}

// queued is a frame on its way to the slow path, copied out of its ring.
type queued struct {
	port  int
	frame link.Frame
}

type outgoing struct {
	port int
	buf  []byte
}

func newSlowPath(p *Plane) (*slowPath, error) {
	links, err := openLinks(len(p.cfg.Ports), p.cfg.OpenTx, p.cfg.Ports)
	if err != nil {
		return nil, err
	}
	s := &slowPath{
		queue:  make(chan queued, slowQueue),
		sends:  make(chan outgoing, sendQueue),
		woken:  make(chan struct{}, 1),
		gather: fragment.New(fragment.Limits{}),
	}
	s.path.init(p, links)
	s.announce.init(p.cfg.AnnounceInterval)
	s.attach, s.cameUp = p.cfg.OpenTx, func(port int) { s.announce.again(port, s.looked) }
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

// sendLater queues an Ethernet frame of somebody else's making.
func (s *slowPath) sendLater(port int, frame []byte) {
	buf := append(make([]byte, packet.VnetLen, packet.VnetLen+len(frame)), frame...)
	select {
	case s.sends <- outgoing{port, buf}:
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
			return nil
		case q := <-s.queue:
			s.step(BootTime(), &q)
		case o := <-s.sends:
			s.send(o)
		case <-s.woken:
			s.step(BootTime(), nil)
		case <-tick.C:
			s.step(BootTime(), nil)
		}
	}
}

func (s *slowPath) send(o outgoing) {
	// Whoever made it knows the MAC address of the start, and the interface may have come back with another.
	eth, payload, ok := packet.ParseEth(o.buf[packet.VnetLen:])
	if !ok {
		return
	}
	eth.SetSrc(s.ports[o.port].mac)
	if a, ok := packet.ParseARP(payload); ok && eth.Type() == packet.EtherARP {
		a.SetSenderMAC(s.ports[o.port].mac)
	}
	s.tx[o.port].Send(o.buf, nil)
	s.tx[o.port].Flush()
}

// step handles first and whatever else is queued, up to a batch, then what time asks for.
func (s *slowPath) step(now int64, first *queued) {
	news := s.retry.Swap(false)
	if news {
		s.lookSoon()
	}
	s.watchLinks(now)
	s.mu.Lock()
	s.begin(now)
	if first != nil {
		s.take(first)
	more:
		for range slowBatch {
			select {
			case q := <-s.queue:
				s.take(&q)
			default:
				break more
			}
		}
	}
	if news && len(s.held) > 0 || s.heldDue(now) {
		s.retryHeld()
	}
	if n := s.gather.Expire(now); n > 0 {
		s.verdicts[DropFragment] += uint64(n)
	}
	s.announceDue()
	s.ftpSweep()
	s.mu.Unlock()
	s.flush()
}

// take brings a queued frame to its verdict.
func (s *slowPath) take(c *queued) {
	q, f := &s.ports[c.port], &c.frame
	if (*packet.Eth)(f.Eth()).Type() == packet.EtherARP {
		s.verdicts[s.arp(q, f)]++
		return
	}
	s.takeFragment(q, f)
}
