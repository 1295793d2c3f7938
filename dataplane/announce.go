package dataplane

import (
	"container/heap"
	"time"

	"uvs/packet"
)

const (
	announceBurst   = 4   // at once, and three times more a second apart: one lost frame must not cost an interval
	announcePerTick = 200 // frames in a tick, so that thousands of addresses don't flood the segment
	// followPause is the least time between two looks at whose segments addresses lie on because of the resolver's news,
	// of which most are of neighbours.
	followPause = time.Second
)

// announcer says which address is announced when.
type announcer struct {
	interval  int64  // ns; negative: only when an address appears
	addresses uint64 // service.Table.Addresses of the table that was followed
	started   bool
	rerouted  bool  // addresses may lie on other segments than when followed
	followed  int64 // last time
	known     map[announced]*announcement
	queue     announceQueue
	next      int64 // nothing is sent before, lest a tick's frames leave with every step
}

// pause is the least time between two looks at changed addresses: of thousands, a look takes milliseconds.
func (a *announcer) pause() int64 { return int64(len(a.known) / 100 * int(time.Millisecond)) }

// announced is an address on a port's segment.
type announced struct {
	addr packet.Addr
	port int
}

// announcement is when an address is announced next.
type announcement struct {
	announced
	at       int64
	left     int   // of the opening burst
	defended int64 // last time that somebody's claim was contested
	place    int   // in the queue, -1: not in it
}

func (a *announcer) init(interval time.Duration) {
	a.interval = int64(interval)
	a.known = make(map[announced]*announcement)
}

// due calls send for the addresses whose time has come.
func (a *announcer) due(now int64, send func(announced)) {
	if len(a.queue) == 0 || now < a.next || a.queue[0].at > now {
		return
	}
	a.next = now + int64(slowTick)
	for n := 0; n < announcePerTick && len(a.queue) > 0 && a.queue[0].at <= now; n++ {
		e := a.queue[0]
		send(e.announced)
		switch e.left--; {
		case e.left > 0:
			e.at = now + int64(time.Second)
		case a.interval < 0:
			heap.Pop(&a.queue)
			continue
		default:
			e.at = now + a.interval
		}
		heap.Fix(&a.queue, 0)
	}
}

// follow makes want the addresses to announce: new ones at once, gone ones never again.
func (a *announcer) follow(want map[announced]bool, now int64) {
	for k, e := range a.known {
		if !want[k] {
			delete(a.known, k)
			if e.place >= 0 {
				heap.Remove(&a.queue, e.place)
			}
		}
	}
	for k := range want {
		if a.known[k] == nil {
			e := &announcement{announced: k, place: -1}
			a.known[k] = e
			a.schedule(e, now, announceBurst)
		}
	}
}

// knows says that an address is announced on a port.
func (a *announcer) knows(k announced) bool { return a.known[k] != nil }

// again announces all addresses on a port as if they were new.
func (a *announcer) again(port int, now int64) {
	for k, e := range a.known {
		if k.port == port {
			a.schedule(e, now, announceBurst)
		}
	}
}

// defend announces an address that somebody else claims, unless that was just done.
func (a *announcer) defend(k announced, now int64) {
	if e := a.known[k]; e != nil && (e.defended == 0 || now-e.defended >= int64(conflictQuiet)) {
		e.defended = now
		a.schedule(e, now, max(e.left, 1))
	}
}

func (a *announcer) schedule(e *announcement, at int64, left int) {
	e.at, e.left = at, left
	if e.place < 0 {
		heap.Push(&a.queue, e)
	} else {
		heap.Fix(&a.queue, e.place)
	}
}

// announceQueue has what is due next first.
type announceQueue []*announcement

func (q announceQueue) Len() int           { return len(q) }
func (q announceQueue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q announceQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *announceQueue) Push(x any) {
	e := x.(*announcement)
	e.place = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *announceQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last], e.place = nil, -1
	*q = (*q)[:last]
	return e
}
