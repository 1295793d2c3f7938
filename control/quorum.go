package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/health"
	"uvs/health/notify"
	"uvs/health/sorry"
	"uvs/sched"
	"uvs/service"
)

// quorum is whether a virtual service as a whole is up, and what takes its place while it isn't. All is guarded by Director.mu.
//
// While the sorry server is in, the packet path has it as the service's only server, with a scheduler of its own; the service's list and
// scheduler go on behind it as if nothing was. So connections to servers that are up, though too few, go on, and whatever the
// scheduler remembers is as it was when the service is back.
type quorum struct {
	health.Quorum
	weight int64               // of the servers that are up
	sorry  *service.RealServer // nil until it is needed for the first time
	in     bool                // the packet path has it
}

// sorryMethods are the forwarding methods by a policy's names.
var sorryMethods = map[string]string{"nat": api.Masq, "dr": api.Route, "tun": api.Tunnel}

// checkSorry checks that packets of k can be sent to a policy's sorry server.
func (d *Director) checkSorry(k service.Key, p *health.Policy) error {
	addr, err := netip.AddrPort{}, error(nil)
	method := sorryMethods[p.SorryMethod]
	switch p.Sorry {
	case health.None:
		return nil
	case health.Builtin:
		if k.Mark == 0 && k.Proto != service.TCP {
			return refusal(api.Invalid, "sorry=%s: it speaks HTTP, and so is for TCP", health.Builtin)
		}
		if k.Mark == 0 && k.Addr.Port() == 0 {
			return refusal(api.Invalid, "sorry=%s: it is for one port, not for all", health.Builtin)
		}
		addr, method = netip.AddrPortFrom(loopback(k), 0), api.Masq
	default:
		if addr, err = p.SorryServer(k.Addr.Port()); err != nil {
			return refusal(api.Invalid, "sorry=%s: %v", p.Sorry, err)
		}
	}
	if err := d.checkServerAddr(k, addr.Addr(), &api.ServerConfig{Method: method, Weight: 1}); err != nil {
		return tried(err, "sorry=%s", p.Sorry)
	}
	return nil
}

func loopback(k service.Key) netip.Addr {
	if k.Addr.Addr().Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// setPolicy makes p a service's policy.
func (c *commit) setPolicy(v *virtual, p policy) {
	old := v.policy.Policy
	v.policy = p
	if old.Sorry != p.Sorry || old.SorryMethod != p.SorryMethod || old.SorryPage != p.SorryPage || old.RetryAfter != p.RetryAfter {
		c.retireSorry(v)
	}
	if p.SlowStart == 0 && old.SlowStart != 0 {
		v.slow = sched.SlowStart{}
		c.dirty[v] = struct{}{}
	}
	c.reviewed[v] = struct{}{}
}

// retireSorry takes a service's sorry server from it. Its connections go on, unless the service is gone.
func (c *commit) retireSorry(v *virtual) {
	q := &v.quorum
	if q.sorry == nil {
		return
	}
	if q.in {
		q.in = false
		c.dirty[v] = struct{}{}
	}
	if v.gone {
		c.removed[q.sorry] = struct{}{}
	}
	c.d.forgetFlows(q.sorry)
	c.d.trash.putNameless(v.key, q.sorry)
	q.sorry = nil
}

// review finds out which services are up, of those whose servers or policy have changed.
func (c *commit) review() {
	for v := range c.dirty {
		c.reviewed[v] = struct{}{}
	}
	for v := range c.reviewed {
		if !v.gone {
			c.reviewService(v)
		}
	}
}

func (c *commit) reviewService(v *virtual) {
	q := &v.quorum
	if len(v.policy.set) == 0 {
		q.Quorum = health.Quorum{}
		return
	}
	q.weight = 0
	for _, s := range v.servers {
		if s.health.serving {
			q.weight += int64(scale(s.config.weight, s.health.factor()))
		}
	}
	if q.Observe(q.weight, v.policy.Policy) {
		c.quorums = append(c.quorums, v)
	}
	want := !q.Up() && v.policy.Sorry != health.None
	if want == q.in {
		return
	}
	if want {
		if err := c.makeSorry(v); err != nil {
			c.d.cfg.Log.Error("the sorry server can't take over", append(names(v, nil), zap.Error(err))...)
			return
		}
	} else {
		c.d.forgetFlows(q.sorry) // persistent clients would stay with it
	}
	q.in = want
	c.dirty[v] = struct{}{}
}

// makeSorry makes a service's sorry server, if there is none yet.
func (c *commit) makeSorry(v *virtual) error {
	d, p, q := c.d, v.policy.Policy, &v.quorum
	if q.sorry != nil {
		return nil
	}
	m := methods[sorryMethods[p.SorryMethod]]
	addr, err := p.SorryServer(v.key.Addr.Port())
	if p.Sorry == health.Builtin {
		m = service.Masq
		addr, err = d.sorry.Serve(sorry.Page{Text: p.SorryPage, RetryAfter: time.Duration(p.RetryAfter)}, v.key.Addr.Addr().Is4())
	}
	if err != nil {
		return err
	}
	addr = serverAddr(v.key, &api.ServerKey{Address: addr.Addr(), Port: addr.Port()}, m)
	rs := service.NewRealServer(v.key, addr, c.method(m, addr.Addr()), 1)
	rs.SetAsked(m)
	if err := d.cfg.Servers.Add(rs); err != nil {
		return err
	}
	d.stats.assignServer(rs.Index)
	q.sorry = rs
	return nil
}

// schedule is what decides for a service, and on which servers, in the table that is being built.
func (v *virtual) schedule(d *Director) (service.Scheduler, []*service.RealServer) {
	list := v.list.all()
	if v.sched == nil {
		return nil, list
	}
	v.sched.Prepare(list)
	if v.quorum.in {
		list = []*service.RealServer{v.quorum.sorry}
		s, err := d.cfg.Sched.New(sorryScheduler, 0)
		if err != nil {
			panic("control: " + err.Error())
		}
		s.Prepare(list)
		return s, list
	}
	return v.slow.Wrap(&d.cfg.Sched, v.config.scheduler, v.config.flags, v.sched, list, d.cfg.Now()), list
}

// sorryScheduler chooses among one.
const sorryScheduler = "rr"

// tellQuorums logs which services have come up or gone down, and tells programs.
func (c *commit) tellQuorums() {
	for _, v := range c.quorums {
		if len(v.servers) == 0 && v.quorum.weight == 0 {
			continue // it is being made, or unmade
		}
		up, p := v.quorum.Up(), v.policy.Policy
		log, what, program := c.d.cfg.Log.Info, "virtual service is up", p.QuorumUp
		if !up {
			log, what, program = c.d.cfg.Log.Warn, "virtual service is down: too few of its servers are up", p.QuorumDown
		}
		fields := append(names(v, nil), zap.Int64("weight", v.quorum.weight), zap.Int64("quorum", p.Quorum))
		if v.quorum.in {
			fields = append(fields, zap.Stringer("sorry", v.quorum.sorry))
		}
		log(what, fields...)
		c.d.notifier.Tell(notify.Event{
			About: "quorum of " + v.key.String(), Program: program, Timeout: time.Duration(p.NotifyTimeout),
			Names: map[string]string{"%s": v.key.String(), "%h": "", "%p": ""},
			Env: []string{"UVS_SERVICE=" + v.key.String(), "UVS_STATE=" + upOrDown(up), "UVS_WEIGHT=" + strconv.FormatInt(v.quorum.weight, 10),
				"UVS_QUORUM=" + strconv.FormatInt(p.Quorum, 10)},
		})
	}
}

// tellTurn tells programs of a server that has come up or gone down.
func (d *Director) tellTurn(t *turn) {
	p, rs := t.v.policy.Policy, t.s.rs
	program := p.NotifyDown
	if t.serves {
		program = p.NotifyUp
	}
	d.notifier.Tell(notify.Event{
		About: fmt.Sprintf("%v of %v", rs, t.v.key), Program: program, Timeout: time.Duration(p.NotifyTimeout),
		Names: map[string]string{"%s": t.v.key.String(), "%h": rs.Addr.Addr().String(), "%p": strconv.Itoa(int(rs.Addr.Port()))},
		Env: []string{"UVS_SERVICE=" + t.v.key.String(), "UVS_SERVER=" + rs.Addr.String(), "UVS_STATE=" + upOrDown(t.serves), "UVS_WHY=" +
			printable(t.s.health.why)},
	})
}

func upOrDown(up bool) string {
	if up {
		return api.StateUp
	}
	return api.StateDown
}

// printable is a text that servers may have had a say in, without what an environment can't have.
func printable(s string) string {
	return string(slices.DeleteFunc([]byte(s), func(b byte) bool { return b < ' ' || b == 0x7f }))
}

// quorumLocked is the state of a service as the API shows it; nil without a policy.
func (d *Director) quorumLocked(v *virtual) *api.QuorumState {
	if len(v.policy.set) == 0 {
		return nil
	}
	out := &api.QuorumState{Up: v.quorum.Up(), Weight: v.quorum.weight}
	if rs := v.quorum.sorry; v.quorum.in {
		out.Sorry = &api.Server{
			ServerKey: api.ServerKey{Address: rs.Addr.Addr(), Port: rs.Addr.Port()},
			Config:    api.ServerConfig{Method: methodNames[rs.Asked()], Weight: int(rs.Weight())},
			Active:    count(rs.Active()), Inactive: count(rs.Inactive()), Persistent: count(rs.Persistent()),
		}
		out.Sorry.Stats, out.Sorry.Rates = d.stats.servers[rs.Index].shown()
	}
	return out
}
