package sim

import "slices"

// schedule makes a change due.
func (r *run) schedule(p pendingChange) {
	i := len(r.pending)
	for i > 0 && r.pending[i-1].at > p.at {
		i--
	}
	r.pending = slices.Insert(r.pending, i, p)
	r.special = min(r.special, p.at)
}

// change makes a change happen: to a server, of which the directors hear when their health checks find it, or to the
// directors.
func (r *run) change(p pendingChange) {
	i, m := p.server, &r.machines[p.server]
	m.advance(r.now)
	d := &r.sc.Director
	later := pendingChange{at: r.now + float64(*d.Detect), noticed: true, Change: p.Change}
	switch {
	case p.noticed:
		r.notice(p)
		return
	case p.action == fails:
		if !m.up {
			return
		}
		m.up, r.dead[i] = false, true
		// Clients of what was in service wait in vain.
		for _, w := range m.running {
			r.timers.push(r.now+float64(d.GiveUp), lost, w.conn)
		}
		for m.waiting.size > 0 {
			r.timers.push(r.now+float64(d.GiveUp), lost, m.waiting.pop())
		}
		m.running, m.conns = m.running[:0], 0
		r.schedule(later)
	case p.action == returns:
		if m.up {
			return
		}
		m.up, r.dead[i] = true, false
		if r.caches != nil {
			r.caches[i].clear()
		}
		r.schedule(later)
	case p.action == slows:
		m.speed = p.Speed
	default:
		r.notice(p)
	}
	r.finishes.set(i, m.nextDone())
}

// notice is a change of the directors' lists.
func (r *run) notice(p pendingChange) {
	r.expire()
	removing := r.sc.Director.DetectRemoves
	weight := *r.sc.list[p.server].Weight
	for _, dir := range r.dirs {
		switch {
		case p.action == fails && !r.dead[p.server], p.action == returns && r.dead[p.server]:
			continue // it is otherwise by now
		case p.action == fails && removing, p.action == removes:
			dir.remove(p.server)
		case p.action == fails:
			dir.weigh(p.server, 0)
		case p.action == returns && removing, p.action == adds:
			dir.add(p.server, weight)
		case p.action == returns:
			dir.weigh(p.server, weight)
		case p.action == weighs:
			dir.weigh(p.server, p.Weight)
		}
	}
	r.moves.changed()
}

// moves finds out which clients come to another server than before.
type moves struct {
	last  []int32 // by client, the server of its last connection plus 1
	epoch []uint32
	now   uint32 // counts changes
}

func newMoves(clients int) moves {
	return moves{last: make([]int32, clients), epoch: make([]uint32, clients)}
}

func (m *moves) changed() { m.now++ }

// arrive is a connection of a client to a server.
func (m *moves) arrive(r *run, client, server int32) {
	last, epoch := m.last[client]-1, m.epoch[client]
	m.last[client], m.epoch[client] = server+1, m.now
	if last < 0 || !r.meter.measuring {
		return
	}
	r.out.returned++
	if last == server {
		r.out.kept++
	}
	if epoch != m.now && r.dirs[0].all[last].Eligible() && r.dirs[0].all[last].Available() {
		// Its first connection since a change, and its server could have taken it.
		r.out.unmoved++
		if last != server {
			r.out.unmoved--
			r.out.moved++
		}
	}
}
