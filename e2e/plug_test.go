package e2e

import (
	"net"
	"net/netip"
	"strconv"

	"uvs/lab"
)

// plug adds a host to the lab, with a leg on each of the segments given as bridge and address: eth0, eth1...
func (r *rig) plug(name string, legs ...plugLeg) *lab.Host {
	r.t.Helper()
	ns, err := r.Lab.Namespace(name)
	must(r.t, err)
	for _, which := range []string{"all", "default"} {
		must(r.t, ns.Sysctl("net/ipv4/conf/"+which+"/rp_filter", "0"))
		must(r.t, ns.Sysctl("net/ipv6/conf/"+which+"/disable_ipv6", "1"))
	}
	h := &lab.Host{Namespace: ns}
	for i, l := range legs {
		ip := l.prefix.Addr().As4()
		leg := lab.Leg{
			Name: "eth" + strconv.Itoa(i), MAC: net.HardwareAddr{2, 0, ip[0], ip[1], ip[2], ip[3]}, Prefix: l.prefix,
			Port: name + "-eth" + strconv.Itoa(i), Bridge: l.bridge,
		}
		must(r.t, r.AddVeth(lab.End{Namespace: r.Switch, Name: leg.Port, Bridge: l.bridge}, lab.End{Namespace: ns, Name: leg.Name, MAC: leg.MAC}, r.Config.MTU))
		must(r.t, ns.AddAddr(leg.Name, l.prefix))
		h.Legs = append(h.Legs, leg)
	}
	if len(legs) > 1 {
		must(r.t, ns.Sysctl("net/ipv4/ip_forward", "1"))
	}
	return h
}

// plugLeg is an address on a segment: a bridge of the lab's switch.
type plugLeg struct {
	bridge string
	prefix netip.Prefix
}

func on(bridge, prefix string) plugLeg { return plugLeg{bridge, netip.MustParsePrefix(prefix)} }

// as is the rig seen by one client that asks one virtual address.
func (r *rig) as(client *lab.Host, vip netip.Addr) *rig {
	topo := *r.Topology
	topo.Clients, topo.VIPs = []*lab.Host{client}, []netip.Addr{vip}
	return &rig{Topology: &topo, director: r.director, t: r.t, direct: r.direct, tunnel: r.tunnel}
}

// ipNet is p in net's types.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
