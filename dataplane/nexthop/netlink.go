package nexthop

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// kernel is a connection to the kernel's tables: one netlink socket for requests, one that hears of changes. Both belong
// to the network namespace of the thread that opened them.
type kernel struct {
	requests map[int]*nl.SocketHandle
	events   *nl.NetlinkSocket
	closed   atomic.Bool
}

// eventBuffer is how much the kernel may queue, in bytes, before changes are lost and everything is read anew.
const eventBuffer = 8 << 20

func openKernel(buffer int) (*kernel, error) {
	// Bound before the first dump, so that no change falls between the two.
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("subscribe to routes and neighbours: %w", err)
	}
	if events.SetReceiveBufferSize(buffer, true) != nil { // needs CAP_NET_ADMIN in the first user namespace
		_ = events.SetReceiveBufferSize(buffer, false) // what the host allows; less only means more dumps
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	_ = s.SetExtAck(true)                           // better error texts where the kernel has them
	_ = s.SetReceiveTimeout(&unix.Timeval{Sec: 10}) // only stores the value
	_ = s.SetReceiveBufferSize(1<<20, false)        // fewer, larger dump parts
	handle := map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	return &kernel{requests: handle, events: events}, nil
}

func (k *kernel) close() {
	k.closed.Store(true)
	k.events.Close()
	k.requests[unix.NETLINK_ROUTE].Close()
}

// event is what arrived in one read: messages, or the news that some were lost.
type event struct {
	messages []syscall.NetlinkMessage
	lost     bool
}

// listen sends what the kernel tells to events until the socket is closed or done is.
func (k *kernel) listen(events chan<- event, done <-chan struct{}) error {
	for {
		var ev event
		messages, from, err := k.events.Receive()
		switch {
		case k.closed.Load():
			return nil
		case errors.Is(err, unix.ENOBUFS):
			ev.lost = true
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("read netlink: %w", err)
		case from.Pid != nl.PidKernel:
			continue // another process may send to the group
		default:
			ev.messages = messages
		}
		select {
		case events <- ev:
		case <-done:
			return nil
		}
	}
}

// raw is a message body that is already laid out.
type raw []byte

func (b raw) Len() int          { return len(b) }
func (b raw) Serialize() []byte { return b }

func (k *kernel) request(typ, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = k.requests
	return req
}

const dumpTries = 5

// dump calls each for every object of a kind (an RTM_GET* type) and a family; size is that of the request's fixed header.
// A dump that changes while it is read is begun again, for which start is called first. A family that the kernel lacks
// has no objects.
func (k *kernel) dump(get, family, size int, start func(), each func(b []byte)) error {
	for try := 1; ; try++ {
		start()
		req := k.request(get, unix.NLM_F_DUMP)
		header := make(raw, size)
		header[0] = byte(family)
		req.AddData(header)
		err := req.ExecuteIter(unix.NETLINK_ROUTE, uint16(get-2), func(b []byte) bool { // RTM_NEW* stands two before RTM_GET*
			if len(b) > 0 && (family == unix.AF_UNSPEC || int(b[0]) == family) {
				each(b)
			}
			return true
		})
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			return nil
		case errors.Is(err, nl.ErrDumpInterrupted) && try < dumpTries:
			continue
		case errors.Is(err, nl.ErrDumpInterrupted):
			return nil // as good as it gets; the changes that interrupted it are queued as events
		}
		return err
	}
}

func family(a packet.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addrBytes(a packet.Addr) []byte { return a.Netip().AsSlice() }

// route asks the kernel for the way to an address, by all its rules. A way that doesn't exist or says no is an errno.
func (k *kernel) route(dst packet.Addr) (kernelRoute, error) {
	req := k.request(unix.RTM_GETROUTE, 0)
	header := make(raw, unix.SizeofRtMsg)
	header[0], header[1] = byte(family(dst)), byte(dst.Netip().BitLen())
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, addrBytes(dst)))
	var r kernelRoute
	found := false
	err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(b []byte) bool {
		if len(b) > 2 {
			b[2] = 0 // of IPv6 the answer names the source that the host would have: no condition of the route
		}
		r, found = parseRoute(b)
		return true
	})
	if err == nil && !found {
		err = unix.ENETUNREACH
	}
	return r, err
}

// neighbour changes an entry of the kernel's neighbour table: with unix.NTF_USE the kernel resolves it, creating it first
// if need be; with a state it takes that state.
func (k *kernel) neighbour(index int, addr packet.Addr, state uint16, ntf uint8) error {
	flags := unix.NLM_F_ACK | unix.NLM_F_REPLACE
	if ntf&unix.NTF_USE != 0 {
		flags |= unix.NLM_F_CREATE
	}
	req := k.request(unix.RTM_NEWNEIGH, flags)
	header := make(raw, unix.SizeofNdMsg)
	header[0], header[10] = byte(family(addr)), ntf
	copy(header[4:], nl.Uint32Attr(uint32(index)))
	copy(header[8:], nl.Uint16Attr(state))
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.NDA_DST, addrBytes(addr)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// The dumps.

func (k *kernel) links() (links []kernelLink, err error) {
	err = k.dump(unix.RTM_GETLINK, unix.AF_UNSPEC, unix.SizeofIfInfomsg, func() { links = nil }, func(b []byte) {
		if l, ok := parseLink(b); ok {
			links = append(links, l)
		}
	})
	return links, err
}

func (k *kernel) addrs() (addrs []kernelAddr, err error) {
	err = k.dump(unix.RTM_GETADDR, unix.AF_UNSPEC, unix.SizeofIfAddrmsg, func() { addrs = nil }, func(b []byte) {
		if a, ok := parseAddr(b); ok {
			addrs = append(addrs, a)
		}
	})
	return addrs, err
}

func (k *kernel) rules() (rules []kernelRule, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var some []kernelRule
		err = k.dump(unix.RTM_GETRULE, family, unix.SizeofRtMsg, func() { some = nil }, func(b []byte) {
			if r, ok := parseRule(b); ok {
				some = append(some, r)
			}
		})
		if err != nil {
			return nil, err
		}
		rules = append(rules, some...)
	}
	return rules, nil
}

func (k *kernel) routes(guard uint8) (*rib, error) {
	r := newRIB(guard)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		// A dump that starts over must not count a route twice, so each family is gathered by itself first.
		var some []kernelRoute
		err := k.dump(unix.RTM_GETROUTE, family, unix.SizeofRtMsg, func() { some = some[:0] }, func(b []byte) {
			if route, ok := parseRoute(b); ok && r.of(&route) != nil {
				some = append(some, route)
			}
		})
		if err != nil {
			return nil, err
		}
		for _, route := range some {
			r.load(route)
		}
	}
	return r, nil
}

func (k *kernel) neighbours() (neighbours []kernelNeighbour, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var some []kernelNeighbour
		err = k.dump(unix.RTM_GETNEIGH, family, unix.SizeofNdMsg, func() { some = nil }, func(b []byte) {
			if n, ok := parseNeighbour(b); ok {
				some = append(some, n)
			}
		})
		if err != nil {
			return nil, err
		}
		neighbours = append(neighbours, some...)
	}
	return neighbours, nil
}
