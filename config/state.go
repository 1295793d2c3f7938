package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"uvs/control/api"
)

// State is what a director shall have, or has, in the API's terms: every virtual service by itself.
type State struct {
	// Services are in their order. Each is unlike the others.
	Services []*ServiceState `json:"services,omitempty"`
	// Marks are the mark rules in their order.
	Marks []api.MarkRule `json:"marks,omitempty"`
	// Settings are those that are given, by their names in full; of a running director all.
	Settings map[string]string `json:"settings,omitempty"`
	// Timeouts are those that are given; 0 is not given.
	Timeouts api.Timeouts `json:"timeouts,omitzero"`
	// Daemons are the sync daemons.
	Daemons []api.Daemon `json:"daemons,omitempty"`
}

// ServiceState is a virtual service.
type ServiceState struct {
	Key    api.ServiceKey    `json:"key"`
	Label  string            `json:"label,omitempty"`
	Config api.ServiceConfig `json:"config"`
	// Servers are in the order in which they are added.
	Servers []ServerState `json:"servers,omitempty"`
	// Checks are those of all its servers, Policy is what follows from health.
	Checks []api.CheckSpec `json:"checks,omitempty"`
	Policy api.PolicySpec  `json:"policy,omitempty"`
}

// ServerState is a real server of a virtual service.
type ServerState struct {
	Key    api.ServerKey    `json:"key"`
	Label  string           `json:"label,omitempty"`
	Config api.ServerConfig `json:"config"`
	// Checks are the server's own, beside those of the service.
	Checks []api.CheckSpec `json:"checks,omitempty"`
}

// Running is the state that a director has.
func Running(s *api.Snapshot) *State {
	out := &State{Marks: s.Marks, Timeouts: s.Timeouts, Daemons: s.Daemons, Settings: make(map[string]string, len(s.Settings))}
	for _, x := range s.Settings {
		out.Settings[x.Name] = x.Value
	}
	for i := range s.Services {
		x := &s.Services[i]
		v := &ServiceState{Key: x.ServiceKey, Label: x.Label, Config: x.Config, Checks: x.Checks, Policy: x.Policy, Servers: make([]ServerState, 0, len(x.Servers))}
		for _, rs := range slices.Backward(x.Servers) { // listed with the latest first
			v.Servers = append(v.Servers, ServerState{rs.ServerKey, rs.Label, rs.Config, rs.Checks})
		}
		out.Services = append(out.Services, v)
	}
	return out
}

// index finds services by their keys.
func (s *State) index() map[api.ServiceKey]*ServiceState {
	m := make(map[api.ServiceKey]*ServiceState, len(s.Services))
	for _, v := range s.Services {
		m[v.Key] = v
	}
	return m
}

// server finds a server, or returns nil. v may be nil.
func (v *ServiceState) server(k api.ServerKey) *ServerState {
	if v != nil {
		for i := range v.Servers {
			if v.Servers[i].Key == k {
				return &v.Servers[i]
			}
		}
	}
	return nil
}

func sameConfig(a, b *api.ServiceConfig) bool {
	return a.Scheduler == b.Scheduler && a.PersistenceSeconds == b.PersistenceSeconds && a.Netmask == b.Netmask &&
		a.PersistenceEngine == b.PersistenceEngine && a.OnePacket == b.OnePacket && slices.Equal(a.SchedFlags, b.SchedFlags)
}

func sameServerConfig(a, b *api.ServerConfig) bool {
	return a.Method == b.Method && a.Weight == b.Weight && a.Upper == b.Upper && a.Lower == b.Lower && tunnelOf(a) == tunnelOf(b)
}

// tunnelOf is a server's tunnel with its defaults.
func tunnelOf(c *api.ServerConfig) api.TunnelConfig {
	if c.Method != api.Tunnel {
		return api.TunnelConfig{}
	}
	if c.Tunnel == nil {
		return api.TunnelConfig{Type: api.IPIP, Checksum: api.NoChecksum}
	}
	t := *c.Tunnel
	if t.Checksum == "" {
		t.Checksum = api.NoChecksum
	}
	return t
}

// sameObject says that two objects of package health's are set alike: 3 and "3" are the same.
func sameObject(a, b map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for k, x := range a {
		y, there := b[k]
		if !there || !reflect.DeepEqual(x, y) && plainJSON(x) != plainJSON(y) {
			return false
		}
	}
	return true
}

func plainJSON(x any) string {
	data, err := json.Marshal(x)
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(data), `"`, "")
}

// sameChecks says that two lists have the same checks; in which order means nothing.
func sameChecks(a, b []api.CheckSpec) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x api.CheckSpec) bool {
		return !slices.ContainsFunc(b, func(y api.CheckSpec) bool { return sameObject(x, y) })
	})
}

func sameServer(a, b *ServerState) bool {
	return a.Label == b.Label && sameServerConfig(&a.Config, &b.Config) && sameChecks(a.Checks, b.Checks)
}

// sameService says that two services are alike in everything, whatever the order of their servers.
func sameService(a, b *ServiceState) bool {
	if a.Label != b.Label || !sameConfig(&a.Config, &b.Config) || !sameChecks(a.Checks, b.Checks) || !sameObject(a.Policy, b.Policy) || len(a.Servers) != len(b.Servers) {
		return false
	}
	for i := range a.Servers {
		x := &a.Servers[i]
		y := &b.Servers[i]
		if y.Key != x.Key {
			if y = b.server(x.Key); y == nil {
				return false
			}
		}
		if !sameServer(x, y) {
			return false
		}
	}
	return true
}
