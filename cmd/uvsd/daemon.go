package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"uvs/config/live"
	"uvs/conntrack"
	"uvs/control"
	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/dialer"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
	"uvs/dataplane/local"
	"uvs/dataplane/nexthop"
	"uvs/health"
	"uvs/packet"
	"uvs/service"
)

// daemon is uvsd's parts, wired together.
type daemon struct {
	o        *options
	log      *zap.Logger
	started  time.Time
	listener net.Listener
	ports    []*port
	resolver *nexthop.Resolver
	guard    *guard.Guard
	stack    *local.Stack
	conns    *conntrack.Table
	plane    *dataplane.Plane
	director *control.Director
	tables   *publisher
	locals   *localServers
	dialer   *dialer.Dialer
	inBand   *health.InBand
	sources  sources
	live     *live.Live    // nil without a configuration file
	seen     uint64        // generation of the last table; publish is never called twice at once
	appeared chan struct{} // wakes checkAddresses

	mu       sync.Mutex
	warnings []api.Warning // guarded by mu
}

// port is an attached interface.
type port struct {
	name     string
	mac      packet.MAC // at the start: see daemon.mac
	mode     guard.Mode
	why      string // that mode was chosen
	gateways []netip.Prefix
	opened   atomic.Pointer[link.Info] // the first worker's link; a worker opens another when the interface returns
}

// info is what the first worker's link turned out to be; the zero value before it was opened.
func (p *port) info() link.Info {
	if i := p.opened.Load(); i != nil {
		return *i
	}
	return link.Info{}
}

// newDaemon attaches to the interfaces; nothing moves until run. On an error everything is given back.
func newDaemon(o *options, log *zap.Logger) (_ *daemon, err error) {
	d := &daemon{o: o, log: log, started: time.Now(), appeared: make(chan struct{}, 1)}
	d.locals = newLocalServers(d.leadBack)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.listener, err = api.Listen(o.socket, "uvs"); err != nil {
		return nil, err
	}
	if err = d.preparePorts(); err != nil {
		return nil, err
	}
	if d.guard, err = guard.New(guard.Config{Interfaces: d.guarded(), Log: log}); err != nil {
		return nil, err
	}
	if err = d.prepareResolver(); err != nil {
		return nil, err
	}
	servers := new(service.ServerIndex)
	limit := o.maxConnections
	if limit == 0 {
		limit = maxConnections()
	}
	if d.conns, err = conntrack.New(conntrack.Config{Servers: servers, Alloc: dataplane.TableMemory, MaxConns: limit}); err != nil {
		return nil, err
	}
	if err = d.preparePlane(); err != nil {
		return nil, err
	}
	if err = d.prepareDialer(); err != nil {
		return nil, err
	}
	if err = d.report(guard.CheckHost(d.checkConfig())); err != nil { // again, now that it is known what the links can do
		return nil, err
	}
	d.tables = &publisher{
		guard: d.guard, plane: d.plane, unwanted: d.unwanted, more: unwantedOf, followed: d.followed, log: log, changed: make(chan struct{}, 1),
	}
	d.director = control.New(control.Config{
		Servers: servers, Connections: d.conns, Counters: d.plane, Publish: d.publish, Now: dataplane.BootTime,
		IsLocal: d.isLocal, CanForward: d.canForward, FillStatus: d.fillStatus, Explain: d.plane.Explain, Trace: d.plane.Trace, Watched: d.conns,
		Doctor:       d.diagnose,
		Health:       health.Config{Dial: d.dialProbe, Virtual: d.canDialVirtual},
		InterfaceMTU: interfaceMTU, Reload: d.reload(), Save: d.save(), Changed: d.changed,
		Interfaces: o.interfaces, AvailablePages: func() int { return availablePages(d.conns.Stats(), limit) },
		Version: api.Version{UVS: version}, Log: log,
	})
	d.inBand = health.NewInBand(health.InBandConfig{
		Table: d.plane.Table, AddSymptoms: d.plane.AddSymptoms, AddCounters: d.plane.AddCounters,
		Wanted: d.director.WatchesInBand, Suspect: d.director.Suspect,
	})
	d.followFile()
	return d, nil
}

// run serves until ctx ends.
func (d *daemon) run(ctx context.Context, hup <-chan os.Signal) error {
	if d.live != nil {
		if err := d.live.Start(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.resolver.Run(ctx) })
	g.Go(func() error { return d.plane.Run(ctx) })
	g.Go(func() error { d.director.Run(ctx); return nil })
	g.Go(func() error { return api.Serve(ctx, d.listener, d.director, d.o.profiles()...) })
	g.Go(func() error { return d.guard.Run(ctx) })
	g.Go(func() error { return d.tables.run(ctx) })
	g.Go(func() error { return d.checkAddresses(ctx) })
	g.Go(func() error { return d.locals.run(ctx) })
	g.Go(func() error { return d.dialer.Run(ctx) })
	g.Go(func() error { return d.inBand.Run(ctx) })
	g.Go(func() error { return d.follow(ctx, hup) })
	d.log.Info("uvsd is up", zap.String("version", version), zap.Strings("interfaces", d.o.interfaces), zap.String("socket", d.o.socket), zap.Int("pid", os.Getpid()))
	err := g.Wait()
	d.log.Info("uvsd stops")
	return err
}

// close gives back what newDaemon took.
func (d *daemon) close() error {
	var errs []error
	if d.plane != nil {
		errs = append(errs, d.plane.Close())
	}
	if d.stack != nil {
		errs = append(errs, d.stack.Close())
	}
	if d.guard != nil {
		errs = append(errs, d.guard.Close())
	}
	if d.resolver != nil {
		errs = append(errs, d.resolver.Close())
	}
	if d.listener != nil {
		if err := d.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// publish brings a new table into force, and before it the way back for what its local servers answer.
func (d *daemon) publish(t *service.Table) {
	services, _ := since(t, d.seen)
	d.seen = t.Generation
	d.locals.add(services)
	d.tables.publish(t)
}

// followed keeps the resolver's pinned neighbours in line with the table, and has new addresses checked.
func (d *daemon) followed(t *service.Table) {
	d.resolver.SetPinned(serverAddrs(t))
	select {
	case d.appeared <- struct{}{}:
	default: // it has yet to look anyway
	}
}

// serverAddrs are the addresses of all real servers, each once.
func serverAddrs(t *service.Table) []packet.Addr {
	seen := make(map[packet.Addr]bool)
	var addrs []packet.Addr
	for _, vs := range t.Services {
		for _, rs := range vs.Servers {
			if !seen[rs.IP] {
				seen[rs.IP] = true
				addrs = append(addrs, rs.IP)
			}
		}
	}
	return addrs
}
