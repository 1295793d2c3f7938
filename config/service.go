package config

import (
	"encoding/json"
	"net/netip"

	"uvs/control/api"
	"uvs/health"
)

// Service is a virtual service; or many alike: one for each of its protocols, addresses and ports.
type Service struct {
	Comment string `yaml:"-"`
	// A label, shown wherever the service is.
	Name string `yaml:"name" kind:"label" example:"web"`
	// The virtual addresses: an address, a range (192.0.2.100-192.0.2.110), a host name, or a list of such. Neither the host nor
	// anybody else on the segment has them.
	Address []string `yaml:"address" form:"one" kind:"hosts" example:"192.0.2.100"`
	// The ports: 80, 8000-8010, or a list of such. 0 is all ports, for persistent services.
	Port Ports `yaml:"port" example:"80"`
	// Its protocols.
	Protocol []string `yaml:"protocol" form:"one" enum:"tcp,udp,sctp" default:"tcp"`
	// Instead of address, port and protocol: the firewall mark of the packets, which rules in marks give.
	FWMark uint32 `yaml:"fwmark" min:"1" max:"4294967295" example:"7"`
	// The address family of a firewall mark's service.
	Family string `yaml:"family" enum:"ipv4,ipv6" default:"ipv4"`

	// How a server is chosen for a new connection; none forwards nothing.
	Scheduler string `yaml:"scheduler" kind:"scheduler" default:"wlc"`
	// The scheduler's flags: sh-fallback, sh-port, mh-fallback, mh-port, or flag-1 to flag-3 for any.
	SchedulerFlags []string `yaml:"flags" form:"one" kind:"flag"`
	// How long a client stays with its server: a time, or with more settings.
	Persistence *Persistence `yaml:"persistence"`
	// Whether every packet is scheduled by itself, for UDP and firewall marks.
	OnePacket bool `yaml:"ops" default:"false"`

	// How packets are forwarded to servers that say nothing themselves: dr (direct routing), tun (tunnelling) or nat.
	Method string `yaml:"method" enum:"dr,tun,nat" default:"dr"`
	// The tunnel, with method tun, to servers that say nothing themselves.
	Tunnel *Tunnel `yaml:"tunnel"`
	// The real servers. They count as added from top to bottom, as by ipvsadm -a.
	Servers []Server `yaml:"servers"`
	// The names of groups whose servers it has as well, behind its own.
	ServerGroups []string `yaml:"groups" form:"one" kind:"group"`
	// Health checks of its servers: a template's or a kind's name, a check, or a list of such. All must succeed.
	Checks []Check `yaml:"checks" form:"one"`
	// What follows from the servers' health: a policy's name, or settings.
	Health *Health `yaml:"health"`
}

// Persistence keeps a client with one server.
type Persistence struct {
	// How long, from the client's last connection.
	Timeout Duration `yaml:"timeout" min:"1s" max:"31d" required:"true" example:"5m"`
	// Clients of one network count as one: a netmask for IPv4, a prefix length for IPv6. Absent is the whole address.
	Netmask api.Netmask `yaml:"netmask" example:"255.255.255.0"`
	// What tells clients apart beside their address: sip, for SIP's Call-ID.
	Engine string `yaml:"engine" enum:"sip"`
}

func (*Persistence) shorthand() string { return "timeout" }

// Tunnel is how packets are encapsulated.
type Tunnel struct {
	// The encapsulation.
	Type string `yaml:"type" enum:"ipip,gue,gre" default:"ipip"`
	// The UDP port of GUE.
	Port int `yaml:"port" min:"1" max:"65535" example:"6080"`
	// The outer header's checksum, with GUE and GRE; remote is GUE's remote checksum offload.
	Checksum string `yaml:"checksum" enum:"none,full,remote" default:"none"`
}

func (*Tunnel) shorthand() string { return "type" }

// ServerGroup is a list of real servers with a name.
type ServerGroup struct {
	Comment string `yaml:"-"`
	// The name that services have in groups.
	Name string `yaml:"name" kind:"label" required:"true" example:"farm"`
	// The real servers.
	Servers []Server `yaml:"servers"`
}

// Server is a real server; an address alone, or with a port (10.0.0.11:8080), is enough.
type Server struct {
	Comment string `yaml:"-"`
	// A label, shown wherever the server is.
	Name string `yaml:"name" kind:"label" example:"web1"`
	// Its address, a range (10.0.0.11-10.0.0.20) of servers alike, or a host name.
	Address string `yaml:"address" kind:"host" required:"true" example:"192.0.2.11"`
	// Its port, with NAT; absent is the service's.
	Port int `yaml:"port" min:"0" max:"65535" example:"8080"`
	// Its share of the connections; 0 keeps those it has and takes no new ones.
	Weight *int `yaml:"weight" min:"0" max:"2147483647" default:"1"`
	// How packets are forwarded to it; absent is the service's.
	Method string `yaml:"method" enum:"dr,tun,nat"`
	// The tunnel, with method tun; absent is the service's.
	Tunnel *Tunnel `yaml:"tunnel"`
	// The number of connections from which on it takes no new ones; 0 is no limit.
	UpperThreshold uint32 `yaml:"upper" min:"0" max:"4294967295" default:"0"`
	// The number of connections below which it takes new ones again; 0 is three quarters of upper.
	LowerThreshold uint32 `yaml:"lower" min:"0" max:"4294967295" default:"0"`
	// Health checks of its own, beside the service's.
	Checks []Check `yaml:"checks" form:"one"`
}

func (*Server) shorthand() string { return "address" }

// Health is what follows from the health of a service's servers: a policy with a name, or a service's own settings.
type Health struct {
	Comment string `yaml:"-"`
	// The policy's name.
	Name string `yaml:"name" kind:"label" example:"careful"`
	// A policy, whose values hold where this one gives none of its own.
	Use string `yaml:"use"`
	health.Policy

	given  map[string]json.RawMessage // what a file has, the template's included
	policy *health.Policy             // once it was found to be sound
}

func (*Health) shorthand() string { return "use" }

// Ports are ports and ranges of ports.
type Ports []Port

// Port is a port, or the ports from First to Last. 0 to 0 is the service of all ports.
type Port struct{ First, Last uint16 }

// AddressRange is the addresses from First to Last, of one family.
type AddressRange struct{ First, Last netip.Addr }
