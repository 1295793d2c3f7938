package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
	"uvs/dataplane/local"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// preparePlane makes the packet path and opens its links.
func (d *daemon) preparePlane() (err error) {
	d.stack = local.New(local.Config{Queues: d.o.workers, MTU: d.largestMTU(), Made: d.stackMade, Log: d.log})
	cfg := dataplane.Config{
		Workers: d.o.workers, Pin: d.o.pin, BusyPoll: d.o.busyPoll, Conns: d.conns, NextHops: d.resolver, Inner: d.o.inner,
		MasqueradeAddrs: d.o.masquerade, ProbeAddrs: d.o.probes, AnnounceInterval: d.o.announce, AnnounceOn: d.resolver.OnLink,
		OpenRx: d.openRx, OpenTx: d.openTx, Stack: d.stackPort(), Conflict: d.conflict, Log: d.log,
	}
	for _, p := range d.ports {
		cfg.Ports = append(cfg.Ports, dataplane.Port{
			Name: p.name, MAC: p.mac, FollowMAC: p.mode == guard.InterfaceMAC, Gateways: p.gateways,
		})
	}
	d.plane, err = dataplane.New(cfg)
	return err
}

// openRx opens a worker's link on a port. With several workers they share the port's frames by flow.
func (d *daemon) openRx(worker, i int) (link.Link, error) {
	p := d.ports[i]
	cfg := link.Config{Interface: p.name, Kind: d.o.link}
	if d.o.workers > 1 {
		cfg.Fanout.Group = fanoutGroup(i)
	}
	if p.mode == guard.Virtual {
		cfg.Unicast, cfg.Filter = [][6]byte{p.mac}, link.ForStation(p.mac, dataplane.FirstHostProbePort, dataplane.LastHostProbePort)
	}
	s, err := link.Open(cfg)
	if err != nil {
		return nil, err
	}
	if worker == 0 {
		info := s.Info()
		p.opened.Store(&info)
		d.log.Info("attached", zap.String("interface", p.name), zap.Stringer("link", info.Kind), zap.String("linkReason", info.Reason),
			zap.Stringer("mode", p.mode), zap.String("modeReason", p.why), zap.Stringer("mac", p.mac), zap.Int("mtu", info.MTU), zap.Bool("vnet", info.Vnet))
	}
	return s, nil
}

func (d *daemon) openTx(i int) (link.Link, error) {
	return link.OpenTx(link.Config{Interface: d.ports[i].name})
}

// fanoutGroup is a number for the workers' group on port i that another uvsd in this network namespace hardly has too.
func fanoutGroup(i int) uint16 { return uint16(os.Getpid()<<4 + i + 1) }

// prepareResolver starts to mirror routes and neighbours.
func (d *daemon) prepareResolver() (err error) {
	cfg := nexthop.Config{
		GuardProtocol: guard.RouteProtocol, Log: d.log,
		Ask: func(port int, q nexthop.Question) { d.plane.Ask(port, q) },
		Changed: func() {
			if d.plane != nil { // New calls it too, before there is anybody to wake
				d.plane.Wake()
			}
		},
	}
	for i, p := range d.ports {
		cfg.Interfaces = append(cfg.Interfaces, nexthop.Interface{Name: p.name, MAC: p.mac})
		for _, g := range p.gateways {
			cfg.Gateways = append(cfg.Gateways, nexthop.Gateway{Prefix: g, Iface: i})
		}
	}
	d.resolver, err = nexthop.New(cfg)
	return err
}

// isLocal says that a is an address of the director's own: the host's, or one of uvsd's that needs no service.
func (d *daemon) isLocal(a netip.Addr) bool {
	if a.IsLoopback() || d.isOwn(a) {
		return true
	}
	_, status := d.resolver.Lookup(packet.AddrFrom(a))
	return status == nexthop.Local
}

// isOwn says that a is an address that uvsd has and the host hasn't, whatever services there are.
func (d *daemon) isOwn(a netip.Addr) bool {
	if slices.Contains(d.o.masquerade, a) || slices.Contains(d.o.probes, a) {
		return true
	}
	for _, g := range d.o.gateways {
		if a == g.prefix.Addr() {
			return true
		}
	}
	return false
}

// fillStatus tells the API what the packet path knows.
func (d *daemon) fillStatus(s *api.Status) {
	s.Version, s.PID, s.Started = version, os.Getpid(), d.started
	d.mu.Lock()
	s.Warnings = slices.Clone(d.warnings)
	d.mu.Unlock()
	t := d.plane.Table()
	for i, p := range d.ports {
		state, info := d.resolver.Link(i), p.info()
		s.Interfaces = append(s.Interfaces, api.Interface{
			Name: p.name, MAC: d.mac(i).String(), Mode: p.mode.String(), Link: info.Kind.String(), MTU: state.MTU, Up: state.Up,
			Offloads: info.Vnet, Addresses: d.addresses(i, t),
		})
	}
	for i := range d.plane.Workers() {
		cpu := -1
		if d.o.pin {
			cpu = i
		}
		w := d.plane.WorkerStats(i)
		s.Workers = append(s.Workers, api.Worker{ID: i, CPU: cpu, Packets: packets(&w)})
	}
	all := d.plane.Stats()
	s.Packets = packets(&all)
	if n := all.LostOfPassages; n > 0 {
		s.Warnings = append(s.Warnings, api.Warning{
			Text:   fmt.Sprintf("%d packets of health checks through virtual addresses found full queues in uvsd: checks may have failed for that", n),
			Remedy: "give the checks longer intervals, or uvsd more CPU time",
		})
	}
	s.Drops = drops(&all)
}

// mac is the address that uvs has on port i.
func (d *daemon) mac(i int) packet.MAC {
	p := d.ports[i]
	if p.mode == guard.InterfaceMAC && d.resolver != nil {
		if now := d.resolver.Link(i).MAC; now != (packet.MAC{}) {
			return now
		}
	}
	return p.mac
}

func packets(s *dataplane.Stats) api.Packets {
	return api.Packets{Received: s.Received, Forwarded: s.Forwarded, Answered: s.Answered, Passed: s.Passed, Dropped: s.Dropped, Held: s.Held}
}

// addresses are those that uvs owns on port i.
func (d *daemon) addresses(i int, t *service.Table) []netip.Addr {
	var own []netip.Addr
	for _, g := range d.ports[i].gateways {
		own = append(own, g.Addr())
	}
	elsewhere := func(a packet.Addr) bool {
		on, ok := d.resolver.OnLink(a)
		return ok && on != i || !ok && len(d.ports[i].gateways) > 0
	}
	for _, a := range d.o.probes {
		if !elsewhere(packet.AddrFrom(a)) {
			own = append(own, a)
		}
	}
	for a := range t.VIPs {
		if !elsewhere(a) {
			own = append(own, a.Netip())
		}
	}
	return own
}
