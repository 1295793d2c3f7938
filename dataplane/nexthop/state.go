package nexthop

import (
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// state is what Run alone reads and writes, but for links, which it publishes.
type state struct {
	kernel   *kernel
	links    []atomic.Pointer[LinkState]
	attached []LinkState        // the same, the writer's copy
	position map[int]int        // interface index -> position in Config.Interfaces
	known    map[int]kernelLink // all interfaces of the host
	addrs    []kernelAddr
	rib      *rib
	ask      [2]bool // IPv4, IPv6: policy rules exist

	compiled map[compiledKey]*route // routes of one hop, which most of a large table share
	multi    []*route               // routes of several
	targets  map[compiledKey]*target
	neigh    map[neighbourKey]*neighbour
	rerouted []netip.Prefix // changed since reconsiderRerouted
	pinned   []packet.Addr
	epoch    uint64 // of keepPinned
	ticks    uint64

	dirty    dirt
	reloadAt time.Time // not before; reading a large table must not become all there is to do
	settleAt time.Time
	changed  bool // some answer, since finish
	evictAt  time.Time
	denied   time.Time // when the kernel's refusal was last logged
}

// compiledKey is a hop: how it leaves and to whom. gateway is zero where the destination is the neighbour.
type compiledKey struct {
	path
	gateway packet.Addr
}

func (s *state) init(k *kernel, interfaces int) {
	s.kernel = k
	s.links = make([]atomic.Pointer[LinkState], interfaces)
	s.attached = make([]LinkState, interfaces)
	for i := range s.links {
		s.links[i].Store(new(LinkState))
	}
	s.position, s.known = make(map[int]int), make(map[int]kernelLink)
	s.targets, s.neigh = make(map[compiledKey]*target), make(map[neighbourKey]*neighbour)
	s.rib = newRIB(0)
}

// dirt says what must be read anew.
type dirt uint8

const (
	dirtyLinks dirt = 1 << iota
	dirtyAddrs
	dirtyRules
	dirtyRoutes
	dirtyNeighbours
	// dirtySettle asks for the routes once more after settleDelay: the kernel tells that an interface went down or lost
	// an address before it takes the routes out, and of those it says nothing.
	dirtySettle

	dirtyAll = dirtyLinks | dirtyAddrs | dirtyRules | dirtyRoutes | dirtyNeighbours
)

const (
	settleDelay = 250 * time.Millisecond
	// Between reloads passes reloadPause times what one takes, within limits.
	reloadPause    = 2
	reloadPauseMin = 10 * time.Millisecond
	reloadPauseMax = time.Second
)

// due is when the next reload is to be done, false if none is.
func (s *state) due() (at time.Time, ok bool) {
	if s.dirty&^dirtySettle != 0 {
		return s.reloadAt, true
	}
	return s.settleAt, s.dirty&dirtySettle != 0
}

// follow takes in what the kernel tells.
func (r *Resolver) follow(ev event) {
	if ev.lost {
		r.stats.eventsLost.Add(1)
		r.dirty |= dirtyAll
	}
	for i := range ev.messages {
		m := &ev.messages[i]
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			l, ok := parseLink(m.Data)
			if gone := m.Header.Type == unix.RTM_DELLINK; ok && (gone || r.known[l.index] != l) {
				r.dirty |= dirtyLinks | dirtyAddrs | dirtyRoutes | dirtySettle
			}
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			a, ok := parseAddr(m.Data) // IPv6 repeats addresses whenever a router prolongs their life
			if ok && (m.Header.Type == unix.RTM_DELADDR || !slices.Contains(r.addrs, a)) {
				r.dirty |= dirtyAddrs | dirtyRoutes | dirtySettle
			}
		case unix.RTM_NEWRULE, unix.RTM_DELRULE:
			r.dirty |= dirtyRules
		case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
			r.dirty |= dirtyRoutes
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if k, ok := parseRoute(m.Data); ok {
				r.followRoute(k, m.Header.Type == unix.RTM_DELROUTE, m.Header.Flags)
			}
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			if n, ok := parseNeighbour(m.Data); ok {
				r.followNeighbour(n, m.Header.Type == unix.RTM_DELNEIGH, time.Now())
			}
		}
	}
}

// followRoute takes in a change of one route. Where only the kernel can know the outcome, the tables are read anew; so
// for IPv6, whose multipath routes change one hop at a time.
func (r *Resolver) followRoute(k kernelRoute, gone bool, flags uint16) {
	if k.cached {
		return
	}
	if r.askFamily(k.prefix.Addr().Is4()) {
		r.dirty |= dirtyRoutes // in whatever table it is
		return
	}
	if r.rib.of(&k) == nil || r.dirty&dirtyRoutes != 0 {
		return
	}
	ok := k.prefix.Addr().Is4()
	switch {
	case ok && gone:
		ok = r.rib.remove(k)
	case ok:
		ok = r.rib.add(k, flags)
	}
	if !ok {
		r.dirty |= dirtyRoutes
		return
	}
	v := *r.view.Load()
	if k.table == unix.RT_TABLE_DEFAULT {
		v.fallback = r.recompile(v.fallback, r.rib.fallback, k.prefix)
	} else {
		v.main = r.recompile(v.main, r.rib.main, k.prefix)
	}
	r.view.Store(&v)
	r.changed = true
	r.rerouted = append(r.rerouted, k.prefix)
}

// manyRerouted is from how many changed prefixes on every address is looked at, not only those within.
const manyRerouted = 32

// reconsiderRerouted brings the addresses that have answers of their own in line with the routes that changed one by one.
func (r *Resolver) reconsiderRerouted(now time.Time) {
	if len(r.rerouted) == 0 {
		return
	}
	for e := range r.view.Load().exact.all {
		ip := e.dst.Netip()
		if len(r.rerouted) >= manyRerouted || slices.ContainsFunc(r.rerouted, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			r.reconsider(e, now)
		}
	}
	r.rerouted = r.rerouted[:0]
}

func (r *Resolver) recompile(t *bart.Table[*route], routes map[netip.Prefix][]kernelRoute, p netip.Prefix) *bart.Table[*route] {
	if rt := r.compile(take(routes[p])); rt != nil {
		return t.InsertPersist(p, rt)
	}
	return t.DeletePersist(p)
}

func (s *state) askFamily(is4 bool) bool {
	if is4 {
		return s.ask[0]
	}
	return s.ask[1]
}

// reload reads what is dirty anew and brings every answer in line with it.
func (r *Resolver) reload(now time.Time) error {
	r.stats.reloads.Add(1)
	d := r.dirty
	if d&dirtySettle != 0 && d&^dirtySettle == 0 {
		d = dirtyAddrs | dirtyRoutes
	}
	if d&dirtyLinks != 0 {
		links, err := r.kernel.links()
		if err != nil {
			return err
		}
		if r.setLinks(links, now) {
			d |= dirtyRoutes | dirtyNeighbours
		}
	}
	if d&dirtyAddrs != 0 {
		addrs, err := r.kernel.addrs()
		if err != nil {
			return err
		}
		r.addrs = addrs
	}
	if d&dirtyRules != 0 {
		rules, err := r.kernel.rules()
		if err != nil {
			return err
		}
		r.setRules(rules)
	}
	if d&(dirtyAddrs|dirtyRules|dirtyRoutes) != 0 {
		rib, err := r.kernel.routes(r.cfg.GuardProtocol)
		if err != nil {
			return err
		}
		r.rib = rib
		r.compileAll(now)
	}
	if d&dirtyNeighbours != 0 {
		if err := r.reloadNeighbours(now); err != nil {
			return err
		}
	}
	took := time.Since(now)
	r.reloadAt = now.Add(took + min(max(reloadPause*took, reloadPauseMin), reloadPauseMax))
	if r.dirty&dirtySettle != 0 && r.dirty != dirtySettle {
		r.dirty, r.settleAt = dirtySettle, now.Add(took+settleDelay)
	} else {
		r.dirty = 0
	}
	return nil
}

// setLinks takes in the list of the host's interfaces and says whether anything about an attached one changed.
func (r *Resolver) setLinks(links []kernelLink, now time.Time) bool {
	clear(r.known)
	clear(r.position)
	states := make([]LinkState, len(r.attached))
	for _, l := range links {
		r.known[l.index] = l
		i := slices.IndexFunc(r.cfg.Interfaces, func(in Interface) bool { return in.Name == l.name })
		if i >= 0 {
			states[i] = LinkState{Index: l.index, MTU: l.mtu, Up: l.up, MAC: l.mac}
			r.position[l.index] = i
		}
	}
	changed := false
	for i, s := range states {
		old := r.attached[i]
		if s == old {
			continue
		}
		changed, r.changed = true, true
		r.attached[i] = s
		r.links[i].Store(&s)
		r.linkChanged(i, old, now)
	}
	return changed
}

// setRules takes in the policy rules.
func (r *Resolver) setRules(rules []kernelRule) {
	r.ask = [2]bool{}
	for i, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if slices.ContainsFunc(rules, func(k kernelRule) bool { return k.family == family }) {
			r.ask[i] = !defaultRules(rules, family, r.cfg.GuardProtocol)
		}
	}
}

// compileAll makes all routes anew and reconsiders every address that has an answer of its own.
func (r *Resolver) compileAll(now time.Time) {
	r.compiled, r.multi = make(map[compiledKey]*route), nil
	v := *r.view.Load()
	v.main, v.fallback = r.compileTable(r.rib.main), r.compileTable(r.rib.fallback)
	v.ask4, v.ask6 = r.ask[0], r.ask[1]
	v.own = nil
	for _, a := range r.addrs {
		if own := packet.AddrFrom(a.prefix.Addr()); v.segment(own) != nil {
			v.own = append(v.own, own)
		}
	}
	r.view.Store(&v)
	r.changed = true
	for e := range v.exact.all {
		r.reconsider(e, now)
	}
	for _, n := range r.neigh {
		if n.status == Ready {
			r.learn(n, now) // what was behind a router may now be on a segment
		}
	}
	r.sweep()
}

func (r *Resolver) compileTable(routes map[netip.Prefix][]kernelRoute) *bart.Table[*route] {
	t := new(bart.Table[*route])
	for p, list := range routes {
		if rt := r.compile(take(list)); rt != nil {
			t.Insert(p, rt)
		}
	}
	return t
}

// compile makes a route ready to be followed. Hops by interfaces that uvsd isn't attached to are left out where others
// exist. Equal routes are one.
func (r *Resolver) compile(k *kernelRoute) *route {
	switch {
	case k == nil:
		return nil
	case k.kind == unix.RTN_LOCAL, k.kind == unix.RTN_ANYCAST:
		return localRoute
	case k.kind == unix.RTN_THROW:
		return throwRoute
	case k.kind != unix.RTN_UNICAST:
		return refusedRoute
	case k.opaque:
		return askRoute
	}
	var hops []way
	var weights []int
	total := 0
	for _, h := range k.hops {
		i, ok := r.position[h.index]
		if !ok || h.dead {
			continue
		}
		w := way{path: r.path(i, k, h)}
		if !h.gateway.IsZero() {
			w.target = r.target(compiledKey{w.path, h.gateway})
		}
		hops, weights, total = append(hops, w), append(weights, h.weight), total+h.weight
	}
	switch len(hops) {
	case 0:
		return foreignRoute
	case 1:
		hops[0].upto = 1<<32 - 1
		key := compiledKey{path: hops[0].path}
		if t := hops[0].target; t != nil {
			key.gateway = t.gateway
		}
		rt := r.compiled[key]
		if rt == nil {
			rt = &route{hops: hops}
			r.compiled[key] = rt
		}
		return rt
	}
	if total == 0 { // uvsd is not attached to those that come first
		for i := range weights {
			weights[i] = 1
		}
		total = len(weights)
	}
	sum := 0
	for i, w := range weights {
		sum += w
		hops[i].upto = uint32(uint64(sum) * (1<<32 - 1) / uint64(total))
	}
	rt := &route{hops: hops}
	r.multi = append(r.multi, rt)
	return rt
}

// path is how packets of a route leave by the interface at position i.
func (r *Resolver) path(i int, k *kernelRoute, h kernelHop) path {
	p := path{iface: i, mtu: r.attached[i].MTU, source: k.source}
	if k.mtu > 0 {
		p.mtu = min(p.mtu, k.mtu)
	}
	if p.source.IsZero() || p.source.Is4() != k.prefix.Addr().Is4() {
		to := packet.AddrFrom(k.prefix.Addr())
		if h.gateway.Is4() && to.Is4() { // an IPv6 router's address says nothing: it is link-local, mostly
			to = h.gateway
		}
		p.source = source(r.addrs, h.index, to)
	}
	return p
}

// source is the address that the kernel would send from by way of an interface when the route names none
// (inet_select_addr): the interface's first one, if possible of the segment that to lies in, else any of the host's. For
// IPv6 it is a simple reading of RFC 6724: no link-local one but for a link-local destination, none that is deprecated or
// temporary.
func source(addrs []kernelAddr, index int, to packet.Addr) packet.Addr {
	const unfit = unix.IFA_F_SECONDARY | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
	var first, elsewhere netip.Addr
	dst := to.Netip()
	for _, a := range addrs {
		ip := a.prefix.Addr()
		if ip.Is4() != to.Is4() || a.flags&unfit != 0 {
			continue
		}
		switch {
		case a.index != index:
			if a.scope < unix.RT_SCOPE_LINK && !elsewhere.IsValid() {
				elsewhere = ip
			}
		case a.prefix.Contains(dst):
			return packet.AddrFrom(ip)
		case !first.IsValid() && (a.scope < unix.RT_SCOPE_LINK || dst.IsLinkLocalUnicast()):
			first = ip
		}
	}
	if first.IsValid() {
		return packet.AddrFrom(first)
	}
	return packet.AddrFrom(elsewhere)
}

// finish makes known that answers changed, after all of them have.
func (r *Resolver) finish() {
	if r.changed {
		r.changed = false
		r.generation.Add(1)
		r.cfg.Changed()
	}
}

// sweep forgets targets that nothing refers to any more, and neighbours that neither a target nor the kernel has.
func (r *Resolver) sweep() {
	live := make(map[*target]bool, len(r.targets))
	mark := func(rt *route) {
		for i := range rt.hops {
			live[rt.hops[i].target] = true
		}
	}
	for _, rt := range r.compiled {
		mark(rt)
	}
	for _, rt := range r.multi {
		mark(rt)
	}
	for e := range r.view.Load().exact.all {
		live[e.target.Load()] = true
	}
	maps.DeleteFunc(r.targets, func(_ compiledKey, t *target) bool { return !live[t] })
	maps.DeleteFunc(r.neigh, func(_ neighbourKey, n *neighbour) bool {
		n.targets = slices.DeleteFunc(n.targets, func(t *target) bool { return !live[t] })
		return len(n.targets) == 0 && !n.inKernel
	})
}
