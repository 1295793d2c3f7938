package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"uvs/lab"
	"uvs/packet"
)

// site is the network of one measurement, with nobody directing yet. Two-armed, the way is straight, without a switch, whose
// work would hide a part of the director's:
//
//	client eth0 --- eth0 director eth1 --- eth0 server
//	10.9.0.201      10.9.0.1   10.1.0.1    10.1.0.11, its gateway 10.1.0.254
//
// One-armed it is package lab's network of direct routing: all on one bridge, the VIP on the server's lo. The VIP is
// 10.9.0.100 in both.
type site struct {
	lab                      *lab.Lab
	client, director, server *lab.Namespace
	oneArmed                 bool
	sunk                     bool // what arrives is thrown away: see sink
	pair                     bool // there are two servers, for what happens when one fails
	servers                  []*lab.Namespace
	rips                     []netip.Addr // of servers
	vip, dip, rip, gateway   netip.Addr
	clientMAC, serverMAC     packet.MAC
	directorMAC              [2]packet.MAC // of its eth0 and eth1
	dir                      string        // for files of the programs that run here; others may read it
}

// ForeignMAC are the MAC addresses that forwarders have on eth0 and eth1, which are not the host's own.
var ForeignMAC = [2]packet.MAC{{2, 0, 0, 0, 0xbe, 1}, {2, 0, 0, 0, 0xbe, 2}}

// The services that every subject carries, at the VIP, and what the server listens on behind NAT.
const (
	webPort   = 80
	bulkPort  = 5201 // iperf3's own
	echoPort  = 7
	packPort  = 9 // of the generator's datagrams
	natOffset = 8000
)

func newSite(oneArmed, pair bool) (_ *site, err error) {
	s := &site{oneArmed: oneArmed, pair: pair}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "uvsbench-"); err != nil {
		return nil, err
	}
	if err = os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	build := s.buildTwoArmed
	switch {
	case oneArmed:
		build = s.buildOneArmed
	case pair:
		build = s.buildPair
	}
	if err = build(); err != nil {
		return nil, err
	}
	if s.servers == nil {
		s.servers, s.rips = []*lab.Namespace{s.server}, []netip.Addr{s.rip}
	}
	return s, errors.Join(morePorts(s.client), morePorts(s.director))
}

// morePorts lets a host open more connections than usual, of which each needs a port of its own.
func morePorts(n *lab.Namespace) error {
	return errors.Join(n.Sysctl("net.ipv4.ip_local_port_range", "10000 65000"), n.Sysctl("net.ipv4.tcp_tw_reuse", "1"))
}

func (s *site) close() error {
	var err error
	if s.lab != nil {
		err = s.lab.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func (s *site) buildOneArmed() error {
	servers := 1
	if s.pair {
		servers = 2
	}
	topo, err := lab.NewDR(lab.Config{RealServers: servers, Name: "bench"})
	if err != nil {
		return err
	}
	s.take(topo)
	// A switch has no packet filter. Where br_netfilter is loaded a bridge asks the machine's, for a sixth of what a director
	// uses for each packet that it sends.
	const filtered = "net.bridge.bridge-nf-call-iptables"
	if _, err := topo.Switch.SysctlValue(filtered); err == nil {
		if err := topo.Switch.Sysctl(filtered, "0"); err != nil {
			return err
		}
	}
	return s.readMACs()
}

// buildPair is package lab's network of NAT: two servers on a segment of their own.
func (s *site) buildPair() error {
	topo, err := lab.NewNAT(lab.Config{RealServers: 2, Name: "bench"})
	if err != nil {
		return err
	}
	s.take(topo)
	s.gateway = topo.Gateway
	return s.readMACs()
}

// take makes a topology of package lab's the site.
func (s *site) take(topo *lab.Topology) {
	s.lab, s.client, s.director, s.server = topo.Lab, topo.Clients[0].Namespace, topo.Directors[0].Namespace, topo.RealServers[0].Namespace
	s.vip, s.dip, s.rip = topo.VIP(), topo.Directors[0].Addr(), topo.RealServers[0].Addr()
	for _, rs := range topo.RealServers {
		s.servers, s.rips = append(s.servers, rs.Namespace), append(s.rips, rs.Addr())
	}
}

func (s *site) buildTwoArmed() (err error) {
	if s.lab, err = lab.New(lab.Options{Name: "bench"}); err != nil {
		return err
	}
	for _, n := range []struct {
		name string
		to   **lab.Namespace
	}{{"client", &s.client}, {"director", &s.director}, {"server", &s.server}} {
		if *n.to, err = s.lab.Namespace(n.name); err != nil {
			return err
		}
		if err = settle(*n.to); err != nil {
			return err
		}
	}
	s.vip, s.dip = netip.MustParseAddr("10.9.0.100"), netip.MustParseAddr("10.9.0.1")
	s.rip, s.gateway = netip.MustParseAddr("10.1.0.11"), netip.MustParseAddr("10.1.0.254")
	err = errors.Join(
		s.lab.AddVeth(lab.End{Namespace: s.client, Name: "eth0"}, lab.End{Namespace: s.director, Name: "eth0"}, 1500),
		s.lab.AddVeth(lab.End{Namespace: s.director, Name: "eth1"}, lab.End{Namespace: s.server, Name: "eth0"}, 1500))
	if err != nil {
		return err
	}
	return errors.Join(
		s.client.AddAddr("eth0", netip.MustParsePrefix("10.9.0.201/24")),
		s.director.AddAddr("eth0", netip.PrefixFrom(s.dip, 24)),
		s.director.AddAddr("eth1", netip.MustParsePrefix("10.1.0.1/24")),
		s.server.AddAddr("eth0", netip.PrefixFrom(s.rip, 24)),
		s.client.AddRoute(netip.MustParsePrefix("10.1.0.0/24"), s.dip, ""),
		s.server.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), s.gateway, ""),
		s.readMACs())
}

// settle brings a namespace's settings into a known state: new ones inherit IPv4's from the machine.
func settle(n *lab.Namespace) error {
	var errs []error
	for name, value := range map[string]string{
		"net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0",
		"net.ipv4.conf.all.send_redirects": "0", "net.ipv4.conf.default.send_redirects": "0",
	} {
		errs = append(errs, n.Sysctl(name, value))
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil { // no neighbour discovery among the frames
		errs = append(errs, n.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"), n.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	}
	return errors.Join(errs...)
}

func (s *site) readMACs() error {
	for _, m := range []struct {
		ns     *lab.Namespace
		ifname string
		to     *packet.MAC
	}{{s.client, "eth0", &s.clientMAC}, {s.server, "eth0", &s.serverMAC}, {s.director, "eth0", &s.directorMAC[0]}, {s.director, "eth1", &s.directorMAC[1]}} {
		if m.ifname == "eth1" && s.oneArmed {
			continue
		}
		mac, err := m.ns.MAC(m.ifname)
		if err != nil {
			return err
		}
		*m.to = packet.MAC(mac)
	}
	return nil
}

// neighbour makes a host take addr, behind its eth0, to be at mac for ever.
func neighbour(n *lab.Namespace, addr netip.Addr, mac packet.MAC) error {
	return neighbourOn(n, "eth0", addr, mac)
}

func neighbourOn(n *lab.Namespace, ifname string, addr netip.Addr, mac packet.MAC) error {
	index, err := n.Index(ifname)
	if err != nil {
		return err
	}
	err = n.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: net.HardwareAddr(mac[:]),
	})
	if err != nil {
		return fmt.Errorf("neighbour %v in %s: %w", addr, n, err)
	}
	return nil
}

// nft loads rules into a namespace.
func nft(ctx context.Context, n *lab.Namespace, rules string) error {
	c := n.Command(ctx, "nft", "-f", "-")
	c.Stdin = strings.NewReader(rules)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s", n, err, out)
	}
	return nil
}

// sinkMAC is the address that frames of the generator leave the director for: nobody's, so that the server's stack drops
// them at once, for every subject alike. For its own it would look for a socket, and answer that there is none.
var sinkMAC = packet.MAC{2, 0, 0, 0, 0xbe, 0xff}

// sink makes the site one for the generator's datagrams.
func (s *site) sink() error {
	s.serverMAC, s.sunk = sinkMAC, true
	return neighbourOn(s.director, "eth1", s.rip, sinkMAC)
}

// received is how many frames an interface has received so far.
func received(n *lab.Namespace, ifname string) (uint64, error) {
	l, err := n.Netlink().LinkByName(ifname)
	if err != nil {
		return 0, fmt.Errorf("statistics of %s in %s: %w", ifname, n, err)
	}
	return l.Attrs().Statistics.RxPackets, nil
}
