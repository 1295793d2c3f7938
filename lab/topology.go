package lab

import (
	"fmt"
	"net"
	"net/netip"
)

// LinkKind is what a director's interface is.
type LinkKind int

// The kinds. In each the interface is called eth0 (eth1 on the inside) and holds the addresses.
const (
	// Veth is a plain veth end: the default.
	Veth LinkKind = iota
	// Macvlan is a macvlan in bridge mode on top of a veth end port0.
	Macvlan
	// BridgeMaster is a bridge with two ports: port0, the cable, and spare0, behind which nothing is but an
	// interface behind0 in the same namespace, to see there what the bridge floods.
	BridgeMaster
	// Tap is a tap device whose frames this process carries to the switch, as under a hypervisor.
	Tap
)

// String is the kind's name in ip-link(8).
func (k LinkKind) String() string {
	switch k {
	case Veth:
		return "veth"
	case Macvlan:
		return "macvlan"
	case BridgeMaster:
		return "bridge"
	case Tap:
		return "tap"
	}
	return fmt.Sprintf("LinkKind(%d)", int(k))
}

// Config says what a topology has. Zero means the default; a negative count means none.
type Config struct {
	Clients     int // default 1, at most 50
	Directors   int // default 1, at most 9
	RealServers int // default 2, at most 89
	VIPs        int // default 1, at most 100

	// DirectorLink is the kind of the directors' interfaces on every leg. Default Veth.
	DirectorLink LinkKind
	// MTU of every interface, in bytes. Default 1500.
	MTU int
	// OffloadsOff switches checksum and segmentation offloads off everywhere; see Namespace.SetOffloads. By default
	// they are as the kernel makes them: on, so that hosts send super-frames with partial checksums.
	OffloadsOff bool
	// IPForward sets ip_forward on the directors, whose own kernel then forwards too. Default 0.
	IPForward bool
	// IPv6 adds an IPv6 address beside each IPv4 address: 2001:db8:9::/64 outside, 2001:db8:1::/64 inside,
	// 2001:db8:2::/64 for TUN's real servers, 2001:db8:c::/64 for clients behind the router, with the decimal digits
	// of the IPv4 host number (10.9.0.11 and 2001:db8:9::11). By default IPv6 is off altogether, so that no neighbour or router discovery is on the wire.
	IPv6 bool
	// Routed puts the clients into a subnet of their own, 192.0.2.0/24, behind a router at 10.9.0.254.
	Routed bool
	// Gateway is the real servers' default gateway in NAT, an address the director is to take over: nobody has it
	// here. Default 10.1.0.254, and 2001:db8:1::254 beside it with IPv6.
	Gateway netip.Addr
	// NoInsideAddress leaves the directors' inside interface in NAT without addresses.
	NoInsideAddress bool

	// Name, Named and Keep are as in Options. Default name "dr" or "nat".
	Name  string
	Named bool
	Keep  bool
}

// Topology is a lab with hosts on it. Each host and the switch is a namespace of its own.
type Topology struct {
	*Lab
	Config      Config // with the defaults filled in
	Switch      *Namespace
	Clients     []*Host      // client1...
	Directors   []*Host      // director1...
	RealServers []*Host      // rs1...
	Router      *Host        // router, if Config.Routed and in TUN
	VIPs, VIPs6 []netip.Addr // the second empty without Config.IPv6

	// Gateway and Gateway6 are the real servers' default gateway in NAT.
	Gateway, Gateway6 netip.Addr

	method method
}

// method is the forwarding method that a topology is for.
type method int

const (
	direct method = iota
	tunnel
	nat
)

// VIP is the first virtual address.
func (t *Topology) VIP() netip.Addr { return t.VIPs[0] }

// Host is a machine of a topology.
type Host struct {
	*Namespace
	Legs []Leg // eth0 first
}

// Addr is the IPv4 address of the host's first leg.
func (h *Host) Addr() netip.Addr { return h.Legs[0].Prefix.Addr() }

// Addr6 is the IPv6 address of the host's first leg; the zero Addr without Config.IPv6.
func (h *Host) Addr6() netip.Addr { return h.Legs[0].Prefix6.Addr() }

// Leg is an interface of a host and what it is plugged into.
type Leg struct {
	Name            string // eth0, eth1
	Kind            LinkKind
	MAC             net.HardwareAddr
	Prefix, Prefix6 netip.Prefix // the addresses; zero if there is none
	Lower           string       // the interface under a macvlan or in a bridge master: port0, port1; else empty
	Port            string       // the other end of the cable, in the switch: client1-eth0
	Bridge          string       // the bridge in the switch that Port belongs to
}

// The bridges in the switch, which are segments of their own.
const (
	outside = "outside" // 10.9.0.0/24: directors; clients, or the router before them; in DR the real servers
	inside  = "inside"  // 10.1.0.0/24: in NAT the real servers
	remote  = "remote"  // 10.2.0.0/24: in TUN the real servers
	access  = "access"  // 192.0.2.0/24: clients behind the router
)

// The host numbers, alike in every segment; the next hosts of a kind follow.
const (
	firstDirector   = 1
	firstRealServer = 11
	firstVIP        = 100
	firstClient     = 201
	lastHop         = 254 // of a segment: the router wherever it has a leg, the gateway inside
)

// DR raises the network for direct routing, and takes it down when the test ends:
//
//	client1 10.9.0.201 --+                    +-- director1 10.9.0.1
//	client2 10.9.0.202 --+-- bridge outside --+-- director2 10.9.0.2
//	                     |   10.9.0.0/24      |
//	                     |                    +-- rs1 10.9.0.11, VIPs on lo
//	                     |                    +-- rs2 10.9.0.12, VIPs on lo
//	                     |
//	                     +-- router 10.9.0.254 -- bridge access 192.0.2.0/24 -- clients 192.0.2.201...
//	                         (with Config.Routed, and then the clients are there)
//
// The VIPs are 10.9.0.100 and up. The real servers hold them on lo and keep silent about them (arp_ignore 1,
// arp_announce 2); the directors don't have them. Each host has one interface, eth0, but for the router.
func DR(t TB, cfg Config) *Topology {
	t.Helper()
	topo, err := NewDR(cfg)
	return closeAtEnd(t, topo, err)
}

// NAT raises the network for NAT, and takes it down when the test ends:
//
//	                                       eth0         eth1
//	client1 10.9.0.201 --+-- bridge  --+-- director1 --+-- bridge  --+-- rs1 10.1.0.11
//	client2 10.9.0.202 --+   outside   |   .1      .1  |   inside    +-- rs2 10.1.0.12
//	                     |             +-- director2 --+             |
//	                     |                 .2      .2                +.. 10.1.0.254, gateway of the real
//	                     +-- router 10.9.0.254                           servers: for the director to own
//	                         (with Config.Routed, as in DR)
//
// The VIPs are 10.9.0.100 and up, and nobody has them. Clients have no route to the inside.
func NAT(t TB, cfg Config) *Topology {
	t.Helper()
	topo, err := NewNAT(cfg)
	return closeAtEnd(t, topo, err)
}

// TUN raises the network for tunnelling, and takes it down when the test ends:
//
//	client1 10.9.0.201 --+                    +-- director1 10.9.0.1
//	client2 10.9.0.202 --+-- bridge outside --+-- director2 10.9.0.2
//	                     |   10.9.0.0/24
//	                     |                                                  +-- rs1 10.2.0.11
//	                     +-- router 10.9.0.254, 10.2.0.254 -- bridge remote +-- rs2 10.2.0.12
//	                         (with Config.Routed clients as in DR)
//
// The VIPs are 10.9.0.100 and up. The real servers don't have them yet: whatever decapsulates there, which is no part
// of this package, puts them on its own device. The servers of ServeHTTP and ServeUDPEcho listen on them too, and so
// are to be started after it. The real servers' answers pass the router.
func TUN(t TB, cfg Config) *Topology {
	t.Helper()
	topo, err := NewTUN(cfg)
	return closeAtEnd(t, topo, err)
}

// closeAtEnd fails the test if the topology could not be made, and else closes it with the test.
func closeAtEnd(t TB, topo *Topology, err error) *Topology {
	t.Helper()
	if err != nil {
		t.Fatalf("raise the lab: %v", err)
		return nil
	}
	t.Cleanup(func() {
		if err := topo.Close(); err != nil {
			t.Logf("%s: %v", t.Name(), err)
		}
	})
	return topo
}

// NewDR raises the network of DR, for programs that are no tests.
func NewDR(cfg Config) (*Topology, error) {
	if cfg.Name == "" {
		cfg.Name = "dr"
	}
	return build(cfg, direct)
}

// NewNAT raises the network of NAT, for programs that are no tests.
func NewNAT(cfg Config) (*Topology, error) {
	if cfg.Name == "" {
		cfg.Name = "nat"
	}
	return build(cfg, nat)
}

// NewTUN raises the network of TUN, for programs that are no tests.
func NewTUN(cfg Config) (*Topology, error) {
	if cfg.Name == "" {
		cfg.Name = "tun"
	}
	return build(cfg, tunnel)
}

// withDefaults fills in the defaults and checks the limits.
func (cfg Config) withDefaults() (Config, error) {
	for _, c := range []struct {
		what           string
		count          *int
		preset, atMost int
	}{
		{"clients", &cfg.Clients, 1, 50},
		{"directors", &cfg.Directors, 1, 9},
		{"real servers", &cfg.RealServers, 2, 89},
		{"VIPs", &cfg.VIPs, 1, 100},
	} {
		switch {
		case *c.count == 0:
			*c.count = c.preset
		case *c.count < 0:
			*c.count = 0
		case *c.count > c.atMost:
			return cfg, fmt.Errorf("lab: %d %s: there are addresses for %d", *c.count, c.what, c.atMost)
		}
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	if !cfg.Gateway.IsValid() {
		cfg.Gateway = segmentAddr(inside, lastHop)
	}
	return cfg, nil
}

// segmentAddr is the IPv4 address of host number n on a segment.
func segmentAddr(bridge string, n int) netip.Addr {
	switch bridge {
	case outside:
		return netip.AddrFrom4([4]byte{10, 9, 0, byte(n)})
	case inside:
		return netip.AddrFrom4([4]byte{10, 1, 0, byte(n)})
	case remote:
		return netip.AddrFrom4([4]byte{10, 2, 0, byte(n)})
	default:
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	}
}

// segmentAddr6 is the IPv6 address of host number n on a segment: n's decimal digits after ::.
func segmentAddr6(bridge string, n int) netip.Addr {
	subnet := map[string]string{outside: "9", inside: "1", remote: "2", access: "c"}[bridge]
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:%s::%d", subnet, n))
}
