package nexthop

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"uvs/packet"
)

// exact maps single addresses to their next hop. It is a hash table with open addressing that one goroutine writes while
// everybody reads: a slot, once filled, keeps its address, so a reader needs no lock. Addresses are taken out by emptying
// their entry; grow makes a new table without them.
type exact struct {
	seed  [2]uint64 // clients choose their addresses, so they must not be able to choose their slots
	mask  uint64
	slots []atomic.Pointer[entry]
	used  int // slots filled, the writer's alone
}

// entry is one address.
type entry struct {
	dst    packet.Addr
	target atomic.Pointer[target] // nil: the address has no entry of its own any more
	used   atomic.Bool            // looked up since the writer last looked
	last   time.Time              // when the writer last saw it used; the writer's alone
	asked  bool                   // the target is the kernel's answer, not that of the mirror; the writer's alone
}

const minExact = 256

func newExact(room int) *exact {
	n := max(minExact, 1<<bits.Len(uint(2*room)))
	return &exact{seed: [2]uint64{rand.Uint64(), rand.Uint64()}, mask: uint64(n - 1), slots: make([]atomic.Pointer[entry], n)}
}

func (x *exact) hash(a packet.Addr) uint64 {
	hi, lo := a.Words()
	p, q := bits.Mul64(hi^x.seed[0], lo^x.seed[1])
	return p ^ q
}

// find returns the entry of an address, or nil.
func (x *exact) find(a packet.Addr) *entry {
	for i := x.hash(a); ; i++ {
		e := x.slots[i&x.mask].Load()
		if e == nil || e.dst == a {
			return e
		}
	}
}

// full says that the next add would make the table too dense to search.
func (x *exact) full() bool { return 2*(x.used+1) > len(x.slots) }

// add puts an entry into its slot. Its address must not have one.
func (x *exact) add(e *entry) {
	for i := x.hash(e.dst); ; i++ {
		if s := &x.slots[i&x.mask]; s.Load() == nil {
			s.Store(e)
			x.used++
			return
		}
	}
}

// all calls yield for every entry that has a target.
func (x *exact) all(yield func(*entry) bool) {
	for i := range x.slots {
		if e := x.slots[i].Load(); e != nil && e.target.Load() != nil && !yield(e) {
			return
		}
	}
}

// grown returns a table of the same entries, those without a target left out, with room for as many again.
func (x *exact) grown() *exact {
	n := 0
	for range x.all {
		n++
	}
	y := newExact(2 * n)
	y.seed = x.seed
	for e := range x.all {
		y.add(e)
	}
	return y
}
