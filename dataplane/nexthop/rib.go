package nexthop

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// rib mirrors the routes of the kernel that packets without a mark and of no particular source are sent by: all those of
// the tables local and main in one (the kernel keeps them so as long as the rules are the default ones), and of default.
type rib struct {
	main, fallback map[netip.Prefix][]kernelRoute // in the order in which the kernel tries them
	guard          uint8                          // protocol number of routes that don't count
}

func newRIB(guard uint8) *rib {
	return &rib{main: make(map[netip.Prefix][]kernelRoute), fallback: make(map[netip.Prefix][]kernelRoute), guard: guard}
}

// of is the part of the mirror that a route belongs to, nil if to none. Routes for a single type of service are left out:
// the way to an address is one for all its packets.
func (r *rib) of(k *kernelRoute) map[netip.Prefix][]kernelRoute {
	switch {
	case k.cached, k.tos != 0, r.guard != 0 && k.proto == r.guard:
		return nil
	case k.table == unix.RT_TABLE_LOCAL, k.table == unix.RT_TABLE_MAIN:
		return r.main
	case k.table == unix.RT_TABLE_DEFAULT:
		return r.fallback
	}
	return nil
}

// before says that the kernel tries a before b, which have the same prefix: the local table first, then by metric.
func before(a, b *kernelRoute) bool {
	if a.table != b.table {
		return a.table == unix.RT_TABLE_LOCAL
	}
	return a.priority < b.priority
}

// load adds a route from a dump, which lists those of equal rank in the kernel's order.
func (r *rib) load(k kernelRoute) {
	if m := r.of(&k); m != nil {
		m[k.prefix] = place(m[k.prefix], k)
	}
}

// place puts k behind those that are tried before it or have its rank. The list is not changed but copied: it may be in
// use.
func place(list []kernelRoute, k kernelRoute) []kernelRoute {
	i := len(list)
	for i > 0 && before(&k, &list[i-1]) {
		i--
	}
	return slices.Insert(slices.Clone(list), i, k)
}

// add follows an RTM_NEWROUTE with the flags of its message. It returns false when only a new dump can tell what the
// kernel now has.
func (r *rib) add(k kernelRoute, flags uint16) bool {
	m := r.of(&k)
	if m == nil {
		return true
	}
	list := m[k.prefix]
	rank := slices.IndexFunc(list, func(o kernelRoute) bool { return !before(&o, &k) && !before(&k, &o) })
	switch {
	case rank < 0:
		m[k.prefix] = place(list, k)
		return true
	case len(list) > rank+1 && !before(&list[rank], &list[rank+1]):
		return false // several of that rank: which one is meant?
	case list[rank].same(&k) || flags&unix.NLM_F_REPLACE != 0:
		list = slices.Clone(list)
		list[rank] = k
		m[k.prefix] = list
		return true
	}
	return false
}

// remove follows an RTM_DELROUTE. It returns false when the mirror doesn't have what the kernel removed.
func (r *rib) remove(k kernelRoute) bool {
	m := r.of(&k)
	if m == nil {
		return true
	}
	list := m[k.prefix]
	i := slices.IndexFunc(list, func(o kernelRoute) bool { return o.same(&k) })
	if i < 0 {
		return false
	}
	if len(list) == 1 {
		delete(m, k.prefix)
		return true
	}
	m[k.prefix] = slices.Delete(slices.Clone(list), i, i+1)
	return true
}

// take is the route of a list that packets are sent by: the best, and of IPv6, whose routers announce themselves each by a
// route of its own, all by routers that are as good. Of these the kernel takes one that answers (RFC 4861 section 6.3.6);
// those of a lower preference come last (RFC 4191 section 3.2).
func take(list []kernelRoute) *kernelRoute {
	k := best(list)
	if k == nil || k.prefix.Addr().Is4() || !k.byRouters() {
		return k
	}
	var all []*kernelRoute
	for i := range list {
		if o := &list[i]; o.byRouters() && !before(k, o) && !before(o, k) {
			all = append(all, o)
		}
	}
	if len(all) == 1 {
		return k
	}
	slices.SortStableFunc(all, func(a, b *kernelRoute) int { return b.pref - a.pref })
	merged := *all[0]
	merged.hops = slices.Clone(merged.hops)
	for _, o := range all[1:] {
		for _, h := range o.hops {
			if o.pref < merged.pref {
				h.weight = 0
			}
			merged.hops = append(merged.hops, h)
		}
	}
	return &merged
}

// byRouters says that every way out of a route is by a router.
func (k *kernelRoute) byRouters() bool {
	return k.kind == unix.RTN_UNICAST && !k.opaque && len(k.hops) > 0 &&
		!slices.ContainsFunc(k.hops, func(h kernelHop) bool { return h.gateway.IsZero() })
}

// best is the route of a list that the kernel takes, nil if none is alive: the kernel then goes on with a shorter prefix.
func best(list []kernelRoute) *kernelRoute {
	for i := range list {
		k := &list[i]
		if k.kind != unix.RTN_UNICAST || k.opaque || slices.ContainsFunc(k.hops, func(h kernelHop) bool { return !h.dead }) {
			return k
		}
	}
	return nil
}
