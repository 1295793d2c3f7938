package sim

import "math"

// never is later than every event.
var never = math.Inf(1)

// calendar knows which of a fixed number of sources has the next event, by a tournament among them. A source's time is
// changed in place, so that no event is ever cancelled, and there is nothing to allocate.
type calendar struct {
	at     []float64 // of each source, never if it has none; as many as a power of two
	winner []int32   // by node of the tournament, its root at 1
	width  int
}

func newCalendar(n int) calendar {
	width := 1
	for width < n {
		width *= 2
	}
	c := calendar{make([]float64, width), make([]int32, width), width}
	for i := range c.at {
		c.at[i] = never
	}
	for i := width - 1; i > 0; i-- {
		c.play(i)
	}
	return c
}

// entrant is who comes up from node i: a source or the winner of a match.
func (c *calendar) entrant(i int) int32 {
	if i >= c.width {
		return int32(i - c.width)
	}
	return c.winner[i]
}

func (c *calendar) play(i int) {
	l, r := c.entrant(2*i), c.entrant(2*i+1)
	if c.at[r] < c.at[l] {
		l = r
	}
	c.winner[i] = l
}

// set changes when the source's next event is.
func (c *calendar) set(source int, t float64) {
	c.at[source] = t
	for i := (source + c.width) / 2; i > 0; i /= 2 {
		c.play(i)
	}
}

// next is the source with the earliest event, and when that is. Of equals the lower number is first.
func (c *calendar) next() (source int, t float64) {
	if c.width == 1 {
		return 0, c.at[0]
	}
	w := c.winner[1]
	return int(w), c.at[w]
}

// timer is an event of its own time.
type timer struct {
	at   float64
	seq  uint32 // of equal times the earlier set goes first
	kind timerKind
	span float32 // of a handshake, in seconds
	what int32   // a connection, a client, or an entry
}

type timerKind uint8

const (
	answered    timerKind = iota // the client has its answer
	closed                       // the director sees the connection's end
	gaveUp                       // the client waits no longer for a server that was dead when it came
	lost                         // nor for one that died meanwhile
	thought                      // a client of a closed population asks again
	setUp                        // the handshake is over
	setupMissed                  // the client repeats its SYN
	forgotten                    // the director's entry of a connection whose end it never saw runs out
	setupEnded                   // and the measurement of a handshake that never ended
)

// timers is a binary heap of timers.
type timers struct {
	heap []timer
	seq  uint32
}

func (a *timer) before(b *timer) bool {
	return a.at < b.at || a.at == b.at && int32(a.seq-b.seq) < 0
}

// next is when the earliest is due.
func (t *timers) next() float64 {
	if len(t.heap) == 0 {
		return never
	}
	return t.heap[0].at
}

func (t *timers) push(at float64, kind timerKind, what int32) { t.pushSpan(at, kind, what, 0) }

func (t *timers) pushSpan(at float64, kind timerKind, what int32, span float64) {
	t.seq++
	x := timer{at, t.seq, kind, float32(span), what}
	t.heap = append(t.heap, x)
	h := t.heap
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !x.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = x
}

func (t *timers) pop() timer {
	h := t.heap
	first, x := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	t.heap = h
	i := 0
	for n := len(h); n > 0; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && h[down+1].before(&h[down]) {
			down++
		}
		if !h[down].before(&x) {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = x
	}
	return first
}

// lingering is an entry that the director keeps for a fixed time after its connection closed.
type lingering struct {
	until float64
	entry int32 // which real server's entry it is: director * servers + server
}

// queue is a first-in first-out ring that grows.
type queue[T any] struct {
	ring       []T // as many as a power of two
	head, size int
}

func (q *queue[T]) push(x T) {
	if q.size == len(q.ring) {
		bigger := make([]T, max(16, 2*len(q.ring)))
		for i := range q.size {
			bigger[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.size)&(len(q.ring)-1)] = x
	q.size++
}

// first is the oldest; the queue is not empty.
func (q *queue[T]) first() *T { return &q.ring[q.head] }

func (q *queue[T]) pop() T {
	x := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.size--
	return x
}
