package fragment

import "sync/atomic"

// start puts a new, empty datagram into the table.
func (t *Table) start(k key, now int64) *Datagram {
	s := t.sources[k.src]
	if s == nil {
		s = &source{}
		t.sources[k.src] = s
	}
	d := &Datagram{key: k, src: s, arrived: now, total: -1}
	t.byKey[k] = d
	if d.prev = t.newest; d.prev != nil {
		d.prev.next = d
	} else {
		t.oldest = d
	}
	t.newest = d
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
func (t *Table) makeRoom(d *Datagram, n int) bool {
	for d.src.bytes+n > t.limits.PerSource {
		victim := d.src.oldest
		if victim == d {
			victim = d.srcNext
		}
		if victim == nil {
			return false
		}
		t.drop(victim, &t.evicted)
	}
	for t.bytes+n > t.limits.Bytes {
		victim := t.oldest
		if victim == d {
			victim = d.next
		}
		if victim == nil {
			return false
		}
		t.drop(victim, &t.evicted)
	}
	d.bytes += n
	d.src.bytes += n
	t.bytes += n
	return true
}

// drop gives up d and counts its fragments as why.
func (t *Table) drop(d *Datagram, why *atomic.Uint64) {
	why.Add(uint64(len(d.pieces)))
	t.held.Add(-uint64(len(d.pieces)))
	t.remove(d)
}

// remove takes d out of the table.
func (t *Table) remove(d *Datagram) {
	delete(t.byKey, d.key)
	s := d.src
	t.bytes -= d.bytes
	s.bytes -= d.bytes
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		t.oldest = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		t.newest = d.prev
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
		delete(t.sources, d.key.src)
	}
	d.prev, d.next, d.srcPrev, d.srcNext = nil, nil, nil, nil
}
