package importer

import (
	"fmt"
	"time"

	"uvs/config"
)

// kaTimes are the keywords that a virtual server hands on to its real servers, and these to their checks.
var kaTimes = []string{"delay_loop", "connect_timeout", "retry", "nb_get_retry", "delay_before_retry", "warmup", "alpha", "virtualhost"}

// kaDefaults are the directives that count where a check has none of its own; nil where there is none at all.
type kaDefaults struct {
	interval, timeout, retry, retryDelay, warmup, alpha, host *directive
}

// in is what counts in a block.
func (k kaDefaults) in(d *directive) kaDefaults {
	for _, f := range []struct {
		to    **directive
		names []string
	}{{&k.interval, []string{"delay_loop"}}, {&k.timeout, []string{"connect_timeout"}}, {&k.retry, []string{"retry", "nb_get_retry"}},
		{&k.retryDelay, []string{"delay_before_retry"}}, {&k.warmup, []string{"warmup"}}, {&k.alpha, []string{"alpha"}}, {&k.host, []string{"virtualhost"}}} {
		if own := d.find(f.names...); own != nil {
			*f.to = own
		}
	}
	return k
}

// realServer maps a real_server.
func (m *kaMapper) realServer(s *kaService, d *directive) {
	server, err := kaServer(d)
	if err != nil {
		d.all(Missing, err.Error())
		return
	}
	if !d.isBlock {
		d.missing("it has no block")
		return
	}
	server.Name = s.serverName(d)
	server.Method, server.Tunnel = s.service.Method, s.service.Tunnel
	if k := d.find("lvs_method", "lb_kind"); k != nil {
		server.Method, server.Tunnel = kaMethod(k, k.args, "services.servers.method", server.Method)
	}
	for i := range s.servers {
		if s.servers[i].Address == server.Address && (s.servers[i].Port == server.Port || server.Method != "nat") {
			d.all(Missing, "there is already a real server of this address and port")
			return
		}
	}
	weight := d.find("weight")
	if weight == nil {
		weight = s.weight
	}
	if weight != nil {
		if n, err := whole(weight.arg(0), 0, maxWeight); err != nil {
			weight.missing(err.Error())
		} else {
			if n != 1 {
				server.Weight = &n
			}
			weight.exact("services.servers.weight")
		}
	}
	for _, t := range []struct {
		name, key string
		to        *uint32
	}{{"uthreshold", "services.servers.upper", &server.UpperThreshold}, {"lthreshold", "services.servers.lower", &server.LowerThreshold}} {
		if x := d.find(t.name); x != nil {
			if n, err := whole(x.arg(0), 0, 1<<31-1); err != nil {
				x.missing(err.Error())
			} else {
				*t.to = uint32(n)
				x.exact(t.key)
			}
		}
	}
	if server.LowerThreshold > server.UpperThreshold {
		d.find("lthreshold").missing("greater than uthreshold, which IPVS doesn't take either")
		server.LowerThreshold = 0
	}
	if x := d.find("inhibit_on_failure"); x != nil {
		if kaTrue(x) {
			s.inhibits++
			s.inhibit = append(s.inhibit, x)
		} else {
			x.exact("services.health.reaction: remove")
		}
	}
	if x := d.find("notify_up"); x != nil {
		s.ups = append(s.ups, x)
	}
	if x := d.find("notify_down"); x != nil {
		s.downs = append(s.downs, x)
	}
	d.exact("services.servers")
	checks := m.checks(s, d, &server)
	m.ownPort(s, d, &server)
	if server.Method == s.service.Method && server.Tunnel == s.service.Tunnel {
		server.Method, server.Tunnel = "", nil // the service says it
	}
	for _, in := range d.block {
		m.lessCommon(in)
	}
	s.servers = append(s.servers, server)
	s.checks = append(s.checks, checks)
}

// serverName is a label for a server that has an snmp_name.
func (s *kaService) serverName(d *directive) string {
	n := d.find("snmp_name")
	if n == nil || n.arg(0) == "" {
		return ""
	}
	name := label(n.arg(0), s.labels)
	if name == n.arg(0) {
		n.exact("services.servers.name")
	} else {
		n.approx("services.servers.name: " + name)
	}
	return name
}

// serves is the port that packets to a server have, or 0 where it isn't one.
func (s *kaService) serves(server *config.Server) int {
	switch virtual, err := kaServer(s.at); {
	case s.at.arg(0) == "group", s.at.arg(0) == "fwmark":
		if server.Method == "nat" {
			return server.Port
		}
		return 0
	case err == nil && (server.Method != "nat" || server.Port == 0):
		return virtual.Port
	}
	return server.Port
}

// ownPort leaves a server's port out where it has none of its own: the packets keep the service's.
func (m *kaMapper) ownPort(s *kaService, d *directive, server *config.Server) {
	if s.at.arg(0) == "group" || s.at.arg(0) == "fwmark" {
		if server.Method != "nat" {
			server.Port = 0
		}
		return
	}
	if virtual, err := kaServer(s.at); err == nil && (server.Method != "nat" || virtual.Port == server.Port) {
		if virtual.Port != server.Port && server.Port != 0 {
			d.approx("its port is that of the virtual server, which direct routing and tunnels can't change; checks ask the port that is named here")
		}
		server.Port = 0
	}
}

// settings maps how often and how patiently a check asks.
func (k kaDefaults) settings(kind string, via string, retries int, delay time.Duration) (c config.CheckSettings) {
	c.Kind, c.Via = kind, via
	timer := func(d *directive, otherwise time.Duration, key string, low time.Duration) config.Duration {
		v := otherwise
		if d != nil {
			t, err := seconds(d.arg(0))
			if err != nil {
				d.missing(err.Error())
			} else if t, cut := clamp(t, low, maxInterval); cut {
				v = time.Duration(t)
				d.approx(fmt.Sprintf("%s: %v is as near as uvs comes", key, t))
			} else {
				v = time.Duration(t)
				d.exact(key)
			}
		}
		return config.Duration(v)
	}
	c.Interval = timer(k.interval, time.Minute, "checks.interval", minInterval)
	c.Timeout = timer(k.timeout, 5*time.Second, "checks.timeout", time.Millisecond)
	if k.retry != nil {
		if n, err := whole(k.retry.arg(0), 0, 1<<32-1); err != nil {
			k.retry.missing(err.Error())
		} else if retries = n; n > 999 {
			retries = 999
			k.retry.approx("checks.fall: 1000 is the most")
		} else {
			k.retry.exact("checks.fall, the first failure counted")
		}
	}
	c.Fall, c.Rise = retries+1, 1
	if delay == 0 {
		delay = time.Duration(c.Interval)
	}
	switch {
	case retries > 0:
		c.Retry = timer(k.retryDelay, delay, "checks.retry", minInterval)
	case k.retryDelay != nil:
		k.retryDelay.needless("nothing is retried")
	}
	if c.Retry == c.Interval {
		c.Retry = 0
	}
	if k.warmup != nil {
		c.WarmUp = timer(k.warmup, 0, "checks.warmup", time.Millisecond)
	}
	if k.alpha != nil {
		if kaTrue(k.alpha) {
			c.Start = "down"
		}
		k.alpha.exact("checks.start")
	}
	return c
}
