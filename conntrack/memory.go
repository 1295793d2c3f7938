package conntrack

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// slab is what a shard takes at a time: 64 lines, each an entry for IPv4, half of one for IPv6, or a bucket of its index.
type slab [slabSize]byte

const (
	slabSize   = 4096
	slabLines  = slabSize / entrySize
	chunkSlabs = 256
	chunkSize  = chunkSlabs * slabSize // what one call of Config.Alloc gets
	lowSlabs   = 64                    // refill below
	allocPause = 64                    // ticks until a failed Alloc is tried again: about a second
)

// memoryKind tells apart the chunks of entries, which are to survive the process one day, from those of the index,
// which can be built anew.
type memoryKind uint8

const (
	entryMemory memoryKind = iota
	entry6Memory
	indexMemory
	numKinds
)

// pool hands slabs to the shards. Its lock is the innermost: a shard may hold its own.
type pool struct {
	alloc func(n int) ([]byte, error)
	mu    sync.Mutex
	free  [numKinds][]*slab // guarded by mu
	left  [numKinds]atomic.Int32
	total atomic.Int64 // bytes from alloc
	// wide says that memory for IPv6 was ever wanted. A director without IPv6 holds none.
	wide atomic.Bool

	hungry atomic.Pointer[chan struct{}] // set if somebody else than the workers calls Refill

	growing [numKinds]sync.Mutex // held across alloc, never together with mu or a shard's lock
	failed  atomic.Uint32        // the tick of alloc's last failure, 0 for none
}

var errShortAlloc = errors.New("fewer bytes than asked for")

// take returns a slab of zeroes, or nil: then the caller lets go of its locks and calls refill.
func (p *pool) take(k memoryKind) *slab {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free[k])
	if n == 0 {
		if k == entry6Memory {
			p.wide.Store(true)
		}
		return nil
	}
	s := p.free[k][n-1]
	p.free[k] = p.free[k][:n-1]
	p.left[k].Store(int32(n - 1))
	return s
}

// low says that it is time for refill.
func (p *pool) low() bool {
	return p.left[entryMemory].Load() < lowSlabs || p.left[indexMemory].Load() < lowSlabs ||
		p.wide.Load() && p.left[entry6Memory].Load() < lowSlabs
}

// LowMemory returns a channel that has an element when memory runs low. Who asks for it must call Refill then: workers, which
// meet page faults and system calls there, do so from now on only when nothing is left.
func (t *Table) LowMemory() <-chan struct{} {
	c := make(chan struct{}, 1)
	t.pool.hungry.Store(&c)
	return c
}

// Refill gets memory for entries to come, if it runs low. now is as everywhere.
func (t *Table) Refill(now int64) { t.pool.refill(tickOf(now), false) }

// look gets memory if it runs low, or has it got.
func (p *pool) look(tick uint32) {
	if !p.low() {
		return
	}
	c := p.hungry.Load()
	if c == nil {
		p.refill(tick, false)
		return
	}
	select {
	case *c <- struct{}{}:
	default:
	}
}

// refill gets memory where it runs low. It may take as long as a system call, so no lock of a shard may be held. Unless
// urgent, it leaves the work to a worker that is already at it.
func (p *pool) refill(tick uint32, urgent bool) {
	for k := range numKinds {
		if p.left[k].Load() < lowSlabs && (k != entry6Memory || p.wide.Load()) {
			p.grow(k, tick, urgent)
		}
	}
}

func (p *pool) grow(k memoryKind, tick uint32, urgent bool) {
	if urgent {
		p.growing[k].Lock()
	} else if !p.growing[k].TryLock() {
		return
	}
	defer p.growing[k].Unlock()
	if p.left[k].Load() >= lowSlabs {
		return
	}
	if f := p.failed.Load(); f != 0 && tick-f < allocPause {
		return
	}
	if err := p.chunk(k); err != nil {
		p.failed.Store(max(tick, 1))
		return
	}
	p.failed.Store(0)
}

// chunk gets one chunk and cuts it up.
func (p *pool) chunk(k memoryKind) error {
	b, err := p.alloc(chunkSize)
	if err == nil && len(b) < chunkSize {
		err = errShortAlloc
	}
	if err != nil {
		return fmt.Errorf("get %d bytes for the connection table: %w", chunkSize, err)
	}
	p.total.Add(chunkSize)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := chunkSlabs - 1; i >= 0; i-- { // the last is taken first: use chunks from their start
		p.free[k] = append(p.free[k], (*slab)(b[i*slabSize:]))
	}
	p.left[k].Store(int32(len(p.free[k])))
	return nil
}
