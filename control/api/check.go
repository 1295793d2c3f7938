package api

import (
	"net/netip"
	"slices"
)

// MaxWeight is the highest weight of a real server, as the kernel's signed 32-bit number allows.
const MaxWeight = 1<<31 - 1

// checkAddr refuses what no packet can carry: no address, a zone, an IPv4-mapped one.
func checkAddr(what string, a netip.Addr) error {
	switch {
	case !a.IsValid():
		return Errorf(BadRequest, "%s: an address is missing", what)
	case a.Zone() != "":
		return Errorf(BadRequest, "%s: address %v must have no zone", what, a)
	case a.Is4In6():
		return Errorf(BadRequest, "%s: address %v is IPv4 written as IPv6, write %v", what, a, a.Unmap())
	}
	return nil
}

// Check reports whether the key is well formed: a protocol, address and port, or a mark and family, never both.
// Its error has the code BadRequest.
func (k *ServiceKey) Check() error {
	if k.FWMark != 0 || k.Family != "" {
		switch {
		case k.Protocol != "" || k.Address.IsValid() || k.Port != 0:
			return Errorf(BadRequest, "service: a firewall mark stands alone, without protocol, address and port")
		case k.FWMark == 0:
			return Errorf(BadRequest, "service: a family belongs to a firewall mark other than 0")
		case k.Family != IPv4 && k.Family != IPv6:
			return Errorf(BadRequest, "service: the family of a firewall mark is %q or %q, not %q", IPv4, IPv6, k.Family)
		}
		return nil
	}
	if k.Protocol != TCP && k.Protocol != UDP && k.Protocol != SCTP {
		return Errorf(BadRequest, "service: the protocol is %q, %q or %q, not %q", TCP, UDP, SCTP, k.Protocol)
	}
	return checkAddr("service", k.Address)
}

// check reports whether names and mask are ones that exist at all.
func (c *ServiceConfig) check(is6 bool) error {
	if c.Scheduler == "" {
		return Errorf(BadRequest, "service: a scheduler is missing")
	}
	if !c.Netmask.Fits(is6) {
		return Errorf(BadRequest, "service: netmask %v is of the other address family", c.Netmask)
	}
	return nil
}

// check reports whether the names are known and the tunnel's fields go together.
func (c *ServerConfig) check() error {
	switch c.Method {
	case Masq, Local, Route:
		if c.Tunnel != nil {
			return Errorf(BadRequest, "real server: tunnel settings with forwarding method %q", c.Method)
		}
	case Tunnel:
		if c.Tunnel != nil {
			return c.Tunnel.check()
		}
	default:
		return Errorf(BadRequest, "real server: the forwarding method is %q, %q, %q or %q, not %q", Masq, Local, Tunnel, Route, c.Method)
	}
	return nil
}

func (t *TunnelConfig) check() error {
	if !slices.Contains([]string{IPIP, GUE, GRE}, t.Type) {
		return Errorf(BadRequest, "tunnel: the type is %q, %q or %q, not %q", IPIP, GUE, GRE, t.Type)
	}
	if (t.Type == GUE) != (t.Port != 0) {
		return Errorf(BadRequest, "tunnel: a port belongs to the type %q, and to it alone", GUE)
	}
	switch t.Checksum {
	case "", NoChecksum:
	case Checksum:
		if t.Type == IPIP {
			return Errorf(BadRequest, "tunnel: the type %q has no checksum", IPIP)
		}
	case RemoteChecksum:
		if t.Type != GUE {
			return Errorf(BadRequest, "tunnel: remote checksum belongs to the type %q", GUE)
		}
	default:
		return Errorf(BadRequest, "tunnel: the checksum is %q, %q or %q, not %q", NoChecksum, Checksum, RemoteChecksum, t.Checksum)
	}
	return nil
}

func (d *Daemon) check() error {
	if d.Role != Master && d.Role != Backup {
		return Errorf(BadRequest, "sync daemon: the role is %q or %q, not %q", Master, Backup, d.Role)
	}
	if d.Group == "" {
		return nil
	}
	if a, err := netip.ParseAddr(d.Group); err != nil || !a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		return Errorf(BadRequest, "sync daemon: %q is not a multicast address", d.Group)
	}
	return nil
}

// opFields tells which fields of Op an operation takes. A service that may be absent is optional, as a server is with anyServer.
var opFields = map[OpKind]struct {
	service, optional, serviceConfig, server, anyServer, serverConfig, timeouts, daemon, markRule, position bool
	check, checkID, policy, label                                                                           bool
}{
	AddService:    {service: true, serviceConfig: true},
	EditService:   {service: true, serviceConfig: true},
	DeleteService: {service: true},
	AddServer:     {service: true, server: true, serverConfig: true},
	EditServer:    {service: true, server: true, serverConfig: true},
	DeleteServer:  {service: true, server: true},
	ZeroCounters:  {service: true, optional: true},
	Flush:         {},
	SetTimeouts:   {timeouts: true},
	StartDaemon:   {daemon: true},
	StopDaemon:    {daemon: true},

	AddMarkRule:    {markRule: true, position: true},
	DeleteMarkRule: {markRule: true},

	AddCheck:    {service: true, server: true, anyServer: true, check: true},
	DeleteCheck: {service: true, server: true, anyServer: true, checkID: true},
	SetPolicy:   {service: true, policy: true},
	SetLabel:    {service: true, server: true, anyServer: true, label: true},
}

// Check reports whether the operation is well formed: known, with the fields it takes and no others, each of them with
// known names and plain addresses. Whether it can be done is the backend's to say. Its error has the code BadRequest.
func (o *Op) Check() error {
	takes, known := opFields[o.Kind]
	if !known {
		return Errorf(BadRequest, "unknown operation %q", o.Kind)
	}
	for _, f := range []struct {
		name         string
		there, takes bool
		optional     bool
	}{
		{"service", o.Service != nil, takes.service, takes.optional},
		{"serviceConfig", o.ServiceConfig != nil, takes.serviceConfig, false},
		{"server", o.Server != nil, takes.server, takes.anyServer},
		{"serverConfig", o.ServerConfig != nil, takes.serverConfig, false},
		{"timeouts", o.Timeouts != nil, takes.timeouts, false},
		{"daemon", o.Daemon != nil, takes.daemon, false},
		{"markRule", o.MarkRule != nil, takes.markRule, false},
		{"position", o.Position != 0, takes.position, true},
		{"check", o.CheckSpec != nil, takes.check, false},
		{"checkID", o.CheckID != "", takes.checkID, false},
		{"label", o.Label != nil, takes.label, false},
		{"policy", o.Policy != nil, takes.policy, o.Kind == SetPolicy}, // none is the default one
	} {
		if f.there && !f.takes {
			return Errorf(BadRequest, "%s takes no field %q", o.Kind, f.name)
		}
		if !f.there && f.takes && !f.optional {
			return Errorf(BadRequest, "%s needs the field %q", o.Kind, f.name)
		}
	}
	if o.Service != nil {
		if err := o.Service.Check(); err != nil {
			return err
		}
	}
	if o.ServiceConfig != nil {
		if err := o.ServiceConfig.check(o.Service.Is6()); err != nil {
			return err
		}
	}
	if o.Server != nil {
		if err := checkAddr("real server", o.Server.Address); err != nil {
			return err
		}
	}
	if o.ServerConfig != nil {
		if err := o.ServerConfig.check(); err != nil {
			return err
		}
	}
	if o.Label != nil && *o.Label != "" {
		if err := CheckLabel(*o.Label); err != nil {
			return err
		}
	}
	if o.Daemon != nil {
		if err := o.Daemon.check(); err != nil {
			return err
		}
	}
	if o.Position < 0 {
		return Errorf(BadRequest, "%s: the position is counted from 1", o.Kind)
	}
	if o.MarkRule != nil {
		return o.MarkRule.Check()
	}
	return nil
}
