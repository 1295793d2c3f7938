package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// schedulers are all that the kernel has.
var schedulers = strings.Fields("rr wrr lc wlc lblc lblcr dh sh sed nq mh fo ovf")

// methods are ipvsadm's letters for DR, NAT and TUN.
var methods = []string{"-g", "-m", "-i"}

// virtual is a virtual service of a sequence.
type virtual struct {
	flag, name string // as ipvsadm has them: -t 10.9.0.100:10000; the name of an IPv6 service by mark has its -6
	tcp, udp   bool   // what it may get: a mark gets both
	addresses  []string
	options    string // what -A and -E get beside the scheduler
	scheduler  string
	exists     bool
	local      bool // it has, or had, a server that is the director itself
	servers    []*server
}

// server is a real server, present in the kernel or not.
type server struct {
	address, method string
	present         bool
	foreign         bool // of the other family than its service
}

// flow is a client's connection: what the generator knows of it.
type flow struct {
	on                      *virtual
	client, virtual, server string // server: where NAT sent it, if it did
	udp                     bool
}

// generator makes a sequence step by step. What it does next may depend on what the kernel did with the last step, because
// answers come from the server that was chosen.
type generator struct {
	*rand.Rand
	index    int
	family   family
	trace    *trace
	services []*virtual
	flows    []*flow
	pending  *flow  // of the packet that was made last
	queue    []step // what must follow
}

// generate begins the sequence with a number, of a seed; the same two give the same sequence as long as the kernel decides alike.
func generate(seed uint64, index int) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, uint64(index))), index: index}
	g.trace = &trace{
		Name: fmt.Sprintf("oracle-%d-%d", seed, index), Seed: seed, Detail: "hex", Gap: 0.0001, Sysctl: map[string]int{},
		SetupSh: []string{}, Setup: []string{},
	}
	if index%3 == 2 {
		g.family = ipv6
	}
	g.trace.Clients = g.family.clients(index)
	g.settings()
	for i := range 3 {
		// The kernel's host has these addresses whatever ip_vs does and answers for them; uvs has them as long as a service does.
		g.trace.Setup = append(g.trace.Setup, fmt.Sprintf("-A -t %s -s rr", g.family.vip(i, 9)))
	}
	method := methods[(index/len(schedulers))%len(methods)]
	for i := range 1 + g.IntN(3) {
		v := g.service(i)
		if i == 0 {
			v.scheduler = schedulers[index%len(schedulers)]
			v.options = g.options(v)
		}
		g.services = append(g.services, v)
		g.trace.Setup = append(g.trace.Setup, g.add(v))
		for j := range 1 + g.IntN(6) {
			s := &server{address: g.serverAddress(v, g.family, 11+3*i+j), method: method}
			switch {
			case g.chance(25):
				s.method = pick(g, methods)
			case g.chance(10): // nothing but a tunnel leads to the other family
				s = &server{address: g.serverAddress(v, !g.family, 11+3*i+j), method: "-i", foreign: true}
			}
			if j == 0 && !slices.Contains(strings.Fields(v.options), "-o") && g.chance(25) {
				s = g.local(v, s.method)
				v.local = true
			}
			v.servers = append(v.servers, s)
			g.trace.Setup = append(g.trace.Setup, g.server("-a", v, s))
		}
	}
	return g
}

// settings turns some of the settings from their defaults.
func (g *generator) settings() {
	for _, s := range []struct {
		name    string
		percent int
	}{
		{"vs.expire_nodest_conn", 10}, {"vs.expire_quiescent_template", 20}, {"vs.sloppy_tcp", 15}, {"vs.conn_reuse_mode", 15},
		{"vs.nat_icmp_send", 15}, {"vs.pmtu_disc", 10},
	} {
		if g.chance(s.percent) {
			g.trace.Sysctl[s.name] = 1 - defaults[s.name]
		}
	}
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// markedAddresses are how many addresses of the marked IPv6 network the machine has: its host answers for one that it hasn't in
// the name of another, which uvs doesn't.
const markedAddresses = 24

// service makes up a service. Its port or mark is the sequence's own, lest the kernel give its servers the connections of an
// earlier sequence's.
func (g *generator) service(i int) *virtual {
	v := &virtual{scheduler: pick(g, schedulers)}
	vip := g.family.vip(i, 10000+(g.index*3+i)%50000)
	// Schedulers by destination need more than one destination.
	marked := i == 0 && g.chance(map[bool]int{true: 70, false: 15}[slices.Contains([]string{"dh", "lblc", "lblcr"}, schedulers[g.index%len(schedulers)])])
	switch {
	case marked:
		mark := fmt.Sprint(1 + g.index)
		v.flag, v.name, v.tcp, v.udp = "-f", mark, true, true
		tables, network := "iptables-legacy", "198.18.0.0/15"
		if g.family == ipv6 {
			v.name, tables, network = mark+" -6", "ip6tables-legacy", "2001:db8:aaaa::/48"
		}
		g.trace.SetupSh = append(g.trace.SetupSh, tables+" -t mangle -A PREROUTING -d "+network+" -j MARK --set-mark "+mark)
		for range 2 + g.IntN(10) {
			address := fmt.Sprintf("198.%d.%d.%d", 18+g.IntN(2), g.IntN(256), 1+g.IntN(250))
			if g.family == ipv6 {
				address = fmt.Sprintf("[2001:db8:aaaa::%d]", 1+g.IntN(markedAddresses))
			}
			v.addresses = append(v.addresses, fmt.Sprintf("%s:%d", address, pick(g, []int{80, 443})))
		}
	case g.chance(30):
		v.flag, v.name, v.udp, v.addresses = "-u", vip, true, []string{vip}
	default:
		v.flag, v.name, v.tcp, v.addresses = "-t", vip, true, []string{vip}
	}
	v.options = g.options(v)
	return v
}

// options makes up persistence, one-packet scheduling and the scheduler's flags.
func (g *generator) options(v *virtual) string {
	var o []string
	switch {
	case g.chance(20):
		o = append(o, "-p", pick(g, []string{"60", "300", "1000"}))
		if g.chance(40) {
			masks := []string{"255.255.255.0", "255.255.255.240", "255.255.255.252"}
			if g.family == ipv6 {
				masks = []string{"64", "122", "126"}
			}
			o = append(o, "-M", pick(g, masks))
		}
	case v.flag == "-u" && !v.local && g.chance(30):
		o = append(o, "-o")
	}
	if (v.scheduler == "sh" || v.scheduler == "mh") && g.chance(60) {
		o = append(o, "-b", pick(g, []string{v.scheduler + "-fallback", v.scheduler + "-port", v.scheduler + "-fallback," + v.scheduler + "-port"}))
	}
	return strings.Join(o, " ")
}

func (g *generator) add(v *virtual) string {
	v.exists = true
	return strings.TrimSpace(fmt.Sprintf("-A %s %s -s %s %s", v.flag, v.name, v.scheduler, v.options))
}

// local is a real server that is the director itself. NAT to loopback is not among them, which the kernel drops. Nor is there
// one-packet scheduling to such servers: uvs remembers nothing of such packets, so that the host answers under the address that
// it was asked by.
func (g *generator) local(v *virtual, method string) *server {
	hosts := g.family.own()
	if method != "-g" {
		hosts = hosts[:len(hosts)-1]
	}
	address := g.serverAddress(v, g.family, 11)
	return &server{address: strings.Replace(address, strings.Trim(g.family.server(11), "[]"), pick(g, hosts), 1), method: method}
}

func (g *generator) serverAddress(v *virtual, f family, n int) string {
	host := f.server(n)
	if v.flag == "-f" {
		return strings.Trim(host, "[]") // ipvsadm takes brackets with a port alone
	}
	port := v.name[strings.LastIndexByte(v.name, ':')+1:]
	if g.chance(50) {
		port = pick(g, []string{"8080", "8081"}) // kept by NAT alone
	}
	return host + ":" + port
}

// server is a command about a real server with a random weight and thresholds.
func (g *generator) server(command string, v *virtual, s *server) string {
	if command == "-d" {
		s.present = false
		return fmt.Sprintf("-d %s %s -r %s", v.flag, v.name, s.address)
	}
	s.present = true
	line := fmt.Sprintf("%s %s %s -r %s %s", command, v.flag, v.name, s.address, s.method)
	if g.chance(80) {
		line += fmt.Sprintf(" -w %d", pick(g, []int{0, 1, 1, 1, 2, 3, 4, 5, 7, 10, 100}))
	}
	if g.chance(20) {
		upper := 1 + g.IntN(6)
		line += fmt.Sprintf(" -x %d", upper)
		if g.chance(50) {
			line += fmt.Sprintf(" -y %d", 1+g.IntN(upper))
		}
	}
	return line
}

// next makes the next step.
func (g *generator) next() step {
	if len(g.queue) > 0 {
		s := g.queue[0]
		g.queue = g.queue[1:]
		return s
	}
	switch n := g.IntN(100); {
	case n < 5:
		g.queue = append(g.queue, step{"conns": 1})
		return step{"counts": 1}
	case n < 9:
		return step{"counts": 1}
	case n < 23:
		line := g.command()
		if g.trace.Sysctl["vs.expire_nodest_conn"] != 0 && (strings.HasPrefix(line, "-d") || strings.HasPrefix(line, "-D")) {
			g.queue = append(g.queue, step{"sleep": aTick}) // the kernel has a worker do it soon, uvs does it at once
		}
		return step{"ipvs": line}
	case n < 28 && len(g.flows) > 0:
		return g.icmpError(pick(g, g.flows))
	case n < 62 && len(g.flows) > 0:
		return g.follow(pick(g, g.flows))
	}
	return g.open()
}

// observe takes what the kernel did with the step that was made last.
func (g *generator) observe(s step) {
	f := g.pending
	g.pending = nil
	if f == nil || s["dir"] == "rs" {
		return
	}
	if to, _ := s["to"].(string); s["fwd"] == "nat" {
		f.server = bracketed(to)
	}
}

// command makes up a change.
func (g *generator) command() string {
	v := pick(g, g.services)
	if !v.exists && g.chance(70) {
		return g.add(v)
	}
	if len(v.servers) == 0 {
		return g.add(v)
	}
	s := pick(g, v.servers)
	// The kernel keeps one route for a server, whatever the method it was looked up for, and the others' don't serve DR: a DR
	// connection whose server became another method's has its packets sent to where the VIP would be. Nothing to imitate.
	if s.method != "-g" && !s.foreign && g.chance(8) {
		s.method = pick(g, []string{"-m", "-i"})
	}
	switch n := g.IntN(100); {
	case n < 45:
		if !s.present && g.chance(80) {
			return g.server("-a", v, s)
		}
		return g.server("-e", v, s)
	case n < 65:
		if s.present || g.chance(5) {
			return g.server("-d", v, s)
		}
		return g.server("-a", v, s)
	case n < 80:
		s = &server{address: g.serverAddress(v, g.family != family(s.foreign), 11+g.IntN(20)), method: s.method, foreign: s.foreign}
		if i := slices.IndexFunc(v.servers, func(o *server) bool { return o.address == s.address }); i >= 0 {
			return g.server("-e", v, v.servers[i])
		}
		v.servers = append(v.servers, s)
		return g.server("-a", v, s)
	case n < 92:
		if g.chance(50) {
			v.scheduler = pick(g, schedulers)
		}
		v.options = g.options(v)
		return "-E" + strings.TrimPrefix(g.add(v), "-A")
	case n < 94 && v.flag != "-f":
		v.exists = false
		for _, s := range v.servers {
			s.present = false
		}
		return fmt.Sprintf("-D %s %s", v.flag, v.name)
	case n < 97:
		return "-Z"
	}
	return g.server("-a", v, s)
}
