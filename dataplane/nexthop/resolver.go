package nexthop

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"uvs/packet"
)

// Resolver answers from a mirror of the kernel's routes and neighbours.
type Resolver struct {
	cfg Config
	log *zap.Logger

	view       atomic.Pointer[view]
	generation atomic.Uint64
	stats      counters

	asked queue     // addresses that workers want to know
	heard chan sign // what came from gateways' segments
	pins  pins

	closing sync.Once
	state   // of Run alone
}

// Stats counts what happened since New.
type Stats struct {
	Asked        uint64 // addresses that Resolve took
	AskedFull    uint64 // addresses that Resolve had no room for
	HeardFull    uint64 // packets that HandleARP and HandleNDP had no room for
	Reloads      uint64 // times that routes were read anew
	EventsLost   uint64 // times that the kernel had more news than room for it
	KernelErrors uint64 // requests that the kernel refused
	Full         uint64 // addresses not remembered because of MaxAddresses
}

type counters struct{ askedFull, asked, heardFull, reloads, eventsLost, kernelErrors, full atomic.Uint64 }

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	c := &r.stats
	return Stats{
		Asked: c.asked.Load(), AskedFull: c.askedFull.Load(), HeardFull: c.heardFull.Load(), Reloads: c.reloads.Load(),
		EventsLost: c.eventsLost.Load(), KernelErrors: c.kernelErrors.Load(), Full: c.full.Load(),
	}
}

const (
	queueLen     = 1024  // addresses waiting to be resolved
	heardLen     = 512   // signs of life waiting to be looked at
	maxAddresses = 65536 // see Config.MaxAddresses
)

// New reads the kernel's tables and returns a Resolver that answers by them. It follows their changes only within Run. The
// calling thread's network namespace is the Resolver's.
func New(cfg Config) (*Resolver, error) { return newResolver(cfg, eventBuffer) }

func newResolver(cfg Config, buffer int) (*Resolver, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.MaxAddresses == 0 {
		cfg.MaxAddresses = maxAddresses
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Ask == nil {
		cfg.Ask = func(int, Question) {}
	}
	v := &view{exact: newExact(0)}
	for _, g := range cfg.Gateways {
		if g.Iface < 0 || g.Iface >= len(cfg.Interfaces) {
			return nil, fmt.Errorf("gateway %v: no interface at position %d", g.Prefix, g.Iface)
		}
		if !g.Prefix.IsValid() {
			return nil, fmt.Errorf("gateway %v: not an address with a prefix length", g.Prefix)
		}
		v.segments = append(v.segments, segment{
			net: packet.AddrFrom(g.Prefix.Masked().Addr()), bits: g.Prefix.Bits(), own: packet.AddrFrom(g.Prefix.Addr()), iface: g.Iface,
		})
	}
	k, err := openKernel(buffer)
	if err != nil {
		return nil, err
	}
	r := &Resolver{cfg: cfg, log: cfg.Log, heard: make(chan sign, heardLen)}
	r.asked.init()
	r.pins.changed = make(chan struct{}, 1)
	r.state.init(k, len(cfg.Interfaces))
	r.view.Store(v)
	r.dirty = dirtyAll
	if err := r.reload(time.Now()); err != nil {
		k.close()
		return nil, err
	}
	for i := range r.attached {
		if r.attached[i].Index == 0 {
			k.close()
			return nil, fmt.Errorf("interface %s does not exist", cfg.Interfaces[i].Name)
		}
	}
	r.finish()
	return r, nil
}

// Run follows the kernel's tables and resolves neighbours until ctx ends, then returns nil. It is called once.
func (r *Resolver) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	events := make(chan event, 64)
	g.Go(func() error { return r.kernel.listen(events, ctx.Done()) })
	g.Go(func() error {
		defer r.Close() // wakes listen
		return r.loop(ctx, events)
	})
	return g.Wait()
}

// Close gives back the sockets of a Resolver whose Run was never called; Run does it itself.
func (r *Resolver) Close() error {
	r.closing.Do(r.kernel.close)
	return nil
}

// tick is how often timers are looked at.
const tick = time.Second

func (r *Resolver) loop(ctx context.Context, events <-chan event) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	again := time.NewTimer(0) // for a reload that had to wait
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			r.follow(ev)
			for more := true; more; { // what came in one burst is one change
				select {
				case ev := <-events:
					r.follow(ev)
				default:
					more = false
				}
			}
		case <-r.asked.waiting:
			r.answerAsked(time.Now())
		case a := <-r.heard:
			r.hear(a, time.Now())
		case <-r.pins.changed:
			r.pinned = r.pins.take()
			r.keepPinned(time.Now())
		case <-ticker.C:
			r.tick(time.Now())
		case <-again.C:
		}
		now := time.Now()
		r.reconsiderRerouted(now)
		if at, ok := r.due(); ok && !now.Before(at) {
			if err := r.reload(now); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				r.log.Error("cannot read the kernel's routes and neighbours; trying again", zap.Error(err))
				r.reloadAt, r.settleAt = now.Add(time.Second), now.Add(time.Second)
			}
		}
		if at, ok := r.due(); ok {
			again.Reset(max(time.Until(at), 0))
		}
		r.finish()
	}
}

// Resolve asks for the way to dst to be found out. It never blocks and does not allocate: an address that is asked for
// already is not asked for twice, and one too many is dropped and counted.
func (r *Resolver) Resolve(dst packet.Addr) {
	if r.asked.put(dst) {
		r.stats.asked.Add(1)
	} else {
		r.stats.askedFull.Add(1)
	}
}

// queue is a bounded set of addresses.
type queue struct {
	waiting chan struct{} // has an element while set may have

	mu    sync.Mutex // guards the rest; held for a map access
	set   map[packet.Addr]struct{}
	spare map[packet.Addr]struct{}
}

func (q *queue) init() {
	q.waiting = make(chan struct{}, 1)
	q.set, q.spare = make(map[packet.Addr]struct{}, queueLen), make(map[packet.Addr]struct{}, queueLen)
}

func (q *queue) put(a packet.Addr) bool {
	q.mu.Lock()
	_, ok := q.set[a]
	if !ok && len(q.set) < queueLen {
		q.set[a] = struct{}{}
		ok = true
	}
	q.mu.Unlock()
	select {
	case q.waiting <- struct{}{}:
	default:
	}
	return ok
}

// take empties the queue. What it returns is good until the next take.
func (q *queue) take() map[packet.Addr]struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.spare)
	q.set, q.spare = q.spare, q.set
	return q.spare
}

// pins carries the latest list of addresses to keep resolved to Run.
type pins struct {
	changed chan struct{}

	mu   sync.Mutex // guards list
	list []packet.Addr
}

func (p *pins) take() []packet.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

// SetPinned names the addresses whose next hops are kept resolved and watched although no packet may go there for a
// while: the real servers. One that dies becomes Unreachable within 10 seconds.
func (r *Resolver) SetPinned(addrs []packet.Addr) {
	list := append([]packet.Addr(nil), addrs...)
	r.pins.mu.Lock()
	r.pins.list = list
	r.pins.mu.Unlock()
	select {
	case r.pins.changed <- struct{}{}:
	default:
	}
}

// LinkState is what is known of an attached interface.
type LinkState struct {
	Index int // 0: there is no such interface at present
	MTU   int
	Up    bool
	MAC   packet.MAC // the interface's own
}

// Link returns the state of the interface at a position in Config.Interfaces. A Changed call follows each change.
func (r *Resolver) Link(iface int) LinkState { return *r.links[iface].Load() }
