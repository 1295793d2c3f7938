package decap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// host knows the addresses and interfaces of the host, and follows their changes.
type host struct {
	requests *netlink.Handle
	events   *nl.NetlinkSocket
	closed   atomic.Bool
	device   int    // the TUN device, whose addresses are left out: no tunnel ends at a virtual address
	only     string // interface that tunnelled packets must come in by; empty for any

	local   atomic.Pointer[Addresses]
	ifindex atomic.Int64 // of only; 0 while there is none
}

// openHost reads the calling thread's network namespace.
func openHost(only string) (*host, error) {
	// Subscribed before it is read for the first time, so that no change falls between the two.
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	requests, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &host{requests: requests, events: events, only: only}, nil
}

// load reads addresses and interfaces.
func (h *host) load() error {
	addrs, err := h.requests.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // the change that interrupted it is the next event
		return fmt.Errorf("list addresses: %w", err)
	}
	local := make(Addresses)
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex != h.device {
			local[packet.AddrFrom(ip)] = struct{}{}
		}
	}
	h.local.Store(&local)
	if h.only == "" {
		return nil
	}
	link, err := h.requests.LinkByName(h.only)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		h.ifindex.Store(0)
	case err != nil:
		return fmt.Errorf("look up interface %s: %w", h.only, err)
	default:
		h.ifindex.Store(int64(link.Attrs().Index))
	}
	return nil
}

// watch reads all anew whenever something changed, until stop.
func (h *host) watch(log *zap.Logger) error {
	for {
		_, _, err := h.events.Receive()
		switch {
		case h.closed.Load():
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil && !errors.Is(err, unix.ENOBUFS): // changes were lost, but all is read anyway
			return fmt.Errorf("follow addresses: %w", err)
		}
		if err := h.load(); err != nil {
			log.Warn("this host's addresses changed and cannot be read; the old ones hold", zap.Error(err))
		}
	}
}

// stop ends watch.
func (h *host) stop() {
	if !h.closed.Swap(true) {
		h.events.Close()
	}
}

func (h *host) close() {
	h.stop()
	h.requests.Close()
}

// handlers are the kernel's modules that take tunnelled packets, by the protocol that brings them.
var handlers = []struct {
	module, protocol string
	v6               bool
}{
	{"ipip", "4", false}, {"tunnel4", "{ 4, 41 }", false}, {"sit", "41", false}, {"gre", "47", false},
	{"ip6_tunnel", "{ 4, 41 }", true}, {"tunnel6", "{ 4, 41 }", true}, {"ip6_gre", "47", true},
}

// checkKernel looks for what in the kernel would decapsulate too, or refuse what is decapsulated here.
func (h *host) checkKernel(log *zap.Logger, rules *Rules) error {
	links, err := h.requests.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if err := refuseTunnels(links, rules); err != nil {
		return err
	}
	told := make(map[string]bool)
	for _, k := range handlers {
		remedy := inputDrop(k.protocol, k.v6)
		if _, err := os.Stat("/sys/module/" + k.module); err != nil || told[remedy] || !rules.from(k.v6) {
			continue
		}
		told[remedy] = true
		log.Warn("the kernel has a handler for tunnelled packets and answers each that belongs to none of its own "+
			"tunnels with an ICMP error, which makes the director give up; keep them from it",
			zap.String("module", k.module), zap.String("remedy", "nft '"+remedy+"'"))
	}
	return nil
}

// inputDrop keeps tunnelled packets from the kernel's own handler, in nft's language. The tap sees them before.
func inputDrop(protocol string, v6 bool) string {
	family, field := "ip", "protocol"
	if v6 {
		family, field = "ip6", "nexthdr"
	}
	return fmt.Sprintf("add table %[1]s uvsdecap; add chain %[1]s uvsdecap in { type filter hook input priority 0; }; "+
		"add rule %[1]s uvsdecap in %[1]s %[2]s %[3]s drop", family, field, protocol)
}

// refuseTunnels finds a tunnel of the kernel's own among the interfaces that takes packets from a director: each would arrive
// twice.
func refuseTunnels(links []netlink.Link, rules *Rules) error {
	for _, l := range links {
		var from net.IP
		switch t := l.(type) {
		case *netlink.Iptun:
			from = t.Remote
		case *netlink.Sittun:
			from = t.Remote
		case *netlink.Gretun:
			from = t.Remote
		case *netlink.Ip6tnl:
			from = t.Remote
		default:
			continue
		}
		a, ok := netip.AddrFromSlice(from)
		if l.Attrs().Flags&net.FlagUp == 0 || ok && !a.Unmap().IsUnspecified() && !rules.allows(packet.AddrFrom(a)) {
			continue
		}
		name := l.Attrs().Name
		return fmt.Errorf("this kernel decapsulates by itself, by interface %s, and packets would arrive twice: "+
			"put the virtual addresses there (ip addr add VIP dev %s) and do without uvsdecap, or: ip link set %s down", name, name, name)
	}
	return nil
}
