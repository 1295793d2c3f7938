// Package nexthop finds out how to reach an address: by which of the attached interfaces, to which MAC address, with
// which MTU. It mirrors the kernel's routes and neighbours, which it learns by netlink, so that a packet's way out costs
// the worker a look into memory and policy, bonding and static neighbours work as the operator configured them.
//
//	Lookup --> exact     single addresses: on-link neighbours, answers that only the kernel could give
//	       --> gateways  segments whose gateway address uvs owns and of which the host knows nothing
//	       --> routes    longest-prefix match over the kernel's tables local and main, then default
//
// All three are published behind atomic pointers and read without a lock. One goroutine, Resolver.Run, owns everything
// that is written: the kernel's tables as netlink told them, neighbours and their timers, and the requests of the workers.
package nexthop

import (
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"uvs/packet"
)

// Hop is a ready way out. It is immutable: it is replaced, not changed, when anything about it changes.
type Hop struct {
	// Iface is the position in Config.Interfaces of the interface that the way leaves by.
	Iface int
	// Dst is the next hop's MAC address. The source is the interface's own of uvs, which the dataplane knows.
	Dst packet.MAC
	// MTU is the longest IP packet in bytes, by the route if it has a limit, else by the interface.
	MTU int
	// Source is the director's preferred source address on that route, for the outer header of tunnels; the zero Addr
	// if there is none.
	Source packet.Addr
	// Gateway is the address of the neighbour that Dst belongs to: a router's, or the destination's own.
	Gateway packet.Addr
}

// Status says what is known about the way to an address.
type Status uint8

// What Lookup may say.
const (
	Ready       Status = iota // there is a Hop
	Pending                   // being found out, or to be asked for by Resolve: hold the packet
	Unreachable               // the next hop doesn't answer
	NoRoute                   // there is no route, or one that says no (blackhole, unreachable, prohibit)
	NotAttached               // the route leaves by an interface that uvsd isn't attached to
	Local                     // an address of the director itself
)

var statusNames = [...]string{"ready", "pending", "unreachable", "no route", "not attached", "local"}

// String is the status in words.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", s)
}

// Interface is an Ethernet interface that uvsd is attached to. It is known by its name: an interface that vanishes and
// comes back with the same name is the same one.
type Interface struct {
	Name string
	// MAC is the address that uvs sends with on this interface, which need not be the interface's own.
	MAC packet.MAC
}

// Gateway is a segment of real servers of which uvs owns the gateway address. The host need not have an address there;
// its neighbours are resolved by a client of uvs, for ARP or neighbour discovery, with the gateway address as sender.
type Gateway struct {
	// Prefix is the owned address with the length of the segment's prefix, such as 10.0.0.1/24 or fd00::1/64.
	Prefix netip.Prefix
	// Iface is the segment's position in Config.Interfaces.
	Iface int
}

// Question is what is asked on a gateway's segment: who has Target? By ARP or neighbour discovery, as the family wants it.
type Question struct {
	Sender, Target packet.Addr // Sender is the gateway address
	To             packet.MAC  // whom to ask, the address last known; zero: everybody
}

// Config is what a Resolver is made of.
type Config struct {
	// Interfaces are those that uvsd is attached to. All must exist when the Resolver is made.
	Interfaces []Interface
	// Gateways are consulted before any route of the host.
	Gateways []Gateway
	// GuardProtocol is the rtnetlink protocol number of routes and rules that uvs installs itself to keep the host's
	// stack off its addresses; they don't count. 0 ignores none.
	GuardProtocol uint8
	// Ask sends a question out of an interface. It must not block. nil: gateways' neighbours are never resolved.
	Ask func(iface int, q Question)
	// Changed is called after next hops became known or were given up, to wake those who wait. It must not block.
	Changed func()
	// MaxAddresses bounds the addresses that are remembered singly: neighbours on attached segments, and with policy
	// rules every client. 0 means 65536.
	MaxAddresses int
	Log          *zap.Logger
}
