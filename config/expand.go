package config

import (
	"cmp"
	"encoding/json"
	"math"
	"net/netip"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
	"uvs/sched"
	"uvs/service"
)

// Bounds of what a file may ask for.
const (
	maxServices = 1 << 17
	maxServers  = 1 << 20
)

// expander makes a State of a Config.
type expander struct {
	*decoder
	c      *Config
	lookup Lookup // nil: host names are passed over
	state  State
	known  map[api.ServiceKey]*yaml.Node
	total  int // servers
	full   bool
}

// expand makes the state that c asks for. Errors are noted.
func (d *decoder) expand(c *Config, lookup Lookup) *State {
	e := &expander{decoder: d, c: c, lookup: lookup, known: map[api.ServiceKey]*yaml.Node{}}
	for i := range c.Services {
		e.service(&c.Services[i])
	}
	for i := range c.Marks {
		if r, err := c.Marks[i].rule(); err == nil {
			e.state.Marks = append(e.state.Marks, r)
		}
	}
	for name, value := range c.Settings {
		if s, err := findSetting(name); err == nil {
			settings := service.DefaultSettings()
			if s.Set(&settings, value) == nil {
				if e.state.Settings == nil {
					e.state.Settings = map[string]string{}
				}
				e.state.Settings[s.Name] = s.Describe(&settings).Value // in its plain form
			}
		}
	}
	seconds := func(d Duration) uint32 { return uint32(time.Duration(d) / time.Second) }
	e.state.Timeouts = api.Timeouts{TCP: seconds(c.Timeouts.TCP), TCPFin: seconds(c.Timeouts.TCPFin), UDP: seconds(c.Timeouts.UDP)}
	for i := range c.SyncDaemons {
		x := &c.SyncDaemons[i]
		e.state.Daemons = append(e.state.Daemons, api.Daemon{
			Role: x.Role, Interface: x.Interface, SyncID: uint8(x.SyncID), MaxLen: uint16(x.MaxLen),
			Group: x.Group, Port: uint16(x.Port), TTL: uint8(x.TTL),
		})
	}
	return &e.state
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
	out := &ServiceState{Key: key, Label: s.Name, Config: s.config(), Checks: specs(s.Checks)}
	if s.Health != nil && s.Health.policy != nil {
		out.Policy = object[api.PolicySpec](s.Health.policy)
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

// Lookup returns the addresses of a host name. Its error says why there are none.
type Lookup func(name string) ([]netip.Addr, error)

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

// specs are checks as the API has them; nil if there are none.
func specs(list []Check) (out []api.CheckSpec) {
	for i := range list {
		if list[i].spec != nil {
			out = append(out, object[api.CheckSpec](list[i].spec))
		}
	}
	return out
}

// object is a value's JSON object.
func object[T ~map[string]any](v any) T {
	data, err := json.Marshal(v)
	var out T
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		panic("config: " + err.Error()) // it has been decoded from JSON
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
