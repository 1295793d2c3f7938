// Package config is uvs.yaml: the whole director in one file.
//
// The types of this package are the file: a field's yaml tag is its key, one lower-case word, its comment is the key's
// documentation, and its other tags say what a value may be. Checks and health policies are package health's own structs.
//
// Tags of a field: yaml gives the name; default the value that an absent key stands for; enum the words it may be, separated
// by commas; min and max the bounds of a number or, with a unit, of a time; example the value in the reference example;
// form:"one" lets a list of one be written without brackets.
package config

//go:generate go run uvs/internal/confdoc

import (
	"encoding/json"

	"uvs/control/api"
	"uvs/health"
)

// Config is a whole uvs.yaml. Durations are written as 500ms, 30s, 5m, 1h30m or 2d.
type Config struct {
	// Written at the top of the file by Marshal; not a key.
	Comment string `yaml:"-"`

	// The Ethernet interfaces that uvsd attaches to: a name alone, or with its settings. Changed by a restart, not by a reload.
	Interfaces []Interface `yaml:"interfaces"`
	// Free addresses of the segments, owned by uvsd, from which it probes real servers through the virtual address (checks,
	// uvsadm doctor): for each segment and family one. Changed by a restart.
	ProbeAddresses []string `yaml:"probes" form:"one" kind:"address" example:"192.0.2.50"`
	// What real servers send through a gateway address on their own behalf. Changed by a restart.
	InnerTraffic InnerTraffic `yaml:"inner"`
	// How frames are received and sent. Changed by a restart.
	PacketPath PacketPath `yaml:"packets"`

	// The virtual services.
	Services []Service `yaml:"services"`
	// Lists of real servers with a name, for services that share them.
	ServerGroups []ServerGroup `yaml:"groups"`
	// Templates of health checks, which services and servers use by name.
	Checks []Check `yaml:"checks"`
	// Templates of health policies, which services use by name.
	HealthPolicies []Health `yaml:"policies"`
	// Rules that give packets from clients a firewall mark; the first that a packet meets decides.
	Marks []MarkRule `yaml:"marks"`

	// Settings by the names of the kernel's sysctls, net.ipv4.vs. left out: conn_reuse_mode, expire_nodest_conn and so on, and
	// uvs's own, such as uvs.keep_template_timeout. What is absent has its default. docs/settings.md has them all.
	Settings map[string]string `yaml:"settings" kind:"setting" example:"expire_nodest_conn: 1"`
	// How long idle connections are kept, as ipvsadm --set has it.
	Timeouts Timeouts `yaml:"timeouts"`
	// Bounds of what uvsd holds.
	Limits Limits `yaml:"limits"`
	// Connection synchronisation daemons, as ipvsadm --start-daemon has them.
	SyncDaemons []SyncDaemon `yaml:"sync"`
	// What uvsd logs.
	Log Log `yaml:"log"`

	// What becomes of changes made at run time, by uvsadm or the API. volatile: a reload leaves alone what it didn't make, a
	// restart forgets it. persistent: they are kept in the state directory too, and outlive a restart. file: the file is the
	// whole truth, and a reload takes away what isn't in it.
	State string `yaml:"state" enum:"volatile,persistent,file" default:"volatile"`
	// Whether uvsd looks at this file and reloads by itself when it changed.
	Watch bool `yaml:"watch" default:"false"`
	// How often host names of services and servers are resolved again. They are resolved once, when the file is loaded, if this
	// is absent. A server whose address changed is replaced: connections to the old address go on.
	Resolve Duration `yaml:"resolve" min:"1s" max:"31d" example:"5m"`
}

// Interface is an Ethernet interface that uvsd attaches to.
type Interface struct {
	Comment string `yaml:"-"`
	// The interface's name.
	Name string `yaml:"name" required:"true" example:"eth0"`
	// Whose MAC address the virtual addresses have: uvsd's own (virtual), the interface's, or whichever works there (auto).
	MAC string `yaml:"mac" enum:"auto,virtual,interface" default:"auto"`
	// Addresses with prefix length that uvsd owns as the gateway of NAT's real servers there, of either family.
	Gateways []string `yaml:"gateways" form:"one" kind:"gateway" example:"10.0.0.1/24"`
}

func (*Interface) shorthand() string { return "name" }

// InnerTraffic is what becomes of what real servers send through a gateway address that belongs to no virtual service.
type InnerTraffic struct {
	// drop counts and drops it, forward routes it unchanged, masquerade sends TCP and UDP under another address.
	Policy string `yaml:"policy" enum:"drop,forward,masquerade" default:"drop"`
	// Source addresses of masqueraded traffic, owned by uvsd: at most one of each family. Absent: the lowest virtual address.
	Addresses []string `yaml:"addresses" form:"one" kind:"address" example:"192.0.2.51"`
}

func (*InnerTraffic) shorthand() string { return "policy" }

// PacketPath is how frames are received and sent.
type PacketPath struct {
	// How frames come and go: by a memory-mapped ring, by plain system calls, or whichever works (auto).
	Link string `yaml:"link" enum:"auto,ring,simple" default:"auto"`
	// Receiving threads, which share each interface's frames by flow.
	Workers int `yaml:"workers" min:"1" max:"256" default:"1"`
	// Whether worker N is bound to CPU N.
	Pin bool `yaml:"pin" default:"false"`
	// Whether workers look for frames without sleeping; each then uses a whole CPU.
	BusyPoll bool `yaml:"busypoll" default:"false"`
	// Time between announcements of each address, by gratuitous ARP or neighbour advertisement; 0s for none but the first.
	AnnounceInterval *Duration `yaml:"announce" min:"0s" max:"1d" default:"30s"`
}

// Timeouts are how long idle connections are kept, in whole seconds.
type Timeouts struct {
	// An established TCP connection.
	TCP Duration `yaml:"tcp" min:"1s" max:"31d" default:"15m"`
	// A TCP connection after a FIN.
	TCPFin Duration `yaml:"tcpfin" min:"1s" max:"31d" default:"2m"`
	// A UDP flow.
	UDP Duration `yaml:"udp" min:"1s" max:"31d" default:"5m"`
}

// Limits are bounds of what uvsd holds.
type Limits struct {
	// Most connections held at once; 0 for what half of the machine's memory holds. Changed by a restart.
	Connections int `yaml:"connections" min:"0" max:"2000000000" default:"0"`
}

// Log is what uvsd logs.
type Log struct {
	// The least important that is logged.
	Level string `yaml:"level" enum:"debug,info,warn,error" default:"info"`
}

// SyncDaemon is a connection synchronisation daemon, as ipvsadm --start-daemon has it. This version keeps and lists it, but
// synchronises no connections.
type SyncDaemon struct {
	Comment string `yaml:"-"`
	// A master sends its connections, a backup listens. Each can be there once.
	Role string `yaml:"role" enum:"master,backup" required:"true" example:"master"`
	// The interface of the multicast.
	Interface string `yaml:"interface" required:"true" example:"eth0"`
	// Identifies the pair; a backup with 0 takes every master's messages.
	SyncID int `yaml:"syncid" min:"0" max:"255" default:"0"`
	// The longest message in bytes, without IP and UDP headers; 0 is what fits the interface's MTU.
	MaxLen int `yaml:"maxlen" min:"0" max:"65507" default:"0"`
	// The multicast address.
	Group string `yaml:"group" kind:"multicast" default:"224.0.0.81"`
	// The UDP port.
	Port int `yaml:"port" min:"1" max:"65535" default:"8848"`
	// The time to live of messages.
	TTL int `yaml:"ttl" min:"1" max:"255" default:"1"`
}

// MarkRule gives a firewall mark to packets from clients that meet all its conditions; what is absent takes every packet.
type MarkRule struct {
	Comment string `yaml:"-"`
	// The mark.
	Mark uint32 `yaml:"mark" min:"1" max:"4294967295" required:"true" example:"7"`
	// The interface that the packet came in by.
	Interface string `yaml:"interface" example:"eth0"`
	// A network, or an address, of its source.
	Source string `yaml:"src" kind:"network" example:"198.51.100.0/24"`
	// A network, or an address, of its destination.
	Destination string `yaml:"dst" kind:"network" example:"192.0.2.100"`
	// Its protocol.
	Protocol string `yaml:"protocol" enum:"tcp,udp,sctp"`
	// Its source port, or a range.
	SourcePorts api.PortRange `yaml:"sport" example:"1024-65535"`
	// Its destination port, or a range. Without a protocol ports are those of TCP, UDP and SCTP.
	DestinationPorts api.PortRange `yaml:"dport" example:"80-443"`
}

// Check is a health check: a template, or one of a service or a real server. The options of its kind stand beside these keys.
type Check struct {
	Comment string `yaml:"-"`
	// The template's name, by which others use it.
	Name string `yaml:"template" kind:"label" example:"web"`
	// A template, whose values hold where this check gives none of its own.
	Use string `yaml:"use"`
	CheckSettings
	// The options of the kind, with their own keys beside the ones above.
	Options health.Prober `yaml:",inline"`

	given map[string]json.RawMessage // what a file has, the template's included
	spec  *health.Spec               // once it was found to be sound
}

// CheckSettings are what every kind of check has.
type CheckSettings = health.Settings

func (*Check) shorthand() string { return "use" }

// Duration is a time, written as 500ms, 30s, 5m, 1h30m or 2d.
type Duration = health.Duration
