package control

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// What is configured of a real server and what is in force differ by its health: the configuration keeps its weight and its
// place in the service whatever the checks say, and lists, saves and edits go by it; the packet path has the list and the
// weights that follow. effectiveLocked is the one place where one is made of the other.

// check is a health check as it was set and as it is made.
type check struct {
	set  api.CheckSpec
	spec *health.Spec
}

// policy is what follows from health, as it was set and as it is meant.
type policy struct {
	set api.PolicySpec
	*health.Policy
}

// condition is how a real server stands. All is guarded by Director.mu.
type condition struct {
	standing health.Standing
	serving  bool               // as far as health goes, that of its group included
	why      string             // it isn't serving
	out      bool               // it is not in its service's list
	factors  map[string]float64 // of its weight, by who wants them, beside those of its checks
}

func newCondition() condition {
	return condition{standing: health.Standing{Serves: true, Factor: 1}, serving: true}
}

// Bounds of what a weight is multiplied by: of one factor, and of all together.
const (
	maxFactor  = 10
	maxFactors = 100
)

// effectiveLocked is what the packet path is to have of a server: whether it is in the list, and its weight.
func effectiveLocked(v *virtual, s *server) (in bool, weight int32) {
	if !s.health.serving {
		return v.policy.Reaction == health.Quiesce, 0
	}
	return true, scale(s.config.weight, s.health.factor())
}

// factor is what the configured weight is multiplied by: each time anew, so that nothing adds up.
func (c *condition) factor() float64 {
	f := bounded(c.standing.Factor, maxFactor)
	for _, by := range slices.Sorted(maps.Keys(c.factors)) { // in one order, since products of floats depend on it
		f = bounded(f*c.factors[by], maxFactors)
	}
	return f
}

// bounded is f between 0 and most; what is no number changes nothing.
func bounded(f, most float64) float64 {
	if math.IsNaN(f) {
		return 1
	}
	return min(max(f, 0), most)
}

// scale multiplies a weight. What isn't 0 by itself or by its factor is at least 1: a server that is to have little isn't
// quiesced.
func scale(weight int32, factor float64) int32 {
	if factor == 1 || weight == 0 {
		return weight
	}
	w := math.Round(float64(weight) * factor)
	if w < 1 && factor > 0 {
		w = 1
	}
	return int32(min(w, math.MaxInt32))
}

// SetFactors sets what by, such as "slow start", wants weights multiplied by, for the servers named: 1 takes it back, 0
// quiesces. Servers that there are not are left out. The packet path sees all of it by one swap.
func (d *Director) SetFactors(by string, factors map[health.Subject]float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.newCommit()
	for k, f := range factors {
		v, s := d.subjectLocked(k)
		if s == nil {
			continue
		}
		if f = bounded(f, maxFactor); f == 1 {
			delete(s.health.factors, by)
		} else {
			if s.health.factors == nil {
				s.health.factors = map[string]float64{}
			}
			s.health.factors[by] = f
		}
		c.touched[s] = v
	}
	c.settle()
	c.finish()
}

// Suspect says that packets make a real server suspicious, so that its checks are made at once; see health.Engine.Suspect.
func (d *Director) Suspect(k service.Key, server netip.AddrPort, why string) {
	d.engine.Suspect(k, server, why)
}

// WatchesInBand says whether there is any check that Suspect may hurry.
func (d *Director) WatchesInBand() bool { return d.engine.WatchesInBand() }

// subjectLocked finds a real server of the desired state.
func (d *Director) subjectLocked(k health.Subject) (*virtual, *server) {
	v := d.services[k.Service]
	if v == nil {
		return nil, nil
	}
	return v, v.servers[k.Server]
}

// healthChanged takes what the checks found out.
func (d *Director) healthChanged(changed []health.Subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.newCommit()
	for _, k := range changed {
		if v, s := d.subjectLocked(k); s != nil {
			c.touched[s] = v
		}
	}
	c.settle()
	c.finish()
}

// watch makes the checks of a server what they are to be.
func (c *commit) watch(v *virtual, s *server) {
	checks := s.checksOf(v)
	if len(checks) == 0 && !s.watched {
		return
	}
	specs := make([]*health.Spec, len(checks))
	for i := range checks {
		specs[i] = checks[i].spec
	}
	s.watched = len(specs) > 0
	c.d.engine.Watch(v.key, s.rs, c.method(s.config.method, s.rs.Addr.Addr()), specs)
}

// unwatch ends the checks of a server that is gone.
func (c *commit) unwatch(v *virtual, s *server) {
	if s.watched {
		c.d.engine.Watch(v.key, s.rs, s.rs.Method(), nil)
	}
}

// checksOf are the checks of a server: those of its service, and its own, which stand in the place of the service's that have
// the same id.
func (s *server) checksOf(v *virtual) []check {
	list := slices.Clone(v.checks)
	for _, own := range s.checks {
		if i := slices.IndexFunc(list, func(c check) bool { return c.spec.ID == own.spec.ID }); i >= 0 {
			list[i] = own
		} else {
			list = append(list, own)
		}
	}
	return list
}

// turn is a server that begins or ceases to serve.
type turn struct {
	v      *virtual
	s      *server
	serves bool
}

// settle puts into force what follows from the health of the servers that a commit touched, and of those that stand or fall
// with them.
func (c *commit) settle() {
	groups := map[string]map[netip.Addr]string{}
	for s, v := range c.touched {
		if v.gone || v.servers[s.rs.Addr] != s {
			delete(c.touched, s)
			continue
		}
		s.health.standing = health.Standing{Serves: true, Factor: 1}
		if s.watched {
			s.health.standing = c.d.engine.Standing(health.Subject{Service: v.key, Server: s.rs.Addr})
		}
		if v.policy.Group != "" {
			groups[v.policy.Group] = nil
		}
	}
	for name := range c.groups {
		groups[name] = nil
	}
	for name := range groups {
		groups[name] = c.failing(name)
	}
	touched := slices.SortedFunc(maps.Keys(c.touched), func(a, b *server) int { // so that the order of lists is no matter of chance
		return cmp.Or(strings.Compare(c.touched[a].key.String(), c.touched[b].key.String()), a.rs.Addr.Compare(b.rs.Addr))
	})
	for _, s := range touched {
		c.settleServer(c.touched[s], s, groups[c.touched[s].policy.Group])
	}
}

// failing are the addresses of servers that can't serve one of a group's services, and why. All of the group's servers are
// touched.
func (c *commit) failing(group string) map[netip.Addr]string {
	down := map[netip.Addr]string{}
	for _, v := range c.d.order {
		if v.gone || v.policy.Group != group {
			continue
		}
		for addr, s := range v.servers {
			c.touched[s] = v
			if s.health.standing.Serves {
				continue
			}
			why := fmt.Sprintf("%v, of the same group: %s", v.key, s.health.standing.Why)
			if had, fails := down[addr.Addr()]; !fails || why < had {
				down[addr.Addr()] = why
			}
		}
	}
	return down
}

// settleServer makes the packet path have of a server what follows from its health.
func (c *commit) settleServer(v *virtual, s *server, failing map[netip.Addr]string) {
	h := &s.health
	serves, why := h.standing.Serves, h.standing.Why
	if serves {
		if because, fails := failing[s.rs.Addr.Addr()]; fails {
			serves, why = false, because
		}
	}
	h.why = why
	if serves != h.serving {
		h.serving = serves
		c.turns = append(c.turns, turn{v, s, serves})
	}
	switch in, weight := effectiveLocked(v, s); {
	case !in && !h.out:
		h.out = true
		v.slow.End(s.rs)
		before := v.list.all()
		v.list.remove(s.rs)
		c.removed[s.rs] = struct{}{}
		c.tell(v, service.ServerRemoved, s.rs, before)
	case in && h.out:
		h.out = false
		c.readmit(v, s, weight)
	case in && s.rs.StagedWeight() != weight:
		c.enters(v, s.rs, s.rs.StagedWeight(), weight)
		s.rs.StageWeight(weight)
		c.edit(s)
		c.tell(v, service.ServerEdited, s.rs, v.list.all())
	}
}

// readmit puts a server that was removed back into its service's list.
func (c *commit) readmit(v *virtual, s *server, weight int32) {
	s.rs.Readmit(weight)
	c.enters(v, s.rs, 0, weight)
	c.edit(s)
	if _, thisChange := c.removed[s.rs]; thisChange {
		delete(c.removed, s.rs)
	} else {
		s.rs.CommitWeight()
		s.rs.SetAvailable(true)
	}
	before := v.list.all()
	v.list.prepend(s.rs)
	c.tell(v, service.ServerAdded, s.rs, before)
}

// turned does what is due when servers have begun or ceased to serve and the packet path knows it.
func (c *commit) turned() {
	defer c.tellQuorums()
	for _, t := range c.turns {
		c.d.tellTurn(&t)
		log := c.d.cfg.Log.Info
		what := "real server is up"
		if !t.serves {
			log, what = c.d.cfg.Log.Warn, "real server is down"
			c.d.forgetFlows(t.s.rs)
		}
		log(what, append(names(t.v, t.s), zap.String("why", t.s.health.why), zap.Int32("weight", t.s.rs.StagedWeight()),
			zap.Bool("removed", t.s.health.out))...)
	}
}

// forgetFlows notes a server whose UDP flows and persistence templates are to be dropped.
func (d *Director) forgetFlows(rs *service.RealServer) {
	d.forsaken[rs] = struct{}{}
	select {
	case d.forsake <- struct{}{}:
	default: // Run has yet to look anyway
	}
}

// DropForsaken drops the UDP flows, the TCP connections being opened and the persistence templates of servers that have ceased to
// serve, so that their next packets go to others. Run calls it when there are some.
func (d *Director) DropForsaken() {
	d.mu.Lock()
	doomed := d.forsaken
	d.forsaken = map[*service.RealServer]struct{}{}
	for rs := range doomed {
		_, s := d.subjectLocked(health.Subject{Service: rs.Service, Server: rs.Addr})
		if s != nil && s.rs == rs && s.health.serving || rs.Refs() == 0 {
			delete(doomed, rs)
		}
	}
	d.mu.Unlock()
	if len(doomed) > 0 { // without mu: it goes through the whole table
		d.cfg.Connections.Forsake(func(rs *service.RealServer) bool { _, is := doomed[rs]; return is }, d.cfg.Now())
	}
}
