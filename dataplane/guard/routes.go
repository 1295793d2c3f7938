package guard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// blackhole is the route that keeps the host's stack off an address: no answer, no ICMP, no forwarding, and no answer to
// ARP either. An unreachable route would send ICMP errors.
func blackhole(a netip.Addr, id int) *netlink.Route {
	return &netlink.Route{
		Dst:   &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE, Protocol: RouteProtocol, Priority: id,
	}
}

// ourRoutes are the blackhole routes of all instances, by address and metric.
func (g *Guard) ourRoutes() (map[routeKey]bool, error) {
	found := make(map[routeKey]bool)
	like := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE, Protocol: RouteProtocol}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := g.nl.RouteListFiltered(family, like, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
				continue // a kernel without IPv6
			}
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				found[routeKey{a.Unmap(), r.Priority}] = true
			}
		}
	}
	return found, nil
}

// routeKey is what a blackhole route differs by from the others.
type routeKey struct {
	addr netip.Addr
	id   int // of the instance
}

// updateRoutes makes the instance's blackhole routes those of the addresses.
func (g *Guard) updateRoutes(addrs []netip.Addr) error {
	have, err := g.ourRoutes()
	if err != nil {
		return err
	}
	want := make(map[netip.Addr]bool, len(addrs))
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		if want[a] {
			continue
		}
		want[a] = true
		if have[routeKey{a, g.id}] {
			continue
		}
		if err := g.nl.RouteAdd(blackhole(a, g.id)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("blackhole route for %v: %w", a, err))
		}
	}
	for k := range have {
		if k.id == g.id && !want[k.addr] {
			errs = append(errs, g.delRoute(k))
		}
	}
	return errors.Join(errs...)
}

func (g *Guard) delRoute(k routeKey) error {
	if err := g.nl.RouteDel(blackhole(k.addr, k.id)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove blackhole route for %v: %w", k.addr, err)
	}
	return nil
}

// removeLeftovers removes what instances have left that don't live any more. What this instance's name is on stays.
func (g *Guard) removeLeftovers() error {
	routes, err := g.ourRoutes()
	if err != nil {
		return err
	}
	gone := make(map[int]bool) // by number: doesn't live
	leftover := func(id int) bool {
		if id == g.id {
			return false
		}
		d, known := gone[id]
		if !known {
			d = dead(id)
			gone[id] = d
		}
		return d
	}
	for k := range routes {
		if leftover(k.id) {
			g.log.Info("removing a route that a crashed uvsd left", zap.Stringer("address", k.addr))
			if err := g.delRoute(k); err != nil {
				return err
			}
		}
	}
	if err := g.removeRules(func(table int) bool { return leftover(table) }); err != nil {
		return err
	}
	err = g.nft.removeTables(func(t *nftables.Table) bool {
		name, ours := strings.CutPrefix(t.Name, tablePrefix)
		if !ours || !leftover(number(name)) {
			return false
		}
		g.log.Info("removing an nftables table that a crashed uvsd left", zap.String("table", t.Name))
		return true
	})
	if err != nil {
		return err
	}
	return g.removeBridgeLeftovers()
}
