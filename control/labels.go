package control

import (
	"net/netip"

	"go.uber.org/zap"

	"uvs/control/api"
)

// names says in the log which service it is about and, if s isn't nil, which of its servers, with the names that they have.
func names(v *virtual, s *server) []zap.Field {
	fields := []zap.Field{zap.Stringer("service", v.key)}
	if v.label != "" {
		fields = append(fields, zap.String("serviceName", v.label))
	}
	if s == nil {
		return fields
	}
	fields = append(fields, zap.Stringer("server", s.rs))
	if s.label != "" {
		fields = append(fields, zap.String("serverName", s.label))
	}
	return fields
}

// label judges the naming of a service or, with a server, of that.
func (p *plan) label(e *effect, op *api.Op) error {
	s := p.find(e.key)
	if op.Server != nil {
		e.addr = netip.AddrPortFrom(op.Server.Address, op.Server.Port)
	}
	switch e.label = *op.Label; {
	case !s.exists:
		return errNoService
	case op.Server != nil && !s.has(e.addr):
		return errNoServer
	}
	return nil
}
