package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

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

// localServers are the real servers that are the host itself, by what their answers show. One that was removed stays as long
// as connections hold it: their answers must not go astray.
type localServers map[guard.Server]map[*service.RealServer]struct{}

// localReview is how often it is looked whether removed servers still have connections.
const localReview = 30 * time.Second

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
	select {
	case d.stackNew <- struct{}{}:
	default:
	}
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

// addLocal sees to it that what the table's local servers answer comes back to uvsd.
func (d *daemon) addLocal(t *service.Table) {
	d.localMu.Lock()
	defer d.localMu.Unlock()
	added := false
	for _, vs := range t.Services {
		for _, rs := range vs.Servers {
			if rs.Method() != service.Local {
				continue
			}
			for _, s := range localServer(vs, rs) {
				if d.locals[s] == nil {
					d.locals[s] = make(map[*service.RealServer]struct{})
					added = true
				}
				d.locals[s][rs] = struct{}{}
			}
		}
	}
	if added {
		d.setLocalLocked()
	}
}

// localServer is a real server as its answers show it. A fwmark service's may be of either protocol.
func localServer(vs *service.VirtualService, rs *service.RealServer) []guard.Server {
	if vs.Mark == 0 {
		return []guard.Server{{Addr: rs.Addr, Proto: uint8(vs.Proto)}}
	}
	return []guard.Server{{Addr: rs.Addr, Proto: packet.ProtoTCP}, {Addr: rs.Addr, Proto: packet.ProtoUDP}}
}

func (d *daemon) setLocalLocked() {
	l := guard.Local{Device: d.stack.Device(), Gateway: local.Gateway, Gateway6: local.Gateway6, Unbound6: local.Unbound6}
	for s := range d.locals {
		l.Servers = append(l.Servers, s)
	}
	if err := d.guard.SetLocal(l); err != nil {
		d.log.Error("real servers that are this host itself may not answer", zap.Error(err))
	}
}

// reviewLocal forgets local servers that are gone, from time to time.
func (d *daemon) reviewLocal(ctx context.Context) error {
	tick := time.NewTicker(localReview)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.stackNew:
			d.localMu.Lock()
			d.setLocalLocked() // the route into the old device went with it
			d.localMu.Unlock()
		case <-tick.C:
			d.forgetLocal()
		}
	}
}

func (d *daemon) forgetLocal() {
	d.localMu.Lock()
	defer d.localMu.Unlock()
	forgot := false
	for s, servers := range d.locals {
		maps.DeleteFunc(servers, func(rs *service.RealServer, _ struct{}) bool { return !rs.Available() && rs.Refs() == 0 })
		if len(servers) == 0 {
			delete(d.locals, s)
			forgot = true
		}
	}
	if forgot {
		d.setLocalLocked()
	}
}
