package main

import "net/netip"

// weighted is a kind of packet and how often it comes.
type weighted struct {
	kind  string
	times int
}

var (
	fromClient = []weighted{
		{"ack", 30}, {"data", 25}, {"fin", 14}, {"syn", 9}, {"rst", 6}, {"rstack", 3}, {"fin1", 2}, {"null", 2}, {"synack", 1}, {"xmas", 1}, {"synfin", 1},
	}
	fromServer = []weighted{{"synack", 30}, {"ack", 20}, {"data", 20}, {"fin", 15}, {"rst", 6}, {"rstack", 3}, {"null", 1}}
	first      = []weighted{{"syn", 90}, {"ack", 3}, {"synack", 2}, {"rst", 2}, {"synfin", 1}, {"fin", 1}, {"null", 1}}
)

func (g *generator) kind(list []weighted) string {
	sum := 0
	for _, w := range list {
		sum += w.times
	}
	n := g.IntN(sum)
	for _, w := range list {
		if n -= w.times; n < 0 {
			return w.kind
		}
	}
	return list[0].kind
}

// open makes a packet that begins a connection, to one of the services or, seldom, beside them.
func (g *generator) open() step {
	v := pick(g, g.services)
	f := &flow{on: v, virtual: pick(g, v.addresses), udp: v.udp && (!v.tcp || g.chance(40))}
	port := 1024 + g.IntN(60000)
	if g.chance(2) {
		port = 20 // the kernel never schedules it
	}
	f.client = g.family.client(g.trace.Clients, 1+g.IntN(60), port)
	if g.chance(2) {
		f.virtual = g.family.vip(g.IntN(3), 7+g.IntN(100))
	}
	g.flows = append(g.flows, f)
	kind := "udp"
	if !f.udp {
		kind = g.kind(first)
	}
	return g.packet(kind, f)
}

// follow makes a later packet of a connection, either way.
func (g *generator) follow(f *flow) step {
	if f.server != "" && g.chance(45) {
		kind := "udp"
		if !f.udp {
			kind = g.kind(fromServer)
		}
		s := g.packet(kind, f)
		delete(s, "v")
		s["dir"], s["s"] = "rs", f.server
		return s
	}
	if f.udp {
		return g.packet("udp", f)
	}
	kind := g.kind(fromClient)
	if !f.on.exists && (kind == "syn" || kind == "synack" || kind == "synfin") {
		kind = "ack" // the kernel's own reset of it would hit the entry that it is about to let go of, and revive it
	}
	s := g.packet(kind, f)
	switch s["pkt"] {
	case "syn", "synack", "synfin":
		s["wait"] = aTick // an old entry in whose place a new connection comes is counted until then
	}
	return s
}

// aTick is time enough, in seconds, for the kernel's next timer tick, at which it lets go of what it has expired; uvs does at once.
const aTick = 0.05

func (g *generator) packet(kind string, f *flow) step {
	g.pending = f
	s := step{"pkt": kind, "c": f.client, "v": f.virtual}
	if g.trace.Sysctl["vs.expire_nodest_conn"] != 0 {
		s["wait"] = aTick
	}
	if g.chance(5) {
		s["tos"] = pick(g, []int{0x10, 0xb8, 2, 3})
	}
	switch {
	case g.chance(1):
		s["ttl"] = 1
	case g.chance(5):
		s["ttl"] = 2 + g.IntN(254)
	}
	if kind == "data" || kind == "udp" {
		if g.chance(20) {
			s["len"] = g.IntN(1440)
		}
		if g.chance(2) {
			s["len"], s["df"] = 1450, 1 // too big for a tunnel
		}
	}
	if kind == "udp" && g.chance(10) {
		s["nocsum"] = true
	}
	if g.chance(1) {
		s["badcsum"] = 1
	}
	return s
}

// icmpError makes an error about a packet of a connection: from the client's side about one to the client, or from the servers'
// side about one to the server.
func (g *generator) icmpError(f *flow) step {
	kind := map[bool]string{true: "udp", false: "data"}[f.udp]
	kinds, shortest, outside := [][2]int{{3, 0}, {3, 1}, {3, 3}, {3, 4}, {11, 0}, {12, 0}}, 28, "203.0.113.1"
	if g.family == ipv6 {
		kinds, shortest, outside = [][2]int{{1, 0}, {1, 3}, {1, 4}, {2, 0}, {3, 0}, {4, 0}}, 48, "2001:db8:f::1"
	}
	what := pick(g, kinds)
	s := step{"pkt": "icmperr", "type": what[0], "code": what[1]}
	// The kernel loses servers' ICMPv6 errors whose checksum no device has verified: nothing to imitate.
	if f.server != "" && g.family == ipv4 && g.chance(50) {
		s["dir"], s["src"], s["dst"] = "rs", host(f.server), host(f.client)
		s["orig"] = step{"pkt": kind, "s": f.client, "d": f.server}
	} else {
		s["src"], s["dst"] = pick(g, []string{host(f.client), outside}), host(f.virtual)
		s["orig"] = step{"pkt": kind, "s": f.virtual, "d": f.client}
	}
	if g.chance(30) {
		s["quote"] = shortest + g.IntN(60)
	}
	return s
}

func host(addressPort string) string { return netip.MustParseAddrPort(addressPort).Addr().String() }
