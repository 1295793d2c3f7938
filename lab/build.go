package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// builder raises a topology step by step. After the first error the steps do nothing, so that what is built reads as
// one list.
type builder struct {
	*Topology
	err error
}

// check notes the first error.
func (b *builder) check(err error) {
	if b.err == nil {
		b.err = err
	}
}

// build raises a topology, all of it or nothing.
func build(cfg Config, m method) (*Topology, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l, err := New(Options{Name: cfg.Name, Named: cfg.Named, Keep: cfg.Keep})
	if err != nil {
		return nil, err
	}
	b := &builder{Topology: &Topology{Lab: l, Config: cfg, method: m}}
	b.everything()
	if b.err != nil {
		l.keep = false // half a lab is of no use to anybody
		return nil, errors.Join(fmt.Errorf("lab %s: %w", cfg.Name, b.err), l.Close())
	}
	return b.Topology, nil
}

// everything is the list.
func (b *builder) everything() {
	cfg := b.Config
	b.Switch = b.host("switch").Namespace
	b.bridge(outside)
	for i := range cfg.VIPs {
		b.VIPs = append(b.VIPs, segmentAddr(outside, firstVIP+i))
		if cfg.IPv6 {
			b.VIPs6 = append(b.VIPs6, segmentAddr6(outside, firstVIP+i))
		}
	}
	b.router()
	clientSide := outside
	if cfg.Routed {
		clientSide = access
	}
	for i := range cfg.Clients {
		h := b.host(fmt.Sprintf("client%d", i+1))
		b.leg(h, Leg{Name: "eth0", Bridge: clientSide}, firstClient+i)
		if cfg.Routed {
			b.defaultRoute(h, segmentAddr(access, lastHop), segmentAddr6(access, lastHop))
		}
		b.Clients = append(b.Clients, h)
	}
	for i := range cfg.Directors {
		b.Directors = append(b.Directors, b.director(i))
	}
	switch b.method {
	case direct:
		for i := range cfg.RealServers {
			b.RealServers = append(b.RealServers, b.directServer(i))
		}
	case tunnel:
		b.remoteServers()
	case nat:
		b.inside()
	}
}

// router adds the router, if there is to be one, with a leg on each segment that it joins.
func (b *builder) router() {
	segments := []string{outside}
	if b.Config.Routed {
		segments = append(segments, access)
	}
	if b.method == tunnel {
		segments = append(segments, remote)
	}
	if len(segments) == 1 {
		return
	}
	b.Router = b.host("router")
	for i, segment := range segments {
		if segment != outside {
			b.bridge(segment)
		}
		b.leg(b.Router, Leg{Name: fmt.Sprintf("eth%d", i), Bridge: segment}, lastHop)
	}
	b.forward(b.Router)
}

// remoteServers adds the real servers of TUN.
func (b *builder) remoteServers() {
	for i := range b.Config.RealServers {
		h := b.host(fmt.Sprintf("rs%d", i+1))
		b.leg(h, Leg{Name: "eth0", Bridge: remote}, firstRealServer+i)
		b.defaultRoute(h, segmentAddr(remote, lastHop), segmentAddr6(remote, lastHop))
		b.RealServers = append(b.RealServers, h)
	}
}

// inside adds the inner segment of NAT: the directors' second legs and the real servers.
func (b *builder) inside() {
	cfg := b.Config
	b.Gateway = cfg.Gateway
	if cfg.IPv6 {
		b.Gateway6 = segmentAddr6(inside, lastHop)
	}
	b.bridge(inside)
	for i := range cfg.Directors {
		b.insideLeg(i)
	}
	for i := range cfg.RealServers {
		h := b.host(fmt.Sprintf("rs%d", i+1))
		b.leg(h, Leg{Name: "eth0", Bridge: inside}, firstRealServer+i)
		b.defaultRoute(h, b.Gateway, b.Gateway6)
		b.RealServers = append(b.RealServers, h)
	}
}

// director adds director i with its outside leg.
func (b *builder) director(i int) *Host {
	h := b.host(fmt.Sprintf("director%d", i+1))
	b.leg(h, Leg{Name: "eth0", Bridge: outside, Kind: b.Config.DirectorLink}, firstDirector+i)
	if b.Config.Routed || b.method == tunnel {
		b.defaultRoute(h, segmentAddr(outside, lastHop), segmentAddr6(outside, lastHop))
	}
	if b.Config.IPForward {
		b.forward(h)
	}
	return h
}

// insideLeg gives director i its inside leg.
func (b *builder) insideLeg(i int) {
	number := firstDirector + i
	if b.Config.NoInsideAddress {
		number = -number
	}
	b.leg(b.Directors[i], Leg{Name: "eth1", Bridge: inside, Kind: b.Config.DirectorLink}, number)
}

// directServer adds real server i of DR.
func (b *builder) directServer(i int) *Host {
	h := b.host(fmt.Sprintf("rs%d", i+1))
	b.leg(h, Leg{Name: "eth0", Bridge: outside}, firstRealServer+i)
	if b.err != nil {
		return h
	}
	// Answer for addresses of the asked interface only, and ask with such an address only: lo's VIPs stay unheard.
	b.check(h.sysctls([]sysctl{{"net/ipv4/conf/all/arp_ignore", "1"}, {"net/ipv4/conf/all/arp_announce", "2"}}))
	for _, vip := range b.VIPs {
		b.check(h.AddAddr("lo", netip.PrefixFrom(vip, 32)))
	}
	for _, vip := range b.VIPs6 {
		b.check(h.AddAddr("lo", netip.PrefixFrom(vip, 128))) // IPv6 answers for the asked interface only, always
	}
	if b.Config.Routed {
		b.defaultRoute(h, segmentAddr(outside, lastHop), segmentAddr6(outside, lastHop))
	}
	return h
}

// host adds a namespace and brings its sysctls into a known state: new ones inherit IPv4's from the machine.
func (b *builder) host(name string) *Host {
	h := &Host{}
	if b.err != nil {
		return h
	}
	ns, err := b.Namespace(name)
	if err != nil {
		b.err = err
		return h
	}
	h.Namespace = ns
	settings := []sysctl{{"net/ipv4/ip_forward", "0"}} // first, for it sets others
	var v6 []sysctl
	if b.Config.IPv6 {
		v6 = []sysctl{{"disable_ipv6", "0"}, {"accept_dad", "0"}, {"accept_ra", "0"}, {"router_solicitations", "0"},
			{"keep_addr_on_down", "1"}} // as IPv4 does by itself
	} else if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil { // a kernel without IPv6 needs no telling
		v6 = []sysctl{{"disable_ipv6", "1"}}
	}
	for _, which := range []string{"all", "default"} {
		for _, s := range []sysctl{
			{"rp_filter", "0"}, {"arp_ignore", "0"}, {"arp_announce", "0"}, {"arp_filter", "0"},
			{"send_redirects", "1"}, {"accept_redirects", "1"}, {"accept_local", "0"}, {"log_martians", "0"},
		} {
			settings = append(settings, sysctl{"net/ipv4/conf/" + which + "/" + s.name, s.value})
		}
		for _, s := range v6 {
			settings = append(settings, sysctl{"net/ipv6/conf/" + which + "/" + s.name, s.value})
		}
	}
	b.check(ns.sysctls(settings))
	return h
}

// forward makes a host a router.
func (b *builder) forward(h *Host) {
	if b.err != nil {
		return
	}
	b.check(h.Sysctl("net/ipv4/ip_forward", "1"))
	if b.Config.IPv6 {
		b.check(h.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	}
}

// bridge adds a segment to the switch.
func (b *builder) bridge(name string) {
	if b.err == nil {
		b.check(b.Switch.AddBridge(name, hostMAC(segmentAddr(name, 0)), b.Config.MTU))
	}
}

// leg plugs a host into a segment, with the addresses of the given host number; without any if it is negative. MACs
// are 02:00 and the four bytes that the IPv4 address has or would have.
func (b *builder) leg(h *Host, leg Leg, number int) {
	if b.err != nil {
		return
	}
	addressed := number >= 0
	number = max(number, -number)
	addr := segmentAddr(leg.Bridge, number)
	leg.MAC = hostMAC(addr)
	leg.Port = h.name + "-" + leg.Name
	b.check(b.plug(h, &leg))
	if addressed && b.err == nil {
		leg.Prefix = netip.PrefixFrom(addr, 24)
		b.check(h.AddAddr(leg.Name, leg.Prefix))
		if b.Config.IPv6 {
			leg.Prefix6 = netip.PrefixFrom(segmentAddr6(leg.Bridge, number), 64)
			b.check(h.AddAddr(leg.Name, leg.Prefix6))
		}
	}
	h.Legs = append(h.Legs, leg)
}

// plug makes the leg's interface and its cable, and sets their offloads.
func (b *builder) plug(h *Host, leg *Leg) error {
	mtu, offloads := b.Config.MTU, !b.Config.OffloadsOff
	port := End{Namespace: b.Switch, Name: leg.Port, Bridge: leg.Bridge}
	near := End{Namespace: h.Namespace, Name: leg.Name, MAC: leg.MAC}
	digit := leg.Name[len(leg.Name)-1:] // of eth0, for its lower interfaces
	made := []string{leg.Name}
	var err error
	switch leg.Kind {
	case Veth:
		err = b.AddVeth(port, near, mtu)
	case Tap:
		err = b.AddTapPair(port, near, mtu, offloads)
	case Macvlan:
		leg.Lower = "port" + digit
		near.Name, near.MAC = leg.Lower, nil // the MAC is the macvlan's
		made = []string{leg.Lower}           // a macvlan's own offloads cannot be off: the one below it does the work then
		if err = b.AddVeth(port, near, mtu); err == nil {
			err = h.AddMacvlan(leg.Name, leg.Lower, leg.MAC)
		}
	case BridgeMaster:
		leg.Lower = "port" + digit
		spare, behind := "spare"+digit, "behind"+digit
		made = append(made, leg.Lower, spare, behind)
		err = errors.Join(
			h.AddBridge(leg.Name, leg.MAC, mtu),
			b.AddVeth(port, End{Namespace: h.Namespace, Name: leg.Lower, Bridge: leg.Name}, mtu),
			b.AddVeth(End{Namespace: h.Namespace, Name: spare, Bridge: leg.Name}, End{Namespace: h.Namespace, Name: behind}, mtu),
		)
	default:
		err = fmt.Errorf("unknown kind %v", leg.Kind)
	}
	if err == nil {
		err = h.AwaitCarrier(leg.Name) // of one that stands on others
	}
	if err != nil || offloads {
		return err
	}
	err = b.Switch.SetOffloads(leg.Port, false)
	for _, name := range made {
		err = errors.Join(err, h.SetOffloads(name, false))
	}
	return err
}

// defaultRoute gives a host its default routes; the second with IPv6 only.
func (b *builder) defaultRoute(h *Host, via, via6 netip.Addr) {
	if b.err != nil {
		return
	}
	b.check(h.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), via, ""))
	if b.Config.IPv6 {
		b.check(h.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), via6, ""))
	}
}

// hostMAC is a locally administered address that tells the host in a capture.
func hostMAC(addr netip.Addr) net.HardwareAddr {
	ip := addr.As4()
	return net.HardwareAddr{0x02, 0, ip[0], ip[1], ip[2], ip[3]}
}
