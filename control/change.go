package control

import (
	"context"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// Change implements api.Backend. Everything that req's operations do becomes visible to the packet path by one swap:
// lists of services and servers strictly so; the weights of servers that stay are stored just beside the swap, those
// that rise before it and those that fall after, so that no service is for a moment without a server that both the old
// and the new state give it.
func (d *Director) Change(ctx context.Context, req *api.ChangeRequest) (*api.ChangeReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return d.changeLocked(req), nil
}

func (d *Director) changeLocked(req *api.ChangeRequest) *api.ChangeReply {
	p := &plan{d: d, services: map[service.Key]*planned{}}
	reply := &api.ChangeReply{Results: make([]api.OpResult, len(req.Ops))}
	for i := range req.Ops {
		err := p.add(&req.Ops[i])
		if err == nil {
			continue
		}
		reply.Results[i].Error = err
		if req.OnError == api.Continue {
			continue
		}
		untried := reply.Results[i+1:]
		if req.OnError != api.Stop {
			p.effects = nil
			skip(reply.Results[:i], "undone: operation %d of the change was refused", i+1)
		}
		skip(untried, "not tried: operation %d of the change was refused", i+1)
		break
	}
	if len(p.effects) > 0 {
		d.applyLocked(p.effects)
	}
	return reply
}

func skip(results []api.OpResult, format string, args ...any) {
	for i := range results {
		results[i].Error = api.Errorf(api.Skipped, format, args...)
	}
}

// commit is a change while it is being applied: what must wait for the swap.
type commit struct {
	d        *Director
	dirty    map[*virtual]struct{} // services to be built anew
	gone     []*virtual
	marks    bool // mark rules came or went
	edits    []edit
	removed  map[*service.RealServer]struct{} // no longer available after the swap
	touched  map[*server]*virtual             // whose health or checks may be others
	groups   map[string]struct{}              // of services, likewise
	turns    []turn
	reviewed map[*virtual]struct{} // services that may be up or down
	quorums  []*virtual            // those that turned
	fresh    []uint32              // service slots to start from zero though connections count there
}

// edit is a change to a server that packets are sent to already. The weight is staged.
type edit struct {
	rs           *service.RealServer
	method       service.Method
	asked        service.Method // before it was found to be Local
	encap        service.Encap
	upper, lower uint32
}

// applyLocked carries out what a plan accepted and publishes the result.
func (d *Director) applyLocked(effects []effect) {
	c := d.newCommit()
	for i := range effects {
		c.apply(&effects[i])
	}
	if len(c.fresh) > 0 {
		d.estimateFreshLocked(c.fresh)
	}
	for s, v := range c.touched {
		if !v.gone && v.servers[s.rs.Addr] == s {
			c.watch(v, s)
		}
	}
	c.settle()
	d.revision++
	d.changedLocked()
	d.cfg.Log.Debug("configuration changed", zap.Uint64("revision", d.revision), zap.Int("operations", len(effects)))
	c.finish()
}

func (d *Director) newCommit() *commit {
	return &commit{
		d: d, dirty: map[*virtual]struct{}{}, removed: map[*service.RealServer]struct{}{}, touched: map[*server]*virtual{},
		groups: map[string]struct{}{}, reviewed: map[*virtual]struct{}{},
	}
}

// finish publishes what has changed.
func (c *commit) finish() {
	d := c.d
	c.review()
	defer c.turned()
	if len(c.dirty) == 0 && len(c.gone) == 0 && !c.marks {
		return
	}
	if c.marks {
		d.marks.compile(d.cfg.Interfaces)
	}
	for i := range c.edits { // before the schedulers' tables may lead to them
		if rs := c.edits[i].rs; rs.StagedWeight() > rs.Weight() {
			rs.CommitWeight()
		}
	}
	var changed []service.Replacement
	for _, v := range c.gone {
		if v.published != nil { // else it came and went with this very change
			changed = append(changed, service.Replacement{Old: v.published})
		}
	}
	for v := range c.dirty {
		if !v.gone {
			old := v.published
			v.build(d)
			changed = append(changed, service.Replacement{Old: old, New: v.published})
		}
	}
	c.publish(c.services(), changed)
}

// services are those of the next table, in their order. Only what lies behind a service that is gone is gone through.
func (c *commit) services() []*service.VirtualService {
	d := c.d
	had := d.table.Load().Services
	if len(c.gone) > 0 {
		first := len(d.order)
		for _, v := range c.gone {
			first = min(first, v.place)
		}
		kept := slices.Clone(d.order[:first])
		for _, v := range d.order[first:] {
			if !v.gone {
				v.place = len(kept)
				kept = append(kept, v)
			}
		}
		d.order = kept
		had = had[:min(first, len(had))]
	}
	list := make([]*service.VirtualService, len(d.order))
	for i := copy(list, had); i < len(list); i++ {
		list[i] = d.order[i].published
	}
	for v := range c.dirty {
		if !v.gone {
			list[v.place] = v.published
		}
	}
	return list
}

// publish swaps the table and puts into force what belongs to it.
func (c *commit) publish(services []*service.VirtualService, changed []service.Replacement) {
	for i := range c.edits {
		e := &c.edits[i]
		e.rs.SetMethod(e.method)
		e.rs.SetAsked(e.asked)
		e.rs.SetEncap(e.encap)
		e.rs.SetThresholds(e.upper, e.lower)
	}
	c.d.publishLocked(c.d.newTableLocked(services, changed))
	for i := range c.edits {
		c.edits[i].rs.CommitWeight()
	}
	for rs := range c.removed {
		rs.SetAvailable(false)
	}
	if len(c.removed) > 0 {
		c.d.cfg.Connections.ExpireRemoved()
	}
}

func (c *commit) apply(e *effect) {
	d := c.d
	switch v := d.services[e.key]; e.kind {
	case api.AddService:
		c.addService(e)
	case api.EditService:
		c.editService(v, &e.service)
	case api.DeleteService:
		c.deleteService(v)
	case api.AddServer:
		c.addServer(v, e)
	case api.EditServer:
		s := v.servers[e.addr]
		s.config = e.server
		_, weight := effectiveLocked(v, s)
		c.enters(v, s.rs, s.rs.StagedWeight(), weight)
		s.rs.StageWeight(weight)
		c.edit(s)
		if !s.health.out {
			c.tell(v, service.ServerEdited, s.rs, v.list.all())
		}
		c.touch(v, s)
	case api.DeleteServer:
		s := v.servers[e.addr]
		delete(v.servers, e.addr)
		if s.health.out {
			c.discard(v, s)
			break
		}
		before := v.list.all()
		v.list.remove(s.rs)
		c.discard(v, s)
		c.tell(v, service.ServerRemoved, s.rs, before)
	case api.AddCheck, api.DeleteCheck, api.SetPolicy:
		c.applyHealth(v, e)
	case api.SetLabel:
		if e.addr.IsValid() {
			v.servers[e.addr].label = e.label
		} else {
			v.label = e.label
		}
	case api.Flush:
		for _, v := range d.order {
			if !v.gone {
				c.deleteService(v)
			}
		}
	case api.ZeroCounters:
		if e.key != (service.Key{}) {
			d.zeroLocked(v)
			return
		}
		for _, v := range d.services {
			d.zeroLocked(v)
		}
	case api.StartDaemon, api.StopDaemon:
		d.applyDaemonLocked(e.kind, &e.daemon)
	case api.AddMarkRule:
		d.marks.insert(e.rule, e.position)
		c.marks = true
	case api.DeleteMarkRule:
		d.marks.delete(e.rule)
		c.marks = true
	case api.SetTimeouts:
		d.cfg.Connections.SetTimeouts(seconds(e.timeouts.TCP), seconds(e.timeouts.TCPFin), seconds(e.timeouts.UDP))
	}
}

func (c *commit) addService(e *effect) {
	index, stale := c.d.slots.take(e.key)
	if stale {
		// Connections of the service that was deleted count here from now on; what they counted before doesn't show.
		c.fresh = append(c.fresh, index)
	} else {
		c.d.stats.assignService(index)
	}
	v := &virtual{
		key: e.key, index: index, config: e.service, policy: policy{Policy: defaultPolicy}, servers: map[netip.AddrPort]*server{}, place: len(c.d.order),
	}
	v.newScheduler(&c.d.cfg)
	c.d.services[e.key] = v
	c.d.order = append(c.d.order, v)
	c.dirty[v] = struct{}{}
}

func (c *commit) editService(v *virtual, config *serviceConfig) {
	another := v.config.scheduler != config.scheduler
	v.config = *config
	if another {
		v.newScheduler(&c.d.cfg)
	}
	c.tell(v, service.ServiceEdited, nil, v.list.all())
}

// newScheduler starts the scheduler's state afresh. Its name has been checked.
func (v *virtual) newScheduler(cfg *Config) {
	s, err := cfg.Sched.New(v.config.scheduler, v.config.flags)
	if err != nil {
		panic("control: " + err.Error())
	}
	if v.sched = s; s != nil {
		s.Prepare(v.list.all())
	}
}

func (c *commit) deleteService(v *virtual) {
	for _, s := range v.servers {
		c.discard(v, s)
	}
	v.gone = true
	c.retireSorry(v)
	c.gone = append(c.gone, v)
	delete(c.d.services, v.key)
	c.d.slots.give(v.key, v.index, c.d.trash.of[v.key] > 0)
}

func (c *commit) addServer(v *virtual, e *effect) {
	rs, owner := c.d.trash.take(v.key, e.addr)
	s := &server{rs: rs, config: e.server, health: newCondition()}
	switch {
	case rs == nil:
		rs = service.NewRealServer(v.key, e.addr, c.method(s.config.method, e.addr.Addr()), e.server.weight)
		if err := c.d.cfg.Servers.Add(rs); err != nil {
			panic("control: " + err.Error()) // the plan made sure that there is room
		}
		rs.SetAsked(s.config.method)
		rs.SetEncap(e.server.encap)
		rs.SetThresholds(e.server.upper, e.server.lower)
		s.rs = rs
		c.d.stats.assignServer(rs.Index)
	default:
		// Its connections know it still: they go on, and its counters too unless the service is another one by now.
		if owner != v {
			c.d.stats.zeroServer(rs.Index)
		}
		v.servers[e.addr] = s
		c.readmit(v, s, e.server.weight)
		c.touch(v, s)
		return
	}
	v.servers[e.addr] = s
	c.enters(v, rs, 0, e.server.weight)
	before := v.list.all()
	v.list.prepend(rs)
	c.tell(v, service.ServerAdded, rs, before)
	c.touch(v, s)
}

// edit notes the settings of s for the swap.
func (c *commit) edit(s *server) {
	c.edits = append(c.edits, edit{
		rs: s.rs, method: c.method(s.config.method, s.rs.Addr.Addr()), encap: s.config.encap,
		upper: s.config.upper, lower: s.config.lower, asked: s.config.method,
	})
}

// method is how packets are forwarded to a server: an address of the director's own is always Local.
func (c *commit) method(m service.Method, rip netip.Addr) service.Method {
	if c.d.cfg.IsLocal(rip) {
		return service.Local
	}
	return m
}

// discard moves a server out of its service: to the trash, from where it may come back.
func (c *commit) discard(v *virtual, s *server) {
	v.slow.End(s.rs)
	c.unwatch(v, s)
	if !s.health.out { // else it is removed already
		c.removed[s.rs] = struct{}{}
	}
	if v.policy.Group != "" {
		c.groups[v.policy.Group] = struct{}{} // the others needn't fall with it any more
	}
	c.d.trash.put(v, s.rs)
}

// touch has the health of a server looked at, if it can matter.
func (c *commit) touch(v *virtual, s *server) {
	if s.watched || len(v.checks)+len(s.checks) > 0 || v.policy.Group != "" {
		c.touched[s] = v
	}
}

// tell tells the scheduler of a change that v's list has undergone.
func (c *commit) tell(v *virtual, kind service.ChangeKind, rs *service.RealServer, before []*service.RealServer) {
	if v.sched != nil {
		v.sched.Changed(service.Change{Kind: kind, Server: rs, Before: before, After: v.list.all(), Flags: v.config.flags})
	}
	c.dirty[v] = struct{}{}
}

// build makes the service that the next table will have.
func (v *virtual) build(d *Director) {
	scheduler, list := v.schedule(d)
	persistence := v.config.persistence
	if v.quorum.in && v.policy.Sorry == health.Builtin {
		persistence = 0 // persistent services of several ports lead to a server's same ports: those of our own host
	}
	mask4, prefixLen := v.config.netmask(v.key.Addr.Addr().Is6())
	v.published = &service.VirtualService{
		Key: v.key, Scheduler: scheduler, SchedulerName: v.config.scheduler, SchedFlags: v.config.flags,
		Persistence: persistence, Netmask: mask4, PrefixLen: prefixLen, OnePacket: v.config.onePacket,
		PersistenceEngine: v.config.engine, Index: v.index, Servers: list,
		Watched: v.watched,
	}
}
