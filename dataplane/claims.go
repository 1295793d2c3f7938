package dataplane

import (
	"context"
	"sync"
	"time"

	"uvs/forward"
	"uvs/packet"
)

// Claim is another station's claim to an address of ours, on a segment where we announce it.
type Claim struct {
	Addr    packet.Addr
	Port    int
	Station packet.MAC
	// Announces says that the station announced it by gratuitous ARP, as directors do and real servers don't.
	Announces bool
}

// claims gathers claims while somebody asks for them.
type claims struct {
	asking sync.Mutex // held by the one who asks

	mu      sync.Mutex // guards the rest
	open    bool
	started bool // the slow path has filled queue
	queue   []announced
	asked   map[announced]bool
	next    int64 // no question before
	heard   map[Claim]bool
}

const (
	claimRounds = 3                      // each address is asked for so often: one frame may be lost
	claimWait   = 500 * time.Millisecond // for the answers to the last question
)

// Claims asks on every segment whether anybody else has one of our addresses there, as one who has none, so that nobody's
// cache is touched (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2). It returns who said so, each station once for each
// address, in no order; and how many addresses it asked for. It takes about a second, more with thousands of addresses, or
// ends with ctx.
func (p *Plane) Claims(ctx context.Context) (found []Claim, asked int) {
	c := &p.claims
	c.asking.Lock()
	defer c.asking.Unlock()
	c.mu.Lock()
	c.heard, c.asked = make(map[Claim]bool), make(map[announced]bool)
	c.open = true
	c.mu.Unlock()
	for range claimRounds {
		c.mu.Lock()
		c.started = false
		c.mu.Unlock()
		for !c.idle() {
			p.slow.wake()
			if sleep(ctx, slowTick) != nil {
				break
			}
		}
		if sleep(ctx, claimWait/claimRounds) != nil {
			break
		}
	}
	_ = sleep(ctx, claimWait)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.queue = false, nil
	for claim, announces := range c.heard {
		claim.Announces = announces
		found = append(found, claim)
	}
	return found, len(c.asked)
}

// idle says that the round's questions are all sent.
func (c *claims) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started && len(c.queue) == 0
}

// sleep waits, and is ctx's error if that ended first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note remembers a claim if somebody asked.
func (c *claims) note(k Claim, announces bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		c.heard[k] = c.heard[k] || announces
	}
}

// inquire sends the questions of Claims whose time has come. The caller flushes.
func (s *slowPath) inquire() {
	c := &s.plane.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return
	}
	if !c.started {
		c.started = true
		for k := range s.announce.known {
			c.queue = append(c.queue, k)
			c.asked[k] = true
		}
	}
	if s.now < c.next {
		return
	}
	c.next = s.now + int64(slowTick)/2
	n := min(len(c.queue), announcePerTick)
	for _, k := range c.queue[:n] {
		q, tx := &s.ports[k.port], s.tx[k.port]
		if k.addr.Is4() {
			tx.Send(forward.ARPRequest(s.answer(), q.mac, 0, packet.Broadcast, k.addr.V4()), nil)
		} else {
			tx.Send(forward.NeighbourProbe(s.answer(), q.mac, k.addr), nil)
		}
	}
	c.queue = c.queue[n:]
}
