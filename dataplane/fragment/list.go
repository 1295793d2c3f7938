package fragment

import "sync/atomic"

// start puts a new, empty datagram into the gatherer.
func (g *Gatherer) start(k key, now int64) *Datagram {
	s := g.sources[k.source()]
	if s == nil {
		s = &source{}
		g.sources[k.source()] = s
	}
	d := &Datagram{key: k, src: s, arrived: now, total: -1}
	g.byKey[k] = d
	if d.prev = g.newest; d.prev != nil {
		d.prev.next = d
	} else {
		g.oldest = d
	}
	g.newest = d
	if d.srcPrev = s.newest; d.srcPrev != nil {
		d.srcPrev.srcNext = d
	} else {
		s.oldest = d
	}
	s.newest = d
	return d
}

// makeRoom makes room for n more bytes of d, at the cost of older datagrams: those of the same source when that has too
// much, else of anybody. It returns false if d alone is too much.
func (g *Gatherer) makeRoom(d *Datagram, n int) bool {
	for d.src.bytes+n > g.limits.PerSource {
		victim := d.src.oldest
		if victim == d {
			victim = d.srcNext
		}
		if victim == nil {
			return false
		}
		g.drop(victim, &g.evicted)
	}
	for g.bytes+n > g.limits.Bytes {
		victim := g.oldest
		if victim == d {
			victim = d.next
		}
		if victim == nil {
			return false
		}
		g.drop(victim, &g.evicted)
	}
	d.bytes += n
	d.src.bytes += n
	g.bytes += n
	return true
}

// drop gives up d and counts its fragments as why.
func (g *Gatherer) drop(d *Datagram, why *atomic.Uint64) {
	n := len(d.pieces)
	why.Add(uint64(n))
	g.discarded += n
	g.held.Add(-uint64(n))
	g.remove(d)
}

// refuse drops the fragment at hand and counts it as why.
func (g *Gatherer) refuse(why *atomic.Uint64) *Datagram {
	why.Add(1)
	g.discarded++
	return nil
}

// remove takes d out of the gatherer.
func (g *Gatherer) remove(d *Datagram) {
	delete(g.byKey, d.key)
	s := d.src
	g.bytes -= d.bytes
	s.bytes -= d.bytes
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		g.oldest = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		g.newest = d.prev
	}
	if d.srcPrev != nil {
		d.srcPrev.srcNext = d.srcNext
	} else {
		s.oldest = d.srcNext
	}
	if d.srcNext != nil {
		d.srcNext.srcPrev = d.srcPrev
	} else {
		s.newest = d.srcPrev
	}
	if s.oldest == nil {
		delete(g.sources, d.key.source())
	}
	d.prev, d.next, d.srcPrev, d.srcNext = nil, nil, nil, nil
}
