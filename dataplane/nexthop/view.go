package nexthop

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"uvs/packet"
)

// view is everything that Lookup reads. It is replaced as a whole when routes change; exact, targets and their answers are
// written in place, by atomic pointers.
type view struct {
	exact    *exact
	segments []segment
	// own are the host's addresses on these segments: other ones than the gateways', which the host doesn't have.
	own      []packet.Addr
	main     *bart.Table[*route]
	fallback *bart.Table[*route]
	// ask4 and ask6 say that the family has policy rules: only the kernel knows the way to an address.
	ask4, ask6 bool
}

// segment is a gateway's segment.
type segment struct {
	net   packet.Addr
	bits  int
	own   packet.Addr
	iface int
}

func (s *segment) contains(a packet.Addr) bool {
	return a.Is4() == s.net.Is4() && a.Masked(s.bits) == s.net
}

// segment returns the gateway's segment that an address lies in, or nil.
func (v *view) segment(dst packet.Addr) *segment {
	for i := range v.segments {
		if v.segments[i].contains(dst) {
			return &v.segments[i]
		}
	}
	return nil
}

// segmentOn is segment for a station that is on an interface: link-local addresses are the same on all.
func (v *view) segmentOn(iface int, a packet.Addr) *segment {
	for i := range v.segments {
		if s := &v.segments[i]; s.iface == iface && s.contains(a) {
			return s
		}
	}
	return nil
}

// route is the way to the addresses of a prefix, ready to be followed. It is immutable, but for its targets' answers.
type route struct {
	kind routeKind
	hops []way // of a routeVia, at least one
}

// routeKind says what a route does with its packets.
type routeKind uint8

const (
	routeVia     routeKind = iota // sends them by one of its hops
	routeRefused                  // blackhole, unreachable, prohibit; broadcast and multicast, which no balancer sends
	routeLocal                    // they are the host's
	routeForeign                  // leaves by interfaces that uvsd isn't attached to
	routeThrow                    // ends the lookup in its table
	routeAsk                      // the kernel must be asked
)

// way is one hop of a route.
type way struct {
	path   path
	target *target // of the router; nil where the destination itself is the neighbour
	upto   uint32  // share: the hop of all hashes up to this one, in ascending order
}

// path is how a packet leaves, but for the neighbour.
type path struct {
	iface, mtu int
	source     packet.Addr
}

var (
	refusedRoute = &route{kind: routeRefused}
	localRoute   = &route{kind: routeLocal}
	foreignRoute = &route{kind: routeForeign}
	throwRoute   = &route{kind: routeThrow}
	askRoute     = &route{kind: routeAsk}
)

// route finds the route to an address.
func (v *view) route(dst packet.Addr) *route {
	if dst.Is4() && v.ask4 || !dst.Is4() && v.ask6 {
		return askRoute
	}
	var ip netip.Addr
	if dst.Is4() {
		a := dst.V4()
		ip = netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}) // half the price of Netip
	} else if ip = dst.Netip(); !ip.IsValid() {
		return refusedRoute
	}
	if rt, ok := v.main.Lookup(ip); ok && rt.kind != routeThrow {
		return rt
	}
	if rt, ok := v.fallback.Lookup(ip); ok && rt.kind != routeThrow {
		return rt
	}
	return refusedRoute
}

// choose picks the hop of a routeVia for an address: always the same one while the route stands, each with the share of
// its weight, but a hop whose router doesn't answer leaves its share to the others. The kernel hashes the source as well;
// here the addresses behind a route divide among its hops, and what goes to one address keeps its order.
func (rt *route) choose(dst packet.Addr) *way {
	if len(rt.hops) == 1 {
		return &rt.hops[0]
	}
	hi, lo := dst.Words()
	h := (hi ^ lo) * 0x9e3779b97f4a7c15
	h32 := uint32((h ^ h>>29) * 0xbf58476d1ce4e5b9 >> 32)
	first := 0
	for first < len(rt.hops)-1 && h32 > rt.hops[first].upto {
		first++
	}
	for i := range rt.hops {
		w := &rt.hops[(first+i)%len(rt.hops)]
		if w.target == nil || w.target.answer.Load().status != Unreachable {
			return w
		}
	}
	return &rt.hops[first]
}

// target is a neighbour together with a path to it: what a Hop is made of.
type target struct {
	path
	gateway packet.Addr
	// n is the neighbour, nil for the targets that are but a status; the writer's alone.
	n      *neighbour
	answer atomic.Pointer[answer]
	used   atomic.Bool // looked up since the writer last looked
}

// answer is what Lookup returns.
type answer struct {
	hop    Hop
	status Status
}

func statusTarget(s Status) *target {
	t := new(target)
	t.answer.Store(&answer{status: s})
	return t
}

// The targets of addresses that have no next hop.
var (
	refusedTarget = statusTarget(NoRoute)
	foreignTarget = statusTarget(NotAttached)
	localTarget   = statusTarget(Local)
)

// touch notes that something is looked up. The flag is mostly set already, and then its cache line stays shared.
func touch(used *atomic.Bool) {
	if !used.Load() {
		used.Store(true)
	}
}

func (t *target) result() (*Hop, Status) {
	a := t.answer.Load()
	if a.status != Ready {
		return nil, a.status
	}
	return &a.hop, Ready
}

// Lookup returns the way to dst if the status is Ready, else nil. It takes no lock, does not allocate and may be called
// from any goroutine. What it returns holds until Generation changes. On Pending, Resolve makes sure that somebody finds
// out.
func (r *Resolver) Lookup(dst packet.Addr) (*Hop, Status) {
	v := r.view.Load()
	if e := v.exact.find(dst); e != nil {
		if t := e.target.Load(); t != nil {
			touch(&e.used)
			return t.result()
		}
	}
	if v.segment(dst) != nil {
		if slices.Contains(v.own, dst) {
			return nil, Local
		}
		return nil, Pending
	}
	rt := v.route(dst)
	switch rt.kind {
	case routeVia:
		w := rt.choose(dst)
		if w.target == nil {
			return nil, Pending
		}
		touch(&w.target.used)
		return w.target.result()
	case routeAsk:
		return nil, Pending
	case routeLocal:
		return nil, Local
	case routeForeign:
		return nil, NotAttached
	default:
		return nil, NoRoute
	}
}

// Generation changes whenever an answer that Lookup gave may have become wrong. Read it before Lookup.
func (r *Resolver) Generation() uint64 { return r.generation.Load() }
