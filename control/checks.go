package control

import (
	"encoding/json"
	"net/netip"
	"slices"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// maxChecks is how many checks a service or a server may have of its own.
const maxChecks = 100

// checkKey names a check of a service; of all its servers with the zero AddrPort, else of one.
type checkKey struct {
	server netip.AddrPort
	id     string
}

// defaultPolicy is that of services that have none.
var defaultPolicy = health.DefaultPolicy()

var (
	errCheckExists = refusal(api.CheckExists, "a check with this id is there already; id= gives it another")
	errNoCheck     = refusal(api.CheckNotFound, "no such check")
)

// whose says in a message what an operation about health is about.
func (e *effect) whose() string {
	if e.addr.IsValid() {
		return "real server " + e.addr.String() + " of " + e.key.String()
	}
	return "virtual service " + e.key.String()
}

// health judges an operation about checks.
func (p *plan) health(e *effect, op *api.Op) error {
	s := p.find(e.key)
	if op.Server != nil {
		e.addr = netip.AddrPortFrom(op.Server.Address, op.Server.Port)
	}
	switch {
	case !s.exists:
		return errNoService
	case op.Server != nil && !s.has(e.addr):
		return errNoServer
	}
	switch op.Kind {
	case api.SetPolicy:
		var err error
		if e.policy, err = decodePolicy(op.Policy); err != nil {
			return err
		}
		return p.d.checkSorry(e.key, e.policy.Policy)
	case api.DeleteCheck:
		e.checkID = op.CheckID
		if !s.hasCheck(checkKey{e.addr, e.checkID}) {
			return errNoCheck
		}
		s.setCheck(checkKey{e.addr, e.checkID}, false)
		return nil
	}
	c, err := decodeCheck(op.CheckSpec)
	if err != nil {
		return err
	}
	key := checkKey{e.addr, c.spec.ID}
	switch {
	case s.hasCheck(key):
		return errCheckExists
	case s.manyChecks(e.addr):
		return refusal(api.NoMemory, "no more checks than %d", maxChecks)
	case c.spec.Via == health.VIP && e.key.Mark != 0:
		return refusal(api.Invalid, "via=vip: a firewall mark has no virtual address")
	}
	e.check = c
	s.setCheck(key, true)
	return nil
}

func decodeCheck(set api.CheckSpec) (check, error) {
	data, err := json.Marshal(set)
	if err != nil {
		return check{}, refusal(api.Invalid, "%v", err)
	}
	spec, err := health.Decode(data)
	if err != nil {
		return check{}, refusal(api.Invalid, "%v", err)
	}
	return check{set, spec}, nil
}

func decodePolicy(set api.PolicySpec) (policy, error) {
	if set == nil {
		set = api.PolicySpec{}
	}
	data, err := json.Marshal(set)
	if err != nil {
		return policy{}, refusal(api.Invalid, "%v", err)
	}
	p, err := health.DecodePolicy(data)
	if err != nil {
		return policy{}, refusal(api.Invalid, "%v", err)
	}
	return policy{set, p}, nil
}

func (s *planned) hasCheck(k checkKey) bool {
	if has, touched := s.checks[k]; touched {
		return has
	}
	return indexOf(s.baseChecks(k.server), k.id) >= 0
}

// baseChecks are those that a service or a server of it began with.
func (s *planned) baseChecks(server netip.AddrPort) []check {
	if s.base == nil || s.fresh[server] {
		return nil
	}
	if !server.IsValid() {
		return s.base.checks
	}
	if of := s.base.servers[server]; of != nil {
		return of.checks
	}
	return nil
}

// manyChecks says that a service or a server of it has as many checks of its own as it may have.
func (s *planned) manyChecks(server netip.AddrPort) bool {
	n := len(s.baseChecks(server))
	for k, has := range s.checks {
		if k.server == server && has {
			n++
		}
	}
	return n >= maxChecks
}

func (s *planned) setCheck(k checkKey, has bool) {
	if s.checks == nil {
		s.checks = map[checkKey]bool{}
	}
	s.checks[k] = has
}

// forgetChecks notes that a server goes, and its own checks with it.
func (s *planned) forgetChecks(addr netip.AddrPort) {
	if s.fresh == nil {
		s.fresh = map[netip.AddrPort]bool{}
	}
	s.fresh[addr] = true
	for k := range s.checks {
		if k.server == addr {
			delete(s.checks, k)
		}
	}
}

func indexOf(checks []check, id string) int {
	return slices.IndexFunc(checks, func(c check) bool { return c.spec.ID == id })
}

// applyHealth carries out an operation about checks.
func (c *commit) applyHealth(v *virtual, e *effect) {
	if e.kind == api.SetPolicy {
		for _, group := range []string{v.policy.Group, e.policy.Group} {
			if group != "" {
				c.groups[group] = struct{}{}
			}
		}
		c.setPolicy(v, e.policy)
		for _, s := range v.servers {
			c.touched[s] = v
		}
		return
	}
	list, of := &v.checks, v.servers
	if e.addr.IsValid() {
		s := v.servers[e.addr]
		list, of = &s.checks, map[netip.AddrPort]*server{e.addr: s}
	}
	if e.kind == api.AddCheck {
		*list = append(slices.Clip(*list), e.check)
	} else if i := indexOf(*list, e.checkID); i >= 0 {
		*list = slices.Concat((*list)[:i], (*list)[i+1:])
	}
	for _, s := range of {
		c.touched[s] = v
	}
}

func specsOf(checks []check) []api.CheckSpec {
	var list []api.CheckSpec
	for i := range checks {
		list = append(list, checks[i].set)
	}
	return list
}

var stateNames = map[health.State]string{health.Unknown: api.Unknown, health.Up: api.StateUp, health.Down: api.StateDown}

func subjectOf(v *virtual, rs *service.RealServer) health.Subject {
	return health.Subject{Service: v.key, Server: rs.Addr}
}
