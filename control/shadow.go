package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/packet"
	"uvs/sched"
	"uvs/sched/trial"
	"uvs/service"
)

// Bounds of what shadow scheduling may cost.
const (
	shadowConns     = 1 << 18               // connections followed at a time, of all services; 60 bytes each
	shadowTemplates = 1 << 14               // persistence templates remembered
	shadowPause     = 20 * time.Millisecond // between two looks at what happened,
	shadowShare     = 4                     // and no less than so many times what a look takes: a fifth of a CPU
	shadowMend      = 10 * time.Second      // between two looks after connections whose end wasn't told
	shadowMostShift = 16                    // of one client in 65,536
)

// shadows is shadow scheduling: what happens to connections of services that are watched, offered to schedulers on trial.
// While nobody is on trial it costs nothing: no service is watched, and its goroutine sleeps.
type shadows struct {
	d    *Director
	wake chan struct{} // a first trial begins

	mu        sync.Mutex // guards all below; taken before Director.mu
	groups    map[service.Key]*shadow
	byIndex   map[uint32]*shadow
	conns     map[conntrack.ID]shadowed // without pointers: the garbage collector need not look in
	templates []templateChoice
	events    []conntrack.Event // scratch
	shift     int               // one client in 1<<shift is offered
	unheard   uint64            // missed as of the first trial
	dropped   uint64            // for want of room in conns
	torn      uint64
	mendAt    int64
	sampleAt  int64
	fullSince bool // conns was full since the last sample
}

// shadow is the trials of one service.
type shadow struct {
	group *trial.Group
	key   service.Key
	seen  *service.VirtualService // whose servers the group has
	since time.Time
	began int64
}

// shadowed is a connection that is followed.
type shadowed struct {
	choice  trial.Choice
	active  bool
	client  uint16 // what sampling goes by
	service uint32 // key of shadows.byIndex
}

// templateChoice is where the trials would have sent the clients of a persistence template.
type templateChoice struct {
	id     conntrack.ID
	choice trial.Choice
}

func newShadows(d *Director) *shadows {
	return &shadows{d: d, wake: make(chan struct{}, 1), groups: map[service.Key]*shadow{}}
}

// Shadow implements api.Backend.
func (d *Director) Shadow(ctx context.Context, r *api.ShadowRequest) (*api.ShadowsReply, error) {
	if d.cfg.Watched == nil {
		return nil, refusal(api.Unsupported, "shadow: nobody tells of connections")
	}
	s := d.shadows
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key := keyOf(&r.Service)
	vs := d.Table().Service(key)
	if vs == nil {
		return nil, tried(errNoService, "shadow %v", key)
	}
	s.step()
	old := s.groups[key]
	g := old
	if g == nil {
		g = &shadow{key: key, since: time.Now(), began: d.cfg.Now()}
		g.group = trial.NewGroup(trial.Config{Service: key, Sched: d.schedConfig()})
		if err := errors.Join(g.group.Add(trial.Real), g.follow(vs)); err != nil {
			return nil, tried(err, "shadow %v", key)
		}
	}
	if err := g.check(r); err != nil {
		return nil, tried(err, "shadow %v", key)
	}
	remove := r.Remove
	if r.End {
		remove = g.group.Names()
	}
	for _, name := range remove {
		if place, ok := g.group.Remove(name); ok {
			s.forget(g, place)
		}
	}
	for _, name := range r.Add {
		if err := g.group.Add(name); err != nil {
			return nil, tried(refusal(api.Invalid, "%v", err), "shadow %v", key) // check has seen to it
		}
	}
	switch {
	case len(g.group.Names()) == 0:
		s.end(g)
		d.watch(key, false)
	case old == nil:
		s.begin(g)
		d.watch(key, true)
	}
	return s.report(&r.Service), nil
}

// check says why the request cannot be done, before anything is.
func (g *shadow) check(r *api.ShadowRequest) error {
	names := g.group.Names()
	for _, text := range r.Remove {
		name := text
		if scheduler, flags, err := trial.Parse(text); err == nil {
			name = trial.Name(scheduler, flags)
		}
		i := slices.Index(names, name)
		if i < 0 {
			return refusal(api.Invalid, "%s isn't on trial", text)
		}
		names = slices.Delete(names, i, i+1)
	}
	for _, text := range r.Add {
		scheduler, flags, err := trial.Parse(text)
		if err != nil {
			return refusal(api.Invalid, "%v", err)
		}
		name := trial.Name(scheduler, flags)
		if slices.Contains(names, name) {
			return refusal(api.Invalid, "%s is on trial already", name)
		}
		names = append(names, name)
	}
	if len(names) > api.MaxShadows {
		return refusal(api.OutOfRange, "%d schedulers, at most %d can be on trial", len(names), api.MaxShadows)
	}
	return nil
}

// Shadows implements api.Backend.
func (d *Director) Shadows(ctx context.Context, key *api.ServiceKey) (*api.ShadowsReply, error) {
	if key != nil && d.Table().Service(keyOf(key)) == nil {
		return nil, tried(errNoService, "shadow report of %v", key)
	}
	d.shadows.mu.Lock()
	defer d.shadows.mu.Unlock()
	d.shadows.step()
	return d.shadows.report(key), ctx.Err()
}

// watch publishes that a service's connections are watched, or no longer.
func (d *Director) watch(key service.Key, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.services[key]; v != nil && v.watched != yes {
		v.watched = yes
		old := v.published
		next := *old
		next.Watched = yes
		v.published = &next
		c := commit{d: d, dirty: map[*virtual]struct{}{v: {}}}
		c.publish(c.services(), []service.Replacement{{Old: old, New: v.published}})
	}
}

// schedConfig are the settings of schedulers that are in force.
func (d *Director) schedConfig() sched.Config {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.cfg.Sched
}

// run looks at what happened until ctx ends, as long as somebody is on trial.
func (s *shadows) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		s.mu.Lock()
		start := time.Now()
		s.step()
		took, idle := time.Since(start), len(s.groups) == 0
		s.mu.Unlock()
		if !idle {
			timer.Reset(max(shadowPause, shadowShare*took))
		}
	}
}

func (s *shadows) begin(g *shadow) {
	if len(s.groups) == 0 {
		s.byIndex, s.conns = map[uint32]*shadow{}, map[conntrack.ID]shadowed{}
		s.templates, s.shift, s.dropped, s.fullSince = make([]templateChoice, shadowTemplates), 0, 0, false
		s.unheard, s.torn = s.d.cfg.Watched.Missed()
		s.d.cfg.Watched.Watch()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.groups[g.key] = g
	s.byIndex[g.seen.Index] = g
}

// end forgets the trials of a service, and all there is with the last one's.
func (s *shadows) end(g *shadow) {
	if s.groups[g.key] != g {
		return
	}
	delete(s.groups, g.key)
	if len(s.groups) == 0 {
		s.d.cfg.Watched.Unwatch()
		s.byIndex, s.conns, s.templates, s.events = nil, nil, nil, nil
		return
	}
	delete(s.byIndex, g.seen.Index)
	for id, c := range s.conns {
		if c.service == g.seen.Index {
			delete(s.conns, id)
		}
	}
}

// forget takes a trial that is over out of what is remembered.
func (s *shadows) forget(g *shadow, place int) {
	for id, c := range s.conns {
		if c.service == g.seen.Index {
			c.choice.Forget(place)
			s.conns[id] = c
		}
	}
	for i := range s.templates {
		s.templates[i].choice.Forget(place) // another service's trial decides anew, once
	}
}

// step takes in what happened since the last one. The caller holds s.mu.
func (s *shadows) step() {
	if len(s.groups) == 0 {
		return
	}
	table, now := s.d.Table(), s.d.cfg.Now()
	for key, g := range s.groups {
		vs := table.Service(key)
		if vs == nil || !vs.Watched || vs.Index != g.seen.Index { // it is gone, or another one by now
			s.end(g)
			continue
		}
		if vs != g.seen {
			if err := g.follow(vs); err != nil {
				s.end(g)
				continue
			}
		}
		if g.group.TimesSetups() {
			for _, rs := range vs.Servers {
				rs.TimeSetups()
				g.group.FollowLatency(g.group.Slot(rs.Addr), rs)
			}
		}
	}
	if len(s.groups) == 0 {
		return
	}
	s.events = s.d.cfg.Watched.Events(s.events[:0])
	for i := range s.events {
		s.event(&s.events[i], table)
	}
	if now >= s.sampleAt {
		s.sampleAt = now + int64(time.Second)
		for _, g := range s.groups {
			g.group.Sample()
		}
		if s.fullSince && s.shift < shadowMostShift {
			s.thin()
		}
		s.fullSince = false
	}
	if _, torn := s.d.cfg.Watched.Missed(); torn != s.torn && now >= s.mendAt {
		s.torn, s.mendAt = torn, now+int64(shadowMend)
		s.mend(now)
	}
}

// follow gives the group the servers of the service as it is now.
func (g *shadow) follow(vs *service.VirtualService) error {
	servers := make([]trial.Server, len(vs.Servers))
	for i, rs := range vs.Servers {
		servers[i] = trial.Server{Addr: rs.Addr, Weight: rs.Weight()}
		servers[i].Upper, servers[i].Lower = rs.Thresholds()
	}
	g.seen = vs
	return g.group.SetServers(servers)
}

// event takes one event in.
func (s *shadows) event(e *conntrack.Event, table *service.Table) {
	switch e.Kind {
	case conntrack.Opened, conntrack.Passed, conntrack.Refused:
		s.opened(e, table)
		return
	}
	c, ok := s.conns[e.ID]
	switch {
	case !ok:
	case e.Kind == conntrack.Closed:
		s.closed(e.ID, &c)
	case c.active != (e.Kind == conntrack.Activated):
		s.turned(e.ID, c)
	}
}

// closed takes in that a connection is gone.
func (s *shadows) closed(id conntrack.ID, c *shadowed) {
	s.byIndex[c.service].group.Close(&c.choice, c.active)
	delete(s.conns, id)
}

// turned takes in that a connection became active or inactive.
func (s *shadows) turned(id conntrack.ID, c shadowed) {
	c.active = !c.active
	s.byIndex[c.service].group.SetActive(&c.choice, c.active)
	s.conns[id] = c
}

func (s *shadows) opened(e *conntrack.Event, table *service.Table) {
	g, client := s.byIndex[e.Service], sampleOf(e.Flow.Src)
	if g == nil || client&(1<<s.shift-1) != 0 {
		return
	}
	if e.Kind == conntrack.Opened && len(s.conns) >= shadowConns {
		s.fullSince = true
		s.dropped++
		return
	}
	real := trial.NoSlot
	if rs := table.Servers.At(e.RS); rs != nil {
		real = g.group.Slot(rs.Addr)
	}
	r := service.Request{Service: g.seen, Flow: e.Flow, Now: e.Now}
	var choice trial.Choice
	if t := &s.templates[uint64(e.Control)%shadowTemplates]; e.Control != 0 && t.id == e.Control {
		choice = g.group.Follow(&r, real, &t.choice)
		t.choice = choice
	} else {
		choice = g.group.Open(&r, real)
		if e.Control != 0 {
			*t = templateChoice{e.Control, choice}
		}
	}
	if e.Kind != conntrack.Opened {
		g.group.Close(&choice, false)
		return
	}
	s.conns[e.ID] = shadowed{choice: choice, client: client, service: e.Service}
}

// sampleOf spreads clients over numbers.
func sampleOf(a packet.Addr) uint16 {
	hi, lo := a.Words()
	return uint16((hi ^ lo*0x9e3779b97f4a7c15) >> 40)
}

// thin halves the share of clients whose connections are offered, and forgets the others'.
func (s *shadows) thin() {
	s.shift++
	for id, c := range s.conns {
		if c.client&(1<<s.shift-1) != 0 {
			s.closed(id, &c)
		}
	}
}

// mend looks after connections whose events got lost.
func (s *shadows) mend(now int64) {
	var x conntrack.Conn
	for id, c := range s.conns {
		switch alive := s.d.cfg.Watched.Lookup(id, now, &x); {
		case !alive:
			s.closed(id, &c)
		case c.active == (x.Flags&conntrack.Inactive != 0):
			s.turned(id, c)
		}
	}
}

// report says how the trials go, of one service or all. The caller holds s.mu.
func (s *shadows) report(key *api.ServiceKey) *api.ShadowsReply {
	reply := &api.ShadowsReply{Shadows: []api.Shadow{}, OneIn: 1}
	if len(s.groups) == 0 {
		return reply
	}
	missed, _ := s.d.cfg.Watched.Missed()
	reply.Missed, reply.OneIn = missed-s.unheard+s.dropped, 1<<s.shift
	for _, g := range s.groups {
		if key != nil && keyOf(key) != g.key {
			continue
		}
		real := trial.Name(g.seen.SchedulerName, g.seen.SchedFlags)
		out := api.Shadow{
			Service: apiKey(g.key), Scheduler: real, Since: g.since.UTC().Truncate(time.Millisecond),
			Seconds: float64(s.d.cfg.Now()-g.began) / 1e9,
		}
		for _, f := range g.group.Figures() {
			out.Trials = append(out.Trials, trialReport(&f, real))
		}
		slices.SortStableFunc(out.Trials, func(a, b api.ShadowTrial) int {
			switch {
			case a.Real:
				return -1
			case b.Real:
				return 1
			}
			return 0
		})
		reply.Shadows = append(reply.Shadows, out)
	}
	slices.SortFunc(reply.Shadows, func(a, b api.Shadow) int { return cmp.Compare(a.Service.String(), b.Service.String()) })
	return reply
}

func trialReport(f *trial.Figures, real string) api.ShadowTrial {
	t := api.ShadowTrial{
		Scheduler: f.Scheduler, Offered: f.Offered, Misses: f.Misses, Differs: f.Differs, Returning: f.Returning, Moved: f.Moved,
		AfterChange: f.AfterChange, MovedByChange: f.MovedByChange,
		New: api.ShadowImbalance(f.New), Held: api.ShadowImbalance(f.Held), Samples: f.Samples, Servers: []api.ShadowServer{},
	}
	if f.Scheduler == trial.Real {
		t.Scheduler, t.Real = real, true
	}
	for _, x := range f.Servers {
		t.Servers = append(t.Servers, api.ShadowServer{
			Address: x.Addr, Weight: int(x.Weight), Removed: !x.Listed, Conns: x.Conns, Fair: x.Fair,
			Active: count(x.Active), Inactive: count(x.Inactive), Peak: count(x.Peak),
		})
	}
	return t
}
