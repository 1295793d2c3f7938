package health

import (
	"container/heap"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"uvs/service"
)

// Subject is a real server of a virtual service, which is what has a state of health.
type Subject struct {
	Service service.Key
	Server  netip.AddrPort
}

// Route is the way of one probe.
type Route struct {
	// Service is the virtual service, and Server its real server: its address, forwarding method and encapsulation.
	Service service.Key
	Server  *service.RealServer
	// To is what the probe is addressed to: the real server's address, or with VIP the virtual service's; and the port.
	To netip.AddrPort
	// VIP says that the probe goes to the virtual address by the way that clients' packets take to this server.
	VIP bool
}

// Config is what an Engine is made of.
type Config struct {
	// Changed is told of subjects whose Standing has changed. It is called by one goroutine at a time, and without any lock of
	// the Engine's; what changes while it runs comes in the next call. Required.
	Changed func([]Subject)
	// Dial opens a connection for a probe; network is "tcp" or "udp". nil: all probes go directly, by the host's own stack.
	Dial func(ctx context.Context, network string, r *Route) (net.Conn, error)
	// Virtual says that probes may go to a service's virtual address at one of its servers. nil: never.
	Virtual func(k service.Key, rs *service.RealServer) bool
	// Log is told when probes can't be made for want of something here. nil: nothing.
	Log *zap.Logger
}

// Engine asks real servers whether they can serve. Checks that are alike in everything, the way included, are one probe,
// however many services they are for.
//
// One goroutine (Run) waits for the next probe that is due; each probe that is out has a goroutine of its own, and is not
// asked again before it has ended, so that nothing waits for a slow server, and there are never more goroutines than checks.
type Engine struct {
	cfg Config

	mu       sync.Mutex
	subjects map[Subject]*subject
	probes   map[string]*probe
	queue    queue // of probes that aren't out, by the time when they are due
	dirty    map[Subject]struct{}
	inBand   int // checks with InBand
	stats    Stats
	warned   time.Time
	paced    time.Time // when the next first probe may come

	wake   chan struct{} // the head of the queue is another
	tell   chan struct{} // dirty isn't empty
	asking sync.WaitGroup
}

// subject is what is watched of one.
type subject struct {
	key    Subject
	server *service.RealServer
	method service.Method
	specs  []*Spec
	probes []*probe // of specs, in their order
}

// NewEngine returns an Engine that watches nothing.
func NewEngine(cfg Config) *Engine {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Engine{
		cfg: cfg, subjects: map[Subject]*subject{}, probes: map[string]*probe{}, dirty: map[Subject]struct{}{},
		wake: make(chan struct{}, 1), tell: make(chan struct{}, 1),
	}
}

// Watch makes specs the checks of a real server; none ends them. Those that it had already go on, with their state and their
// history. A check that was changed keeps what was known of the server until its first probe has ended, which decides alone.
//
// m is the forwarding method that rs is about to have.
func (e *Engine) Watch(k service.Key, rs *service.RealServer, m service.Method, specs []*Spec) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := Subject{k, rs.Addr}
	old := e.subjects[key]
	if old != nil {
		e.inBand -= countInBand(old.specs)
	}
	e.inBand += countInBand(specs)
	if len(specs) == 0 {
		if old != nil {
			e.leave(old)
			delete(e.subjects, key)
			e.markDirty(key)
		}
		return
	}
	s := &subject{key: key, server: rs, method: m, specs: specs}
	for _, spec := range specs {
		p := e.join(s, spec)
		if p.state == Unknown && old != nil {
			p.inherit(old.find(spec.ID))
		}
		s.probes = append(s.probes, p)
	}
	e.subjects[key] = s
	if old != nil {
		e.leave(old)
	}
	e.markDirty(key)
}

// WatchesInBand says whether there is any check that Suspect may hurry.
func (e *Engine) WatchesInBand() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inBand > 0
}

func countInBand(specs []*Spec) (n int) {
	for _, s := range specs {
		if s.InBand {
			n++
		}
	}
	return n
}

// find is the probe of the check with that ID, or nil.
func (s *subject) find(id string) *probe {
	for i, spec := range s.specs {
		if spec.ID == id {
			return s.probes[i]
		}
	}
	return nil
}

// join makes s one of those for whom a probe is made.
func (e *Engine) join(s *subject, spec *Spec) *probe {
	r := e.Route(s.key.Service, s.server, s.method, spec)
	key := probeKey(r, spec)
	p := e.probes[key]
	if p == nil {
		p = &probe{key: key, spec: spec, route: r, watchers: map[*subject]struct{}{}, place: -1}
		e.probes[key] = p
		p.due = e.first(time.Now(), spec)
		e.enqueue(p)
	}
	p.watchers[s] = struct{}{}
	return p
}

// first is when a check is asked for the first time: one after the other where several come together, which is at once for a
// few, and for very many at random within their warm-up.
func (e *Engine) first(now time.Time, s *Spec) time.Time {
	warmUp := time.Duration(s.WarmUp)
	if e.paced.Before(now) {
		e.paced = now
	}
	due := e.paced
	if due.Sub(now) > warmUp {
		return now.Add(rand.N(warmUp + 1))
	}
	e.paced = due.Add(perProbe)
	return due
}

// perProbe is the time between first probes.
const perProbe = 200 * time.Microsecond

// leave is the reverse of join for all of a subject's probes.
func (e *Engine) leave(s *subject) {
	for _, p := range s.probes {
		delete(p.watchers, s)
		if len(p.watchers) > 0 {
			continue
		}
		delete(e.probes, p.key)
		p.gone = true
		if p.place >= 0 {
			heap.Remove(&e.queue, p.place)
		}
		if p.cancel != nil {
			p.cancel()
		}
	}
}

// Route is the way of a check's probes to a server that has the forwarding method m.
func (e *Engine) Route(k service.Key, rs *service.RealServer, m service.Method, spec *Spec) Route {
	r := Route{Service: k, Server: rs, To: rs.Addr, VIP: spec.Via == VIP}
	if _, direct := spec.Options.(DirectOnly); spec.Via == Auto && !direct {
		r.VIP = (m == service.Route || m == service.Tunnel) && k.Mark == 0 && e.cfg.Virtual != nil && e.cfg.Virtual(k, rs)
	}
	port := rs.Addr.Port()
	if spec.Port != 0 {
		port = spec.Port
	}
	if r.VIP {
		r.To = k.Addr
	}
	r.To = netip.AddrPortFrom(r.To.Addr(), port)
	return r
}

// probeKey tells probes apart. Directly asked, a server is the same whatever service it is of, but for the protocol, which
// kinds may go by.
func probeKey(r Route, spec *Spec) string {
	settings := spec.Settings
	settings.ID, settings.Port, settings.Via, settings.Start, settings.WarmUp = "", 0, "", "", 0
	key := struct {
		Settings Settings
		Options  Prober
		To       netip.AddrPort
		Proto    service.Proto
		Through  service.Key
		Server   netip.AddrPort
		Index    uint32
	}{Settings: settings, Options: spec.Options, To: r.To, Proto: r.Service.Proto}
	if r.VIP {
		key.Through, key.Server, key.Index = r.Service, r.Server.Addr, r.Server.Index
	}
	b, err := json.Marshal(key)
	if err != nil {
		panic("health: " + err.Error()) // options came from JSON
	}
	return string(b)
}

// Suspect says that packets make a server suspicious, in a few words: it is asked at once and in quick succession until it is
// known how it stands. A suspicion counts as a failed probe, but never as the last one that is wanting: what decides is a
// probe, and a server that answers is cleared. It returns at once and may be called as often as one likes.
func (e *Engine) Suspect(k service.Key, server netip.AddrPort, why string) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.subjects[Subject{k, server}]
	if s == nil {
		return
	}
	for _, p := range s.probes {
		if p.suspect(now, why) && p.place >= 0 {
			e.reschedule(p, now)
		}
	}
}

// Run makes probes until ctx ends, and returns when the last one has ended.
func (e *Engine) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.report(ctx)
	}()
	e.schedule(ctx)
	e.asking.Wait()
	<-done
}

// schedule starts what is due.
func (e *Engine) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		e.mu.Lock()
		for len(e.queue) > 0 && !e.queue[0].due.After(now) {
			e.start(ctx, heap.Pop(&e.queue).(*probe), now)
		}
		var next <-chan time.Time
		if len(e.queue) > 0 {
			timer.Reset(e.queue[0].due.Sub(now))
			next = timer.C
		}
		e.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-next:
		case <-e.wake:
		}
	}
}

// start sends a probe out.
func (e *Engine) start(ctx context.Context, p *probe, now time.Time) {
	e.stats.begin(now.Sub(p.due))
	p.began = now
	var asking context.Context
	asking, p.cancel = context.WithDeadline(ctx, now.Add(p.timeout(now)))
	e.asking.Go(func() { e.ask(ctx, asking, p) })
}

// ask is a probe that is out.
func (e *Engine) ask(ctx, asking context.Context, p *probe) {
	r := e.exchange(asking, p.spec, &p.route, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	p.cancel()
	p.cancel = nil
	e.stats.end()
	if p.gone || ctx.Err() != nil {
		return
	}
	if r.Unable {
		e.warn(r)
	}
	if _, direct := p.spec.Options.(DirectOnly); r.OK && !direct { // else it isn't the service that answered
		now := bootTime()
		for s := range p.watchers {
			s.server.ObserveProbe(r.Took, now)
		}
	}
	if p.observe(r) {
		for s := range p.watchers {
			e.markDirty(s.key)
		}
	}
	p.due = p.next(time.Now())
	e.enqueue(p)
}

// warn logs that a probe couldn't be made, once a minute.
func (e *Engine) warn(r Result) {
	if r.Time.Sub(e.warned) < time.Minute && !e.warned.IsZero() {
		return
	}
	e.warned = r.Time
	e.cfg.Log.Warn("a health check can't be made here, and says nothing about the server", zap.String("why", r.Text))
}

func (e *Engine) enqueue(p *probe) {
	heap.Push(&e.queue, p)
	e.wakeFor(p)
}

func (e *Engine) reschedule(p *probe, due time.Time) {
	p.due = due
	heap.Fix(&e.queue, p.place)
	e.wakeFor(p)
}

// wakeFor wakes schedule if p is the next that is due.
func (e *Engine) wakeFor(p *probe) {
	if p.place == 0 {
		poke(e.wake)
	}
}

func (e *Engine) markDirty(k Subject) {
	e.dirty[k] = struct{}{}
	poke(e.tell)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

// report hands changes on. What changes in one go, such as the servers of a switch that failed, comes together.
func (e *Engine) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.tell:
		}
		e.mu.Lock()
		changed := make([]Subject, 0, len(e.dirty))
		for k := range e.dirty {
			changed = append(changed, k)
		}
		clear(e.dirty)
		e.mu.Unlock()
		if len(changed) > 0 {
			e.cfg.Changed(changed)
		}
	}
}

// queue is a heap of probes by due.
type queue []*probe

// Len implements heap.Interface.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	p := x.(*probe)
	p.place = len(*q)
	*q = append(*q, p)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	p.place = -1
	return p
}
