package nexthop

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// evaluate finds out the way to an address. own says that the answer needs an entry of its own in exact: no route gives it
// to Lookup.
func (r *Resolver) evaluate(dst packet.Addr, now time.Time) (t *target, own, asked bool) {
	v := r.view.Load()
	if s := v.segment(dst); s != nil {
		if slices.Contains(v.own, dst) {
			return localTarget, false, false
		}
		if dst == s.own {
			return refusedTarget, true, false
		}
		p := path{iface: s.iface, mtu: r.attached[s.iface].MTU, source: s.own}
		return r.target(compiledKey{p, dst}), true, false
	}
	rt := v.route(dst)
	switch rt.kind {
	case routeVia:
		w := rt.choose(dst)
		if w.target != nil {
			return w.target, false, false
		}
		return r.target(compiledKey{w.path, dst}), true, false
	case routeAsk:
		return r.askKernel(dst, now), true, true
	case routeLocal:
		return localTarget, false, false
	case routeForeign:
		return foreignTarget, false, false
	default:
		return refusedTarget, false, false
	}
}

// askKernel asks the kernel for the way to an address.
func (r *Resolver) askKernel(dst packet.Addr, now time.Time) *target {
	k, err := r.kernel.route(dst)
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) {
			r.refused(err, now)
		}
		return refusedTarget // ENETUNREACH, EHOSTUNREACH, EACCES or EINVAL, by the kind of the route that says no
	}
	switch {
	case k.kind == unix.RTN_LOCAL, k.kind == unix.RTN_ANYCAST:
		return localTarget
	case k.kind != unix.RTN_UNICAST || len(k.hops) == 0:
		return refusedTarget
	case k.opaque:
		return foreignTarget
	}
	h := k.hops[0]
	i, ok := r.position[h.index]
	if !ok {
		return foreignTarget
	}
	gateway := h.gateway
	if gateway.IsZero() {
		gateway = dst
	}
	return r.target(compiledKey{r.path(i, &k, h), gateway})
}

// targetOf returns the target of an address; where no route gives it to Lookup it is remembered from now on.
func (r *Resolver) targetOf(dst packet.Addr, now time.Time) *target {
	if e := r.view.Load().exact.find(dst); e != nil {
		if t := e.target.Load(); t != nil {
			return t
		}
	}
	t, own, asked := r.evaluate(dst, now)
	if own {
		r.remember(dst, t, asked, now)
	}
	return t
}

// remember gives an address an entry of its own.
func (r *Resolver) remember(dst packet.Addr, t *target, asked bool, now time.Time) {
	v := r.view.Load()
	e := v.exact.find(dst)
	known := e != nil
	if !known {
		if v.exact.full() || v.exact.used >= r.cfg.MaxAddresses {
			if v = r.makeRoom(now); v == nil {
				r.stats.full.Add(1)
				return
			}
		}
		e = &entry{dst: dst}
	}
	e.asked, e.last = asked, now
	e.target.Store(t)
	if !known {
		v.exact.add(e)
	}
	r.changed = true
}

// makeRoom publishes an exact that has room for another address. It returns nil if there are too many.
func (r *Resolver) makeRoom(now time.Time) *view {
	v := *r.view.Load()
	if v.exact.used >= r.cfg.MaxAddresses {
		if now.Before(r.evictAt) {
			return nil // searching all for one to leave takes long: not for every address that comes
		}
		r.evictAt = now.Add(tick)
		r.harvest(now)
		for e := range v.exact.all {
			if now.Sub(e.last) >= evictIdle {
				e.target.Store(nil)
			}
		}
	}
	v.exact = v.exact.grown()
	if v.exact.used >= r.cfg.MaxAddresses {
		return nil
	}
	r.view.Store(&v)
	return &v
}

const (
	// evictIdle is how long an address must have been idle to make room for another.
	evictIdle = 10 * time.Second
	// askedIdle and knownIdle are how long one is remembered without need.
	askedIdle = time.Minute
	knownIdle = 5 * time.Minute
)

// expire forgets addresses that nobody has used for long.
func (r *Resolver) expire(now time.Time) {
	for e := range r.view.Load().exact.all {
		idle, t := now.Sub(e.last), e.target.Load()
		if t.n != nil && (t.n.inKernel && t.gateway == e.dst || t.n.kept == r.epoch) {
			continue
		}
		if e.asked && idle >= askedIdle || idle >= knownIdle {
			e.target.Store(nil)
		}
	}
}

// reconsider brings the answer for an address in line with routes that may have changed.
func (r *Resolver) reconsider(e *entry, now time.Time) {
	old := e.target.Load()
	if e.asked && now.Sub(e.last) >= evictIdle && !e.used.Load() {
		e.target.Store(nil) // if it is wanted again, it is asked for again
		r.changed = true
		return
	}
	t, own, asked := r.evaluate(e.dst, now)
	if !own {
		t = nil
	}
	e.asked = asked
	if t != old {
		e.target.Store(t)
		r.changed = true
	}
}

// learn makes a neighbour that the kernel or the wire told of ready for Lookup, if the way to it is the direct one.
func (r *Resolver) learn(n *neighbour, now time.Time) {
	v := r.view.Load()
	if e := v.exact.find(n.key.addr); e != nil && e.target.Load() != nil || v.main == nil {
		return
	}
	if n.segment == nil {
		if v.segment(n.key.addr) != nil {
			return
		}
		rt := v.route(n.key.addr)
		if rt.kind != routeVia {
			return
		}
		if w := rt.choose(n.key.addr); w.target != nil || w.path.iface != n.key.iface {
			return
		}
	}
	r.targetOf(n.key.addr, now)
}

// answerAsked resolves what workers asked for.
func (r *Resolver) answerAsked(now time.Time) {
	for dst := range r.asked.take() {
		if t := r.targetOf(dst, now); t.n != nil {
			t.n.used = now
			if t.gateway != dst {
				t.n.usedAsHop = now
			}
			r.resolve(t.n, now)
		}
	}
}

// keepPinned marks the neighbours by which pinned addresses are reached, and asks for those that aren't known.
func (r *Resolver) keepPinned(now time.Time) {
	r.epoch++
	for _, dst := range r.pinned {
		t := r.targetOf(dst, now)
		if t.n == nil {
			continue
		}
		if t.n.kept = r.epoch; t.n.status == Pending {
			r.resolve(t.n, now)
		}
	}
}
