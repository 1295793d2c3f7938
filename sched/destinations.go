package sched

import (
	"sync"
	"sync/atomic"
	"time"

	"uvs/packet"
)

const (
	destBits    = 10
	destBuckets = 1 << destBits
	destMax     = 16 * destBuckets // above this many, idle destinations go early
	destLimit   = 16 * destMax     // above this many, new ones are not remembered; the kernel has no such limit

	destTick        = int64(time.Minute)
	destTicksToFull = 30
	destEarly       = int64(6 * time.Minute) // idle for so long counts as idle when there are too many

	destExpiration = 24 * time.Hour
)

// destinations is what lblc and lblcr remember of each destination address, as in ip_vs_lblc.c: 1024 buckets, each with
// a lock of its own. There is no timer: the first request after a full minute does the minute's sweep, every 30th of
// all that was idle for the expiration time, in between, when there are more than 16384, from where the last one ended
// until a third more than the surplus is gone, of what was idle for six minutes.
type destinations[V any] struct {
	expiration atomic.Int64
	limit      int64 // destLimit, lower in tests
	buckets    [destBuckets]destBucket[V]
	entries    atomic.Int64
	due        atomic.Int64 // when the next sweep is due; 0 before the first request

	sweeping sync.Mutex // guards the two below; never waited for
	ticks    int
	rover    uint32
}

type destBucket[V any] struct {
	mu    sync.Mutex
	first *destEntry[V] // the latest first; guarded by mu
}

// destEntry is one destination. Its fields are guarded by its bucket's lock.
type destEntry[V any] struct {
	next *destEntry[V]
	addr packet.Addr
	used int64 // Request.Now of the latest request
	what V
}

func newDestinations[V any](expiration time.Duration) *destinations[V] {
	d := &destinations[V]{limit: destLimit, ticks: 1}
	d.expire(expiration)
	return d
}

// expire makes destinations expire after that time; 0 means the default.
func (d *destinations[V]) expire(after time.Duration) {
	if after == 0 {
		after = destExpiration
	}
	d.expiration.Store(int64(after))
}

// bucket is where a belongs.
func (d *destinations[V]) bucket(a packet.Addr) *destBucket[V] {
	return &d.buckets[hash32(fold(a), destBits)]
}

// findLocked returns the entry of a, or nil. It needs b.mu.
func (b *destBucket[V]) findLocked(a packet.Addr) *destEntry[V] {
	for e := b.first; e != nil; e = e.next {
		if e.addr == a {
			return e
		}
	}
	return nil
}

// insertLocked remembers a, which the bucket doesn't have, unless there are too many. It needs b.mu.
func (d *destinations[V]) insertLocked(b *destBucket[V], a packet.Addr, now int64, what V) {
	if d.entries.Load() >= d.limit {
		return
	}
	b.first = &destEntry[V]{next: b.first, addr: a, used: now, what: what}
	d.entries.Add(1)
}

// fork is a copy that knows one destination alone, if d does.
func (d *destinations[V]) fork(a packet.Addr, clone func(V) V) *destinations[V] {
	f := newDestinations[V](time.Duration(d.expiration.Load()))
	b := d.bucket(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.findLocked(a); e != nil {
		f.insertLocked(f.bucket(a), a, e.used, clone(e.what))
	}
	return f
}

// tick does the sweeps that are due at now.
func (d *destinations[V]) tick(now int64) {
	due := d.due.Load()
	switch {
	case due == 0:
		d.due.CompareAndSwap(0, now+destTick)
		return
	case now < due:
		return
	}
	if !d.sweeping.TryLock() {
		return
	}
	defer d.sweeping.Unlock()
	if !d.due.CompareAndSwap(due, now+destTick) {
		return
	}
	for missed := min(1+(now-due)/destTick, destTicksToFull); missed > 0; missed-- {
		d.sweep(now)
	}
}

// sweep is one tick of the kernel's timer. It needs d.sweeping.
func (d *destinations[V]) sweep(now int64) {
	entries := d.entries.Load()
	switch {
	case d.ticks%destTicksToFull == 0:
		for i := range d.buckets {
			d.drop(&d.buckets[i], now-d.expiration.Load(), d.limit)
		}
		d.ticks = 1
	case entries <= destMax:
		d.ticks++
	default:
		goal := min((entries-destMax)*4/3, destMax/2)
		for range d.buckets {
			d.rover = (d.rover + 1) % destBuckets
			if goal -= d.drop(&d.buckets[d.rover], now-destEarly, goal); goal <= 0 {
				break
			}
		}
	}
}

// drop forgets at most limit entries of b that were last used before or at the time idleSince, and says how many.
func (d *destinations[V]) drop(b *destBucket[V], idleSince, limit int64) (dropped int64) {
	b.mu.Lock()
	for at := &b.first; *at != nil && dropped < limit; {
		if e := *at; e.used <= idleSince {
			*at = e.next
			dropped++
		} else {
			at = &e.next
		}
	}
	b.mu.Unlock()
	d.entries.Add(-dropped)
	return dropped
}
