package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkGroup is the interface group of every link a lab has to delete by hand: links of one group go in one request,
// for which the kernel waits once and not once each.
const linkGroup = 0x757673 // "uvs"

// firstVethIndex is below the interface numbers that a lab gives out itself.
const firstVethIndex = 1000

// End is one end of a cable between namespaces.
type End struct {
	Namespace *Namespace
	Name      string           // of the interface, at most 15 bytes
	MAC       net.HardwareAddr // nil lets the kernel choose
	Bridge    string           // to be a port of, in the same namespace; empty for none
}

// AddVeth joins two namespaces by a veth pair. Both ends are up. An MTU of 0 means 1500.
func (l *Lab) AddVeth(a, b End, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.Group = a.Name, a.MAC, mtu, linkGroup
	// The kernel defers a carrier's consequences by up to a second unless it thinks them urgent, as it does if an
	// interface's number differs from its peer's. So one end's is none that the other's kernel would give.
	attrs.Index = int(firstVethIndex + l.veths.Add(1))
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerHardwareAddr: b.MAC}
	b.Namespace.mu.RLock()
	veth.PeerNamespace = netlink.NsFd(b.Namespace.fd)
	b.Namespace.mu.RUnlock()
	if err := a.Namespace.addLink(veth); err != nil {
		return err
	}
	if err := errors.Join(a.plug(), b.plug()); err != nil {
		return err
	}
	return errors.Join(a.awaitCarrier(), b.awaitCarrier())
}

// plug makes the end a port of its bridge and brings it up.
func (e End) plug() error {
	if e.Bridge != "" {
		if err := e.Namespace.SetBridge(e.Name, e.Bridge); err != nil {
			return err
		}
	}
	return e.Namespace.SetUp(e.Name, true)
}

// awaitCarrier waits until the end carries frames. Bringing it up is not enough: the kernel attaches its queue, and
// lets a bridge forward to it, in a work item of its own some time later, and until then frames are lost silently.
func (e End) awaitCarrier() error { return e.Namespace.AwaitCarrier(e.Name) }

// AwaitCarrier waits until an interface that is up carries frames: a moment after its cable's other end came up. Ends
// made by this package are waited for already. It gives up after two seconds.
func (n *Namespace) AwaitCarrier(ifname string) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		// A request for one link waits for the kernel's lock (RTNL) that the work item holds all the while, so
		// with the flag to be seen the rest is done too.
		link, err := n.link(ifname)
		if err != nil {
			return err
		}
		if link.Attrs().RawFlags&unix.IFF_RUNNING != 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s in %s gets no carrier", ifname, n.name)
		}
	}
}

// addLink adds a link that the lab deletes at Close.
func (n *Namespace) addLink(link netlink.Link) error {
	n.hasLinks.Store(true)
	if err := n.nl.LinkAdd(link); err != nil {
		return fmt.Errorf("add %s %s in %s: %w", link.Type(), link.Attrs().Name, n.name, err)
	}
	return nil
}

// AddBridge adds a bridge without spanning tree or IGMP snooping, and brings it up. Its ports forward at once: the
// kernel's forward delay belongs to spanning tree. A nil MAC lets the kernel choose, an MTU of 0 means 1500.
func (n *Namespace) AddBridge(name string, mac net.HardwareAddr, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.Group, attrs.Flags = name, mac, mtu, linkGroup, net.FlagUp
	snooping := false
	return n.addLink(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
}

// AddMacvlan adds a macvlan in bridge mode on top of the interface lower, and brings it up.
func (n *Namespace) AddMacvlan(name, lower string, mac net.HardwareAddr) error {
	parent, err := n.link(lower)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Group, attrs.Flags = name, mac, linkGroup, net.FlagUp
	attrs.ParentIndex = parent.Attrs().Index
	return n.addLink(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
}

// deleteLinks deletes the links of linkGroup in the namespace, all in one request.
func (n *Namespace) deleteLinks() error {
	// netlink.Handle has no such request, so it goes through a socket of its own.
	err := n.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(linkGroup)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENODEV) { // ENODEV: all gone before
		return fmt.Errorf("delete links: %w", err)
	}
	return nil
}

// link finds an interface.
func (n *Namespace) link(ifname string) (netlink.Link, error) {
	link, err := n.nl.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("interface %s in %s: %w", ifname, n.name, err)
	}
	return link, nil
}

// setLink finds an interface and changes it.
func (n *Namespace) setLink(ifname, what string, set func(netlink.Link) error) error {
	link, err := n.link(ifname)
	if err != nil {
		return err
	}
	if err := set(link); err != nil {
		return fmt.Errorf("%s %s in %s: %w", what, ifname, n.name, err)
	}
	return nil
}

// DeleteLink deletes an interface; a veth's other end goes with it.
func (n *Namespace) DeleteLink(ifname string) error {
	return n.setLink(ifname, "delete", n.nl.LinkDel)
}

// SetUp brings an interface up or down. Down at one end of a veth is a pulled cable at the other.
func (n *Namespace) SetUp(ifname string, up bool) error {
	if up {
		return n.setLink(ifname, "bring up", n.nl.LinkSetUp)
	}
	return n.setLink(ifname, "bring down", n.nl.LinkSetDown)
}

// SetBridge makes an interface a port of a bridge in the same namespace; an empty bridge takes it out of its bridge.
func (n *Namespace) SetBridge(ifname, bridge string) error {
	if bridge == "" {
		return n.setLink(ifname, "unplug", n.nl.LinkSetNoMaster)
	}
	master, err := n.link(bridge)
	if err != nil {
		return err
	}
	return n.setLink(ifname, "plug into "+bridge, func(l netlink.Link) error {
		return n.nl.LinkSetMasterByIndex(l, master.Attrs().Index)
	})
}

// SetMTU sets an interface's MTU in bytes, without the Ethernet header.
func (n *Namespace) SetMTU(ifname string, mtu int) error {
	return n.setLink(ifname, "set MTU of", func(l netlink.Link) error { return n.nl.LinkSetMTU(l, mtu) })
}

// SetMAC sets an interface's hardware address.
func (n *Namespace) SetMAC(ifname string, mac net.HardwareAddr) error {
	return n.setLink(ifname, "set MAC of", func(l netlink.Link) error { return n.nl.LinkSetHardwareAddr(l, mac) })
}

// MAC is an interface's hardware address.
func (n *Namespace) MAC(ifname string) (net.HardwareAddr, error) {
	link, err := n.link(ifname)
	if err != nil {
		return nil, err
	}
	return link.Attrs().HardwareAddr, nil
}

// Index is an interface's number.
func (n *Namespace) Index(ifname string) (int, error) {
	link, err := n.link(ifname)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

// AddAddr gives an interface an address. IPv6 addresses are usable at once, too: duplicate detection, which takes a
// second, is off for them.
func (n *Namespace) AddAddr(ifname string, prefix netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	link, err := n.link(ifname)
	if err == nil {
		err = n.nl.AddrAdd(link, addr)
	}
	if err == nil && prefix.Addr().Is6() && link.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 {
		err = n.awaitSolicitation(ifname, prefix.Addr())
	}
	if err != nil {
		return fmt.Errorf("add %v to %s in %s: %w", prefix, ifname, n.name, err)
	}
	return nil
}

// awaitSolicitation waits until an interface hears neighbour solicitations for an IPv6 address, by the multicast
// group made of its last three bytes (RFC 4291 section 2.7.1). The kernel joins that in a work item of its own; a
// solicitation that comes before is lost, and repeated after a second.
func (n *Namespace) awaitSolicitation(ifname string, addr netip.Addr) error {
	ip := addr.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%x", ip[13:])
	return n.Do(func() error {
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(100 * time.Microsecond) {
			groups, err := os.ReadFile("/proc/thread-self/net/igmp6") // index, interface, group, ...
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(groups)) {
				if f := strings.Fields(line); len(f) > 2 && f[1] == ifname && f[2] == group {
					return nil
				}
			}
			if time.Now().After(deadline) {
				return errors.New("the kernel does not join its solicited-node group")
			}
		}
	})
}

// RemoveAddr takes an address from an interface.
func (n *Namespace) RemoveAddr(ifname string, prefix netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	return n.setLink(ifname, "remove "+prefix.String()+" from", func(l netlink.Link) error { return n.nl.AddrDel(l, addr) })
}

// AddRoute adds a route to dst through the router via, or, if via is the zero Addr, straight out of ifname. An empty
// ifname lets the kernel find the interface from via.
func (n *Namespace) AddRoute(dst netip.Prefix, via netip.Addr, ifname string) error {
	route := &netlink.Route{Dst: ipNet(dst.Masked())}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if ifname != "" {
		index, err := n.Index(ifname)
		if err != nil {
			return err
		}
		route.LinkIndex = index
	}
	if err := n.nl.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %v in %s: %w", dst, n.name, err)
	}
	return nil
}

// ipNet is p in net's types, its address unmasked.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
