package conntrack

import (
	"encoding/binary"
	"math/bits"
)

// index finds entries by their tuples: linear hashing (Litwin 1980), so that it grows by one bucket at a time. A bucket
// is a cache line; entries that find it full go to overflow buckets chained behind it, of which there are few, as the
// index splits a bucket whenever there are more than itemsPerBucket items for each.
//
// An item is a reference to an entry, slot<<1|Dir: an entry that is also found by its server's answers has two. Among
// entries whose answers look alike (one client port, two VIPs, one server) the newest is found, as in the kernel.
type index struct {
	buckets []*slab
	n       uint32 // buckets in use
	mask    uint32 // a power of two less 1: buckets below n-mask-1 are split already
	items   uint32

	overFree  uint32  // first free overflow bucket, linked by next
	overCount uint32  // free ones
	overFresh uint32  // the last that was ever used
	over      []*slab // overflow buckets, numbered from 1
}

const (
	bucketItems    = 12
	itemsPerBucket = 6
)

// bucket is a view of a bucket: 12 tags (0: free), the number of the overflow bucket that follows, 12 references.
type bucket [entrySize]byte

func (b *bucket) next() uint32             { return binary.NativeEndian.Uint32(b[12:]) }
func (b *bucket) setNext(n uint32)         { binary.NativeEndian.PutUint32(b[12:], n) }
func (b *bucket) ref(i int) uint32         { return binary.NativeEndian.Uint32(b[16+4*i:]) }
func (b *bucket) setRef(i int, ref uint32) { binary.NativeEndian.PutUint32(b[16+4*i:], ref) }

// match returns a bit for each slot with that tag.
func (b *bucket) match(tag uint8) uint32 {
	const ones, low7 = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f
	same := ones * uint64(tag)
	x := binary.LittleEndian.Uint64(b[0:]) ^ same
	y := uint64(binary.LittleEndian.Uint32(b[8:])) ^ same&0xffffffff
	// A byte's top bit is set if the byte is zero; the product then gathers these bits in its top byte.
	x = ^((x&low7 + low7) | x | low7) >> 7 * 0x0102040810204080 >> 56
	y = ^((y&low7 + low7) | y | low7) >> 7 * 0x0102040810204080 >> 56
	return uint32(x | y<<8&0xf00)
}

func tagOf(hash uint64) uint8 { return max(uint8(hash>>56), 1) }

func line(slabs []*slab, i uint32) *bucket {
	return (*bucket)(slabs[i/slabLines][i%slabLines*entrySize:])
}

func (x *index) bucket(hash uint64) *bucket {
	i := uint32(hash) & (x.mask<<1 | 1)
	if i >= x.n {
		i &= x.mask
	}
	return line(x.buckets, i)
}

func (x *index) overflow(n uint32) *bucket { return line(x.over, n-1) }

// find returns the slot of the entry under k, or 0.
func (s *shard) find(k *Key) (slot uint32, e *entry) {
	x := &s.index
	if x.n == 0 {
		return 0, nil
	}
	b, tag := x.bucket(k.hash), tagOf(k.hash)
	for {
		for m := b.match(tag); m != 0; m &= m - 1 {
			ref := b.ref(bits.TrailingZeros32(m))
			if Dir(ref&1) != k.dir {
				continue
			}
			if e := s.entry(ref >> 1); k.kind == keyIPv4 && e.matches(k) || k.kind == keyIPv6 && s.matches(ref>>1, e, k) {
				return ref >> 1, e
			}
		}
		next := b.next()
		if next == 0 {
			return 0, nil
		}
		b = x.overflow(next)
	}
}

// add indexes an entry. The caller has made sure that there is an overflow bucket for it.
func (s *shard) add(slot uint32, dir Dir, hash uint64) {
	x := &s.index
	ref, tag := slot<<1|uint32(dir), tagOf(hash)
	var room *bucket
	var at int
	b := x.bucket(hash)
	for {
		free := b.match(0)
		if dir == Out {
			// Where an older one is found now, the new one is to be found first: they all move down by one.
			for m := b.match(tag); m != 0; m &= m - 1 {
				i := bits.TrailingZeros32(m)
				old := b.ref(i)
				if Dir(old&1) == Out && s.sameReply(old>>1, slot) {
					b.setRef(i, ref)
					ref, room = old, nil
					free &^= 1<<i - 1
				}
			}
		}
		if room == nil && free != 0 {
			room, at = b, bits.TrailingZeros32(free)
		}
		next := b.next()
		if next == 0 {
			break
		}
		b = x.overflow(next)
	}
	if room == nil {
		n := x.takeOverflow()
		b.setNext(n)
		room, at = x.overflow(n), 0
	}
	room[at] = tag
	room.setRef(at, ref)
	x.items++
}

// remove takes an entry out of the index.
func (s *shard) remove(slot uint32, dir Dir, hash uint64) {
	x := &s.index
	ref, tag := slot<<1|uint32(dir), tagOf(hash)
	var prev *bucket
	var n uint32
	b := x.bucket(hash)
	for {
		for m := b.match(tag); m != 0; m &= m - 1 {
			if i := bits.TrailingZeros32(m); b.ref(i) == ref {
				b[i] = 0
				x.items--
				if prev != nil && b.match(0) == 1<<bucketItems-1 {
					prev.setNext(b.next())
					x.giveOverflow(n)
				}
				return
			}
		}
		if n = b.next(); n == 0 {
			panic("conntrack: entry is not in the index")
		}
		prev, b = b, x.overflow(n)
	}
}

func (x *index) takeOverflow() uint32 {
	n := x.overFree
	if n == 0 {
		x.overFresh++
		return x.overFresh
	}
	b := x.overflow(n)
	x.overFree = b.next()
	x.overCount--
	b.setNext(0)
	return n
}

func (x *index) giveOverflow(n uint32) {
	b := x.overflow(n)
	*b = bucket{}
	b.setNext(x.overFree)
	x.overFree = n
	x.overCount++
}

// reserve makes sure that there are n free overflow buckets, and a first bucket at all.
func (x *index) reserve(p *pool, n uint32) bool {
	if x.n == 0 {
		first := p.take(indexMemory)
		if first == nil {
			return false
		}
		x.buckets = append(x.buckets, first)
		x.n, x.mask = slabLines, slabLines-1
	}
	for x.overCount+uint32(len(x.over))*slabLines-x.overFresh < n {
		more := p.take(indexMemory)
		if more == nil {
			return false
		}
		x.over = append(x.over, more)
	}
	return true
}

// grow splits a bucket if the index is fuller than it should be. Without memory it lets chains grow instead.
func (s *shard) grow(p *pool, h *hashKey) {
	if x := &s.index; x.items > x.n*itemsPerBucket {
		s.split(p, h)
	}
}

func (s *shard) split(p *pool, h *hashKey) {
	x := &s.index
	if x.n == uint32(len(x.buckets))*slabLines {
		more := p.take(indexMemory)
		if more == nil {
			return
		}
		x.buckets = append(x.buckets, more)
	}
	from := x.n & x.mask
	chained := uint32(0)
	for b := line(x.buckets, from); b.next() != 0; b = x.overflow(b.next()) {
		chained++
	}
	if !x.reserve(p, chained) {
		return
	}
	to, bit := x.n, x.mask+1
	x.n++
	if x.n == 2*bit {
		x.mask = x.mask<<1 | 1
	}

	stay := appender{x: x, b: line(x.buckets, from)}
	move := appender{x: x, b: line(x.buckets, to)}
	for b := stay.b; ; {
		for m := b.match(0) ^ (1<<bucketItems - 1); m != 0; m &= m - 1 {
			i := bits.TrailingZeros32(m)
			tag, ref := b[i], b.ref(i)
			b[i] = 0
			if uint32(s.entryHash(h, ref>>1, s.entry(ref>>1), Dir(ref&1)))&bit != 0 {
				move.append(tag, ref)
			} else {
				stay.append(tag, ref) // never overtakes i
			}
		}
		next := b.next()
		if next == 0 {
			break
		}
		b = x.overflow(next)
	}
	stay.truncate()
}

// appender fills a chain of buckets from its start, in order.
type appender struct {
	x *index
	b *bucket
	i int
}

func (a *appender) append(tag uint8, ref uint32) {
	if a.i == bucketItems {
		next := a.b.next()
		if next == 0 {
			next = a.x.takeOverflow()
			a.b.setNext(next)
		}
		a.b, a.i = a.x.overflow(next), 0
	}
	a.b[a.i] = tag
	a.b.setRef(a.i, ref)
	a.i++
}

// truncate frees the buckets behind the last item.
func (a *appender) truncate() {
	n := a.b.next()
	a.b.setNext(0)
	for n != 0 {
		next := a.x.overflow(n).next()
		a.x.giveOverflow(n)
		n = next
	}
}
