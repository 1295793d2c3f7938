package ipvsadm

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"

	"uvs/control/api"
)

// kernel is a backend that exists in memory alone and refuses what the kernel's IPVS refuses, in the kernel's order of
// looking at things.
type kernel struct {
	mu       sync.Mutex
	services []*api.Service
	timeouts api.Timeouts
	daemons  []api.Daemon
	conns    []api.Connection
	changes  int // requests, not operations
	shadowed *api.ShadowRequest
}

var _ api.Backend = (*kernel)(nil)

func newKernel() *kernel { return &kernel{timeouts: api.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}} }

// Explain explains nothing.
func (k *kernel) Explain(context.Context, *api.ExplainRequest) (*api.Explanation, error) {
	return nil, api.Errorf(api.Unsupported, "no packet path")
}

// Trace traces nothing.
func (k *kernel) Trace(context.Context, *api.TraceRequest, func() error, func(*api.TraceEvent) error) error {
	return api.Errorf(api.Unsupported, "no packet path")
}

// Doctor asks nobody.
func (k *kernel) Doctor(context.Context) (*api.Diagnosis, error) {
	return nil, api.Errorf(api.Unsupported, "no packet path")
}

// Health knows of none.
func (k *kernel) Health(context.Context, *api.ServiceKey) ([]api.ServerHealth, error) {
	return nil, api.Errorf(api.Unsupported, "no health checks")
}

// TestChecks tests nothing.
func (k *kernel) TestChecks(context.Context, *api.CheckTestRequest) ([]api.CheckTest, error) {
	return nil, api.Errorf(api.Unsupported, "no health checks")
}

// Change applies what it can; the commands under test never ask for anything else.
func (k *kernel) Change(_ context.Context, req *api.ChangeRequest) (*api.ChangeReply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	reply := &api.ChangeReply{}
	for i := range req.Ops {
		var result api.OpResult
		if code := k.apply(&req.Ops[i]); code != "" {
			result.Error = api.Errorf(code, "%s: %s", req.Ops[i].Kind, code)
		}
		reply.Results = append(reply.Results, result)
	}
	return reply, nil
}

func (k *kernel) find(key *api.ServiceKey) *api.Service {
	for _, s := range k.services {
		if s.ServiceKey == *key {
			return s
		}
	}
	return nil
}

func (k *kernel) apply(op *api.Op) api.Code {
	var s *api.Service
	if op.Service != nil {
		s = k.find(op.Service)
	}
	switch op.Kind {
	case api.AddService:
		if s != nil {
			return api.ServiceExists
		}
		if unknown(op.ServiceConfig) {
			return api.NoScheduler
		}
		k.services = append([]*api.Service{{ServiceKey: *op.Service, Config: *op.ServiceConfig}}, k.services...)
	case api.Flush:
		k.services = nil
	case api.ZeroCounters:
		if op.Service != nil && s == nil {
			return api.ServiceNotFound
		}
		for _, z := range k.services {
			if s == nil || s == z {
				z.Stats = api.Stats{}
				for i := range z.Servers {
					z.Servers[i].Stats = api.Stats{}
				}
			}
		}
	case api.SetTimeouts:
		k.timeouts.TCP = cmp.Or(op.Timeouts.TCP, k.timeouts.TCP)
		k.timeouts.TCPFin = cmp.Or(op.Timeouts.TCPFin, k.timeouts.TCPFin)
		k.timeouts.UDP = cmp.Or(op.Timeouts.UDP, k.timeouts.UDP)
	case api.StartDaemon, api.StopDaemon:
		return k.daemon(op)
	default:
		if s == nil {
			return api.ServiceNotFound
		}
		return k.applyTo(s, op)
	}
	return ""
}

func (k *kernel) applyTo(s *api.Service, op *api.Op) api.Code {
	switch op.Kind {
	case api.EditService:
		if unknown(op.ServiceConfig) {
			return api.NoScheduler
		}
		s.Config = *op.ServiceConfig
		return ""
	case api.DeleteService:
		k.services = slices.DeleteFunc(k.services, func(x *api.Service) bool { return x == s })
		return ""
	}
	if c := op.ServerConfig; c != nil && c.Lower > c.Upper {
		return api.OutOfRange
	}
	i := slices.IndexFunc(s.Servers, func(x api.Server) bool { return x.ServerKey == *op.Server })
	switch op.Kind {
	case api.AddServer:
		if i >= 0 {
			return api.ServerExists
		}
		if !unicast(op.Server.Address) {
			return api.Invalid
		}
		s.Servers = append([]api.Server{{ServerKey: *op.Server, Config: *op.ServerConfig}}, s.Servers...)
		return ""
	}
	if i < 0 {
		return api.ServerNotFound
	}
	if op.Kind == api.EditServer {
		s.Servers[i].Config = *op.ServerConfig
		return ""
	}
	s.Servers = slices.Delete(s.Servers, i, i+1)
	return ""
}

func unknown(c *api.ServiceConfig) bool {
	known := []string{"none", "rr", "wrr", "lc", "wlc", "sed", "nq", "lblc", "lblcr", "dh", "sh", "mh", "fo", "ovf"}
	return !slices.Contains(known, c.Scheduler) || c.PersistenceEngine != "" && c.PersistenceEngine != "sip"
}

func unicast(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (k *kernel) daemon(op *api.Op) api.Code {
	d := *op.Daemon
	i := slices.IndexFunc(k.daemons, func(x api.Daemon) bool { return x.Role == d.Role })
	if op.Kind == api.StopDaemon {
		if i < 0 {
			return api.DaemonNotRunning
		}
		k.daemons = slices.Delete(k.daemons, i, i+1)
		return ""
	}
	mtu := map[string]uint16{"vec1": 1500, "lo": 65535}[d.Interface]
	switch {
	case i >= 0:
		return api.DaemonExists
	case mtu == 0:
		return api.NoDevice
	}
	headers := uint16(28)
	if a, err := netip.ParseAddr(d.Group); err == nil && a.Is6() {
		headers = 48
	}
	d.MaxLen = cmp.Or(d.MaxLen, mtu-headers)
	if d.MaxLen == 1 {
		d.MaxLen = 1024 // as recorded; the reason is the kernel's
	}
	d.Group, d.Port, d.TTL = cmp.Or(d.Group, "224.0.0.81"), cmp.Or(d.Port, 8848), cmp.Or(d.TTL, 1)
	k.daemons = append(k.daemons, d)
	slices.SortFunc(k.daemons, func(a, b api.Daemon) int { return cmp.Compare(b.Role, a.Role) }) // "master" after "backup"
	return ""
}

func (k *kernel) Services(_ context.Context, key *api.ServiceKey) ([]api.Service, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []api.Service
	for _, s := range k.services {
		if key == nil || s.ServiceKey == *key {
			c := *s
			c.Servers = slices.Clone(s.Servers)
			list = append(list, c)
		}
	}
	if key != nil && list == nil {
		return nil, api.ServiceNotFound
	}
	return list, nil
}

func (k *kernel) Connections(_ context.Context, _ api.ConnectionFilter, yield func(*api.Connection) error) error {
	for i := range k.conns {
		if err := yield(&k.conns[i]); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernel) Timeouts(context.Context) (api.Timeouts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.timeouts, nil
}

func (k *kernel) Daemons(context.Context) ([]api.Daemon, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.daemons), nil
}

func (k *kernel) Marks(context.Context) ([]api.MarkRule, error) { return nil, nil }

func (k *kernel) Settings(context.Context, []string) ([]api.Setting, error) { return nil, nil }

func (k *kernel) Set(context.Context, []api.Setting) ([]api.Setting, error) { return nil, nil }

// Shadow and Shadows have one service with one scheduler on trial.
func (k *kernel) Shadow(_ context.Context, r *api.ShadowRequest) (*api.ShadowsReply, error) {
	k.shadowed = r
	return shadowExample(r.Service, r.Add), nil
}
func (k *kernel) Shadows(_ context.Context, key *api.ServiceKey) (*api.ShadowsReply, error) {
	if key == nil {
		return &api.ShadowsReply{Shadows: []api.Shadow{}, OneIn: 1}, nil
	}
	return shadowExample(*key, []string{"mh:mh-port"}), nil
}

// Drain drains nothing.
func (k *kernel) Reload(context.Context, *api.ReloadRequest) (*api.Reload, error)   { return nil, nil }
func (k *kernel) Save(context.Context, *api.SaveRequest) (*api.Saved, error)        { return nil, nil }
func (k *kernel) Drain(context.Context, *api.DrainRequest) ([]api.Drain, error)     { return nil, nil }
func (k *kernel) Drains(context.Context) ([]api.Drain, error)                       { return nil, nil }
func (k *kernel) Undrain(context.Context, *api.UndrainRequest) ([]api.Drain, error) { return nil, nil }

func (k *kernel) Status(context.Context) (*api.Status, error) { return &api.Status{}, nil }

func (k *kernel) Version(context.Context) (api.Version, error) {
	return api.Version{UVS: "0.1.0", IPVS: "1.2.1", ConnTableSize: 4096}, nil
}

// hosts are the names of the network that the recordings were made on.
type hosts struct{}

var (
	hostNames = map[string]string{
		"127.0.0.1": "localhost", "10.9.0.100": "vip.example.test", "2001:db8::100": "vip6.example.test",
		"10.1.0.11": "rs11.example.test", "192.0.2.1": "client1.example.test",
		"10.1.0.12":     "a-very-long-real-server-name-number-12.datacenter.example.test",
		"10.9.0.101":    "a-very-long-virtual-server-name-number-12.datacenter.example.test",
		"2001:db8::101": "a-very-long-ipv6-server-name-number-12.datacenter.example.test",
		"2001:db8::102": "short6.example.test",
	}
	portNames = map[string]map[uint16]string{
		"tcp": {22: "ssh", 53: "domain", 80: "http", 88: "kerberos", 443: "https", 853: "domain-s", 8080: "http-alt"},
		"udp": {53: "domain", 69: "tftp", 88: "kerberos", 443: "https", 5353: "mdns"},
	}
)

func (hosts) addr(host string, is6 bool) (netip.Addr, bool) {
	for addr, name := range hostNames {
		if a := netip.MustParseAddr(addr); a.Is6() == is6 && equalFold(name, host) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func equalFold(a, b string) bool {
	return len(a) == len(b) && slices.EqualFunc([]byte(a), []byte(b), func(x, y byte) bool { return x|0x20 == y|0x20 })
}

func (h hosts) IPv4(host string) (netip.Addr, bool) { return h.addr(host, false) }
func (h hosts) IPv6(host string) (netip.Addr, bool) { return h.addr(host, true) }
func (hosts) Host(a netip.Addr) string              { return hostNames[a.String()] }

func (hosts) Port(name, proto string) (uint16, bool) {
	if name == "www" {
		name = "http"
	}
	for port, n := range portNames[proto] {
		if n == name {
			return port, true
		}
	}
	return 0, false
}

func (hosts) PortName(port uint16, proto string) string { return portNames[proto][port] }

// shortHosts are those of the older recordings, where some addresses had no name.
type shortHosts struct{ hosts }

func (shortHosts) Host(a netip.Addr) string {
	if a.String() == "10.9.0.101" {
		return ""
	}
	return hostNames[a.String()]
}
