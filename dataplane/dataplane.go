// Package dataplane is the packet path: it takes frames from links, finds or makes their connection, rewrites them in
// place and sends them from where they lie. A packet's path is four calls in worker.batch and path.ip:
//
//	wire -> link: RX ring -> 1 packet.Decode      views over the ring's bytes, nothing copied
//	                         2 conntrack.In/Out   hit: on to 4
//	                         3 Table.Match, Scheduler.Pick, conntrack.Insert    first packet only
//	wire <- link: sendmmsg <- 4 forward           rewritten in the ring slot and sent from it
//
// Each worker owns its links, counters and scratch and runs every packet to its end. Beside the workers stands one slow
// path, the same code with transmit-only links, for what may wait or allocate: ARP, neighbour discovery and fragments.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"uvs/conntrack"
	"uvs/dataplane/ftp"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// NextHops finds the way to an address. *nexthop.Resolver is the real one, *nexthop.Static a table for tests.
type NextHops interface {
	// Lookup returns the way to dst. It takes no lock and does not allocate.
	Lookup(dst packet.Addr) (*nexthop.Hop, nexthop.Status)
	// Generation changes whenever an earlier answer of Lookup may have become wrong.
	Generation() uint64
	// Resolve asks for the way to dst to be found out; it never blocks.
	Resolve(dst packet.Addr)
	// HandleARP is told of every ARP packet seen on a port, HandleNDP of every neighbour solicitation and advertisement.
	HandleARP(port int, a *packet.ARP)
	HandleNDP(port int, n *packet.NDP)
}

// Port is an Ethernet interface that the director is attached to.
type Port struct {
	Name string
	// MAC is the address that uvs answers ARP and neighbour discovery with and puts into every frame it sends: its own, or the interface's.
	MAC packet.MAC
	// FollowMAC says that MAC is the interface's own: when the interface gets another, or disappears and returns with
	// another, that is taken.
	FollowMAC bool
	// Gateways are the addresses that uvs owns as gateway of segments of real servers, each with its prefix.
	Gateways []netip.Prefix
}

// InnerPolicy says what becomes of packets that real servers send through a gateway address of ours without belonging to
// a connection.
type InnerPolicy uint8

// The policies.
const (
	DropInnerTraffic       InnerPolicy = iota // counted and dropped
	ForwardInnerTraffic                       // routed as it is, and packets to the servers likewise
	MasqueradeInnerTraffic                    // TCP and UDP with the source translated to an address of ours
)

// Config is what a Plane is made of.
type Config struct {
	Ports []Port
	// Workers is the number of receiving threads; 0 means 1.
	Workers int
	// OpenRx opens the link of a worker on a port. All workers' links on one port share its frames. It is called again,
	// by the workers' threads, when an interface that disappeared may be back.
	OpenRx func(worker, port int) (link.Link, error)
	// OpenTx opens a transmit-only link on a port, for the slow path; it is called again likewise.
	OpenTx   func(port int) (link.Link, error)
	Conns    *conntrack.Table
	NextHops NextHops
	// Stack leads to the host's own stack, which serves real servers that are addresses of the director. nil: packets for
	// them are dropped.
	Stack *Stack
	// Inner is the policy for real servers' own traffic.
	Inner InnerPolicy
	// MasqueradeAddrs are the sources under which MasqueradeInnerTraffic sends, at most one of each family; where there is
	// none it is the family's lowest VIP.
	MasqueradeAddrs []netip.Addr
	// ProbeAddrs are addresses of ours that probes are sent from, owned on their segments like virtual addresses. See Probe.
	ProbeAddrs []netip.Addr
	// AnnounceInterval is the time between announcements of each address, by gratuitous ARP or unsolicited neighbour
	// advertisement; 0 means 30 s, negative none.
	AnnounceInterval time.Duration
	// AnnounceOn returns the port on whose segment an address lies, or false if the routes don't say; it is then
	// announced on every port without a gateway. nil: never known.
	AnnounceOn func(packet.Addr) (port int, ok bool)
	// AnswersPerSecond limits the ICMP errors and resets that each worker makes by itself; 0 means 1000.
	AnswersPerSecond int
	// Conflict is told that another station answers for an address of ours, at most once in ten seconds. It must not
	// block. nil: it is only logged.
	Conflict func(port int, a netip.Addr, station packet.MAC)
	// Pin binds worker i to CPU i.
	Pin bool
	// BusyPoll has workers look for frames without sleeping. Each then uses a whole CPU, and no frame waits until it wakes.
	BusyPoll bool
	Log      *zap.Logger
}

// Plane is a running packet path.
type Plane struct {
	cfg      Config
	table    atomic.Pointer[service.Table]
	traces   atomic.Pointer[[]*Trace] // nil while nobody traces
	workers  []*worker
	slow     *slowPath
	mtus     pathMTUs // to real servers behind tunnels
	narrow   pathMTUs // to clients of the host's own stack
	ftp      *ftp.Tracker
	probes   probes
	arrivals arrivals
	claims   claims
	signs    signs
	running  atomic.Bool
}

// New opens the links of all workers and returns a Plane that moves nothing until Run. The initial table has no service.
func New(cfg Config) (*Plane, error) {
	if len(cfg.Ports) == 0 {
		return nil, errors.New("no interface to attach to")
	}
	if cfg.Workers == 0 {
		cfg.Workers = 1
	}
	if cfg.AnnounceInterval == 0 {
		cfg.AnnounceInterval = 30 * time.Second
	}
	if cfg.AnswersPerSecond == 0 {
		cfg.AnswersPerSecond = 1000
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.withStack()
	p := &Plane{cfg: cfg, ftp: ftp.NewTracker()}
	p.table.Store(service.NewTable(nil, new(service.ServerIndex), 0))
	p.arrivals.init()
	slow, err := newSlowPath(p)
	if err != nil {
		return nil, err
	}
	p.slow = slow
	for i := range cfg.Workers {
		w, err := newWorker(p, i)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.workers = append(p.workers, w)
	}
	return p, nil
}

// Publish makes t the configuration. When it returns, every packet received from then on meets it. It must not be called by
// two goroutines at once.
func (p *Plane) Publish(t *service.Table) {
	p.eachPath(func(w *path) { w.makeRoom(t) })
	p.table.Store(t)
	p.eachPath(func(w *path) {
		w.mu.Lock() // a batch that began with the old table is over when its worker lets go
		defer w.mu.Unlock()
	})
	p.slow.wake()
}

// Table is the table published last.
func (p *Plane) Table() *service.Table { return p.table.Load() }

// Run moves packets until ctx ends, then returns nil.
func (p *Plane) Run(ctx context.Context) error {
	if p.running.Swap(true) {
		return errors.New("dataplane is running already")
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range p.workers {
		g.Go(func() error { return w.run(ctx) })
	}
	g.Go(func() error { return p.slow.run(ctx) })
	g.Go(func() error { return p.supply(ctx) })
	g.Go(func() error { return p.arrivals.run(ctx) })
	return g.Wait()
}

// supplyPause is the least time between two additions to the connection table's memory, a megabyte each. When there is none to
// be had, the supplier is asked with every connection.
const supplyPause = time.Millisecond

// supply gets the connection table memory before it is needed, so that no packet waits for its page faults.
func (p *Plane) supply(ctx context.Context) error {
	for low := p.cfg.Conns.LowMemory(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-low:
			p.cfg.Conns.Refill(BootTime())
			time.Sleep(supplyPause)
		}
	}
}

// Wake makes every worker and the slow path look again at the packets they hold and at their links. Call it when a next hop
// became known or was given up, and when an interface changed.
func (p *Plane) Wake() {
	for _, w := range p.workers {
		w.retry.Store(true)
		w.poller.Wake()
	}
	p.slow.retry.Store(true)
	p.slow.wake()
}

// Ask sends a question of the resolver's out of a port, from any goroutine, as from the port's MAC address. A full queue
// drops it, which is counted in Stats.Unsent.
func (p *Plane) Ask(port int, q nexthop.Question) { p.slow.askLater(port, q) }

// Close gives back the links. Run must have returned, or never been called.
func (p *Plane) Close() error {
	var errs []error
	for _, w := range p.workers {
		errs = append(errs, w.close())
	}
	if p.slow != nil {
		errs = append(errs, p.slow.close())
	}
	return errors.Join(errs...)
}

func (p *Plane) eachPath(yield func(*path)) {
	for _, w := range p.workers {
		yield(&w.path)
	}
	yield(&p.slow.path)
}

// openLinks opens one link per port, or none.
func openLinks(n int, open func(port int) (link.Link, error), ports []Port) ([]link.Link, error) {
	links := make([]link.Link, 0, n)
	for i := range n {
		l, err := open(i)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach to %s: %w", ports[i].Name, err), closeLinks(links))
		}
		links = append(links, l)
	}
	return links, nil
}

func closeLinks(links []link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
