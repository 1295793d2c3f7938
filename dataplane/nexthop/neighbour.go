package nexthop

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// neighbourKey is a station on an attached segment.
type neighbourKey struct {
	iface int
	addr  packet.Addr
}

// neighbour is such a station: the kernel's entry about it, or on a gateway's segment what our own client knows.
type neighbour struct {
	key     neighbourKey
	segment *segment // whose gateway address asks for it; nil: the kernel resolves it
	status  Status   // Ready, Pending or Unreachable
	mac     packet.MAC
	targets []*target
	slot    uint64 // the tick, modulo keepTicks, at which it is its turn

	// Of the kernel's.
	inKernel bool
	nud      uint16 // unix.NUD_*, 0 when not inKernel
	doubted  bool   // it speaks from another MAC address, see Resolver.doubt

	// Of our own client's.
	tries     int // requests without an answer, 0 when none is out
	nextTry   time.Time
	confirmed time.Time // last heard from

	asked     time.Time // last request to the kernel
	pending   time.Time // since when somebody waits, zero when nobody does
	since     time.Time // of the status
	used      time.Time // last seen to be looked up
	usedAsHop time.Time // likewise, as a router
	kept      uint64    // equals epoch when a pinned address is reached by it
}

const (
	// keepTicks is how many ticks pass between two probes of a neighbour that is kept alive. Three unanswered requests
	// a second apart follow before the kernel gives it up: a server that dies is Unreachable within 10 seconds. (An
	// entry that is only marked as managed would take up to a minute: the kernel trusts it for 15 to 45 seconds first,
	// and NTF_USE does nothing while it does.)
	keepTicks = 5
	// routerKept is how long after its last use a router is kept alive like a pinned address.
	routerKept = time.Minute
	// giveUp is how long resolution may take, a little more than the kernel's three tries.
	giveUp = 4 * time.Second
	// forget is how long a neighbour that nobody uses stays Unreachable; then the next packet to it is held again.
	forget = 5 * time.Second
	// askPause is the shortest time between two requests about one neighbour.
	askPause = 900 * time.Millisecond
)

// newNeighbour adds a neighbour of which nothing is known.
func (r *Resolver) newNeighbour(key neighbourKey) *neighbour {
	n := &neighbour{key: key, status: Pending, slot: uint64(len(r.neigh)) % keepTicks}
	n.segment = r.view.Load().segmentOn(key.iface, key.addr)
	r.neigh[key] = n
	return n
}

// target returns the target for a hop, made if need be.
func (r *Resolver) target(key compiledKey) *target {
	if t := r.targets[key]; t != nil {
		return t
	}
	n := r.neigh[neighbourKey{key.iface, key.gateway}]
	if n == nil {
		n = r.newNeighbour(neighbourKey{key.iface, key.gateway})
	}
	t := &target{path: key.path, gateway: key.gateway, n: n}
	n.targets = append(n.targets, t)
	r.targets[key] = t
	t.publish()
	return t
}

// publish makes the answer what the neighbour's state says.
func (t *target) publish() {
	t.answer.Store(&answer{
		hop:    Hop{Iface: t.iface, Dst: t.n.mac, MTU: t.mtu, Source: t.source, Gateway: t.gateway},
		status: t.n.status,
	})
}

// set gives a neighbour a status, and a MAC address if it is Ready.
func (r *Resolver) set(n *neighbour, status Status, mac packet.MAC, now time.Time) {
	if status != Pending {
		n.pending = time.Time{}
	}
	if n.status == status && (n.mac == mac || status != Ready) {
		return
	}
	if n.status != status {
		n.since = now
	}
	n.status = status
	if status == Ready {
		n.mac = mac
	}
	for _, t := range n.targets {
		t.publish()
	}
	r.changed = true
}

// followNeighbour takes in a change of the kernel's neighbour table.
func (r *Resolver) followNeighbour(k kernelNeighbour, gone bool, now time.Time) {
	i, ok := r.position[k.index]
	if !ok {
		return
	}
	if gone {
		k.state = unix.NUD_NONE
	}
	key := neighbourKey{i, k.addr}
	n := r.neigh[key]
	if n == nil {
		if k.state == unix.NUD_NONE || len(r.neigh) >= 2*r.cfg.MaxAddresses {
			return
		}
		n = r.newNeighbour(key)
	}
	if n.segment != nil {
		return // the gateway's segment is no business of the kernel's
	}
	n.inKernel, n.nud = !gone, k.state
	switch {
	case k.state&nudValid != 0:
		r.set(n, Ready, k.mac, now)
		r.learn(n, now)
	case k.state&unix.NUD_FAILED != 0:
		r.set(n, Unreachable, n.mac, now)
	case n.status == Ready: // removed, or being resolved anew
		r.set(n, Pending, n.mac, now)
		if r.wanted(n, now) {
			r.resolve(n, now)
		}
	}
}

// reloadNeighbours reads the kernel's neighbour table anew.
func (r *Resolver) reloadNeighbours(now time.Time) error {
	list, err := r.kernel.neighbours()
	if err != nil {
		return err
	}
	present := make(map[neighbourKey]bool, len(list))
	for _, k := range list {
		if i, ok := r.position[k.index]; ok {
			present[neighbourKey{i, k.addr}] = true
			r.followNeighbour(k, false, now)
		}
	}
	for key, n := range r.neigh {
		if n.inKernel && !present[key] {
			r.followNeighbour(kernelNeighbour{index: r.attached[key.iface].Index, addr: key.addr}, true, now)
			n.inKernel, n.nud = false, 0 // also where the interface is gone
		}
	}
	return nil
}

// linkChanged follows a change of an attached interface.
func (r *Resolver) linkChanged(i int, old LinkState, now time.Time) {
	s := r.attached[i]
	name := zap.String("interface", r.cfg.Interfaces[i].Name)
	switch {
	case s.Index == 0:
		r.log.Warn("interface is gone; nothing leaves by it until it comes back", name)
	case old.Index != s.Index && old.Index != 0:
		r.log.Info("interface came back with another index", name, zap.Int("index", s.Index))
	case !s.Up:
		r.log.Warn("interface is down", name)
	case old.MAC != s.MAC && old.Index != 0:
		r.log.Info("interface has another MAC address", name, zap.Stringer("mac", s.MAC))
	}
	for _, n := range r.neigh {
		if n.key.iface != i {
			continue
		}
		if s.Index != old.Index || !s.Up { // the kernel forgets them as well
			n.inKernel, n.nud, n.tries, n.asked = false, 0, 0, time.Time{}
		}
		switch {
		case !s.Up:
			r.set(n, Unreachable, n.mac, now)
		case s.Index != old.Index || !old.Up:
			r.set(n, Pending, n.mac, now)
			if r.wanted(n, now) {
				r.resolve(n, now)
			}
		}
	}
}

// wanted says that a neighbour is worth asking for unbidden.
func (r *Resolver) wanted(n *neighbour, now time.Time) bool {
	return r.kept(n, now) || now.Sub(n.used) < routerKept
}

// kept says that a neighbour is kept alive: a pinned address or a router lately used.
func (r *Resolver) kept(n *neighbour, now time.Time) bool {
	return n.kept == r.epoch && r.epoch != 0 || now.Sub(n.usedAsHop) < routerKept
}

// resolve has a neighbour resolved that isn't known.
func (r *Resolver) resolve(n *neighbour, now time.Time) {
	if n.pending.IsZero() && n.status == Pending {
		n.pending = now
	}
	if n.segment != nil {
		r.startAsking(n, now)
		return
	}
	if n.nud&nudValid != 0 || now.Sub(n.asked) < askPause {
		return
	}
	n.asked = now
	r.use(n, now)
}

// use has the kernel resolve or verify its entry. A static entry must not be touched: NTF_USE makes it an ordinary one.
func (r *Resolver) use(n *neighbour, now time.Time) {
	index := r.attached[n.key.iface].Index
	if index == 0 || n.nud&nudStatic != 0 {
		return
	}
	r.refused(r.kernel.neighbour(index, n.key.addr, unix.NUD_NONE, unix.NTF_USE), now)
}

// probe has the kernel ask a neighbour now whether it is still there. While it does it goes on using the entry.
func (r *Resolver) probe(n *neighbour, now time.Time) {
	index := r.attached[n.key.iface].Index
	if index == 0 || n.nud&nudStatic != 0 || n.nud&unix.NUD_PROBE != 0 {
		return
	}
	err := r.kernel.neighbour(index, n.key.addr, unix.NUD_PROBE, 0)
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // it was removed, or failed, a moment ago: an event says so
		r.refused(err, now)
	}
}

// refused counts what the kernel would not do and tells the operator once in a while.
func (r *Resolver) refused(err error, now time.Time) {
	if err == nil {
		return
	}
	r.stats.kernelErrors.Add(1)
	if now.Sub(r.denied) < time.Minute {
		return
	}
	r.denied = now
	switch {
	case errors.Is(err, unix.ENOBUFS):
		r.log.Warn("the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3", zap.Error(err))
	case errors.Is(err, unix.EPERM):
		r.log.Warn("not allowed to have the kernel resolve neighbours: uvsd needs CAP_NET_ADMIN", zap.Error(err))
	default:
		r.log.Warn("the kernel would not resolve a neighbour", zap.Error(err))
	}
}

// tick looks at every timer.
func (r *Resolver) tick(now time.Time) {
	r.ticks++
	r.harvest(now)
	r.keepPinned(now)
	for _, n := range r.neigh {
		r.tend(n, now)
	}
	if r.ticks%60 == 0 {
		r.expire(now)
		r.sweep()
	}
}

// harvest collects what was looked up since the last tick.
func (r *Resolver) harvest(now time.Time) {
	for _, t := range r.targets {
		if t.used.Load() {
			t.used.Store(false)
			t.n.used, t.n.usedAsHop = now, now
		}
	}
	for e := range r.view.Load().exact.all {
		if !e.used.Load() {
			continue
		}
		e.used.Store(false)
		e.last = now
		if t := e.target.Load(); t.n != nil {
			t.n.used = now
			if t.gateway != e.dst {
				t.n.usedAsHop = now
			}
		}
	}
}

// tend does what a neighbour's timers say.
func (r *Resolver) tend(n *neighbour, now time.Time) {
	kept, turn := r.kept(n, now), r.ticks%keepTicks == n.slot
	lately := now.Sub(n.used) < tick
	if n.segment != nil {
		r.tendAsked(n, kept, turn, now)
	} else {
		switch {
		case n.status == Pending && !n.pending.IsZero() && now.Sub(n.pending) >= giveUp:
			r.set(n, Unreachable, n.mac, now)
		case n.nud&nudValid == 0:
			if lately || kept && turn {
				r.resolve(n, now)
			}
		case kept && turn, n.doubted:
			r.probe(n, now)
		case turn && n.nud == unix.NUD_STALE && now.Sub(n.used) < keepTicks*tick:
			r.use(n, now) // a client: once in half a minute is enough
		}
		n.doubted = false
	}
	if n.status == Unreachable && !kept && now.Sub(n.used) > forget && now.Sub(n.since) > forget {
		r.set(n, Pending, n.mac, now)
	}
}
