package doctor

import (
	"fmt"
	"time"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// target is a real server of a service, as it is asked.
type target struct {
	vs     *service.VirtualService
	rs     *service.RealServer
	vip    packet.Addr
	method service.Method
}

// servers asks each real server of each service.
func (d *doctor) servers() {
	var all []target
	for _, vs := range d.table.Services {
		if vs.Mark != 0 {
			d.note("%v has no one address to ask its servers by", vs.Key)
			continue
		}
		for _, rs := range vs.Servers {
			if rs.Method() != service.Local { // the director's own stack: no network is between
				all = append(all, target{vs, rs, packet.AddrFrom(vs.Addr.Addr()), rs.Method()})
			}
		}
	}
	d.mu.Lock()
	d.Servers = len(all)
	d.mu.Unlock()
	d.each(len(all), func(i int) {
		if all[i].method == service.Masq {
			d.askNAT(&all[i])
		} else {
			d.askThroughVIP(&all[i])
		}
	})
}

// finding is one about t.
func (d *doctor) finding(t *target, kind string, hop *nexthop.Hop) api.Finding {
	key := api.ServiceKey{Address: t.vs.Addr.Addr(), Port: t.vs.Addr.Port(), Protocol: t.vs.Proto.String()}
	host := t.rs.Addr.Addr()
	f := api.Finding{Kind: kind, Service: &key, Server: &api.ServerKey{Address: host, Port: t.rs.Addr.Port()}, Host: &host}
	if hop != nil {
		f.Interface = d.portName(hop.Iface)
		if hop.Gateway == t.rs.IP {
			f.MAC = hop.Dst.String()
		}
	}
	return f
}

// name is the server as findings call it.
func (t *target) name(hop *nexthop.Hop) string {
	if hop != nil && hop.Gateway == t.rs.IP {
		return fmt.Sprintf("the real server %v (%v)", t.rs.Addr.Addr(), hop.Dst)
	}
	return fmt.Sprintf("the real server %v", t.rs.Addr.Addr())
}

// probe is a probe of t by its forwarding method.
func (t *target) probe(kind dataplane.ProbeKind, from packet.Addr) dataplane.Probe {
	pr := dataplane.Probe{
		Kind: kind, From: from, To: t.vip, Port: t.vs.Addr.Port(), Server: t.rs.IP, ServerPort: t.rs.Addr.Port(), Method: t.method,
		RS: t.rs.Index,
	}
	if kind != dataplane.ProbeEcho {
		return pr
	}
	pr.Port, pr.ServerPort = 0, 0
	return pr
}

// hasPort says that t can be asked for its very service, by a SYN.
func (t *target) hasPort() bool { return t.vs.Proto == service.TCP && t.vs.Addr.Port() != 0 }

const (
	resolveTime = 4 * time.Second // the kernel asks three times, a second apart
	resolveTick = 50 * time.Millisecond
)

// way is the way to a server, waiting for it to be resolved.
func (d *doctor) way(to packet.Addr) (*nexthop.Hop, nexthop.Status) {
	tick := time.NewTicker(resolveTick)
	defer tick.Stop()
	for range resolveTime / resolveTick {
		hop, status := d.NextHops.Lookup(to)
		if status != nexthop.Pending {
			return hop, status
		}
		d.NextHops.Resolve(to)
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			return nil, nexthop.Pending
		}
	}
	return nil, nexthop.Pending
}

// unreachable is the finding that there is no way to a server.
func (d *doctor) unreachable(t *target, status nexthop.Status) {
	if d.ctx.Err() != nil {
		return
	}
	f := d.finding(t, api.FindingUnreachable, nil)
	host := t.rs.Addr.Addr()
	switch status {
	case nexthop.NoRoute:
		f.What = fmt.Sprintf("there is no route to the real server %v", host)
		f.Seen = "looked at the director's routes"
		f.Remedies = []api.Remedy{{On: "director", Do: []string{fmt.Sprintf("ip route add %v/%d via ROUTER", host, host.BitLen())}}}
	case nexthop.NotAttached:
		f.What = fmt.Sprintf("the route to the real server %v leaves by an interface that uvsd is not attached to", host)
		f.Seen = "looked at the director's routes"
		f.Remedies = []api.Remedy{{On: "director", Do: []string{fmt.Sprintf("ip route get %v     # and name its interface with uvsd --interface", host)}}}
	default:
		how := "ARP"
		if !host.Is4() {
			how = "neighbour discovery"
		}
		f.What = fmt.Sprintf("the real server %v, or the router to it, doesn't answer: it is down, or on another segment", host)
		f.Seen = fmt.Sprintf("asked for its MAC address by %s, and if it is behind a router sent it pings", how)
		f.Remedies = []api.Remedy{{On: "director", Do: []string{fmt.Sprintf("ip neigh show %v; ip route get %v", host, host)}}}
	}
	d.found(f)
}

// sourceFor is an address to ask a DR or TUN server from.
func (d *doctor) sourceFor(t *target, hop *nexthop.Hop) (packet.Addr, bool) {
	from, ok := d.source(t.vip.Is4(), hop.Iface)
	if !ok || from == t.vip {
		d.note("whether real servers by DR and TUN have their %s VIPs: there is no address to ask them from; start uvsd with --probe-address ADDRESS, a free one of %s's segment",
			family(t.vip.Is4()), d.portName(hop.Iface))
		return from, false
	}
	return from, true
}

// askThroughVIP asks a server that must have the VIP itself.
func (d *doctor) askThroughVIP(t *target) {
	hop, status := d.way(t.rs.IP)
	if hop == nil {
		d.unreachable(t, status)
		return
	}
	from, ok := d.sourceFor(t, hop)
	if !ok {
		return
	}
	asked := "pings"
	var r dataplane.ProbeResult
	if t.hasPort() {
		asked = "SYNs and pings"
		if r = d.probe(t.probe(dataplane.ProbeConnect, from)); r.Outcome == dataplane.ProbeAccepted {
			return
		}
	} else if r = d.probe(t.probe(dataplane.ProbeEcho, from)); r.Outcome == dataplane.ProbeEchoed {
		return
	}
	has := false // the VIP, by other signs
	if r.Outcome == dataplane.ProbeSilent {
		if again, alive := d.askOtherwise(t, from); again.Outcome.Final() {
			r = again
		} else {
			has = alive
		}
	}
	if d.ctx.Err() != nil || r.Outcome == dataplane.ProbeAccepted || r.Outcome == dataplane.ProbeEchoed || has && !t.hasPort() {
		return
	}
	if r.Outcome == dataplane.ProbeSilent && !has && !d.alive(t, hop, from) {
		d.unreachable(t, nexthop.Unreachable)
		return
	}
	d.judge(t, hop, &r, fmt.Sprintf("sent %s from %v to %v through the director's forwarding code to %v", asked, from, serviceName(t), t.rs.Addr.Addr()), has)
}

// alive says that a server that is silent is there at all: a neighbour by ARP or neighbour discovery, another by a ping.
func (d *doctor) alive(t *target, hop *nexthop.Hop, from packet.Addr) bool {
	if from.Is4() != t.rs.IP.Is4() {
		var ok bool
		if from, ok = d.source(t.rs.IP.Is4(), hop.Iface); !ok {
			return true // for all that is known
		}
	}
	if hop.Gateway == t.rs.IP {
		return d.Plane.Alive(d.ctx, hop.Iface, from, t.rs.IP)
	}
	return d.probe(dataplane.Direct(dataplane.ProbeEcho, from, t.rs.IP, 0)).Outcome != dataplane.ProbeSilent
}

// serviceName is the address that a server was asked by.
func serviceName(t *target) string {
	if t.hasPort() {
		return t.vs.Addr.String()
	}
	return t.vs.Addr.Addr().String()
}

// unusedPort is one that nobody listens on: traceroute's.
const unusedPort = 33434

// askOtherwise asks a silent server once more, and for other signs that it has the VIP: an echo reply from there, or that a
// port is unreachable there.
func (d *doctor) askOtherwise(t *target, from packet.Addr) (again dataplane.ProbeResult, has bool) {
	kind := dataplane.ProbeEcho
	if t.hasPort() {
		kind = dataplane.ProbeConnect
	}
	datagram := t.probe(dataplane.ProbeDatagram, from)
	datagram.Port = unusedPort
	results := make(chan dataplane.ProbeResult, 2)
	for _, pr := range []dataplane.Probe{t.probe(dataplane.ProbeEcho, from), datagram} {
		go func() { results <- d.probe(pr) }()
	}
	again = d.probe(t.probe(kind, from))
	for range cap(results) {
		r := <-results
		has = has || r.Outcome == dataplane.ProbeEchoed || r.Outcome == dataplane.ProbeError && r.From == t.vip
	}
	return again, has
}

// judge makes a finding of what became of a probe through the VIP. has says that the server has the VIP by other signs.
func (d *doctor) judge(t *target, hop *nexthop.Hop, r *dataplane.ProbeResult, seen string, has bool) {
	vip, name := t.vs.Addr.Addr(), t.name(hop)
	f := d.finding(t, api.FindingNoVIP, hop)
	switch r.Outcome {
	case dataplane.ProbeRefused:
		f.Kind = api.FindingNotListening
		f.What = fmt.Sprintf("%s has the VIP but refuses %v: nobody listens there", name, t.vs.Addr)
		f.Seen = seen + ": a reset came back"
		f.Remedies = listenRemedies(t)
	case dataplane.ProbeError:
		f.Seen = fmt.Sprintf("%s: %v answered with %s", seen, r.From, icmpName(r))
		if noProtocol(r) {
			f.Kind = api.FindingNoTunnel
			f.What = fmt.Sprintf("%s doesn't know the tunnel that packets come in (%s)", name, tunnelName(t.rs))
			f.Remedies = tunnelRemedies(vip)
			break
		}
		if what := icmpName(r); what == hostUnreachable {
			f.Kind = api.FindingUnreachable
			f.What = fmt.Sprintf("the real server %v is not reached: %v says so", t.rs.Addr.Addr(), r.From)
			f.Remedies = []api.Remedy{{On: "path", Do: []string{fmt.Sprintf("ip route get %v; ip neigh show %v     # on %v", t.rs.Addr.Addr(), t.rs.Addr.Addr(), r.From)}}}
			break
		}
		f.Kind = api.FindingSilent
		f.What = fmt.Sprintf("%s, or a station before it, rejects packets to %s: a firewall, or no way on", name, serviceName(t))
		f.Remedies = listenRemedies(t)
	case dataplane.ProbeReturned:
		f.What = fmt.Sprintf("%s doesn't have the VIP %v: it forwards packets to it, back to the director", name, vip)
		f.Seen = seen + ": the very packet came back"
		f.Remedies = vipRemedies(t)
	case dataplane.ProbeSilent:
		if has {
			f.Kind = api.FindingSilent
			f.What = fmt.Sprintf("%s has the VIP but doesn't answer on %v: a firewall drops it, or answers go another way", name, t.vs.Addr)
			f.Seen = seen + ": no answer to a SYN, but to a ping of the VIP, or to a datagram to one of its closed ports"
			f.Remedies = listenRemedies(t)
			break
		}
		f.What = fmt.Sprintf("%s doesn't have the VIP %v: packets to it are lost there", name, vip)
		if t.method == service.Tunnel {
			f.What = fmt.Sprintf("%s doesn't have the VIP %v, or doesn't take tunnels (%s) from this director: packets are lost there", name, vip, tunnelName(t.rs))
		}
		f.Seen = seen + " several times, and a datagram to a closed port there: no answer to any, though the server is there"
		f.Remedies = vipRemedies(t)
	default:
		f.Kind = api.FindingUnreachable
		f.What = fmt.Sprintf("packets to %s are not sent: %v", name, r.Verdict)
		f.Seen = seen
		f.Remedies = []api.Remedy{{On: "director", Do: []string{"uvsadm status"}}}
	}
	d.found(f)
}

// noProtocol says that an ICMP error means that a protocol isn't known.
func noProtocol(r *dataplane.ProbeResult) bool {
	if r.From.Is4() {
		return r.Type == packet.ICMPUnreachable && r.Code == packet.ICMPCodeProtocol
	}
	return r.Type == packet.ICMP6ParameterProblem && r.Code == packet.ICMP6CodeNextHeader
}

const hostUnreachable = "ICMP host unreachable"

// icmpName is an ICMP error in words.
func icmpName(r *dataplane.ProbeResult) string {
	v4 := r.From.Is4()
	switch {
	case v4 && r.Type == packet.ICMPUnreachable && r.Code <= packet.ICMPCodeHost,
		!v4 && r.Type == packet.ICMP6Unreachable && (r.Code == packet.ICMP6CodeNoRoute || r.Code == packet.ICMP6CodeAddress):
		return hostUnreachable
	case noProtocol(r):
		return "ICMP protocol unreachable"
	case r.MTU > 0:
		return fmt.Sprintf("ICMP, that no more than %d bytes go on", r.MTU)
	}
	return fmt.Sprintf("ICMP%s type %d code %d", map[bool]string{true: "", false: "v6"}[r.From.Is4()], r.Type, r.Code)
}

// tunnelName is a server's encapsulation as ipvsadm calls it.
func tunnelName(rs *service.RealServer) string {
	switch e := rs.Encap(); e.Kind {
	case service.GUE:
		return fmt.Sprintf("GUE, UDP port %d", e.Port)
	case service.GRE:
		return "GRE"
	}
	return "IP-in-IP"
}
