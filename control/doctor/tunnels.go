package doctor

import (
	"fmt"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// tunnels asks whether the way to each TUN server carries packets as long as the director's interface does.
func (d *doctor) tunnels() {
	var ends []target
	seen := make(map[packet.Addr]bool)
	for _, vs := range d.table.Services {
		for _, rs := range vs.Servers {
			if rs.Method() == service.Tunnel && !seen[rs.IP] {
				seen[rs.IP] = true
				ends = append(ends, target{vs, rs, packet.AddrFrom(vs.Addr.Addr()), service.Tunnel})
			}
		}
	}
	d.each(len(ends), func(i int) { d.askTunnel(&ends[i]) })
}

// askTunnel pings a tunnel's far end with packets of full length that must not be cut.
func (d *doctor) askTunnel(t *target) {
	hop, _ := d.way(t.rs.IP)
	if hop == nil {
		return // the servers' check says so
	}
	host := t.rs.Addr.Addr()
	if known := d.Plane.PathMTU(t.rs.IP, hop.MTU); known < hop.MTU {
		d.narrow(t, hop, known, fmt.Sprintf("a router told the director so (ICMP), within the last ten minutes, about what it sent to %v", host))
		return
	}
	from, ok := d.source(t.rs.IP.Is4(), hop.Iface)
	if !ok {
		d.note("whether the path to TUN servers carries full packets: there is no %s address to ask from; start uvsd with --probe-address", family(t.rs.IP.Is4()))
		return
	}
	full := dataplane.Direct(dataplane.ProbeEcho, from, t.rs.IP, 0)
	full.Len, full.Uncut = hop.MTU, true
	r := d.probe(full)
	seen := fmt.Sprintf("pinged %v from %v with packets of %d bytes that must not be cut", host, from, hop.MTU)
	switch {
	case d.ctx.Err() != nil:
	case r.Outcome == dataplane.ProbeError && r.MTU > 0:
		d.narrow(t, hop, r.MTU, fmt.Sprintf("%s: %v answered that no more than %d go on", seen, r.From, r.MTU))
	case r.Outcome == dataplane.ProbeSilent:
		small := dataplane.Direct(dataplane.ProbeEcho, from, t.rs.IP, 0)
		if d.probe(small).Outcome != dataplane.ProbeEchoed {
			d.note("whether the path to %v carries full packets: it answers no ping", host)
			return
		}
		if r = d.probe(full); r.Outcome == dataplane.ProbeSilent && d.ctx.Err() == nil {
			d.narrow(t, hop, 0, seen+", several times: no answer, though short ones are answered")
		}
	}
}

// narrow is the finding that the path carries mtu bytes; 0: less than it should, and nobody says how much.
func (d *doctor) narrow(t *target, hop *nexthop.Hop, mtu int, seen string) {
	host := t.rs.Addr.Addr()
	f := d.finding(t, api.FindingTunnelMTU, hop)
	f.Service = nil
	f.Seen = seen
	headers := packet.IPv4Len + packet.TCPLen
	if !t.vip.Is4() {
		headers = packet.IPv6Len + packet.TCPLen
	}
	if mtu == 0 {
		f.What = fmt.Sprintf("the path to %v carries less than %d bytes, and nobody says how much: full packets in the tunnel vanish", host, hop.MTU)
		f.Remedies = []api.Remedy{
			{On: "path", Do: []string{"let its routers send ICMP fragmentation-needed (ICMPv6 packet-too-big), or raise their MTU"}},
			{On: "director", System: "Linux", Do: []string{fmt.Sprintf("ip route replace %v/%d via ROUTER mtu lock MTU     # what the path carries", host, host.BitLen())}},
		}
	} else {
		f.What = fmt.Sprintf("the path to %v carries only %d of %d bytes: tunnelled packets don't fit, and clients whose ICMP is filtered hang", host, mtu, hop.MTU)
		f.Remedies = []api.Remedy{{On: "path", Do: []string{fmt.Sprintf("raise the MTU of its links from %d to %d", mtu, hop.MTU)}}}
	}
	if mtu == 0 {
		mtu = hop.MTU
	}
	advmss := max(mtu-overhead(t)-headers, 0)
	f.Remedies = append(f.Remedies, api.Remedy{On: "real server", System: "Linux", Do: []string{
		fmt.Sprintf("ip route change default via GATEWAY advmss %d     # or less: clients then send segments that fit", advmss),
	}})
	d.found(f)
}

// overhead is the length in bytes of the headers that t's tunnel puts in front of a packet.
func overhead(t *target) int {
	n := packet.IPv4Len
	if !t.rs.IP.Is4() {
		n = packet.IPv6Len
	}
	switch e := t.rs.Encap(); e.Kind {
	case service.GUE:
		n += packet.UDPLen + packet.GUELen
	case service.GRE:
		n += packet.GRELen
		if e.Checksum != service.NoChecksum {
			n += packet.GREChecksumLen
		}
	}
	return n
}
