package nexthop

import (
	"slices"

	"uvs/packet"
)

// OnLink returns the position in Config.Interfaces of the interface on whose segment an address lies by the routes, or
// false if it lies behind a router, nowhere, or is the host's own.
func (r *Resolver) OnLink(dst packet.Addr) (iface int, ok bool) {
	v := r.view.Load()
	if s := v.segment(dst); s != nil {
		return s.iface, !slices.Contains(v.own, dst)
	}
	rt := v.route(dst)
	if rt.kind != routeVia || rt.hops[0].target != nil {
		return 0, false
	}
	return rt.hops[0].path.iface, true
}
