package api

import (
	"net/netip"
	"time"
)

// Connection is one line of GET /v1/connections.
type Connection struct {
	// Protocol is TCP, UDP, SCTP, or IP for the persistence template of a firewall mark.
	Protocol string `json:"protocol"`
	// Client, Virtual and Server are address and port, "192.0.2.1:1024" or "[2001:db8::1]:1024". A template has the
	// masked client address with port 0; a firewall mark's has the mark as its virtual address, 0.0.0.7:0.
	Client  netip.AddrPort `json:"client"`
	Virtual netip.AddrPort `json:"virtual"`
	Server  netip.AddrPort `json:"server"`
	// State is the name /proc/net/ip_vs_conn prints: ESTABLISHED, SYN_RECV, FIN_WAIT, UDP, NONE, ...
	State string `json:"state"`
	// ExpiresSeconds is how long the entry lives on without another packet, in whole seconds, rounded down.
	ExpiresSeconds uint32 `json:"expiresSeconds"`
	// Template is set for a persistence template.
	Template bool `json:"template,omitempty"`
	// PersistenceEngine and PersistenceData, its data, belong to a template made by one: "sip" and a Call-ID.
	PersistenceEngine string `json:"persistenceEngine,omitempty"`
	PersistenceData   string `json:"persistenceData,omitempty"`
}

// ConnectionFilter narrows GET /v1/connections. The zero value takes all.
type ConnectionFilter struct {
	// Service, where not nil, takes the connections and templates of that service alone.
	Service *ServiceKey
}

// Version answers GET /v1/version.
type Version struct {
	// UVS is the version of uvsd: "0.1.0", with what the build knows of its revision.
	UVS string `json:"uvs"`
	// IPVS is the version of IPVS whose behaviour it shows, as ipvsadm -L prints it: "1.2.1".
	IPVS string `json:"ipvs"`
	// ConnTableSize is the number of hash buckets of the connection table, printed by ipvsadm -L as size.
	ConnTableSize int `json:"connTableSize"`
}

// Interface is a network interface the director takes its packets from.
type Interface struct {
	// Name is the host's name of it.
	Name string `json:"name"`
	// MAC is the address that uvs answers ARP with and puts into the frames it sends, "02:00:00:00:00:01".
	MAC string `json:"mac"`
	// Mode is "virtual" where that address is uvs's own, "interface" where it is the interface's.
	Mode string `json:"mode"`
	// Link is how frames come and go: "ring", "simple" or "memory".
	Link string `json:"link"`
	// MTU is the longest IP packet in bytes, Up whether the interface is.
	MTU int  `json:"mtu"`
	Up  bool `json:"up"`
	// Offloads tells whether frames carry a virtio-net header, so that super-frames pass whole.
	Offloads bool `json:"offloads"`
	// Addresses are those uvs owns on the interface: VIPs, gateway addresses, probe addresses.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Worker is one thread of the packet path.
type Worker struct {
	// ID counts from 0.
	ID int `json:"id"`
	// CPU is the one the worker is pinned to, -1 for none.
	CPU int `json:"cpu"`
	// Packets are those that the worker received.
	Packets Packets `json:"packets"`
}

// Packets counts frames by what became of them: each received frame is in exactly one of the verdicts, so that Received
// is the sum of the others.
type Packets struct {
	Received  uint64 `json:"received"`
	Forwarded uint64 `json:"forwarded"` // to real servers, and back to clients
	Answered  uint64 `json:"answered"`  // ARP, echo, ICMP errors of our own
	Passed    uint64 `json:"passed"`    // not ours: the host's
	Dropped   uint64 `json:"dropped"`   // for a reason in Drops
	Held      uint64 `json:"held"`      // waiting now, for a next hop or a fragment
}

// Drop counts the frames dropped for one reason.
type Drop struct {
	// Reason is a stable name in words and hyphens: "truncated", "no-route". Count is the number of frames.
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Warning is a finding of the host check.
type Warning struct {
	// Text says in one sentence what is wrong with the host.
	Text string `json:"text"`
	// Remedy is the command or setting that mends it.
	Remedy string `json:"remedy,omitempty"`
}

// Status answers GET /v1/status.
type Status struct {
	// Version is that of uvsd, PID its process.
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Started is when this process came up.
	Started time.Time `json:"started"`
	// Revision counts the changes since then.
	Revision uint64 `json:"revision"`
	// Interfaces are those it is attached to, Workers its receiving threads.
	Interfaces []Interface `json:"interfaces"`
	Workers    []Worker    `json:"workers"`
	// Packets sums the workers'.
	Packets Packets `json:"packets"`
	// Drops has the reasons that occurred, the most frequent first.
	Drops []Drop `json:"drops"`
	// Services and Servers count what is configured, Connections and Templates what is in the tables.
	Services    int    `json:"services"`
	Servers     int    `json:"servers"`
	Connections uint64 `json:"connections"`
	Templates   uint64 `json:"templates"`
	// Warnings are the findings of the host check.
	Warnings []Warning `json:"warnings"`
}
