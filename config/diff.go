package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// Change is what brings a director from one state to another.
type Change struct {
	// Ops and Settings are to be applied together.
	Ops      []api.Op
	Settings []api.Setting
	// Differences say the same for people, and what is left alone.
	Differences []api.Difference
}

// Empty says that there is nothing to do.
func (c *Change) Empty() bool { return len(c.Ops) == 0 && len(c.Settings) == 0 }

// differ makes a Change.
type differ struct {
	Change
	keep bool   // what neither file has
	last *State // what the file had when it was loaded last
}

// Diff says what to do so that a director that has one state gets another. With keep, what was made at run time, which is in
// neither want nor last, the file as it was loaded before, stays and is reported. last may be nil.
//
// Identities stay: a service or a server that both states have is edited and never removed and added, so that its connections,
// counters and scheduler's position go on.
func Diff(have, want, last *State, keep bool) *Change {
	if last == nil {
		last = new(State)
	}
	d := &differ{keep: keep, last: last}
	had, was := have.index(), last.index()
	wanted := want.index()
	for _, h := range have.Services { // first what makes room
		if wanted[h.Key] != nil {
			continue
		}
		if keep && was[h.Key] == nil {
			d.report(api.Kept, h, nil, "made at run time, with %s", count(len(h.Servers), "server"))
			continue
		}
		key := h.Key
		d.Ops = append(d.Ops, api.Op{Kind: api.DeleteService, Service: &key})
		d.report(api.Removed, h, nil, "%s", count(len(h.Servers), "server"))
	}
	for _, w := range want.Services {
		if h := had[w.Key]; h != nil {
			d.service(h, w, was[w.Key])
		} else {
			d.newService(w)
		}
	}
	d.marks(have.Marks, want.Marks)
	d.settings(have.Settings, want.Settings)
	d.timeouts(have.Timeouts, want.Timeouts)
	d.daemons(have.Daemons, want.Daemons)
	return &d.Change
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// report adds a difference about a service or, with s, one of its servers.
func (d *differ) report(kind string, v *ServiceState, s *ServerState, format string, args ...any) {
	row := api.Difference{Kind: kind, Service: &v.Key, Label: v.Label, Text: fmt.Sprintf(format, args...)}
	if s != nil {
		row.Server, row.Label = &s.Key, s.Label
	}
	d.Differences = append(d.Differences, row)
}

// newService adds a service with all it has.
func (d *differ) newService(w *ServiceState) {
	d.Ops = append(d.Ops, api.Op{Kind: api.AddService, Service: &w.Key, ServiceConfig: &w.Config})
	d.report(api.Added, w, nil, "scheduler %s, %s", w.Config.Scheduler, count(len(w.Servers), "server"))
	if w.Label != "" {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetLabel, Service: &w.Key, Label: &w.Label})
	}
	if len(w.Policy) > 0 {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetPolicy, Service: &w.Key, Policy: w.Policy})
	}
	d.checks(w, nil, nil, w.Checks)
	for i := range w.Servers {
		d.newServer(w, &w.Servers[i])
	}
}

func (d *differ) newServer(v *ServiceState, s *ServerState) {
	d.Ops = append(d.Ops, api.Op{Kind: api.AddServer, Service: &v.Key, Server: &s.Key, ServerConfig: &s.Config})
	if s.Label != "" {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetLabel, Service: &v.Key, Server: &s.Key, Label: &s.Label})
	}
	d.checks(v, s, nil, s.Checks)
}

// checks brings checks from one list to another, those of a service or of one server, and says whether they differ.
func (d *differ) checks(v *ServiceState, s *ServerState, have, want []api.CheckSpec) bool {
	if sameChecks(have, want) {
		return false
	}
	var server *api.ServerKey
	if s != nil {
		server = &s.Key
	}
	for _, c := range have {
		if !slices.ContainsFunc(want, func(w api.CheckSpec) bool { return sameObject(w, c) }) {
			d.Ops = append(d.Ops, api.Op{Kind: api.DeleteCheck, Service: &v.Key, Server: server, CheckID: c.ID()})
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(c api.CheckSpec) bool { return sameObject(w, c) }) {
			d.Ops = append(d.Ops, api.Op{Kind: api.AddCheck, Service: &v.Key, Server: server, CheckSpec: w})
		}
	}
	return true
}

// service brings a service that is there to what is wanted. was is what the file had before, or nil.
func (d *differ) service(h, w, was *ServiceState) {
	var text []string
	if !sameConfig(&h.Config, &w.Config) {
		d.Ops = append(d.Ops, api.Op{Kind: api.EditService, Service: &w.Key, ServiceConfig: &w.Config})
		text = append(text, serviceChanges(&h.Config, &w.Config)...)
	}
	if h.Label != w.Label {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetLabel, Service: &w.Key, Label: &w.Label})
		text = append(text, change("name", h.Label, w.Label))
	}
	if !sameObject(h.Policy, w.Policy) {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetPolicy, Service: &w.Key, Policy: w.Policy})
		text = append(text, "health policy")
	}
	if d.checks(w, nil, h.Checks, w.Checks) {
		text = append(text, "health checks")
	}
	if text != nil {
		d.report(api.Changed, w, nil, "%s", strings.Join(text, ", "))
	}
	for i := range h.Servers {
		s := &h.Servers[i]
		if w.server(s.Key) != nil {
			continue
		}
		if d.keep && was.server(s.Key) == nil {
			d.report(api.Kept, w, s, "added at run time")
			continue
		}
		d.Ops = append(d.Ops, api.Op{Kind: api.DeleteServer, Service: &w.Key, Server: &s.Key})
		d.report(api.Removed, w, s, "")
	}
	for i := range w.Servers {
		s := &w.Servers[i]
		if now := h.server(s.Key); now != nil {
			d.server(w, now, s)
		} else {
			d.newServer(w, s)
			d.report(api.Added, w, s, "weight %d, %s", s.Config.Weight, methodNames[s.Config.Method])
		}
	}
}

// methodNames are the file's names of forwarding methods by the API's.
var methodNames = map[string]string{api.Route: "dr", api.Tunnel: "tun", api.Masq: "nat", api.Local: "local"}

func (d *differ) server(v *ServiceState, h, w *ServerState) {
	var text []string
	if !sameServerConfig(&h.Config, &w.Config) {
		d.Ops = append(d.Ops, api.Op{Kind: api.EditServer, Service: &v.Key, Server: &w.Key, ServerConfig: &w.Config})
		text = append(text, serverChanges(&h.Config, &w.Config)...)
	}
	if h.Label != w.Label {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetLabel, Service: &v.Key, Server: &w.Key, Label: &w.Label})
		text = append(text, change("name", h.Label, w.Label))
	}
	if d.checks(v, w, h.Checks, w.Checks) {
		text = append(text, "health checks")
	}
	if text != nil {
		d.report(api.Changed, v, w, "%s", strings.Join(text, ", "))
	}
}

func change(what string, from, to any) string {
	show := func(x any) string { return cmp.Or(fmt.Sprint(x), "none") }
	return fmt.Sprintf("%s %s -> %s", what, show(from), show(to))
}

func serviceChanges(a, b *api.ServiceConfig) (text []string) {
	for _, x := range []struct {
		what     string
		from, to any
	}{
		{"scheduler", a.Scheduler, b.Scheduler}, {"flags", strings.Join(a.SchedFlags, " "), strings.Join(b.SchedFlags, " ")},
		{"persistence", a.PersistenceSeconds, b.PersistenceSeconds}, {"netmask", a.Netmask.String(), b.Netmask.String()},
		{"persistence engine", a.PersistenceEngine, b.PersistenceEngine}, {"ops", a.OnePacket, b.OnePacket},
	} {
		if x.from != x.to {
			text = append(text, change(x.what, x.from, x.to))
		}
	}
	return text
}

func serverChanges(a, b *api.ServerConfig) (text []string) {
	for _, x := range []struct {
		what     string
		from, to any
	}{
		{"method", methodNames[a.Method], methodNames[b.Method]}, {"weight", a.Weight, b.Weight}, {"upper", a.Upper, b.Upper},
		{"lower", a.Lower, b.Lower}, {"tunnel", tunnelText(a), tunnelText(b)},
	} {
		if x.from != x.to {
			text = append(text, change(x.what, x.from, x.to))
		}
	}
	return text
}

func tunnelText(c *api.ServerConfig) string {
	t := tunnelOf(c)
	if t.Port != 0 {
		return fmt.Sprintf("%s port %d checksum %s", t.Type, t.Port, t.Checksum)
	}
	return strings.TrimSpace(t.Type + " " + strings.Replace(t.Checksum, api.NoChecksum, "", 1))
}

func (d *differ) other(kind, format string, args ...any) {
	d.Differences = append(d.Differences, api.Difference{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// marks brings the mark rules to what is wanted; those kept stand behind.
func (d *differ) marks(have, want []api.MarkRule) {
	want = slices.Clone(want)
	for i := range want {
		want[i].Src, want[i].Dst = want[i].Src.Masked(), want[i].Dst.Masked()
	}
	for _, r := range have {
		if d.keep && !slices.Contains(want, r) && !slices.Contains(d.last.Marks, r) {
			same := r
			if slices.ContainsFunc(want, func(w api.MarkRule) bool { same.Mark = w.Mark; return same == w }) {
				continue // the file gives its packets another mark
			}
			want = append(want, r)
			d.other(api.Kept, "mark rule %v, made at run time", r)
		}
	}
	now := slices.Clone(have)
	remove := func(i int) {
		r := now[i]
		now = slices.Delete(now, i, i+1)
		d.Ops = append(d.Ops, api.Op{Kind: api.DeleteMarkRule, MarkRule: &r})
	}
	for i := len(now) - 1; i >= 0; i-- {
		if !slices.Contains(want, now[i]) {
			d.other(api.Removed, "mark rule %v", now[i])
			remove(i)
		}
	}
	for i, r := range want {
		if i < len(now) && now[i] == r {
			continue
		}
		if j := slices.Index(now, r); j >= 0 {
			d.other(api.Changed, "mark rule %v: its place is %d", r, i+1)
			remove(j)
		} else {
			d.other(api.Added, "mark rule %v", r)
		}
		now = slices.Insert(now, i, r)
		d.Ops = append(d.Ops, api.Op{Kind: api.AddMarkRule, MarkRule: &r, Position: i + 1})
	}
}

func (d *differ) settings(have, want map[string]string) {
	defaults := service.DefaultSettings()
	for _, s := range sysctl.All() {
		now, initial := have[s.Name], s.Describe(&defaults).Value
		target, given := want[s.Name]
		_, was := d.last.Settings[s.Name]
		switch {
		case given:
		case d.keep && !was:
			if now != initial {
				d.other(api.Kept, "setting %s is %s, set at run time", s.Name, now)
			}
			continue
		default:
			target = initial
		}
		if now != target {
			d.Settings = append(d.Settings, api.Setting{Name: s.Name, Value: target})
			d.other(api.Changed, "setting %s", change(s.Name, now, target))
		}
	}
}

// Timeouts that a director has at its start, in seconds.
var defaultTimeouts = api.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}

func (d *differ) timeouts(have, want api.Timeouts) {
	var set api.Timeouts
	for _, x := range []struct {
		name                     string
		have, want, was, initial uint32
		set                      *uint32
	}{
		{"tcp", have.TCP, want.TCP, d.last.Timeouts.TCP, defaultTimeouts.TCP, &set.TCP},
		{"tcpfin", have.TCPFin, want.TCPFin, d.last.Timeouts.TCPFin, defaultTimeouts.TCPFin, &set.TCPFin},
		{"udp", have.UDP, want.UDP, d.last.Timeouts.UDP, defaultTimeouts.UDP, &set.UDP},
	} {
		target := x.want
		if target == 0 {
			if d.keep && x.was == 0 {
				if x.have != x.initial {
					d.other(api.Kept, "timeout %s is %ds, set at run time", x.name, x.have)
				}
				continue
			}
			target = x.initial
		}
		if x.have != target {
			*x.set = target
			d.other(api.Changed, "timeout %s", change(x.name, x.have, target))
		}
	}
	if set != (api.Timeouts{}) {
		d.Ops = append(d.Ops, api.Op{Kind: api.SetTimeouts, Timeouts: &set})
	}
}

// daemons brings the sync daemons to what is wanted; one that differs is started anew.
func (d *differ) daemons(have, want []api.Daemon) {
	byRole := func(list []api.Daemon, role string) *api.Daemon {
		for i := range list {
			if list[i].Role == role {
				return &list[i]
			}
		}
		return nil
	}
	for _, role := range []string{api.Master, api.Backup} {
		h, w, was := byRole(have, role), byRole(want, role), byRole(d.last.Daemons, role)
		switch {
		case h == nil && w == nil, h != nil && w != nil && sameDaemon(*h, *w):
			continue
		case w == nil && d.keep && was == nil:
			d.other(api.Kept, "sync daemon %s, started at run time", role)
			continue
		case w == nil:
			d.other(api.Removed, "sync daemon %s", role)
		case h == nil:
			d.other(api.Added, "sync daemon %s on %s", role, w.Interface)
		default:
			d.other(api.Changed, "sync daemon %s is started anew", role)
		}
		if h != nil {
			d.Ops = append(d.Ops, api.Op{Kind: api.StopDaemon, Daemon: h})
		}
		if w != nil {
			d.Ops = append(d.Ops, api.Op{Kind: api.StartDaemon, Daemon: w})
		}
	}
}

// sameDaemon compares a running daemon with what is wanted, where 0 is a default.
func sameDaemon(h, w api.Daemon) bool {
	w.MaxLen, w.Port = cmp.Or(w.MaxLen, h.MaxLen), cmp.Or(w.Port, h.Port)
	w.TTL, w.Group = cmp.Or(w.TTL, h.TTL), cmp.Or(w.Group, h.Group)
	return h == w
}
