package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/service"
)

// fakeCounters are the workers' counters.
type fakeCounters struct {
	mu                sync.Mutex
	services, servers map[uint32]service.Counters
}

func (f *fakeCounters) AddCounters(services, servers []service.Counters) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range services {
		services[i].Add(f.services[uint32(i)])
	}
	for i := range servers {
		servers[i].Add(f.servers[uint32(i)])
	}
}

// count lets c pass from a service to a server.
func (f *fakeCounters) count(vs *service.VirtualService, rs *service.RealServer, c service.Counters) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, b := f.services[vs.Index], f.servers[rs.Index]
	a.Add(c)
	b.Add(c)
	f.services[vs.Index], f.servers[rs.Index] = a, b
}

// fakeConnections are a connection table that only lists and remembers.
type fakeConnections struct {
	list     []conntrack.Conn
	timeouts conntrack.Timeouts
	settings conntrack.Settings
	expired  int
	watched  bool
	events   []conntrack.Event
	missed   uint64
	torn     uint64
	dropped  int // calls of DropRandom
	cut      func(doomed func(*service.RealServer) bool) conntrack.Cuts
	forsaken []func(*service.RealServer) bool
}

func (f *fakeConnections) Walk(_ int64, yield func(*conntrack.Conn) bool) {
	for i := range f.list {
		if !yield(&f.list[i]) {
			return
		}
	}
}
func (f *fakeConnections) Stats() conntrack.Stats {
	return conntrack.Stats{Conns: len(f.list), Templates: 3}
}
func (f *fakeConnections) Timeouts() conntrack.Timeouts { return f.timeouts }
func (f *fakeConnections) SetTimeouts(tcp, tcpFin, udp time.Duration) {
	for p, d := range map[*time.Duration]time.Duration{&f.timeouts.TCP: tcp, &f.timeouts.TCPFin: tcpFin, &f.timeouts.UDP: udp} {
		if d != 0 {
			*p = d
		}
	}
}
func (f *fakeConnections) ExpireRemoved() { f.expired++ }
func (f *fakeConnections) Watch()         { f.watched = true }
func (f *fakeConnections) Unwatch()       { f.watched = false }
func (f *fakeConnections) Events(events []conntrack.Event) []conntrack.Event {
	events = append(events, f.events...)
	f.events = nil
	return events
}
func (f *fakeConnections) Missed() (missed, torn uint64) { return f.missed, f.torn }
func (f *fakeConnections) Lookup(id conntrack.ID, _ int64, c *conntrack.Conn) bool {
	for i := range f.list {
		if f.list[i].ID == id {
			*c = f.list[i]
			return true
		}
	}
	return false
}
func (f *fakeConnections) Cut(doomed func(*service.RealServer) bool, _ int64) conntrack.Cuts {
	return f.cut(doomed)
}
func (f *fakeConnections) Forsake(doomed func(*service.RealServer) bool, _ int64) conntrack.Cuts {
	f.forsaken = append(f.forsaken, doomed)
	return conntrack.Cuts{}
}
func (f *fakeConnections) SetSettings(s conntrack.Settings) { f.settings = s }
func (f *fakeConnections) TemplateData(id conntrack.ID) string {
	if id == 0xca11 {
		return "a84b4c76e66710@pc33.example.com"
	}
	return ""
}
func (f *fakeConnections) DropRandom(int64, func(uint32) uint32) int {
	f.dropped++
	return 0
}

// fixture is a Director between a fake connection table and fake counters. The address 10.9.0.1 is its own.
type fixture struct {
	*Director
	t         testing.TB
	counters  *fakeCounters
	conns     *fakeConnections
	published []*service.Table
	mu        sync.Mutex
}

func newFixture(t testing.TB, change ...func(*Config)) *fixture {
	f := &fixture{
		t:        t,
		counters: &fakeCounters{services: map[uint32]service.Counters{}, servers: map[uint32]service.Counters{}},
		conns:    &fakeConnections{timeouts: conntrack.DefaultTimeouts()},
	}
	cfg := Config{
		Servers: new(service.ServerIndex), Connections: f.conns, Watched: f.conns, Counters: f.counters,
		Publish: func(t *service.Table) { f.mu.Lock(); f.published = append(f.published, t); f.mu.Unlock() },
		Now:     func() int64 { return 1e9 },
		IsLocal: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.9.0.1") },
	}
	for _, c := range change {
		c(&cfg)
	}
	f.Director = New(cfg)
	return f
}

// ops turns ipvsadm's lines into operations; it knows what these tests need.
func ops(lines ...string) []api.Op {
	list := make([]api.Op, len(lines))
	for i, line := range lines {
		list[i] = op(line)
	}
	return list
}

func op(line string) api.Op {
	words := strings.Fields(line)
	o := api.Op{Kind: map[string]api.OpKind{
		"-A": api.AddService, "-E": api.EditService, "-D": api.DeleteService, "-C": api.Flush, "-Z": api.ZeroCounters,
		"-a": api.AddServer, "-e": api.EditServer, "-d": api.DeleteServer, "--set": api.SetTimeouts,
	}[words[0]]}
	sc := &api.ServiceConfig{Scheduler: "wlc"}
	rc := &api.ServerConfig{Method: api.Route, Weight: 1}
	var real string
	for i := 1; i < len(words); i++ {
		arg := func() string { i++; return words[i] }
		number := func() (n int) {
			if _, err := fmt.Sscan(arg(), &n); err != nil {
				panic(err)
			}
			return n
		}
		switch words[i] {
		case "-t", "-u":
			k := &api.ServiceKey{Protocol: map[string]string{"-t": api.TCP, "-u": api.UDP}[words[i]]}
			a := netip.MustParseAddrPort(arg())
			k.Address, k.Port, o.Service = a.Addr(), a.Port(), k
		case "-f":
			o.Service = &api.ServiceKey{FWMark: uint32(number()), Family: api.IPv4}
		case "-6":
			o.Service.Family = api.IPv6
		case "-s":
			sc.Scheduler = arg()
		case "-b":
			sc.SchedFlags = strings.Split(arg(), ",")
		case "-p":
			sc.PersistenceSeconds = uint32(number())
		case "-M":
			if err := sc.Netmask.UnmarshalText([]byte(arg())); err != nil {
				panic(err)
			}
		case "--pe":
			sc.PersistenceEngine = arg()
		case "-o":
			sc.OnePacket = true
		case "-r":
			real = arg()
		case "-m":
			rc.Method = api.Masq
		case "-i":
			rc.Method = api.Tunnel
		case "-g":
			rc.Method = api.Route
		case "-w":
			rc.Weight = number()
		case "-x":
			rc.Upper = uint32(number())
		case "-y":
			rc.Lower = uint32(number())
		default:
			o.Timeouts = &api.Timeouts{TCP: 1, TCPFin: 2, UDP: 3}
			_, err := fmt.Sscan(strings.Join(words[i:], " "), &o.Timeouts.TCP, &o.Timeouts.TCPFin, &o.Timeouts.UDP)
			if err != nil {
				panic(line)
			}
			return o
		}
	}
	if real != "" {
		a, err := netip.ParseAddrPort(real)
		if err != nil {
			a = netip.AddrPortFrom(netip.MustParseAddr(real), o.Service.Port)
		}
		o.Server = &api.ServerKey{Address: a.Addr(), Port: a.Port()}
	}
	switch o.Kind {
	case api.AddService, api.EditService:
		o.ServiceConfig = sc
	case api.AddServer, api.EditServer:
		o.ServerConfig = rc
	}
	if err := o.Check(); err != nil {
		panic(err)
	}
	return o
}

// change applies lines as one atomic change.
func (f *fixture) change(lines ...string) error {
	f.t.Helper()
	reply, err := f.Change(f.t.Context(), &api.ChangeRequest{Ops: ops(lines...), OnError: api.Atomic})
	if err != nil {
		f.t.Fatal(err)
	}
	return reply.Err()
}

func (f *fixture) must(lines ...string) {
	f.t.Helper()
	if err := f.change(lines...); err != nil {
		f.t.Fatal(err)
	}
}

// rules lists what is in force as ipvsadm -S -n would, in list order, with thresholds.
func (f *fixture) rules() []string {
	f.t.Helper()
	list, err := f.Services(f.t.Context(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	var out []string
	for _, s := range list {
		key := "-t"
		if s.Protocol == api.UDP {
			key = "-u"
		}
		key += " " + netip.AddrPortFrom(s.Address, s.Port).String()
		if s.FWMark != 0 {
			key = fmt.Sprintf("-f %d", s.FWMark)
			if s.Is6() {
				key += " -6"
			}
		}
		line := "-A " + key + " -s " + s.Config.Scheduler
		if s.Config.PersistenceSeconds != 0 {
			line += fmt.Sprintf(" -p %d", s.Config.PersistenceSeconds)
		}
		if m := s.Config.Netmask.String(); m != "" {
			line += " -M " + m
		}
		if len(s.Config.SchedFlags) > 0 {
			line += " -b " + strings.Join(s.Config.SchedFlags, ",")
		}
		if s.Config.PersistenceEngine != "" {
			line += " --pe " + s.Config.PersistenceEngine
		}
		if s.Config.OnePacket {
			line += " -o"
		}
		out = append(out, line)
		for _, r := range s.Servers {
			line := fmt.Sprintf("-a %s -r %v %s -w %d", key, r.ServerKey,
				map[string]string{api.Masq: "-m", api.Route: "-g", api.Tunnel: "-i"}[r.Config.Method], r.Config.Weight)
			if r.Config.Upper != 0 || r.Config.Lower != 0 {
				line += fmt.Sprintf(" -x %d -y %d", r.Config.Upper, r.Config.Lower)
			}
			out = append(out, line)
		}
	}
	return out
}

func (f *fixture) wantRules(situation string, want ...string) {
	f.t.Helper()
	if got := f.rules(); !slices.Equal(got, want) {
		f.t.Errorf("%s: the rules are\n\t%s\nwant\n\t%s", situation, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (f *fixture) addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// vs is the published service of a key such as "-t 10.9.0.100:80".
func (f *fixture) vs(key string) *service.VirtualService {
	f.t.Helper()
	k := op("-D " + key)
	return f.Table().Service(keyOf(k.Service))
}

const (
	web  = "-t 10.9.0.100:80"
	dns  = "-u 10.9.0.100:53"
	mark = "-f 1"
)
