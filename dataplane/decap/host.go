package decap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
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
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
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
	addrs, err := h.requests.AddrList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // the change that interrupted it is the next event
		return fmt.Errorf("list addresses: %w", err)
	}
	local := make(Addresses)
	for _, a := range addrs {
		if ip := a.IP.To4(); ip != nil && a.LinkIndex != h.device {
			local[uint32(ip[0])<<24|uint32(ip[1])<<16|uint32(ip[2])<<8|uint32(ip[3])] = struct{}{}
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

// checkKernel looks for what in the kernel would decapsulate too, or refuse what is decapsulated here.
func (h *host) checkKernel(log *zap.Logger) error {
	links, err := h.requests.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if err := refuseTunnels(links); err != nil {
		return err
	}
	for _, module := range []string{"ipip", "tunnel4"} {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			log.Warn("the kernel has a handler for tunnelled packets and answers each that belongs to none of its own "+
				"tunnels with an ICMP error, which makes the director give up; keep them from it",
				zap.String("module", module),
				zap.String("remedy", "nft '"+inputDrop+"'"))
			break
		}
	}
	return nil
}

// inputDrop keeps tunnelled packets from the kernel's own handler, in nft's language. The tap sees them before.
const inputDrop = "add table ip uvsdecap; add chain ip uvsdecap in { type filter hook input priority 0; }; " +
	"add rule ip uvsdecap in ip protocol 4 drop"

// refuseTunnels finds a tunnel of the kernel's own among the interfaces: every packet would arrive twice.
func refuseTunnels(links []netlink.Link) error {
	for _, l := range links {
		if l.Type() == "ipip" && l.Attrs().Flags&net.FlagUp != 0 {
			name := l.Attrs().Name
			return fmt.Errorf("this kernel decapsulates by itself, by interface %s, and packets would arrive twice: "+
				"put the virtual addresses there (ip addr add VIP/32 dev %s) and do without uvsdecap, or: ip link set %s down", name, name, name)
		}
	}
	return nil
}
