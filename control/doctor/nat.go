package doctor

import (
	"fmt"
	"net/netip"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// askNAT asks a NAT server from an address beyond its segment: what it answers must come back through the director. The VIP
// will do for that if it lies on another segment, since no NAT server has it.
func (d *doctor) askNAT(t *target) {
	hop, status := d.way(t.rs.IP)
	if hop == nil {
		d.unreachable(t, status)
		return
	}
	from, ok := d.beyond(t, hop)
	if !ok {
		d.note("whether answers of %v come back through the director: it shares its segment (%s) with the VIP and the probe addresses, and answers to those come anyway",
			t.rs.Addr.Addr(), d.portName(hop.Iface))
		return
	}
	r := d.askServer(t, from)
	if r.Outcome == dataplane.ProbeSilent {
		r = d.askServer(t, from)
	}
	if d.ctx.Err() != nil {
		return
	}
	seen := fmt.Sprintf("sent %s from %v, by NAT, to %s", askedNAT(t), from, natName(t))
	answered := r.Outcome == dataplane.ProbeAccepted || r.Outcome == dataplane.ProbeRefused || r.Outcome == dataplane.ProbeEchoed
	switch {
	case answered && hop.Gateway == t.rs.IP && (r.Station != hop.Dst || r.Port != hop.Iface):
		d.bypass(t, hop, fmt.Sprintf("%s: the answer came in from %v on %s, and not from the server itself", seen, r.Station, d.portName(r.Port)), r.Station)
	case r.Outcome == dataplane.ProbeAstray:
		d.bypass(t, hop, seen+": the answer was sent to the MAC address of the director's own host, which uvsd leaves alone", packet.MAC{})
	case r.Outcome == dataplane.ProbeRefused:
		d.notListening(t, hop, seen+": a reset came back")
	case answered:
	case r.Outcome == dataplane.ProbeError:
		f := d.finding(t, api.FindingSilent, hop)
		f.What = fmt.Sprintf("%s, or a station before it, rejects packets to %s", t.name(hop), natName(t))
		f.Seen = fmt.Sprintf("%s: %v answered with %s", seen, r.From, icmpName(&r))
		f.Remedies = natListenRemedies(t)
		d.found(f)
	default:
		d.silentNAT(t, hop, seen)
	}
}

// silentNAT tells a server that answers nobody from one whose answers go elsewhere: that one answers its own segment.
func (d *doctor) silentNAT(t *target, hop *nexthop.Hop, seen string) {
	if near, ok := d.gatewayOn(t.rs.IP.Is4(), hop.Iface); ok {
		r := d.askServer(t, near)
		if d.ctx.Err() != nil {
			return
		}
		switch r.Outcome {
		case dataplane.ProbeAccepted, dataplane.ProbeRefused, dataplane.ProbeEchoed:
			d.bypass(t, hop, fmt.Sprintf("%s, several times: no answer; the same from %v, on its own segment, was answered", seen, near), packet.MAC{})
			return
		}
	}
	if from, ok := d.source(t.rs.IP.Is4(), hop.Iface); ok && hop.Gateway == t.rs.IP && !d.Plane.Alive(d.ctx, hop.Iface, from, t.rs.IP) {
		d.unreachable(t, nexthop.Unreachable)
		return
	}
	f := d.finding(t, api.FindingSilent, hop)
	f.What = fmt.Sprintf("%s doesn't answer on %s: it is down there, a firewall drops it, or its answers don't come back through the director", t.name(hop), natName(t))
	f.Seen = seen + ", several times: no answer, from its own segment neither"
	f.Remedies = append(natListenRemedies(t), d.gatewayRemedies(t, hop)...)
	d.found(f)
}

// askServer asks a NAT server from an address for the service, or if that is not TCP's whether it is there.
func (d *doctor) askServer(t *target, from packet.Addr) dataplane.ProbeResult {
	if t.hasPort() || t.vs.Proto == service.TCP && t.rs.Addr.Port() != 0 {
		return d.probe(t.probe(dataplane.ProbeConnect, from))
	}
	return d.probe(dataplane.Direct(dataplane.ProbeEcho, from, t.rs.IP, 0))
}

func askedNAT(t *target) string {
	if t.hasPort() {
		return "a SYN"
	}
	return "a ping"
}

// natName is what a NAT server was asked by.
func natName(t *target) string {
	if t.hasPort() {
		return t.rs.Addr.String()
	}
	return t.rs.Addr.Addr().String()
}

// beyond is an address of the director's that is not on a NAT server's segment.
func (d *doctor) beyond(t *target, hop *nexthop.Hop) (packet.Addr, bool) {
	is4 := t.rs.IP.Is4()
	candidates := make([]packet.Addr, 0, len(d.Sources)+1)
	for _, a := range d.Sources {
		if a.Is4() == is4 {
			candidates = append(candidates, packet.AddrFrom(a))
		}
	}
	candidates = append(candidates, t.vip)
	for _, a := range candidates {
		on, known := d.NextHops.OnLink(a)
		if known && on == hop.Iface || d.inGateway(a, hop.Iface) {
			continue
		}
		return a, true
	}
	return packet.Addr{}, false
}

// inGateway says that an address lies on a segment whose gateway the director is.
func (d *doctor) inGateway(a packet.Addr, port int) bool {
	for _, g := range d.Ports[port].Gateways {
		if g.Contains(a.Netip()) {
			return true
		}
	}
	return false
}

// bypass is the finding that a server's answers go past the director. router is who got them, if that is known.
func (d *doctor) bypass(t *target, hop *nexthop.Hop, seen string, router packet.MAC) {
	f := d.finding(t, api.FindingNATBypass, hop)
	f.What = fmt.Sprintf("answers of %s don't come back through the director: its default gateway is another", t.name(hop))
	if router != (packet.MAC{}) {
		f.What += ", whose answers come from " + router.String()
	}
	f.Seen, f.Remedies = seen, d.gatewayRemedies(t, hop)
	d.found(f)
}

// gatewayRemedies make the director a server's default gateway.
func (d *doctor) gatewayRemedies(t *target, hop *nexthop.Hop) []api.Remedy {
	is4 := t.rs.IP.Is4()
	own, ok := d.gatewayOn(is4, hop.Iface)
	if !ok {
		return []api.Remedy{{On: "director", Do: []string{
			fmt.Sprintf("uvsd --gateway ADDRESS/PREFIX@%s     # an address of its own for its servers' default gateway", d.portName(hop.Iface)),
		}}}
	}
	gateway := own.Netip()
	inet, flag, everything := "inet", "ip", netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if !is4 {
		inet, flag, everything = "inet6", "ip -6", netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return []api.Remedy{
		{On: "real server", System: "Linux", Do: []string{fmt.Sprintf("%s route replace default via %v", flag, gateway)}},
		{On: "real server", System: "FreeBSD", Do: []string{fmt.Sprintf("route change -%s default %v", inet, gateway)}},
		{On: "real server", System: "Windows", Do: []string{fmt.Sprintf("route delete %v", everything), fmt.Sprintf("netsh interface ip%s add route %v \"Ethernet\" %v",
			map[bool]string{true: "v4", false: "v6"}[is4], everything, gateway)}},
	}
}

func (d *doctor) notListening(t *target, hop *nexthop.Hop, seen string) {
	f := d.finding(t, api.FindingNotListening, hop)
	f.What = fmt.Sprintf("%s refuses %v: nobody listens there", t.name(hop), t.rs.Addr)
	f.Seen, f.Remedies = seen, natListenRemedies(t)
	d.found(f)
}

func natListenRemedies(t *target) []api.Remedy {
	own := *t
	vs := *t.vs
	vs.Addr = t.rs.Addr
	own.vs = &vs
	return listenRemedies(&own)
}
