package control

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"uvs/control/api"
	"uvs/sched"
	"uvs/service"
)

// maxSeconds is the longest timeout that ipvsadm takes: 31 days.
const maxSeconds = 31 * 24 * 60 * 60

// serviceConfig is an api.ServiceConfig, checked, in the terms of package service.
type serviceConfig struct {
	scheduler   string
	flags       service.SchedFlags
	persistence time.Duration
	mask        api.Netmask
	engine      string
	onePacket   bool
}

// serverConfig is an api.ServerConfig, checked, in the terms of package service.
type serverConfig struct {
	method       service.Method // as asked for: a local server is listed with it, though it is forwarded as Local
	weight       int32
	upper, lower uint32
	encap        service.Encap
}

var protocols = map[string]service.Proto{api.TCP: service.TCP, api.UDP: service.UDP, api.SCTP: service.SCTP}

var methods = map[string]service.Method{
	api.Masq: service.Masq, api.Local: service.Local, api.Tunnel: service.Tunnel, api.Route: service.Route,
}

var methodNames = map[service.Method]string{
	service.Masq: api.Masq, service.Local: api.Local, service.Tunnel: api.Tunnel, service.Route: api.Route,
}

var (
	encapKinds     = []string{service.IPIP: api.IPIP, service.GUE: api.GUE, service.GRE: api.GRE}
	encapChecksums = []string{
		service.NoChecksum: api.NoChecksum, service.FullChecksum: api.Checksum, service.RemoteChecksum: api.RemoteChecksum,
	}
)

// engines are the persistence engines known by name.
var engines = []string{"sip"}

// keyOf turns a checked key into package service's.
func keyOf(k *api.ServiceKey) service.Key {
	if k.FWMark == 0 {
		return service.Key{Proto: protocols[k.Protocol], Addr: netip.AddrPortFrom(k.Address, k.Port)}
	}
	addr := netip.IPv4Unspecified()
	if k.Is6() {
		addr = netip.IPv6Unspecified()
	}
	return service.Key{Mark: k.FWMark, Addr: netip.AddrPortFrom(addr, 0)}
}

// apiKey is the reverse of keyOf.
func apiKey(k service.Key) api.ServiceKey {
	if k.Mark == 0 {
		return api.ServiceKey{Protocol: k.Proto.String(), Address: k.Addr.Addr(), Port: k.Addr.Port()}
	}
	if k.Addr.Addr().Is6() {
		return api.ServiceKey{FWMark: k.Mark, Family: api.IPv6}
	}
	return api.ServiceKey{FWMark: k.Mark, Family: api.IPv4}
}

// refusal is an error with a code of the API. Its text is the reason alone; the caller says what was tried.
func refusal(code api.Code, format string, args ...any) error {
	return api.Errorf(code, format, args...)
}

// checkService checks what the kernel and ipvsadm check of a service's settings, in the kernel's order.
func (d *Director) checkService(k service.Key, c *api.ServiceConfig) (serviceConfig, error) {
	out := serviceConfig{
		scheduler: c.Scheduler, persistence: time.Duration(c.PersistenceSeconds) * time.Second,
		mask: c.Netmask, engine: c.PersistenceEngine, onePacket: c.OnePacket,
	}
	if !sched.Known(c.Scheduler) {
		return out, refusal(api.NoScheduler, "scheduler %q not found", c.Scheduler)
	}
	if c.PersistenceEngine != "" && !slices.Contains(engines, c.PersistenceEngine) {
		return out, refusal(api.NoScheduler, "persistence engine %q not found", c.PersistenceEngine)
	}
	flags, err := sched.ParseFlags(c.Scheduler, c.SchedFlags)
	if err != nil {
		return out, refusal(api.Invalid, "%v", err)
	}
	out.flags = flags
	switch {
	case c.PersistenceSeconds > maxSeconds:
		return out, refusal(api.OutOfRange, "persistence of %d seconds, the most is %d", c.PersistenceSeconds, maxSeconds)
	case k.Mark == 0 && k.Addr.Port() == 0 && c.PersistenceSeconds == 0:
		return out, refusal(api.Invalid, "port 0 is for persistent services")
	case c.OnePacket && k.Mark == 0 && k.Proto != service.UDP:
		return out, refusal(api.Invalid, "one-packet scheduling is for UDP and firewall marks")
	}
	return out, nil
}

// checkServerNumbers checks what the kernel checks before it looks the server up.
func checkServerNumbers(c *api.ServerConfig) (serverConfig, error) {
	out := serverConfig{method: methods[c.Method], weight: int32(c.Weight), upper: c.Upper, lower: c.Lower}
	if t := c.Tunnel; t != nil {
		out.encap = service.Encap{
			Kind:     service.EncapKind(slices.Index(encapKinds, t.Type)),
			Checksum: service.EncapChecksum(max(slices.Index(encapChecksums, t.Checksum), 0)),
			Port:     t.Port,
		}
	}
	switch {
	case c.Weight < 0 || c.Weight > math.MaxInt32:
		return out, refusal(api.OutOfRange, "weight %d, it is from 0 to %d", c.Weight, math.MaxInt32)
	case c.Lower > c.Upper:
		return out, refusal(api.OutOfRange, "lower threshold %d is above the upper one, %d", c.Lower, c.Upper)
	}
	return out, nil
}

// checkServerAddr checks that packets of k can be sent to rip by that method.
func (d *Director) checkServerAddr(k service.Key, rip netip.Addr, c *api.ServerConfig) error {
	is6 := k.Addr.Addr().Is6()
	switch local := d.cfg.IsLocal(rip); {
	case rip.Is6() != is6 && c.Method != api.Tunnel:
		return refusal(api.Invalid, "only a tunnel leads to another address family")
	case local:
	case rip.Is4() && (rip.As4()[0] == 0 || rip.IsMulticast() || rip == netip.AddrFrom4([4]byte{255, 255, 255, 255})),
		rip.Is6() && (rip.IsUnspecified() || rip.IsMulticast() || rip.IsLinkLocalUnicast()):
		return refusal(api.Invalid, "%v is not an address of one host", rip)
	}
	if d.cfg.CanForward != nil {
		if err := d.cfg.CanForward(k, rip, c); err != nil {
			return refusal(api.Unsupported, "%v", err)
		}
	}
	return nil
}

// serverAddr is the address and port that names a server for an operation with settings: DR and tunnels cannot change
// the port, so it is the service's. A fwmark service has no port to put there.
func serverAddr(k service.Key, s *api.ServerKey, m service.Method) netip.AddrPort {
	if k.Mark == 0 && (m == service.Route || m == service.Tunnel) {
		return netip.AddrPortFrom(s.Address, k.Addr.Port())
	}
	return netip.AddrPortFrom(s.Address, s.Port)
}

// api is the reverse of checkService.
func (c *serviceConfig) api() api.ServiceConfig {
	return api.ServiceConfig{
		Scheduler: c.scheduler, SchedFlags: sched.FlagNames(c.scheduler, c.flags),
		PersistenceSeconds: uint32(c.persistence / time.Second), Netmask: c.mask,
		PersistenceEngine: c.engine, OnePacket: c.onePacket,
	}
}

// api is the reverse of checkServerNumbers.
func (c *serverConfig) api() api.ServerConfig {
	out := api.ServerConfig{Method: methodNames[c.method], Weight: int(c.weight), Upper: c.upper, Lower: c.lower}
	if c.method == service.Tunnel {
		out.Tunnel = &api.TunnelConfig{
			Type: encapKinds[c.encap.Kind], Port: c.encap.Port, Checksum: encapChecksums[c.encap.Checksum],
		}
	}
	return out
}

// netmask gives the mask in the forms that package service has: for IPv4 in host order, for IPv6 as a prefix length.
func (c *serviceConfig) netmask(is6 bool) (mask4 uint32, prefixLen int) {
	addr := c.mask.Addr(is6)
	if !is6 {
		b := addr.As4()
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), 0
	}
	for _, b := range addr.As16() {
		for ; b&0x80 != 0; b <<= 1 {
			prefixLen++
		}
	}
	return 0, prefixLen
}

// tried puts what was tried before a refusal's reason and keeps its code.
func tried(err error, format string, args ...any) *api.Error {
	e := api.AsError(err)
	return api.Errorf(e.Code, "%s: %s", fmt.Sprintf(format, args...), e.Message)
}
