package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/dataplane/dialer"
	"uvs/dataplane/guard"
	"uvs/dataplane/nexthop"
	"uvs/health"
	"uvs/packet"
	"uvs/service"
)

// sources are the addresses that health checks through virtual addresses come from: uvsd's own where it has one, else the
// host's, whose stack is then kept off the answers.
type sources struct {
	shielded atomic.Bool // the guard is to drop for the host what comes from virtual addresses
	up       atomic.Bool // it does
	raising  sync.Mutex

	mu    sync.Mutex // guards hosts
	hosts map[segment]hostAddrs
}

// segment is a family on a port.
type segment struct {
	port int
	is4  bool
}

// hostAddrs are what the host had of a segment's addresses at a time.
type hostAddrs struct {
	list   []netip.Addr
	coming bool // there is one that duplicate address detection has yet to let go
	at     time.Time
}

// hostAddrsLife is how long they are believed.
const hostAddrsLife = time.Second

// prepareDialer makes what connects to virtual addresses.
func (d *daemon) prepareDialer() (err error) {
	d.dialer, err = dialer.New(dialer.Config{Plane: d.plane, NextHops: d.resolver, Source: d.sourceFor})
	return err
}

// dialProbe opens a connection for a health check.
func (d *daemon) dialProbe(ctx context.Context, network string, r *health.Route) (net.Conn, error) {
	to := dialer.Target{Address: r.To, Server: r.Server.Addr, Method: r.Server.Method(), RS: r.Server.Index}
	switch {
	case !r.VIP && !d.beyondHost(r.To.Addr()):
		return health.DialDirect(ctx, network, r.To)
	case !r.VIP:
		to = dialer.Target{Address: r.To, Server: r.To, Method: service.Route, RS: service.NoServer}
	case r.To.Port() != r.Service.Addr.Port():
		to.Server = netip.AddrPortFrom(to.Server.Addr(), r.To.Port()) // the check has a port of its own
	}
	c, err := d.dialer.Dial(ctx, network, to)
	if errors.Is(err, dialer.ErrNoSource) {
		err = fmt.Errorf("%w: %w", health.ErrUnable, err)
	}
	return c, err
}

// beyondHost says that a real server stands on the segment of a --gateway that the host has no address on: its own stack has no
// way there, or a wrong one, but uvsd has.
func (d *daemon) beyondHost(a netip.Addr) bool {
	for i := range d.ports {
		for _, g := range d.ports[i].gateways {
			if g.Contains(a) {
				return !slices.ContainsFunc(d.sources.of(d, segment{i, a.Is4()}), g.Contains)
			}
		}
	}
	return false
}

// canDialVirtual says that health checks of a real server can go to the virtual address; if not, why is kept for the status.
func (d *daemon) canDialVirtual(k service.Key, _ *service.RealServer) bool {
	is4 := k.Addr.Addr().Is4()
	if d.hasOwnSource(is4) {
		return true
	}
	why := d.shield() // before thousands of first probes wait for it
	if why == nil {
		for i := range d.ports {
			if h := d.sources.look(d, segment{i, is4}); len(h.list) > 0 || h.coming {
				return true
			}
		}
		why = fmt.Errorf("the host has no %s address on an attached interface", family(is4))
	}
	d.warn(guard.Finding{
		What:   fmt.Sprintf("health checks of real servers by DR and TUN go to their own addresses, so that one without the virtual address passes for healthy: uvsd has no %s address to ask from, and can't use the host's: %v", family(is4), why),
		Remedy: "start uvsd with --probe-address ADDRESS, a free one of the real servers' segment",
	})
	return false
}

func family(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

// hasOwnSource says that uvsd has an address of a family that checks may come from.
func (d *daemon) hasOwnSource(is4 bool) bool {
	return slices.ContainsFunc(slices.Concat(d.o.probes, d.o.masquerade), func(a netip.Addr) bool { return a.Is4() == is4 }) ||
		slices.ContainsFunc(d.o.gateways, func(g gateway) bool { return g.prefix.Addr().Is4() == is4 })
}

// sourceFor is where a check comes from: an address of uvsd's on the segment that the way leaves by, else the host's there, else
// any of uvsd's.
func (d *daemon) sourceFor(to *dialer.Target, hop *nexthop.Hop) (dialer.Source, error) {
	is4 := to.Address.Addr().Is4()
	var other netip.Addr
	for _, a := range slices.Concat(d.o.probes, d.o.masquerade) {
		if a.Is4() != is4 || a == to.Address.Addr() {
			continue
		}
		if port, ok := d.resolver.OnLink(packet.AddrFrom(a)); ok && port == hop.Iface {
			return dialer.Source{Addr: a}, nil
		}
		if !other.IsValid() {
			other = a
		}
	}
	for _, g := range d.ports[hop.Iface].gateways {
		if g.Addr().Is4() == is4 {
			return dialer.Source{Addr: g.Addr()}, nil
		}
	}
	if to.Method != service.Masq { // its answers don't tell by their source that they aren't the host's
		if list := d.sources.of(d, segment{hop.Iface, is4}); len(list) > 0 && d.shield() == nil {
			if preferred := hop.Source.Netip(); slices.Contains(list, preferred) {
				return dialer.Source{Addr: preferred, Host: true}, nil
			}
			return dialer.Source{Addr: list[0], Host: true}, nil
		}
	}
	if other.IsValid() {
		return dialer.Source{Addr: other}, nil
	}
	return dialer.Source{}, fmt.Errorf("start uvsd with --probe-address ADDRESS, a free %s one of %s's segment", family(is4), d.ports[hop.Iface].name)
}

// shield has the host's stack kept off what comes from virtual addresses, from the first check on that is sent in its name.
func (d *daemon) shield() error {
	s := &d.sources
	if s.up.Load() {
		return nil
	}
	if err := d.guard.CanDropFromVIPs(); err != nil {
		return err
	}
	s.raising.Lock()
	defer s.raising.Unlock()
	if !s.up.Load() {
		s.shielded.Store(true)
		d.tables.follow()
		s.up.Store(true)
	}
	return nil
}

// of are the host's addresses on a segment, those that others beyond it know too.
func (s *sources) of(d *daemon, at segment) []netip.Addr { return s.look(d, at).list }

// look looks at the host's addresses on a segment, or remembers them.
func (s *sources) look(d *daemon, at segment) hostAddrs {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if have, ok := s.hosts[at]; ok && now.Sub(have.at) < hostAddrsLife {
		return have
	}
	have := hostAddrs{at: now}
	kind := netlink.FAMILY_V6
	if at.is4 {
		kind = netlink.FAMILY_V4
	}
	if l, err := netlink.LinkByName(d.ports[at.port].name); err == nil {
		addrs, _ := netlink.AddrList(l, kind) // none is what it comes to
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if ip = ip.Unmap(); !ok || a.Scope != unix.RT_SCOPE_UNIVERSE || a.Flags&(unix.IFA_F_DEPRECATED|unix.IFA_F_DADFAILED) != 0 ||
				d.plane.Table().IsVIP(packet.AddrFrom(ip)) {
				continue
			}
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				have.coming = true
				continue
			}
			have.list = append(have.list, ip)
		}
	}
	if s.hosts == nil {
		s.hosts = make(map[segment]hostAddrs)
	}
	s.hosts[at] = have
	return have
}
