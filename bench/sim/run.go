package sim

import (
	"context"
	"time"

	"uvs/packet"
	"uvs/service"
)

// synRecv is how long the kernel keeps an entry after a SYN that the server didn't answer; retries are when a client repeats
// its SYN, after the one before.
const (
	synRecv  = 60.0
	retry    = 1.0 // of a closed population's client that was refused, if it doesn't think
	checkCtx = 1 << 16
)

// conn is a connection between its SYN and its answer.
type conn struct {
	arrived float64
	demand  float64
	client  int32
	entry   int32 // which director's real server: director * servers + server
	kind    uint8
	measure bool
}

// run is a simulation in progress.
type run struct {
	sc   *Scenario
	seed uint64

	dirs    []*director
	entries []*service.RealServer // of all directors
	servers int                   // of each
	turn    int                   // the director whose turn it is

	machines []machine
	caches   []*lru
	finishes calendar // of machines
	timers   timers
	arrivals *arrivals
	linger   queue[lingering]
	lingers  float64

	conns []conn
	free  []int32

	demand, flows, closes random
	kinds                 alias
	clients, dests        alias
	req                   service.Request
	thinks                random

	now     float64
	special float64 // when the next change or the next window's end is
	out     *outcome
	meter   meter
	pending []pendingChange
	dead    []bool // servers that are, by number

	moves moves
}

// pendingChange is a change that is due; noticed is what the director makes of one that happened.
type pendingChange struct {
	at      float64
	noticed bool
	Change
}

// simulate does one run.
func simulate(ctx context.Context, sc *Scenario, c choice, seed uint64) (*outcome, error) {
	r := &run{
		sc: sc, seed: seed, servers: len(sc.list), lingers: float64(*sc.Director.Linger), arrivals: newArrivals(sc, seed),
		demand: newRandom(seed, 2), flows: newRandom(seed, 3), closes: newRandom(seed, 4), thinks: newRandom(seed, 5),
		special: never, finishes: newCalendar(len(sc.list)), dead: make([]bool, len(sc.list)),
	}
	for n := range sc.Director.Count {
		d, err := newDirector(sc, c, seed, n)
		if err != nil {
			return nil, err
		}
		r.dirs = append(r.dirs, d)
		r.entries = append(r.entries, d.all...)
	}
	for _, x := range sc.list {
		r.machines = append(r.machines, machine{speed: x.Speed, processors: x.Processors, workers: x.Workers, backlog: x.Backlog, up: true})
	}
	var shares []float64
	for _, k := range sc.Work {
		shares = append(shares, k.Share)
	}
	r.kinds = newAlias(shares)
	clients, dests := sc.Clients.Count, sc.Destinations.Count
	if t := sc.trace; t != nil && sc.Arrivals.Trace != "" {
		clients, dests = max(clients, t.clients), max(dests, t.dests)
	}
	if sc.Clients.Count > 0 {
		r.clients = newZipf(sc.Clients.Count, sc.Clients.Zipf)
	}
	if sc.Destinations.Count > 0 {
		r.dests = newZipf(sc.Destinations.Count, sc.Destinations.Zipf)
	}
	if closed := sc.Arrivals.Closed; closed != nil {
		clients = max(clients, closed.Clients)
		for i := range closed.Clients { // they don't come all at once
			r.timers.push(r.thinks.unit()*(closed.Think.Mean()+sc.mean), thought, int32(i))
		}
	}
	if sc.Cache.Of != "" {
		objects := dests
		if sc.Cache.Of == "client" {
			objects = clients
		}
		for range sc.list {
			r.caches = append(r.caches, newLRU(sc.Cache.Objects, objects))
		}
	}
	r.moves = newMoves(clients)
	r.req.Service = &r.dirs[0].vs
	r.req.Flow = packet.Flow{Dst: vipAddr, DstPort: vip.Port(), Proto: packet.ProtoTCP}
	r.out = newOutcome(sc, seed)
	r.meter = newMeter(sc, r.machines)
	r.special = r.meter.next
	err := r.loop(ctx)
	r.meter.finish(r)
	return r.out, err
}

// loop takes events in the order of their times until everything that is measured is over.
func (r *run) loop(ctx context.Context) error {
	for n := uint32(1); ; n++ {
		if n%checkCtx == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		machine, finish := r.finishes.next()
		t, timer := r.arrivals.at, r.timers.next()
		switch {
		case r.special <= t && r.special <= finish && r.special <= timer:
			if r.special == never || len(r.pending) == 0 && t == never && finish == never && timer == never {
				return nil // a trace is over, and everything else
			}
			r.now = r.special
			if r.doSpecial() {
				return nil
			}
		case finish <= t && finish <= timer:
			r.now = finish
			r.finish(machine)
		case timer <= t:
			r.now = timer
			r.fire(r.timers.pop())
		default:
			r.now = t
			r.arrive(-1)
			if r.arrivals.next(); r.arrivals.at == never && r.meter.measuring {
				r.meter.stop(r) // the trace's last
			}
		}
	}
}

// arrive is a new connection: of that client of a closed population, or of anybody (-1).
func (r *run) arrive(client int32) {
	sc := r.sc
	measure := r.meter.arrival(r)
	dest, kind := int32(-1), uint8(0)
	if len(sc.Work) > 1 {
		kind = uint8(r.kinds.draw(&r.demand))
	}
	demand := sc.Work[kind].Demand.draw(&r.demand)
	if t := sc.trace; t != nil && client < 0 && sc.Arrivals.Trace != "" {
		if t.demand != nil {
			demand = t.demand[r.arrivals.n]
		}
		if t.client != nil {
			client = t.client[r.arrivals.n]
		}
		if t.dest != nil {
			dest = t.dest[r.arrivals.n]
		}
	}
	if client < 0 && sc.Clients.Count > 0 {
		client = r.clients.draw(&r.flows)
	}
	if dest < 0 && sc.Destinations.Count > 0 {
		dest = r.dests.draw(&r.flows)
	}
	random := r.flows.next()
	f := &r.req.Flow
	if client >= 0 {
		f.Src = packet.AddrFrom4(address(client))
	} else {
		f.Src = packet.AddrFrom4(uint32(random >> 32))
	}
	f.SrcPort = 32768 + uint16(random)%28232 // Linux's range
	if dest >= 0 {
		f.Dst = packet.AddrFrom4(address(dest))
	}
	d := 0
	if len(r.dirs) > 1 {
		d = r.choose(f)
	}
	r.expire()
	dir := r.dirs[d]
	r.req.Service, r.req.Now = &dir.vs, int64(r.now*1e9)
	rs := dir.scheduler.Pick(&r.req, dir.list)
	if rs == nil {
		r.out.refused(measure)
		r.meter.fault(r)
		if measure {
			r.meter.done(r)
		}
		r.again(client, retry)
		return
	}
	rs.Bind(true)
	entry := int32(rs.Index)
	server := int(entry) - d*r.servers
	if client >= 0 {
		r.moves.arrive(r, client, int32(server))
	}
	if r.caches != nil {
		object := dest
		if sc.Cache.Of == "client" {
			object = client
		}
		if r.caches[server].use(object) {
			demand *= sc.Cache.Hit
			r.out.hit(measure)
		}
	}
	m := &r.machines[server]
	m.advance(r.now)
	r.meter.assign(server, r, demand)
	if dir.timed {
		r.beginSetup(rs, m)
	}
	c := r.connection(conn{r.now, demand, client, entry, kind, measure})
	switch {
	case !m.up:
		r.timers.push(r.now+float64(sc.Director.GiveUp), gaveUp, c)
	case m.admit(c, demand):
		r.finishes.set(server, m.nextDone())
	default:
		r.fail(c, synRecv)
	}
}

// addr is an address of 32 random bits.
func addr(bits uint64) packet.Addr { return packet.AddrFrom4(uint32(bits)) }

// address is the address of a client or a destination: such as real ones, which don't follow one another.
func address(n int32) uint32 {
	const odd = 0x9e3779b1
	return (uint32(n)*odd ^ 0x5bd1e995) * odd
}

// choose is the director that a flow comes to.
func (r *run) choose(f *packet.Flow) int {
	if r.sc.Director.Spread == "turn" {
		r.turn = (r.turn + 1) % len(r.dirs)
		return r.turn
	}
	h := random(uint64(f.Src.V4())<<16 | uint64(f.SrcPort))
	return int(h.below(uint64(len(r.dirs))))
}

// expire counts off the entries that a director kept after their connections closed. Nobody looks at the counts but
// schedulers, so that it is early enough to do it before they are asked.
func (r *run) expire() {
	for r.linger.size > 0 && r.linger.first().until <= r.now {
		r.entries[r.linger.pop().entry].Unbind(false)
	}
}

func (r *run) connection(c conn) int32 {
	if n := len(r.free); n > 0 {
		i := r.free[n-1]
		r.free = r.free[:n-1]
		r.conns[i] = c
		return i
	}
	r.conns = append(r.conns, c)
	return int32(len(r.conns) - 1)
}

// finish is a machine that has served a connection, and takes up the next that waits.
func (r *run) finish(server int) {
	m := &r.machines[server]
	m.advance(r.now)
	c := m.finish()
	if m.waiting.size > 0 {
		next := m.waiting.pop()
		m.start(next, r.conns[next].demand)
	}
	r.finishes.set(server, m.nextDone())
	latency := &r.sc.Work[r.conns[c].kind].Latency
	if latency.zero() {
		r.answer(c)
		return
	}
	r.timers.push(r.now+latency.draw(&r.demand), answered, c)
}

// answer is a client that has its answer.
func (r *run) answer(c int32) {
	x := &r.conns[c]
	r.meter.answer(r, x)
	open := &r.sc.Work[x.kind].Open
	stays := 0.0
	if !open.zero() {
		stays = open.draw(&r.closes)
	}
	d := &r.sc.Director
	kind := closed
	if d.LateShare+d.MissingShare > 0 {
		switch u := r.closes.unit(); {
		case u <= d.MissingShare:
			kind, stays = forgotten, stays+float64(d.Established)
		case u <= d.MissingShare+d.LateShare:
			stays += float64(d.LateBy)
		}
	}
	if kind == closed && stays == 0 {
		r.close(x.entry)
	} else {
		r.timers.push(r.now+stays, kind, x.entry)
	}
	r.again(x.client, 0)
	r.free = append(r.free, c)
}

// again makes a client of a closed population think, at least so long, and come back.
func (r *run) again(client int32, least float64) {
	closed := r.sc.Arrivals.Closed
	if closed == nil {
		return
	}
	r.timers.push(r.now+max(closed.Think.draw(&r.thinks), least), thought, client)
}

// close is the end of a connection as the director sees it.
func (r *run) close(entry int32) {
	rs := r.entries[entry]
	if r.lingers == 0 {
		rs.Unbind(true)
		return
	}
	rs.SetActive(false)
	r.linger.push(lingering{r.now + r.lingers, entry})
}

// fail is a connection that gets no answer, whose entry counts as active for so long.
func (r *run) fail(c int32, active float64) {
	x := &r.conns[c]
	r.out.failed(x.measure)
	r.meter.fault(r)
	if x.measure {
		r.meter.done(r)
	}
	if active == 0 {
		r.close(x.entry) // it was established: the client closes it
	} else {
		r.timers.push(r.now+active, forgotten, x.entry)
	}
	r.again(x.client, retry)
	r.free = append(r.free, c)
}

// beginSetup is the measurement of a handshake, which schedulers that ask for it go by.
func (r *run) beginSetup(rs *service.RealServer, m *machine) {
	rs.BeginSetup()
	d := &r.sc.Director
	if m.up {
		takes := float64(d.RoundTrip)
		if m.speed > 0 {
			takes += float64(d.Accept) / m.speed * max(1, float64(len(m.running)+1)/m.processors)
		}
		r.timers.pushSpan(r.now+takes, setUp, int32(rs.Index), takes)
		return
	}
	// The client repeats its SYN after one second and after two more: each is a sample of an answer that took at least so long.
	for at, span := retry, retry; at < float64(d.GiveUp); at, span = at+2*span, 2*span {
		r.timers.pushSpan(r.now+at, setupMissed, int32(rs.Index), span)
	}
	r.timers.push(r.now+float64(d.GiveUp)+synRecv, setupEnded, int32(rs.Index))
}

// fire is a timer that is due.
func (r *run) fire(t timer) {
	switch t.kind {
	case answered:
		r.answer(t.what)
	case closed:
		r.close(t.what)
	case gaveUp:
		r.fail(t.what, synRecv)
	case lost:
		r.fail(t.what, 0)
	case thought:
		r.arrive(t.what)
	case forgotten:
		r.entries[t.what].Unbind(true)
	case setUp:
		r.entries[t.what].EndSetup()
		fallthrough
	case setupMissed:
		r.entries[t.what].ObserveSetup(time.Duration(float64(t.span)*1e9), int64(r.now*1e9))
	case setupEnded:
		r.entries[t.what].EndSetup()
	}
}

// doSpecial does the changes that are due, and windows' ends. It says whether the run is over.
func (r *run) doSpecial() bool {
	for len(r.pending) > 0 && r.pending[0].at <= r.now {
		p := r.pending[0]
		r.pending = r.pending[1:]
		r.change(p)
	}
	over := r.meter.tick(r)
	r.special = r.meter.next
	if len(r.pending) > 0 {
		r.special = min(r.special, r.pending[0].at)
	}
	return over
}
