package control

import (
	"net/netip"

	"uvs/control/api"
)

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
