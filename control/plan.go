package control

import (
	"net/netip"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// plan judges operations one after the other, each as the ones before it leave the desired state, without touching
// that state. What it accepts becomes effects, which cannot fail.
type plan struct {
	d        *Director
	services map[service.Key]*planned // those that an operation touched
	flushed  bool                     // the services of the desired state are gone
	added    int                      // servers, for the room in the index
	marks    plannedMarks
	daemons  plannedDaemons
	effects  []effect
}

// planned is a service as the plan leaves it.
type planned struct {
	exists  bool
	base    *virtual                // the servers it began with, unless it was made by the plan
	servers map[netip.AddrPort]bool // whether it has a server; those not in here are as in base
	checks  map[checkKey]bool       // whether it has a check; those not in here are as in base
	fresh   map[netip.AddrPort]bool // servers whose checks are not those of base
}

// effect is an accepted operation. Which of its fields count depends on kind.
type effect struct {
	kind     api.OpKind
	key      service.Key // ZeroCounters: the zero Key is all services
	service  serviceConfig
	addr     netip.AddrPort
	server   serverConfig
	timeouts api.Timeouts
	rule     api.MarkRule
	position int
	daemon   api.Daemon
	check    check
	checkID  string
	policy   policy
	label    string
}

// add judges op. The error says what was tried and why it is refused, and has a code.
func (p *plan) add(op *api.Op) *api.Error {
	e := effect{kind: op.Kind}
	if op.Service != nil {
		e.key = keyOf(op.Service)
	}
	var err error
	switch op.Kind {
	case api.AddService, api.EditService:
		if err = p.service(&e, op.ServiceConfig); err != nil {
			verb := "add"
			if op.Kind == api.EditService {
				verb = "edit"
			}
			return tried(err, "%s virtual service %v", verb, e.key)
		}
	case api.DeleteService:
		s := p.find(e.key)
		if !s.exists {
			return tried(errNoService, "delete virtual service %v", e.key)
		}
		*s = planned{}
	case api.AddServer, api.EditServer, api.DeleteServer:
		if err = p.server(&e, op); err != nil {
			verb := map[api.OpKind]string{api.AddServer: "add real server %v to %v", api.EditServer: "edit real server %v of %v",
				api.DeleteServer: "delete real server %v of %v"}[op.Kind]
			return tried(err, verb, e.addr, e.key)
		}
	case api.AddCheck, api.DeleteCheck, api.SetPolicy:
		if err = p.health(&e, op); err != nil {
			return tried(err, "%s of %v", map[api.OpKind]string{api.AddCheck: "add check", api.DeleteCheck: "delete check",
				api.SetPolicy: "set policy"}[op.Kind], e.whose())
		}
	case api.SetLabel:
		if err = p.label(&e, op); err != nil {
			return tried(err, "name %s", e.whose())
		}
	case api.ZeroCounters:
		if op.Service != nil && !p.find(e.key).exists {
			return tried(errNoService, "zero counters of %v", e.key)
		}
	case api.Flush:
		p.services, p.flushed = map[service.Key]*planned{}, true
	case api.SetTimeouts:
		e.timeouts = *op.Timeouts
		for _, s := range []uint32{e.timeouts.TCP, e.timeouts.TCPFin, e.timeouts.UDP} {
			if s > maxSeconds {
				return api.Errorf(api.OutOfRange, "set timeouts: %d seconds, the most is %d", s, maxSeconds)
			}
		}
	case api.AddMarkRule, api.DeleteMarkRule:
		if err = p.markRule(&e, op); err != nil {
			verb := "add"
			if op.Kind == api.DeleteMarkRule {
				verb = "delete"
			}
			return tried(err, "%s mark rule %v", verb, e.rule)
		}
	case api.StartDaemon:
		if e.daemon, err = p.startDaemon(op.Daemon); err != nil {
			return tried(err, "start sync daemon %s", op.Daemon.Role)
		}
	case api.StopDaemon:
		e.daemon = *op.Daemon
		if err = p.stopDaemon(op.Daemon.Role); err != nil {
			return tried(err, "stop sync daemon %s", op.Daemon.Role)
		}
	default:
		return api.Errorf(api.BadRequest, "unknown operation %q", op.Kind)
	}
	p.effects = append(p.effects, e)
	return nil
}

var (
	errServiceExists = refusal(api.ServiceExists, "service already exists")
	errNoService     = refusal(api.ServiceNotFound, "no such service")
	errServerExists  = refusal(api.ServerExists, "destination already exists")
	errNoServer      = refusal(api.ServerNotFound, "no such destination")
)

// find returns the plan's view of a service.
func (p *plan) find(k service.Key) *planned {
	s := p.services[k]
	if s == nil {
		s = new(planned)
		if !p.flushed {
			s.base = p.d.services[k]
			s.exists = s.base != nil
		}
		p.services[k] = s
	}
	return s
}

func (s *planned) has(addr netip.AddrPort) bool {
	if has, touched := s.servers[addr]; touched {
		return has
	}
	return s.base != nil && s.base.servers[addr] != nil
}

func (s *planned) set(addr netip.AddrPort, has bool) {
	if s.servers == nil {
		s.servers = map[netip.AddrPort]bool{}
	}
	s.servers[addr] = has
}

func (p *plan) service(e *effect, c *api.ServiceConfig) (err error) {
	s := p.find(e.key)
	if adding := e.kind == api.AddService; adding && s.exists {
		return errServiceExists
	} else if !adding && !s.exists {
		return errNoService
	}
	if e.service, err = p.d.checkService(e.key, c); err != nil {
		return err
	}
	s.exists = true
	return nil
}

func (p *plan) server(e *effect, op *api.Op) (err error) {
	s := p.find(e.key)
	e.addr = netip.AddrPortFrom(op.Server.Address, op.Server.Port)
	if !s.exists {
		return errNoService
	}
	if op.Kind == api.DeleteServer {
		if !s.has(e.addr) {
			return errNoServer
		}
		s.set(e.addr, false)
		s.forgetChecks(e.addr)
		return nil
	}
	if e.server, err = checkServerNumbers(op.ServerConfig); err != nil {
		return err
	}
	e.addr = serverAddr(e.key, op.Server, e.server.method)
	if adding := op.Kind == api.AddServer; adding && s.has(e.addr) {
		return errServerExists
	} else if !adding && !s.has(e.addr) {
		return errNoServer
	}
	if err := p.d.checkServerAddr(e.key, e.addr.Addr(), op.ServerConfig); err != nil {
		return err
	}
	if op.Kind == api.AddServer {
		if p.d.cfg.Servers.Free() <= p.added {
			return refusal(api.NoMemory, "no more real servers than %d", p.d.cfg.Servers.Cap())
		}
		p.added++
		s.set(e.addr, true)
	}
	return nil
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
