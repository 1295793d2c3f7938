// Package control holds the desired state of a director: virtual services, their real servers, timeouts. It validates
// each change whole, builds a new service.Table and publishes it by one swap; the packet path reads nothing else. It
// implements the API's backend.
//
// What has an identity keeps it through every change: a virtual service its scheduler's state and its counters, a real
// server its connections and counters, even when it was removed and comes back before its last connection is gone.
package control

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/dataplane"
	"uvs/health"
	"uvs/health/notify"
	"uvs/health/sorry"
	"uvs/sched"
	"uvs/service"
)

// Counters is what the packet path counted.
type Counters interface {
	// AddCounters adds to services[i] and servers[i] what was counted for the virtual service and the real server with
	// that Index since the process began. Slots beyond those it knows are left alone. It is called every two seconds and
	// with changes that give slots away anew; it must not keep the slices.
	AddCounters(services, servers []service.Counters)
}

// Connections is the part of the connection table that control needs; *conntrack.Table has it all.
type Connections interface {
	Walk(now int64, yield func(*conntrack.Conn) bool)
	TemplateData(id conntrack.ID) string
	Stats() conntrack.Stats
	Timeouts() conntrack.Timeouts
	SetTimeouts(tcp, tcpFin, udp time.Duration)
	ExpireRemoved()
	SetSettings(conntrack.Settings)
	DropRandom(now int64, random func(n uint32) uint32) (dropped int)
	Cut(doomed func(*service.RealServer) bool, now int64) conntrack.Cuts
	Forsake(doomed func(*service.RealServer) bool, now int64) conntrack.Cuts
}

// Watched is the connection table as a teller of what happens to connections; *conntrack.Table is one.
type Watched interface {
	Watch()
	Unwatch()
	Events([]conntrack.Event) []conntrack.Event
	Missed() (missed, torn uint64)
	Lookup(id conntrack.ID, now int64, c *conntrack.Conn) bool
}

// Config is what a Director is made of.
type Config struct {
	// Servers gives real servers their numbers. It is the one that the connection table resolves them by. Required.
	Servers *service.ServerIndex
	// Connections is the connection table. Required.
	Connections Connections
	// Counters is what the packet path counted. Required.
	Counters Counters
	// Publish brings a new table to the packet path; it returns when every packet received from then on meets it. It is
	// never called by two goroutines at once. nil: readers call Director.Table.
	Publish func(*service.Table)
	// Now is the clock of the connection table's deadlines, in nanoseconds. Required.
	Now func() int64
	// IsLocal says that an address is the director's own: its real servers are given the forwarding method Local,
	// whatever method was asked for. It is asked when a server is added or edited. nil: no address is.
	IsLocal func(netip.Addr) bool
	// CanForward says why the packet path cannot send to a server so; it is then refused as unsupported. A nil function and
	// a nil error allow everything.
	CanForward func(k service.Key, rip netip.Addr, c *api.ServerConfig) error
	// Sched holds the settings of schedulers, until they are set.
	Sched sched.Config
	// Interfaces are the names of the packet path's ports, in their order. Mark rules name them.
	Interfaces []string
	// InterfaceMTU is the MTU of an interface of the host, 0 if there is none of that name. nil: there is none.
	InterfaceMTU func(name string) int
	// AvailablePages is the number of pages of memory that the connection table may still have. Under amemthresh the
	// defences drop_entry, drop_packet and secure_tcp begin. nil: always enough.
	AvailablePages func() int
	// Explain says what the packet path would do with a packet. nil: nobody can say.
	Explain func(q *dataplane.Question, now int64) dataplane.Explanation
	// Trace begins a trace of the packet path. nil: it cannot be traced.
	Trace func(dataplane.TraceFilter) (*dataplane.Trace, error)
	// Watched tells of services' connections, for schedulers on trial. nil: none can be tried.
	Watched Watched
	// Doctor asks the network for mistakes around the director. nil: nobody can.
	Doctor func(ctx context.Context) (*api.Diagnosis, error)
	// Health says how probes of health checks are made. Its Changed is Director's own, and its Log this one's if there is none.
	Health health.Config
	// Reload reads the configuration file again, Save writes it. nil: there is none.
	Reload func(ctx context.Context, r *api.ReloadRequest) (*api.Reload, error)
	Save   func(ctx context.Context, r *api.SaveRequest) (*api.Saved, error)
	// Changed is told that something that is configured has changed; it must not call back. nil: nobody is.
	Changed func()
	// FillStatus fills in what control doesn't know of: everything but Revision and the counts of services, servers,
	// connections and templates. nil: nothing.
	FillStatus func(*api.Status)
	// Version is what runs, for the API. ConnTableSize 0 means 4096, IPVS "" means "1.2.1".
	Version api.Version
	// Log reports changes at debug level. nil: nothing.
	Log *zap.Logger
}

// Director is the desired state and its way into the packet path. Its methods may be called by many goroutines.
type Director struct {
	cfg   Config
	table atomic.Pointer[service.Table]

	// mu serialises changes; reading needs it shared. It is held while a table is built, never for longer.
	mu       sync.RWMutex
	order    []*virtual // in the order they were added
	services map[service.Key]*virtual
	revision uint64
	trash    trash
	slots    serviceSlots
	stats    estimator
	ticks    int
	marks    markRules
	daemons  []api.Daemon // of connection sync, the master first
	settings service.Settings
	defence  defence
	drains   map[*service.RealServer]*drain
	engine   *health.Engine
	notifier *notify.Notifier
	sorry    *sorry.Server
	starting map[*virtual]struct{}            // services with servers in slow start
	forsaken map[*service.RealServer]struct{} // whose flows and templates are to be dropped
	forsake  chan struct{}                    // there are some

	limiter service.Limiter // follows defence

	cutting sync.Mutex // serialises WatchDrains; taken before mu
	shadows *shadows
}

// virtual is a virtual service of the desired state. All but key and index is guarded by Director.mu.
type virtual struct {
	key     service.Key
	index   uint32
	label   string
	config  serviceConfig
	policy  policy
	checks  []check // of all its servers
	sched   service.Scheduler
	list    serverList
	slow    sched.SlowStart
	quorum  quorum
	servers map[netip.AddrPort]*server
	// published is the service as the table in force has it, nil when it is to be built anew.
	published *service.VirtualService
	place     int // in Director.order
	gone      bool
	watched   bool // schedulers are on trial
}

// server is a real server of the desired state.
type server struct {
	rs      *service.RealServer
	label   string
	config  serverConfig
	checks  []check // its own
	watched bool    // the engine knows of it
	health  condition
}

// New returns a Director without services, and publishes the empty table.
func New(cfg Config) *Director {
	if cfg.Version.IPVS == "" {
		cfg.Version.IPVS = "1.2.1"
	}
	if cfg.Version.ConnTableSize == 0 {
		cfg.Version.ConnTableSize = 4096
	}
	if cfg.IsLocal == nil {
		cfg.IsLocal = func(netip.Addr) bool { return false }
	}
	if cfg.AvailablePages == nil {
		cfg.AvailablePages = func() int { return math.MaxInt }
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	d := &Director{
		cfg: cfg, services: map[service.Key]*virtual{}, trash: newTrash(), slots: newServiceSlots(),
		settings: service.DefaultSettings(), drains: map[*service.RealServer]*drain{},
		notifier: notify.New(cfg.Log), sorry: sorry.New(cfg.Log), starting: map[*virtual]struct{}{},
		forsaken: map[*service.RealServer]struct{}{}, forsake: make(chan struct{}, 1),
	}
	cfg.Health.Changed = d.healthChanged
	if cfg.Health.Log == nil {
		cfg.Health.Log = cfg.Log
	}
	d.engine = health.NewEngine(cfg.Health)
	d.settings.LBLCExpiration = cmp.Or(cfg.Sched.LBLCExpiration, d.settings.LBLCExpiration)
	d.settings.LBLCRExpiration = cmp.Or(cfg.Sched.LBLCRExpiration, d.settings.LBLCRExpiration)
	d.shadows = newShadows(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tellConnectionsLocked()
	d.publishLocked(d.newTableLocked(nil, nil))
	return d
}

// Table is the table in force.
func (d *Director) Table() *service.Table { return d.table.Load() }

func (d *Director) publishLocked(t *service.Table) {
	d.table.Store(t)
	if d.cfg.Publish != nil {
		d.cfg.Publish(t)
	}
}

// Run makes health checks, calls Tick every two seconds, Defend and WatchDrains every second, and tries schedulers out, until
// ctx ends. Without it counters stand still.
func (d *Director) Run(ctx context.Context) {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { d.shadows.run(ctx) })
	parts.Go(func() { d.engine.Run(ctx) })
	parts.Go(func() { d.notifier.Run(ctx) })
	defer d.sorry.Close()
	tick := time.NewTicker(estimateInterval)
	defer tick.Stop()
	defend := time.NewTicker(time.Second)
	defer defend.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.Tick(now)
		case <-defend.C:
			d.Defend()
			d.WatchDrains()
			d.endSlowStarts()
		case <-d.forsake:
			d.DropForsaken()
		}
	}
}

// Tick does what is due every two seconds: counters are read and rates estimated; every thirtieth time removed servers
// without connections are forgotten. Run calls it; in virtual time the caller does.
func (d *Director) Tick(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.estimateLocked()
	d.slots.tick()
	if d.ticks++; d.ticks%int(trashInterval/estimateInterval) == 0 {
		d.emptyTrashLocked(now)
	}
}
