package config

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/health"
	"uvs/sched"
	"uvs/service"
)

// State is what a file asks of a director, in the API's terms: every virtual service by itself.
type State struct {
	// Services are in the file's order. Each is unlike the others.
	Services []*ServiceState
	// Marks are the mark rules in their order.
	Marks []api.MarkRule
	// Settings are all settings, each with its value; Timeouts and Daemons likewise have their defaults filled in where the file
	// says nothing.
	Settings []api.Setting
	Timeouts api.Timeouts
	Daemons  []api.Daemon
}

// ServiceState is a virtual service.
type ServiceState struct {
	Key    api.ServiceKey
	Label  string
	Config api.ServiceConfig
	// Servers are in the order in which they are added.
	Servers []ServerState
	// Checks are those of servers that have none of their own, Health is the policy; nil without one.
	Checks []*health.Spec
	Health *health.Policy

	at *yaml.Node
}

// ServerState is a real server of a virtual service.
type ServerState struct {
	Key    api.ServerKey
	Label  string
	Config api.ServerConfig
	// Checks are the server's own; nil: those of the service.
	Checks []*health.Spec
}

// Bounds of what a file may ask for.
const (
	maxServices = 1 << 17
	maxServers  = 1 << 20
)

// lookup returns the addresses of a host name. The error says why there are none.
type hostLookup func(name string) ([]netip.Addr, error)

// expander makes a State of a Config.
type expander struct {
	*decoder
	c      *Config
	lookup hostLookup // nil: host names are passed over
	state  State
	known  map[api.ServiceKey]*yaml.Node
	total  int // servers
	full   bool
}

// expand makes the state that c asks for. Errors are noted.
func (d *decoder) expand(c *Config, lookup hostLookup) *State {
	e := &expander{decoder: d, c: c, lookup: lookup, known: map[api.ServiceKey]*yaml.Node{}}
	for i := range c.Services {
		e.service(&c.Services[i])
	}
	for i := range c.Marks {
		if r, err := c.Marks[i].rule(); err == nil {
			e.state.Marks = append(e.state.Marks, r)
		}
	}
	settings := service.DefaultSettings()
	for name, value := range c.Settings {
		if s, err := findSetting(name); err == nil {
			_ = s.Set(&settings, value) // the file was refused if it can't
		}
	}
	for _, s := range sysctl.All() {
		e.state.Settings = append(e.state.Settings, api.Setting{Name: s.Name, Value: s.Describe(&settings).Value})
	}
	e.state.Timeouts = c.Timeouts.api()
	for i := range c.SyncDaemons {
		x := &c.SyncDaemons[i]
		e.state.Daemons = append(e.state.Daemons, api.Daemon{
			Role: x.Role, Interface: x.Interface, SyncID: uint8(x.SyncID), MaxLen: uint16(x.MaxLen),
			Group: x.Group, Port: uint16(x.Port), TTL: uint8(x.TTL),
		})
	}
	return &e.state
}

// Timeouts that a director has at its start, in seconds.
const (
	defaultTCP    = 900
	defaultTCPFin = 120
	defaultUDP    = 300
)

func (t *Timeouts) api() api.Timeouts {
	seconds := func(d Duration, initial uint32) uint32 {
		return cmp.Or(uint32(time.Duration(d)/time.Second), initial)
	}
	return api.Timeouts{TCP: seconds(t.TCP, defaultTCP), TCPFin: seconds(t.TCPFin, defaultTCPFin), UDP: seconds(t.UDP, defaultUDP)}
}

// service adds the virtual services that an entry stands for.
func (e *expander) service(s *Service) {
	if s.FWMark != 0 {
		e.add(s, api.ServiceKey{FWMark: s.FWMark, Family: cmp.Or(s.Family, api.IPv4)}, e.at(s))
		return
	}
	for i := range s.Address {
		at := e.at(&s.Address[i])
		for _, a := range e.addresses(at, s.Address[i]) {
			for _, protocol := range slices.Compact(slices.Sorted(slices.Values(protocolsOf(s)))) {
				for _, p := range s.Port {
					for port := int(p.First); port <= int(p.Last); port++ {
						e.add(s, api.ServiceKey{Protocol: protocol, Address: a, Port: uint16(port)}, at)
					}
				}
			}
		}
	}
}

// addresses are those of an address, a range, or a host name.
func (e *expander) addresses(at *yaml.Node, text string) []netip.Addr {
	r, isAddress, err := ParseAddresses(text)
	switch {
	case err != nil || text == "":
		return nil
	case isAddress:
		return r.All()
	case e.lookup == nil || checkHostName(text) != nil:
		return nil
	}
	list, err := e.lookup(text)
	if err != nil {
		e.fail(at, "host name %s: %v", text, err)
	}
	return list
}

func (e *expander) add(s *Service, key api.ServiceKey, at *yaml.Node) {
	if had := e.known[key]; had != nil {
		e.fail(at, "the service %v is there already, in line %d", key, had.Line)
		return
	}
	if e.full {
		return
	}
	if len(e.known) == maxServices {
		e.full = true
		e.fail(at, "the file asks for more than %d services", maxServices)
		return
	}
	e.known[key] = at
	out := &ServiceState{Key: key, Label: s.Name, Config: s.config(), Checks: specs(s.Checks), at: at}
	if s.Health != nil {
		out.Health = s.Health.policy
	}
	seen := map[api.ServerKey]*yaml.Node{}
	e.servers(s, out, s.Servers, seen)
	for i, name := range s.ServerGroups {
		if slices.Contains(s.ServerGroups[:i], name) {
			continue
		}
		for i := range e.c.ServerGroups {
			if g := &e.c.ServerGroups[i]; g.Name == name {
				e.servers(s, out, g.Servers, seen)
				break
			}
		}
	}
	e.state.Services = append(e.state.Services, out)
}

// config is what ipvsadm -A would set.
func (s *Service) config() api.ServiceConfig {
	out := api.ServiceConfig{Scheduler: cmp.Or(s.Scheduler, sched.Default), OnePacket: s.OnePacket}
	if flags, err := sched.ParseFlags(out.Scheduler, s.SchedulerFlags); err == nil {
		out.SchedFlags = sched.FlagNames(out.Scheduler, flags)
	}
	if p := s.Persistence; p != nil {
		out.PersistenceSeconds = uint32(min(time.Duration(p.Timeout)/time.Second, math.MaxUint32))
		out.Netmask, out.PersistenceEngine = p.Netmask, p.Engine
	}
	return out
}

// specs are prepared checks; nil if there are none.
func specs(list []Check) (out []*health.Spec) {
	for i := range list {
		if list[i].spec != nil {
			out = append(out, list[i].spec)
		}
	}
	return out
}

// methods are the API's names of forwarding methods.
var methods = map[string]string{"dr": api.Route, "tun": api.Tunnel, "nat": api.Masq}

// servers adds real servers to a service.
func (e *expander) servers(s *Service, out *ServiceState, list []Server, seen map[api.ServerKey]*yaml.Node) {
	for i := range list {
		x := &list[i]
		at := e.pos[&x.Address]
		if at == nil {
			at = e.at(x)
		}
		method := cmp.Or(x.Method, s.Method, "dr")
		if methods[method] == "" {
			continue
		}
		config := x.config(s, method)
		for _, a := range e.hosts(at, x, out.Key, method) {
			key := api.ServerKey{Address: a, Port: out.Key.Port}
			switch {
			case x.Port == 0:
			case method != "nat" && out.Key.FWMark == 0 && x.Port != int(out.Key.Port):
				e.fail(e.at(&x.Port), "server %v: %s cannot translate port %d of %v to %d; leave the server's port out, or use method: nat", a, method, out.Key.Port, out.Key, x.Port)
				continue
			default:
				key.Port = uint16(x.Port)
			}
			if had := seen[key]; had != nil {
				e.fail(at, "the server %v is there already, in line %d", key, had.Line)
				continue
			}
			seen[key] = at
			if e.total++; e.total > maxServers {
				if e.total == maxServers+1 {
					e.fail(at, "the file asks for more than %d servers", maxServers)
				}
				return
			}
			out.Servers = append(out.Servers, ServerState{Key: key, Label: x.Name, Config: config, Checks: specs(x.Checks)})
		}
	}
}

// hosts are the addresses of a server that a service can have.
func (e *expander) hosts(at *yaml.Node, x *Server, k api.ServiceKey, method string) []netip.Addr {
	list := e.addresses(at, x.Address)
	fits := func(a netip.Addr) bool { return a.Is6() == k.Is6() }
	if method == "tun" || !slices.ContainsFunc(list, func(a netip.Addr) bool { return !fits(a) }) {
		if slices.ContainsFunc(list, fits) && checkHostName(x.Address) == nil {
			list = slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return !fits(a) })
		}
		return list
	}
	if checkHostName(x.Address) == nil && slices.ContainsFunc(list, fits) {
		return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return !fits(a) })
	}
	e.fail(at, "server %s is of another address family than %v; only method: tun leads there", x.Address, k)
	return nil
}

// config is what ipvsadm -a would set.
func (x *Server) config(s *Service, method string) api.ServerConfig {
	out := api.ServerConfig{Method: methods[method], Weight: 1, Upper: x.UpperThreshold, Lower: x.LowerThreshold}
	if x.Weight != nil {
		out.Weight = *x.Weight
	}
	if method != "tun" {
		return out
	}
	t := x.Tunnel
	if t == nil {
		t = s.Tunnel
	}
	if t == nil {
		t = &Tunnel{}
	}
	out.Tunnel = &api.TunnelConfig{Type: cmp.Or(t.Type, api.IPIP), Port: uint16(t.Port), Checksum: cmp.Or(t.Checksum, api.NoChecksum)}
	return out
}

// hasHostNames says that a service or server is named.
func (d *decoder) hasHostNames(c *Config) bool {
	named := func(s string) bool {
		_, isAddress, _ := ParseAddresses(s)
		return s != "" && !isAddress
	}
	servers := func(list []Server) bool {
		return slices.ContainsFunc(list, func(s Server) bool { return named(s.Address) })
	}
	return slices.ContainsFunc(c.Services, func(s Service) bool { return slices.ContainsFunc(s.Address, named) || servers(s.Servers) }) ||
		slices.ContainsFunc(c.ServerGroups, func(g ServerGroup) bool { return servers(g.Servers) })
}
