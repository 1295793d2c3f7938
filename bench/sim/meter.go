package sim

import "math"

// outcome is what one run found.
type outcome struct {
	seed   uint64
	events uint64 // connections that came, measured or not

	span      float64 // of the measurement, in virtual time
	conns     uint64  // measured: those that came in that time
	fails     uint64  // of them got no answer
	refuses   uint64  // of them found no server
	left      uint64  // of them were without an answer when the run was given up
	hits      uint64
	answers   uint64 // given in that time, to whomever
	slowdown  float64
	slowed    uint64
	response  histogram
	kinds     []histogram // of responses, by kind, if there are several
	inside    float64     // mean number of connections in service or waiting
	servers   []serverOutcome
	windows   windows
	timeline  []bin
	binLength float64

	returned, kept, moved, unmoved uint64
}

// serverOutcome is what one machine did in the time measured.
type serverOutcome struct {
	conns  uint64
	work   float64 // assigned
	busy   float64 // share of its processors that worked
	inside float64 // mean number of connections in service or waiting
}

// windows adds up figures of imbalance over the windows measured.
type windows struct {
	n, nConns                      int
	maxMean, jain, variation, conn float64
}

// bin is a piece of a run's time.
type bin struct {
	answers, faults uint64
	sum             float64
}

// bins is how many pieces a run's time has in plots over it.
const bins = 60

func newOutcome(sc *Scenario, seed uint64) *outcome {
	o := &outcome{seed: seed, response: newHistogram(), servers: make([]serverOutcome, len(sc.list))}
	if len(sc.Work) > 1 {
		for range sc.Work {
			o.kinds = append(o.kinds, newHistogram())
		}
	}
	if len(sc.Changes) > 0 {
		o.timeline = make([]bin, bins)
		o.binLength = float64(sc.Time) / bins
	}
	return o
}

func (o *outcome) hit(measure bool) {
	if measure {
		o.hits++
	}
}

func (o *outcome) failed(measure bool) {
	if measure {
		o.fails++
	}
}

func (o *outcome) refused(measure bool) {
	if measure {
		o.refuses++
	}
}

// meter says what is measured, and measures what is seen from outside of a connection.
type meter struct {
	warm, want uint64  // connections before and of the measurement; 0 where time decides
	begin, end float64 // of the measurement
	window     float64
	next       float64 // when tick wants to be called
	n          uint64
	waiting    uint64 // of those measured, without an answer
	measuring  bool
	ended      bool

	busy, inside []float64 // integrals of the machines when the measurement began
	windowInside []float64 // and the window
	windowConns  []uint64
	windowBegin  float64
	capacity     []float64
}

func newMeter(sc *Scenario, machines []machine) meter {
	n := len(machines)
	m := meter{next: never, end: never, window: float64(sc.Window), busy: make([]float64, n), inside: make([]float64, n),
		windowInside: make([]float64, n), windowConns: make([]uint64, n), capacity: make([]float64, n)}
	for i, x := range sc.list {
		m.capacity[i] = x.Speed * x.Processors
	}
	if m.window == 0 {
		m.window = 100 * float64(n) / sc.rate()
	}
	if !(m.window > 0) { // all of a trace comes at once
		m.window = never
	}
	if sc.Time > 0 {
		m.begin = float64(sc.Time) * *sc.Warmup
		m.end = m.begin + float64(sc.Time)
		m.next = m.begin
	} else {
		m.want = uint64(sc.Connections)
		m.warm = uint64(float64(sc.Connections) * *sc.Warmup)
	}
	return m
}

// arrival says whether the connection that comes now is measured.
func (m *meter) arrival(r *run) bool {
	m.n++
	if m.want > 0 {
		switch m.n {
		case m.warm + 1:
			m.start(r)
		case m.warm + m.want + 1:
			m.stop(r)
		}
	}
	if m.measuring {
		m.waiting++
		r.out.conns++
	}
	return m.measuring
}

func (m *meter) start(r *run) {
	m.measuring, m.begin = true, r.now
	for i := range r.machines {
		x := &r.machines[i]
		x.advance(r.now)
		m.busy[i], m.inside[i] = x.busy, x.inside
	}
	m.openWindow(r)
	for _, c := range r.sc.Changes {
		r.schedule(pendingChange{at: r.now + float64(c.At), Change: c})
	}
	r.special = min(r.special, m.next)
}

func (m *meter) stop(r *run) {
	m.measuring, m.ended, m.end = false, true, r.now
	o := r.out
	o.span = r.now - m.begin
	for i := range r.machines {
		x := &r.machines[i]
		x.advance(r.now)
		s := &o.servers[i]
		s.busy, s.inside = (x.busy-m.busy[i])/o.span, (x.inside-m.inside[i])/o.span
		o.inside += s.inside
	}
	m.next = r.now + o.span // what is still without an answer then is given up
	if m.waiting == 0 {
		m.next = r.now
	}
	r.special = min(r.special, m.next)
}

// tick is called when next is reached; it says whether the run is over.
func (m *meter) tick(r *run) bool {
	switch {
	case m.ended:
		return m.waiting == 0 || r.now >= m.next
	case r.now < m.next:
	case !m.measuring:
		m.start(r)
	default:
		if r.now >= m.windowBegin+m.window {
			m.closeWindow(r)
			m.openWindow(r)
		}
		if m.want == 0 && r.now >= m.end {
			m.stop(r)
		}
	}
	return false
}

func (m *meter) openWindow(r *run) {
	m.windowBegin, m.next = r.now, r.now+m.window
	if m.want == 0 {
		m.next = min(m.next, m.end)
	}
	for i := range r.machines {
		m.windowInside[i], m.windowConns[i] = r.machines[i].inside, 0
	}
}

// closeWindow adds a window's imbalance: of the mean number of connections that each server has, and of those that came, by
// its capacity. Only servers that the first director can choose count.
func (m *meter) closeWindow(r *run) {
	var load, conns moments
	for i, rs := range r.dirs[0].all {
		if !rs.Available() || rs.Weight() == 0 || r.dead[i] {
			continue
		}
		r.machines[i].advance(r.now)
		load.add((r.machines[i].inside - m.windowInside[i]) / (r.now - m.windowBegin) / m.capacity[i])
		conns.add(float64(m.windowConns[i]) / m.capacity[i])
	}
	w := &r.out.windows
	if load.sum > 0 {
		w.n++
		w.maxMean += load.most / load.mean()
		w.jain += load.sum * load.sum / (load.n * load.squares)
		w.variation += load.deviation() / load.mean()
	}
	if conns.sum > 0 {
		w.nConns++
		w.conn += conns.deviation() / conns.mean()
	}
}

// moments are of a few numbers.
type moments struct{ n, sum, squares, most float64 }

func (m *moments) add(x float64) {
	m.n++
	m.sum += x
	m.squares += x * x
	m.most = max(m.most, x)
}

func (m *moments) mean() float64      { return m.sum / m.n }
func (m *moments) deviation() float64 { return math.Sqrt(max(m.squares/m.n-m.mean()*m.mean(), 0)) }

// assign is a connection that goes to a server.
func (m *meter) assign(server int, r *run, demand float64) {
	if m.measuring {
		m.windowConns[server]++
		r.out.servers[server].conns++
		r.out.servers[server].work += demand
	}
}

// answer is a connection's.
func (m *meter) answer(r *run, x *conn) {
	o := r.out
	takes := r.now - x.arrived
	if m.measuring {
		o.answers++
		if o.timeline != nil {
			b := o.bin(r.now - m.begin)
			b.answers++
			b.sum += takes
		}
	}
	if !x.measure {
		return
	}
	o.response.add(takes)
	if o.kinds != nil {
		o.kinds[x.kind].add(takes)
	}
	if x.demand > 0 {
		o.slowdown += takes / x.demand
		o.slowed++
	}
	m.done(r)
}

// done is a connection that was measured and isn't waited for any more.
func (m *meter) done(r *run) {
	m.waiting--
	if m.ended && m.waiting == 0 {
		r.special = r.now
	}
}

// fault is a connection, measured or not, that gets no answer.
func (m *meter) fault(r *run) {
	if m.measuring && r.out.timeline != nil {
		r.out.bin(r.now-m.begin).faults++
	}
}

func (o *outcome) bin(t float64) *bin {
	return &o.timeline[max(0, min(int(t/o.binLength), len(o.timeline)-1))]
}

// finish is the end of the run, however it came.
func (m *meter) finish(r *run) {
	if m.measuring { // a trace that was shorter than what was asked for
		m.stop(r)
	}
	r.out.events, r.out.left = m.n, m.waiting
}
