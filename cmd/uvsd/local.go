package main

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
	"uvs/dataplane/local"
	"uvs/packet"
	"uvs/service"
)

// stackPort is the packet path's way into the host's stack.
func (d *daemon) stackPort() *dataplane.Stack {
	return &dataplane.Stack{
		OpenRx: func(worker int) (link.Link, error) { return d.stackLink(worker) },
		OpenTx: func() (link.Link, error) { return d.stackLink(0) },
		MAC:    local.MAC, Loopback: local.Loopback,
		Unbound: packet.AddrFrom(local.Unbound), Unbound6: packet.AddrFrom(local.Unbound6),
	}
}

func (d *daemon) stackLink(queue int) (link.Link, error) {
	l, err := d.stack.Link(queue)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// stackMade follows when the device was made, or made anew. The stack is locked.
func (d *daemon) stackMade(string) {
	if d.plane != nil { // else there was no packet path yet
		d.plane.Wake()
	}
	d.locals.again()
}

// largestMTU is that of the attached interfaces: what the host sends may be as long, if it finds a way.
func (d *daemon) largestMTU() int {
	mtu := 0
	for _, p := range d.ports {
		if l, err := netlink.LinkByName(p.name); err == nil {
			mtu = max(mtu, l.Attrs().MTU)
		}
	}
	return mtu
}

// canForward refuses servers that cannot be served from here. For one that is the host itself it makes the way there.
func (d *daemon) canForward(_ service.Key, rip netip.Addr, _ *api.ServerConfig) error {
	if !d.isLocal(rip) {
		return nil
	}
	if d.isOwn(rip) {
		return fmt.Errorf("%v is an address of uvsd's own: no server can listen on it", rip)
	}
	if rip.IsLinkLocalUnicast() && rip.Is6() {
		return fmt.Errorf("%v is of one interface of the director alone; take an address of the director's that is not link-local, or ::1", rip)
	}
	if err := d.guard.CheckLocal(rip.Is6()); err != nil {
		return fmt.Errorf("%v is an address of the director itself and cannot be served: %w", rip, err)
	}
	if err := d.stack.Make(rip); err != nil {
		return fmt.Errorf("%v is an address of the director itself, which is reached by a TAP device: %w", rip, err)
	}
	return nil
}

// leadBack has what real servers that are the host itself answer led to uvsd's device.
func (d *daemon) leadBack(servers []guard.Server) {
	err := d.guard.SetLocal(guard.Local{
		Device: d.stack.Device(), Gateway: local.Gateway, Gateway6: local.Gateway6, Unbound6: local.Unbound6, Servers: servers,
	})
	if err != nil {
		d.log.Error("real servers that are this host itself may not answer", zap.Error(err))
	}
}
