package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/nexthop"
	"uvs/packet"
)

// addresses asks who else has the director's addresses.
func (d *doctor) addresses() {
	claims, asked := d.Plane.Claims(d.ctx)
	d.mu.Lock()
	d.Addresses = asked
	d.mu.Unlock()
	for _, c := range claims {
		d.claim(c)
	}
}

// claim is the finding about one.
func (d *doctor) claim(c dataplane.Claim) {
	addr, iface := c.Addr.Netip(), d.portName(c.Port)
	server, isServer := d.serverAt(c.Port, c.Station, addr.Is4())
	host := server
	if !isServer && d.Neighbour != nil {
		host, _ = d.Neighbour(c.Port, c.Station, addr.Is4())
	}
	f := api.Finding{Kind: api.FindingARP, MAC: c.Station.String(), Interface: iface}
	who := "another station, " + c.Station.String()
	if isServer {
		who = fmt.Sprintf("the real server %v (%v)", server, c.Station)
	} else if host.IsValid() {
		who = fmt.Sprintf("another station, %v (%v),", host, c.Station)
	}
	if host.IsValid() {
		f.Host = &host
	}
	how := "ARP"
	if !addr.Is4() {
		how = "neighbour discovery"
	}
	f.Seen = fmt.Sprintf("asked on %s by %s who has %v: %v answered or claimed it, beside this director", iface, how, addr, c.Station)
	isDirector := guard.IsVirtualMAC(c.Station) || isVRRP(c.Station) || c.Announces && !isServer
	switch {
	case isDirector && !isServer:
		f.Kind = api.FindingSecondDirector
		f.What = fmt.Sprintf("another director, %v on %s, has %v as well: clients go now to one, now to the other, and connections break", c.Station, iface, addr)
		f.Seen += fmt.Sprintf("; %s", directorSign(c))
		f.Remedies = []api.Remedy{
			{On: "other director", Do: []string{"stop it, or take the services of " + addr.String() + " from it: uvsadm -D, or systemctl stop keepalived uvsd"}},
		}
	case addr.Is4():
		f.What = fmt.Sprintf("%s answers ARP for %v on %s: clients may go there, past this director", who, addr, iface)
		f.Remedies = arpRemedies(addr)
	default:
		f.What = fmt.Sprintf("%s answers neighbour discovery for %v on %s: clients may go there, past this director", who, addr, iface)
		f.Remedies = ndpRemedies(addr)
	}
	d.found(f)
}

// directorSign says why a station is taken for a director.
func directorSign(c dataplane.Claim) string {
	switch {
	case guard.IsVirtualMAC(c.Station):
		return "its MAC address is of the kind that uvsd gives itself (02:75:...)"
	case isVRRP(c.Station):
		return "its MAC address is a virtual router's (VRRP)"
	}
	return "it announces the address by gratuitous ARP"
}

// isVRRP says that a MAC address is a virtual router's (RFC 5798 section 7.3).
func isVRRP(m packet.MAC) bool {
	return m[0] == 0 && m[1] == 0 && m[2] == 0x5e && m[3] == 0 && (m[4] == 1 || m[4] == 2)
}

// serverAt is the real server that is a neighbour with that MAC address on a port, by its address of family is4 if it has one
// as a server.
func (d *doctor) serverAt(port int, mac packet.MAC, is4 bool) (addr netip.Addr, ok bool) {
	for _, vs := range d.table.Services {
		for _, rs := range vs.Servers {
			hop, status := d.NextHops.Lookup(rs.IP)
			if status == nexthop.Ready && hop.Iface == port && hop.Dst == mac && hop.Gateway == rs.IP {
				if addr, ok = rs.Addr.Addr(), true; addr.Is4() == is4 {
					return addr, true
				}
			}
		}
	}
	return addr, ok
}

// source is an address to ask a server from, whose answers come back to the director: one of family is4 on the segment that
// port leads to, else another one.
func (d *doctor) source(is4 bool, port int) (packet.Addr, bool) {
	var other packet.Addr
	for _, a := range d.Sources {
		if a.Is4() != is4 {
			continue
		}
		addr := packet.AddrFrom(a)
		if on, ok := d.NextHops.OnLink(addr); ok && on == port {
			return addr, true
		}
		if other.IsZero() {
			other = addr
		}
	}
	if own, ok := d.gatewayOn(is4, port); ok {
		return own, true
	}
	return other, !other.IsZero()
}

// gatewayOn is the gateway address of the director's on a port.
func (d *doctor) gatewayOn(is4 bool, port int) (packet.Addr, bool) {
	if port < 0 || port >= len(d.Ports) {
		return packet.Addr{}, false
	}
	i := slices.IndexFunc(d.Ports[port].Gateways, func(g netip.Prefix) bool { return g.Addr().Is4() == is4 })
	if i < 0 {
		return packet.Addr{}, false
	}
	return packet.AddrFrom(d.Ports[port].Gateways[i].Addr()), true
}

// family is the name of an address's.
func family(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}
