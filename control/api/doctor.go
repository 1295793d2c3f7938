package api

import "net/netip"

// Diagnosis answers POST /v1/doctor: the mistakes that the director found in the network around it, by asking it.
type Diagnosis struct {
	// Findings are the mistakes, those of one kind together.
	Findings []Finding `json:"findings"`
	// Unchecked says in sentences what could not be asked, and why.
	Unchecked []string `json:"unchecked"`
	// Addresses, Servers and Probes count what was asked for: addresses by ARP and neighbour discovery, each on its segment;
	// real servers of services; packets to them, repetitions not counted.
	Addresses int `json:"addresses"`
	Servers   int `json:"servers"`
	Probes    int `json:"probes"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"milliseconds"`
}

// Finding is a mistake.
type Finding struct {
	// Kind is what sort of mistake it is, a stable name; see the constants.
	Kind string `json:"kind"`
	// Service and Server are the virtual service and the real server that it concerns, if it is about one.
	Service *ServiceKey `json:"service,omitempty"`
	Server  *ServerKey  `json:"server,omitempty"`
	// Host is the address of the station at fault, MAC its MAC address, Interface the director's interface towards it, so
	// far as they are known.
	Host      *netip.Addr `json:"host,omitempty"`
	MAC       string      `json:"mac,omitempty"`
	Interface string      `json:"interface,omitempty"`
	// What says in a sentence what is wrong, Seen how that was found out.
	What string `json:"what"`
	Seen string `json:"seen"`
	// Remedies are what mends it.
	Remedies []Remedy `json:"remedies"`
}

// Remedy is what mends a mistake.
type Remedy struct {
	// On is where: "real server", "director", "station", "path".
	On string `json:"on"`
	// System is the operating system that it is for: "Linux", "FreeBSD", "Windows"; absent: it doesn't depend on it.
	System string `json:"system,omitempty"`
	// Do are commands, or a sentence where there is no command.
	Do []string `json:"do"`
}

// The kinds of findings.
const (
	FindingARP            = "arp"             // a station answers for an address of the director's
	FindingSecondDirector = "second-director" // another director has an address of the director's
	FindingNoVIP          = "no-vip"          // a DR or TUN server doesn't have the VIP
	FindingNoTunnel       = "no-tunnel"       // a TUN server doesn't know the encapsulation
	FindingNotListening   = "not-listening"   // a real server refuses the service's port
	FindingSilent         = "silent"          // a real server is there and doesn't answer on the service's port
	FindingUnreachable    = "unreachable"     // there is no way to a real server
	FindingNATBypass      = "nat-bypass"      // a NAT server's answers don't come back through the director
	FindingTunnelMTU      = "tunnel-mtu"      // the path to a TUN server carries less than the director's interface
	FindingHost           = "host"            // the director's own host interferes
	FindingOffload        = "offload"         // super-frames or unfinished checksums that cannot be carried
	FindingDrops          = "drops"           // rings or queues overflowed
)
