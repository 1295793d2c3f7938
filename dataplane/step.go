package dataplane

import "uvs/packet"

// Step runs every worker and the slow path by hand, one batch each, without blocking and as of now: what tests, the
// simulator and benchmarks do instead of Run. It says whether there was anything to do.
func (p *Plane) Step(now int64) (busy bool) {
	for _, w := range p.workers {
		busy = w.step(now) || busy
	}
	select {
	case q := <-p.slow.queue:
		p.slow.step(now, &q)
		return true
	case a := <-p.slow.asks:
		p.slow.ask(a)
		return true
	case in := <-p.slow.injections:
		p.slow.inject(in, now)
		return true
	case d := <-p.slow.departures:
		p.slow.depart(d, now)
		return true
	case at := <-p.arrivals.full:
		p.arrivals.hand(at, new(packet.Packet))
		return true
	default:
		p.slow.step(now, nil)
		return busy
	}
}
