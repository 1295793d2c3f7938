package sim

// machine is a real server as a queue: up to `workers` connections are in service at once, the rest wait in the order of
// their arrival. Those in service share its processors equally, but none gets more than one whole processor (processor
// sharing); first-in first-out is the same with as many workers as processors.
//
// It keeps virtual time: the work that each connection in service has been given since the machine was last idle. A
// connection is done when that reaches a number that is known when it begins, however many come and go meanwhile, so that
// a heap of these numbers is all that sharing needs.
type machine struct {
	speed      float64 // of one processor
	processors float64
	workers    int // in service at once at most
	backlog    int // waiting at most
	up         bool

	given   float64 // virtual time
	last    float64 // when it and the integrals were brought up to date
	running []work
	waiting queue[int32]

	busy   float64 // integral of the share of processors that work
	inside float64 // integral of the number of connections in service and waiting
	conns  int     // of that number itself
}

// work is a connection in service.
type work struct {
	done float64 // the virtual time at which it is served
	conn int32
}

// rate is the work that each of those in service gets in a second.
func (m *machine) rate() float64 {
	if n := float64(len(m.running)); n > m.processors {
		return m.speed * m.processors / n
	}
	return m.speed
}

// advance brings the machine's integrals up to now.
func (m *machine) advance(now float64) {
	dt := now - m.last
	m.last = now
	if n := float64(len(m.running)); n > 0 {
		m.given += dt * m.rate()
		m.busy += dt * min(1, n/m.processors)
		m.inside += dt * float64(m.conns)
	}
}

// nextDone is when the next connection will be served if nothing else happens. The machine is up to date.
func (m *machine) nextDone() float64 {
	if len(m.running) == 0 || m.speed == 0 {
		return never
	}
	return m.last + max(m.running[0].done-m.given, 0)/m.rate()
}

// admit takes a connection that asks for some work. It is false when the backlog is full.
func (m *machine) admit(conn int32, demand float64) bool {
	if len(m.running) < m.workers {
		m.start(conn, demand)
	} else {
		if m.waiting.size >= m.backlog {
			return false
		}
		m.waiting.push(conn)
	}
	m.conns++
	return true
}

// start begins to serve.
func (m *machine) start(conn int32, demand float64) {
	if len(m.running) == 0 {
		m.given = 0 // numbers stay small, and so does their rounding
	}
	x := work{m.given + demand, conn}
	m.running = append(m.running, x)
	h := m.running
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if h[up].done <= x.done {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = x
}

// finish takes the connection that is served next off the machine.
func (m *machine) finish() int32 {
	h := m.running
	first, x := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	m.running = h
	i := 0
	for n := len(h); n > 0; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && h[down+1].done < h[down].done {
			down++
		}
		if x.done <= h[down].done {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = x
	}
	m.conns--
	return first.conn
}

// lru is a cache that remembers the objects last used, by number.
type lru struct {
	room       int32
	size       int32
	newer      []int32 // by object; the object before it in the order of use, -1 if none
	older      []int32
	head, tail int32
	in         []bool
}

// newLRU makes a cache with room for so many of so many objects.
func newLRU(room, objects int) *lru {
	return &lru{room: int32(room), newer: make([]int32, objects), older: make([]int32, objects), in: make([]bool, objects), head: -1, tail: -1}
}

// use says whether the object was there. It is now.
func (c *lru) use(o int32) bool {
	hit := c.in[o]
	switch {
	case hit && c.head == o:
		return true
	case hit:
		c.unlink(o)
	case c.size == c.room:
		c.in[c.tail] = false
		c.unlink(c.tail)
	default:
		c.size++
	}
	c.in[o] = true
	c.newer[o], c.older[o] = -1, c.head
	if c.head >= 0 {
		c.newer[c.head] = o
	} else {
		c.tail = o
	}
	c.head = o
	return hit
}

func (c *lru) unlink(o int32) {
	n, p := c.newer[o], c.older[o]
	if n >= 0 {
		c.older[n] = p
	} else {
		c.head = p
	}
	if p >= 0 {
		c.newer[p] = n
	} else {
		c.tail = n
	}
}

// clear forgets everything, as a restart does.
func (c *lru) clear() {
	clear(c.in)
	c.size, c.head, c.tail = 0, -1, -1
}
