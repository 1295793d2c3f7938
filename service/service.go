// Package service holds what a director balances: virtual services, their real servers, and the immutable Table of both
// that the packet path reads. It opens no socket, starts no goroutine, reads no clock and logs nothing.
package service

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"uvs/packet"
)

// Proto is a transport protocol by its IP protocol number. A fwmark service has none (0).
type Proto uint8

// The protocols IPVS balances.
const (
	TCP  Proto = packet.ProtoTCP
	UDP  Proto = packet.ProtoUDP
	SCTP Proto = packet.ProtoSCTP
)

// String is the protocol's name in lower case.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case 0:
		return "ip"
	default:
		return fmt.Sprintf("proto%d", uint8(p))
	}
}

// Method is a forwarding method. The values are the kernel's (IP_VS_CONN_F_FWD_MASK): connection sync sends them.
type Method uint8

// The forwarding methods.
const (
	Masq   Method = 0 // NAT: rewrite address and port, both ways
	Local  Method = 1 // the director's own stack
	Tunnel Method = 2 // encapsulate
	Route  Method = 3 // DR: rewrite the Ethernet header alone
	Bypass Method = 4 // to the original destination, for transparent caches
)

// String is the method's name as ipvsadm lists it.
func (m Method) String() string {
	switch m {
	case Masq:
		return "Masq"
	case Local:
		return "Local"
	case Tunnel:
		return "Tunnel"
	case Route:
		return "Route"
	case Bypass:
		return "Bypass"
	default:
		return fmt.Sprintf("Method(%d)", uint8(m))
	}
}

// EncapKind is an encapsulation. The values are the kernel's (IP_VS_CONN_F_TUNNEL_TYPE_*).
type EncapKind uint8

// The encapsulations.
const (
	IPIP EncapKind = iota // IP in IP
	GUE                   // generic UDP encapsulation
	GRE
)

// EncapChecksum says how the outer header of GUE and GRE is protected.
type EncapChecksum uint8

// The protections.
const (
	NoChecksum     EncapChecksum = iota
	FullChecksum                 // the outer UDP or GRE checksum
	RemoteChecksum               // remote checksum offload (GUE only): the receiver computes the inner one
)

// Encap says how the method Tunnel encapsulates; the zero value is IPIP.
type Encap struct {
	Kind     EncapKind
	Checksum EncapChecksum
	// Port is the UDP port of GUE, in host order.
	Port uint16
}

// Key identifies a virtual service: protocol, address and port, or a firewall mark and a family.
type Key struct {
	// Proto is 0 for a fwmark service.
	Proto Proto
	// Addr is the VIP with its port; port 0 takes every port. For a fwmark service the address is unspecified (0.0.0.0
	// or ::) and only tells the family.
	Addr netip.AddrPort
	// Mark is the firewall mark, 0 for a service by address.
	Mark uint32
}

// String is the key as messages show it, such as "tcp 10.0.0.1:80" or "fwmark 7".
func (k Key) String() string {
	if k.Mark != 0 {
		if k.Addr.Addr().Is6() {
			return fmt.Sprintf("fwmark %d (IPv6)", k.Mark)
		}
		return fmt.Sprintf("fwmark %d", k.Mark)
	}
	return k.Proto.String() + " " + k.Addr.String()
}

// SchedFlags are a scheduler's flags, ipvsadm's -b. The values are the kernel's IP_VS_SVC_F_SCHED*.
type SchedFlags uint32

// The flag bits; sh and mh give the first two names of their own.
const (
	SchedFlag1 SchedFlags = 0x08 // sh-fallback, mh-fallback
	SchedFlag2 SchedFlags = 0x10 // sh-port, mh-port
	SchedFlag3 SchedFlags = 0x20
)

// VirtualService is one virtual service as published in a Table. It is immutable; a change publishes a new one that
// carries over Index, Scheduler (unless it was replaced) and the real servers that stay.
type VirtualService struct {
	Key
	// Scheduler decides; nil for a service without scheduler (-s none), which refuses every new connection.
	Scheduler     Scheduler
	SchedulerName string
	SchedFlags    SchedFlags
	// Persistence is the template timeout, 0 for a service that isn't persistent.
	Persistence time.Duration
	// Netmask is the IPv4 mask (host order) under which clients share a template.
	Netmask uint32
	// PrefixLen is the IPv6 prefix length (1 to 128) under which clients share a template.
	PrefixLen int
	// OnePacket schedules each UDP datagram by itself (-o).
	OnePacket bool
	// Watched says that somebody wants to know what becomes of its new connections: see conntrack.Table.Watch.
	Watched bool
	// PersistenceEngine is the persistence engine's name (--pe), usually empty.
	PersistenceEngine string
	// Index is the service's slot in counter arrays, stable for its life and reused only after its last reader.
	Index uint32
	// Servers are the real servers in the kernel's order: the latest added first.
	Servers []*RealServer
}

// Persistent says that connections from one client stick to one real server.
func (vs *VirtualService) Persistent() bool { return vs.Persistence > 0 }

// Errors that callers branch on; uvsadm maps each to ipvsadm's own words.
var (
	ErrServiceExists   = errors.New("service already exists")
	ErrServiceNotFound = errors.New("no such service")
	ErrServerExists    = errors.New("destination already exists")
	ErrServerNotFound  = errors.New("no such destination")
	ErrNoScheduler     = errors.New("scheduler not found")
	ErrNoEngine        = errors.New("persistence engine not found")
	ErrRange           = errors.New("numerical result out of range")
	ErrInvalid         = errors.New("invalid argument")
)
