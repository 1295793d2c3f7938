// Package api is the way into uvsd: requests, replies, a client, and an HTTP server over a [Backend].
//
// It is HTTP with JSON bodies on a Unix socket, every path below /v1/:
//
//	POST /v1/change        a list of operations as one change        ChangeRequest -> ChangeReply
//	GET  /v1/services      services, servers, counters, rates         -> ServicesReply
//	GET  /v1/connections   connections, one JSON object a line        -> Connection...
//	GET  /v1/timeouts      the timeouts that can be set               -> Timeouts
//	GET  /v1/daemons       the connection sync daemons                -> DaemonsReply
//	GET  /v1/marks         the mark rules                             -> MarksReply
//	GET  /v1/sysctl        the settings                               -> SettingsReply
//	POST /v1/sysctl        changes settings, all or none              SettingsRequest -> SettingsReply
//	POST /v1/explain       what would become of a packet             ExplainRequest -> Explanation
//	POST /v1/drain         empties a real server                      DrainRequest -> DrainsReply
//	GET  /v1/drain         servers that are being drained             -> DrainsReply
//	POST /v1/undrain       gives them their weights back              UndrainRequest -> DrainsReply
//	POST /v1/reload        reads the configuration file again         ReloadRequest -> Reload
//	POST /v1/save          makes that file say what there is          SaveRequest -> Saved
//	POST /v1/shadows       tries schedulers out, or ends it            ShadowRequest -> ShadowsReply
//	GET  /v1/shadows       how that goes                              -> ShadowsReply
//	GET  /v1/trace         frames as they pass, one JSON object each  -> TraceEvent...
//	GET  /v1/status        the director, its interfaces and packets   -> Status
//	GET  /v1/version       what runs                                  -> Version
//	GET  /v1/openapi       all of this, for programs                  -> OpenAPI
//
// /v1/services, /v1/connections, /v1/shadows and /v1/trace take a service as query parameters: protocol, address and port, or fwmark and
// family; /v1/trace takes more, see TraceRequest. A refused request is answered with {"error": {"code": ..., "message": ...}} and a 4xx or 5xx status.
//
// The types of this package are the wire: plain strings, numbers and textual addresses. They are not the domain types
// of package service, so that those may change without breaking a client.
package api

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Protocols of a virtual service, and of a connection.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
	// IP is the protocol of the persistence templates of a firewall mark, which all protocols share. No service has it.
	IP = "ip"
)

// Families of a firewall-mark service.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// ServiceKey identifies a virtual service: either protocol, address and port, or a firewall mark with its family.
type ServiceKey struct {
	// Protocol is TCP, UDP or SCTP; empty with a firewall mark.
	Protocol string `json:"protocol,omitempty"`
	// Address is the VIP, without zone, never an IPv4-mapped IPv6 address; absent with a firewall mark.
	Address netip.Addr `json:"address,omitzero"`
	// Port is in host order. 0 (absent) is the service of all ports, which must be persistent.
	Port uint16 `json:"port,omitempty"`
	// FWMark is the firewall mark, never 0 where it counts.
	FWMark uint32 `json:"fwmark,omitempty"`
	// Family tells the two services of one mark apart: IPv4 or IPv6, with a firewall mark only, and never absent there.
	Family string `json:"family,omitempty"`
}

// Is6 reports whether the service is one of IPv6.
func (k ServiceKey) Is6() bool {
	if k.FWMark != 0 {
		return k.Family == IPv6
	}
	return k.Address.Is6()
}

// String gives the key as messages print it: "tcp 10.0.0.1:80", "fwmark 7", "fwmark 7 ipv6".
func (k ServiceKey) String() string {
	if k.FWMark != 0 {
		if k.Family == IPv6 {
			return fmt.Sprintf("fwmark %d ipv6", k.FWMark)
		}
		return fmt.Sprintf("fwmark %d", k.FWMark)
	}
	return k.Protocol + " " + netip.AddrPortFrom(k.Address, k.Port).String()
}

// ServerKey identifies a real server within its virtual service.
type ServerKey struct {
	// Address is the RIP. Its family may differ from the service's for a tunnel only.
	Address netip.Addr `json:"address"`
	// Port is in host order. With a forwarding method that does not rewrite the packet (Route, Tunnel) adding and editing
	// a server of an address and port silently take the service's port instead, as ipvsadm does. Deleting one, and
	// everything about a firewall mark, takes the port as it is.
	Port uint16 `json:"port"`
}

// String gives "10.0.0.1:80" or "[2001:db8::1]:80".
func (k ServerKey) String() string { return netip.AddrPortFrom(k.Address, k.Port).String() }

// Netmask groups clients for persistence. On the wire it is written as ipvsadm's -M takes it: a dotted quad for IPv4,
// which need not be contiguous ("255.0.255.0" is legal), a prefix length for IPv6 ("64"). The zero Netmask means the
// whole address.
type Netmask struct {
	mask netip.Addr
}

// Netmask4 returns the mask of an IPv4 service, four bytes in network order. All ones is the zero Netmask.
func Netmask4(mask [4]byte) Netmask {
	if mask == [4]byte{255, 255, 255, 255} {
		return Netmask{}
	}
	return Netmask{netip.AddrFrom4(mask)}
}

// Netmask6 returns the mask of an IPv6 service with so many leading ones, 1 to 128. 128 is the zero Netmask; ok is false
// outside the range.
func Netmask6(bits int) (m Netmask, ok bool) {
	if bits < 1 || bits > 128 {
		return Netmask{}, false
	}
	if bits == 128 {
		return Netmask{}, true
	}
	var b [16]byte
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return Netmask{netip.AddrFrom16(b)}, true
}

// IsZero reports whether the mask is the whole address.
func (m Netmask) IsZero() bool { return !m.mask.IsValid() }

// Addr returns the mask as an address to AND with a client's, of the given family.
func (m Netmask) Addr(is6 bool) netip.Addr {
	switch {
	case m.mask.IsValid():
		return m.mask
	case is6:
		return netip.AddrFrom16([16]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})
	default:
		return netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
}

// Fits reports whether the mask can belong to a service of the family: the zero mask to both.
func (m Netmask) Fits(is6 bool) bool { return m.IsZero() || m.mask.Is6() == is6 }

// String gives the wire form; the zero mask is empty.
func (m Netmask) String() string {
	if m.IsZero() {
		return ""
	}
	if m.mask.Is4() {
		return m.mask.String()
	}
	bits := 0
	for _, b := range m.mask.As16() {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return strconv.Itoa(bits)
}

// MarshalText implements encoding.TextMarshaler.
func (m Netmask) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Netmask) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "" {
		*m = Netmask{}
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		*m = Netmask4(a.As4())
		return nil
	}
	bits, err := strconv.Atoi(s)
	if err == nil {
		if mask, ok := Netmask6(bits); ok && strconv.Itoa(bits) == s {
			*m = mask
			return nil
		}
	}
	return fmt.Errorf("netmask %q: neither a dotted quad (IPv4) nor a prefix length from 1 to 128 (IPv6)", s)
}

// ServiceConfig is what can be set of a virtual service. An edit replaces all of it.
type ServiceConfig struct {
	// Scheduler is the name ipvsadm -s takes: "rr", "wlc", ... "none" is the service without a scheduler.
	Scheduler string `json:"scheduler"`
	// SchedFlags are the scheduler's flags by name; see ParseSchedFlags for the names and the numbers behind them.
	SchedFlags []string `json:"schedFlags,omitempty"`
	// PersistenceSeconds is how long a client keeps its server; 0 means no persistence.
	PersistenceSeconds uint32 `json:"persistenceSeconds,omitempty"`
	// Netmask groups clients for persistence; absent is the whole address.
	Netmask Netmask `json:"netmask,omitzero"`
	// PersistenceEngine names what tells clients apart beside their address: "sip", or none when empty.
	PersistenceEngine string `json:"persistenceEngine,omitempty"`
	// OnePacket schedules every packet by itself (UDP and firewall marks).
	OnePacket bool `json:"onePacket,omitempty"`
}

// Forwarding methods.
const (
	Masq   = "masq"   // NAT: address and port rewritten both ways
	Local  = "local"  // the director itself
	Tunnel = "tunnel" // encapsulated, see TunnelConfig
	Route  = "route"  // direct routing
)

// Kinds of tunnel.
const (
	IPIP = "ipip"
	GUE  = "gue"
	GRE  = "gre"
)

// Checksums of a tunnel's outer header (GUE and GRE).
const (
	NoChecksum     = "none"
	Checksum       = "full"
	RemoteChecksum = "remote" // remote checksum offload, GUE only
)

// TunnelConfig says how packets are encapsulated.
type TunnelConfig struct {
	// Type is IPIP, GUE or GRE.
	Type string `json:"type"`
	// Port is the UDP port of GUE, in host order; 0 with the other types.
	Port uint16 `json:"port,omitempty"`
	// Checksum is NoChecksum, Checksum or RemoteChecksum; absent is NoChecksum.
	Checksum string `json:"checksum,omitempty"`
}

// ServerConfig is what can be set of a real server. An edit replaces all of it.
type ServerConfig struct {
	// Method is Masq, Local, Tunnel or Route.
	Method string `json:"method"`
	// Weight is from 0 (quiesced: keeps its connections, takes no new ones) to 2147483647.
	Weight int `json:"weight"`
	// Upper is the number of connections from which on the server takes no new ones; 0 is no limit.
	Upper uint32 `json:"upper,omitempty"`
	// Lower is the number of connections below which an overloaded server takes new ones again; 0 is three quarters of
	// Upper. It must not be above Upper.
	Lower uint32 `json:"lower,omitempty"`
	// Tunnel is present with the method Tunnel only; absent there means IPIP.
	Tunnel *TunnelConfig `json:"tunnel,omitempty"`
}

// Stats counts what happened since the start or the last zeroing. Bytes are those of the IP packets.
type Stats struct {
	// Conns counts connections; InPackets and InBytes what clients sent, OutPackets and OutBytes what servers answered
	// through the director.
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"inPackets"`
	OutPackets uint64 `json:"outPackets"`
	InBytes    uint64 `json:"inBytes"`
	OutBytes   uint64 `json:"outBytes"`
}

// Rates are per second, smoothed as the kernel's estimator does over about eight seconds.
type Rates struct {
	// Conns counts new connections; InPackets and InBytes what clients send, OutPackets and OutBytes what servers answer
	// through the director.
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"inPackets"`
	OutPackets uint64 `json:"outPackets"`
	InBytes    uint64 `json:"inBytes"`
	OutBytes   uint64 `json:"outBytes"`
}

// Server is a real server as it stands.
type Server struct {
	ServerKey
	// Label is its name, if it has one.
	Label string `json:"label,omitempty"`
	// Config is what was set.
	Config ServerConfig `json:"config"`
	// EffectiveWeight is the weight in force where health makes it another than the one that was set. Removed says that health
	// has taken the server out of its service.
	EffectiveWeight *int `json:"effectiveWeight,omitempty"`
	Removed         bool `json:"removed,omitempty"`
	// Checks are the server's own, beside those of its service.
	Checks []CheckSpec `json:"checks,omitempty"`
	// Active and Inactive count the connections as IPVS does.
	Active   uint64 `json:"active"`
	Inactive uint64 `json:"inactive"`
	// Persistent counts the persistence templates that point to the server.
	Persistent uint64 `json:"persistent"`
	// Stats and Rates are what was counted.
	Stats Stats `json:"stats"`
	Rates Rates `json:"rates"`
}

// Weight is the weight in force.
func (s *Server) Weight() int {
	switch {
	case s.Removed:
		return 0
	case s.EffectiveWeight != nil:
		return *s.EffectiveWeight
	}
	return s.Config.Weight
}

// Service is a virtual service as it stands, with its servers in the kernel's order: the latest added first. Those that health
// has removed come last.
type Service struct {
	ServiceKey
	// Label is its name, if it has one.
	Label string `json:"label,omitempty"`
	// Config is what was set.
	Config ServiceConfig `json:"config"`
	// Checks are those of all its servers, Policy what follows from their health, absent where it wasn't set.
	Checks []CheckSpec `json:"checks,omitempty"`
	Policy PolicySpec  `json:"policy,omitempty"`
	// Quorum says whether the service as a whole is up; absent without a policy.
	Quorum *QuorumState `json:"quorum,omitempty"`
	// Stats and Rates are what was counted, Servers the real servers.
	Stats   Stats    `json:"stats"`
	Rates   Rates    `json:"rates"`
	Servers []Server `json:"servers"`
}

// ServicesReply answers GET /v1/services. Services is in the kernel's order, not sorted; it is never null.
type ServicesReply struct {
	Services []Service `json:"services"`
}
