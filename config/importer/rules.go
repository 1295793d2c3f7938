package importer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"uvs/config"
	"uvs/control/api"
	"uvs/control/ipvsadm"
	"uvs/sched"
)

// ipvsadm maps rules as ipvsadm -S writes them: they are carried out on a table that becomes the configuration.
func (b *builder) ipvsadm(file, text string, lim *limits) (tree []*directive, err error) {
	if strings.Count(text, "\n") > lim.lines {
		return nil, fmt.Errorf("%s: more than %d lines: %w", file, lim.lines, errTooMuch)
	}
	t := ruleTable{builder: b, at: map[string]int{}}
	for _, r := range ipvsadm.ReadRules(text, b.names) {
		d := &directive{place: place{file, r.Line}, name: r.Text}
		if words := strings.Fields(strings.TrimPrefix(r.Text, "ipvsadm ")); len(words) > 0 {
			d.name, d.args = words[0], words[1:]
		}
		tree = append(tree, d)
		switch {
		case r.Err != nil:
			why := strings.TrimSpace(r.Err.Error())
			if strings.Contains(why, "address[:port]") {
				why += " (if that is a name, nothing here knows it: ipvsadm -S -n writes numbers)"
			}
			d.missing(why)
		case r.Op == nil:
			d.needless("changes nothing")
		default:
			t.apply(d, r.Op)
		}
	}
	for i, s := range t.services {
		if s == nil {
			continue
		}
		if err := b.add(s); err != nil {
			for _, d := range t.from[i] {
				d.missing(err.Error())
			}
		}
	}
	return tree, nil
}

// ruleTable is the table that rules make.
type ruleTable struct {
	*builder
	services []*config.Service // nil for one that was deleted
	from     [][]*directive    // the lines that made them
	at       map[string]int    // by key
}

// apply carries out a line.
func (t *ruleTable) apply(d *directive, op *api.Op) {
	switch op.Kind {
	case api.AddService, api.EditService:
		t.service(d, op)
	case api.DeleteService:
		if s := t.find(d, op.Service); s != nil {
			t.services[t.at[op.Service.String()]] = nil
			delete(t.at, op.Service.String())
			d.exact("the service is gone")
		}
	case api.Flush:
		t.services, t.from, t.at = nil, nil, map[string]int{}
		d.exact("what stands before it is gone")
	case api.AddServer, api.EditServer, api.DeleteServer:
		t.server(d, op)
	case api.SetTimeouts:
		d.exact("timeouts")
		for _, x := range []struct {
			seconds uint32
			to      *config.Duration
		}{{op.Timeouts.TCP, &t.cfg.Timeouts.TCP}, {op.Timeouts.TCPFin, &t.cfg.Timeouts.TCPFin}, {op.Timeouts.UDP, &t.cfg.Timeouts.UDP}} {
			if x.seconds != 0 {
				*x.to = config.Duration(time.Duration(x.seconds) * time.Second)
			}
		}
	case api.StartDaemon:
		t.startDaemon(d, op.Daemon)
	case api.StopDaemon:
		t.cfg.SyncDaemons = slices.DeleteFunc(t.cfg.SyncDaemons, func(s config.SyncDaemon) bool { return s.Role == op.Daemon.Role })
		d.exact("sync")
	case api.ZeroCounters:
		d.needless("uvs's counters begin with zero")
	}
}

func (t *ruleTable) find(d *directive, key *api.ServiceKey) *config.Service {
	i, known := t.at[key.String()]
	if !known {
		d.missing("no such service")
		return nil
	}
	return t.services[i]
}

func (t *ruleTable) service(d *directive, op *api.Op) {
	key := op.Service.String()
	_, known := t.at[key]
	if known != (op.Kind == api.EditService) {
		d.missing(map[bool]string{true: "service already exists", false: "no such service"}[known])
		return
	}
	c := op.ServiceConfig
	if !sched.Known(c.Scheduler) {
		d.missing("uvs has no scheduler " + c.Scheduler)
		return
	}
	s := config.Service{Comment: d.from(), Scheduler: c.Scheduler, SchedulerFlags: c.SchedFlags, OnePacket: c.OnePacket}
	if known {
		old := t.services[t.at[key]]
		s.Servers, s.Method, s.Comment = old.Servers, old.Method, old.Comment
	}
	if op.Service.FWMark != 0 {
		s.FWMark = op.Service.FWMark
		if op.Service.Family == api.IPv6 {
			s.Family = "ipv6"
		}
		d.approx("services: the packets get the mark by rules under marks, which have to be written: netfilter's can't be seen here")
	} else {
		s.Address = []string{op.Service.Address.String()}
		s.Port = config.Ports{{First: op.Service.Port, Last: op.Service.Port}}
		if op.Service.Protocol != api.TCP {
			s.Protocol = []string{op.Service.Protocol}
		}
		d.exact("services")
	}
	if c.PersistenceSeconds != 0 {
		s.Persistence = &config.Persistence{Timeout: config.Duration(time.Duration(c.PersistenceSeconds) * time.Second), Netmask: c.Netmask, Engine: c.PersistenceEngine}
	}
	if known {
		*t.services[t.at[key]] = s
		return
	}
	t.at[key] = len(t.services)
	t.services, t.from = append(t.services, &s), append(t.from, []*directive{d})
}

var ruleMethods = map[string]string{api.Masq: "nat", api.Tunnel: "tun", api.Route: "dr", api.Local: "dr"}

func (t *ruleTable) server(d *directive, op *api.Op) {
	s := t.find(d, op.Service)
	if s == nil {
		return
	}
	i := slices.IndexFunc(s.Servers, func(x config.Server) bool {
		return x.Address == op.Server.Address.String() && t.portOf(s, &x) == op.Server.Port
	})
	switch {
	case op.Kind == api.AddServer && i >= 0:
		d.missing("real server already exists")
		return
	case op.Kind != api.AddServer && i < 0:
		d.missing("no such real server")
		return
	case op.Kind == api.DeleteServer:
		s.Servers = slices.Delete(s.Servers, i, i+1)
		d.exact("the server is gone")
		return
	}
	c := op.ServerConfig
	r := config.Server{Address: op.Server.Address.String(), Method: ruleMethods[c.Method], UpperThreshold: c.Upper, LowerThreshold: c.Lower}
	if r.LowerThreshold > r.UpperThreshold {
		d.missing("the lower threshold is above the upper one, which IPVS doesn't take either")
		return
	}
	if c.Weight != 1 {
		r.Weight = &c.Weight
	}
	if x := c.Tunnel; x != nil && x.Type != api.IPIP {
		r.Tunnel = &config.Tunnel{Type: x.Type, Port: int(x.Port)}
		if x.Checksum != api.NoChecksum {
			r.Tunnel.Checksum = x.Checksum
		}
	}
	if op.Server.Port != op.Service.Port {
		r.Port = int(op.Server.Port)
	}
	if len(s.Servers) == 0 {
		s.Method = r.Method
	}
	if r.Method == s.Method && r.Tunnel == nil {
		r.Method = ""
	}
	d.exact("services.servers")
	at := t.at[op.Service.String()]
	t.from[at] = append(t.from[at], d)
	if op.Server.Port == 0 && op.Service.Port != 0 {
		d.approx("services.servers: at the service's port; uvs.yaml has no port 0 for a server")
	}
	if i >= 0 {
		s.Servers[i] = r
		return
	}
	s.Servers = append(s.Servers, r)
}

// portOf is a server's port, its own or the service's.
func (t *ruleTable) portOf(s *config.Service, r *config.Server) uint16 {
	if r.Port == 0 && len(s.Port) > 0 {
		return s.Port[0].First
	}
	return uint16(r.Port)
}

func (t *ruleTable) startDaemon(d *directive, x *api.Daemon) {
	if slices.ContainsFunc(t.cfg.SyncDaemons, func(s config.SyncDaemon) bool { return s.Role == x.Role }) {
		d.missing("there is already a sync daemon of this role")
		return
	}
	if x.Interface == "" {
		d.missing("uvs.yaml wants the interface of a sync daemon: --mcast-interface")
		return
	}
	if err := t.sync(config.SyncDaemon{Role: x.Role, Interface: x.Interface, SyncID: int(x.SyncID), MaxLen: int(x.MaxLen),
		Group: x.Group, Port: int(x.Port), TTL: int(x.TTL)}); err != nil {
		d.missing(err.Error())
		return
	}
	d.approx("sync: this version of uvs keeps it and synchronises no connections")
}
