package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Config says what load to make. A kind with a rate of 0 is left out.
type Config struct {
	// TCP is where connections and requests go, UDP where datagrams go.
	TCP, UDP netip.AddrPort
	// Sources are networks whose addresses are the clients'. None: the system's choice.
	Sources []netip.Prefix
	// Transparent takes sources that aren't the host's own (IP_TRANSPARENT, which needs CAP_NET_ADMIN); else they only need not
	// be there yet (IP_FREEBIND).
	Transparent bool
	// Connections, Requests and Datagrams are rates, a second: of TCP connections that are opened and closed, of HTTP requests on
	// a connection of their own, of UDP datagrams that are to be echoed.
	Connections, Requests, Datagrams float64
	// Hold is how many connections are opened and held to the end, when each is asked once more; at the rate HoldRate
	// (default so that they are there after a third of Time).
	Hold     int
	HoldRate float64
	// Path is what requests ask for; default "/".
	Path string
	// Size is the length of a datagram's payload in bytes, at least MinSize; default 100. Flows is how many sockets send them;
	// default one for each source, at most 1000.
	Size, Flows int
	// Time is how long it lasts, Timeout when an answer counts as missing; default 10 s and 5 s.
	Time, Timeout time.Duration
	// Uneven lets intervals vary as those of independent clients do (a Poisson process) instead of all being equal.
	Uneven bool
	// Most is how many connections and requests may be under way at once; default 20,000. What has to begin beyond them fails.
	Most int
	// Progress is told four times a second how it goes. nil: nobody.
	Progress func(*Snapshot)
}

// fill sets defaults and checks.
func (c *Config) fill() error {
	if c.Time <= 0 {
		c.Time = 10 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Most <= 0 {
		c.Most = 20_000
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Size == 0 {
		c.Size = 100
	}
	if c.HoldRate <= 0 {
		c.HoldRate = max(float64(c.Hold)/(c.Time.Seconds()/3), 1)
	}
	tcp := c.Connections > 0 || c.Requests > 0 || c.Hold > 0
	switch {
	case !tcp && c.Datagrams <= 0:
		return errors.New("no load is asked for: connections, requests, datagrams or held connections")
	case tcp && !c.TCP.IsValid():
		return errors.New("where do connections go?")
	case c.Datagrams > 0 && !c.UDP.IsValid():
		return errors.New("where do datagrams go?")
	case c.Size < MinSize || c.Size > 65000:
		return fmt.Errorf("datagrams of %d bytes; from %d to 65000 are possible", c.Size, MinSize)
	}
	for _, r := range []float64{c.Connections, c.Requests, c.Datagrams, c.HoldRate} {
		if !(r >= 0 && r <= 1e7) {
			return fmt.Errorf("%g a second is no rate from 0 to 10 million", r)
		}
	}
	for _, s := range c.Sources {
		if tcp && s.Addr().Is4() != c.TCP.Addr().Is4() || c.Datagrams > 0 && s.Addr().Is4() != c.UDP.Addr().Is4() {
			return fmt.Errorf("source %v is of another family than the target", s)
		}
	}
	if c.Flows <= 0 {
		c.Flows = 1000
		if n := (&sources{list: c.Sources}).count(); n > 0 {
			c.Flows = int(min(n, 1000))
		}
	}
	return nil
}

// sources gives out the clients' addresses in turn.
type sources struct {
	list []netip.Prefix
}

// count is how many addresses there are.
func (s *sources) count() (n uint64) {
	for _, p := range s.list {
		n += hosts(p)
	}
	return n
}

// hosts is how many addresses of a network are hosts': of IPv4 without the network's and the broadcast address.
func hosts(p netip.Prefix) uint64 {
	bits := p.Addr().BitLen() - p.Bits()
	switch {
	case bits >= 32:
		return 1 << 32
	case p.Addr().Is4() && bits > 1:
		return 1<<bits - 2
	}
	return 1 << bits
}

// at is the i-th address, of more than there are from the front again; the zero Addr if there are none.
func (s *sources) at(i uint64) netip.Addr {
	n := s.count()
	if n == 0 {
		return netip.Addr{}
	}
	i %= n
	for _, p := range s.list {
		if k := hosts(p); i >= k {
			i -= k
			continue
		}
		b := p.Masked().Addr().As16()
		if p.Addr().Is4() && p.Addr().BitLen()-p.Bits() > 1 {
			i++
		}
		for at := 15; i > 0; at, i = at-1, i>>8 {
			sum := uint64(b[at]) + i&0xff
			b[at] = byte(sum)
			i += sum >> 8 << 8 // carries
		}
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.Addr{}
}

// Run makes the load until its time is over or ctx ends; then the report is of what there was so far. The error is for load that
// could not be made at all.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	g := &generator{cfg: cfg, from: sources{cfg.Sources}, slots: make(chan struct{}, cfg.Most), start: time.Now()}
	loads, err := g.prepare()
	if err != nil {
		return nil, err
	}
	running, stop := context.WithTimeout(ctx, cfg.Time)
	defer stop()
	var all sync.WaitGroup
	for _, l := range loads {
		all.Go(func() { l.run(running, ctx) })
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		g.show(running, loads)
	}()
	all.Wait()
	stop()
	<-shown
	return g.report(loads, ctx.Err() != nil), nil
}

// generator is what the kinds of load share.
type generator struct {
	cfg   Config
	from  sources
	slots chan struct{} // one for each connection and request under way
	start time.Time
}

// load is one kind of load.
type load interface {
	// run makes load until running ends, and then waits for what is under way, unless ctx ends.
	run(running, ctx context.Context)
	tally() *tally
}

func (g *generator) prepare() (loads []load, err error) {
	cfg := &g.cfg
	if cfg.Connections > 0 {
		loads = append(loads, &streams{g: g, t: newTally(Connections), rate: cfg.Connections, do: g.connect})
	}
	if cfg.Requests > 0 {
		loads = append(loads, &streams{g: g, t: newTally(Requests), rate: cfg.Requests, do: g.request})
	}
	if cfg.Hold > 0 {
		loads = append(loads, &held{g: g, t: newTally(Held)})
	}
	if cfg.Datagrams > 0 {
		d, err := newDatagrams(g)
		if err != nil {
			return nil, err
		}
		loads = append(loads, d)
	}
	return loads, nil
}

// pace calls begin for each thing that is to begin, with the time it was to and its number, until ctx ends or there were so many.
// It is never ahead of the schedule and makes up for being late at once.
func (g *generator) pace(ctx context.Context, rate float64, most uint64, begin func(n uint64, due time.Time)) {
	random := rand.New(rand.NewPCG(uint64(rate*1000), most)) // the same intervals each time
	interval := float64(time.Second) / rate
	next := 0.0
	start := time.Now()
	for n := uint64(0); n < most; n++ {
		due := start.Add(time.Duration(next))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		} else if ctx.Err() != nil {
			return
		}
		begin(n, due)
		if g.cfg.Uneven {
			next += random.ExpFloat64() * interval
		} else {
			next += interval
		}
	}
}

// show tells of progress.
func (g *generator) show(ctx context.Context, loads []load) {
	if g.cfg.Progress == nil {
		return
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s := &Snapshot{Elapsed: time.Since(g.start), Of: g.cfg.Time}
			for _, l := range loads {
				s.Kinds = append(s.Kinds, l.tally().snapshot())
			}
			g.cfg.Progress(s)
		}
	}
}
