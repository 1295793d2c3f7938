package sched

import (
	"math"
	"time"

	"uvs/service"
)

// rt is response time, which LVS's literature lists and the kernel lacks: quick servers get more of the new connections.
// A server is drawn at random with the chance
//
//	weight / (latency * (1 + waiting/weight))²
//
// where latency is the recent average time from a client's SYN to its first ACK, which passes the director under every
// forwarding method, plus that of the health check's answer, and waiting is how many clients have sent their SYN and not
// had their ACK yet. Twice as slow is a quarter of the connections. There is no tie: equals have equal chances.
//
// Why so. Taking the quickest server alone would herd: all workers would follow one estimate until it is wrong. A draw
// makes a small difference a small preference, and never leaves a server without samples. Waiting clients are the news
// that come before the first late sample: a server that falls silent loses its share within about a latency's time, as
// with the cost (average times outstanding) of Finagle's peak EWMA balancer; unlike it rt doesn't take up peaks at once,
// because a sample also holds the way to one client and back. That way is common to all servers, so that the chance goes
// down with the square, to tell them apart where it is long. A server of unknown latency counts as the quickest of the
// others, not quicker, so that a new one isn't flooded; and what an estimate has above the quickest halves with every ten
// seconds without a sample, so that a server is tried again after it was bad. UDP has no set-up: there the health check
// and weights decide.
//
// The decision reads every server twice; its state is that of its random numbers, one atomic addition for each server. The
// servers' estimates are atomics, which may change between the two walks: the chances are then those of the moment that each
// server was read.
type rt struct {
	stateless
	numbers *stream
	random  func() float64 // from 0 up to but not including 1
}

const (
	// rtForget is how long an estimate without new samples keeps half of what it has above the quickest.
	rtForget = 10 * time.Second
	// rtFresh is an age that spares the arithmetic.
	rtFresh = 100 * time.Millisecond
	// rtLeast is the least latency: differences below it are noise.
	rtLeast = 100 * time.Microsecond
)

func rtWith(s *stream) *rt { return &rt{numbers: s, random: s.unit} }

// Fork implements service.Forker.
func (t *rt) Fork(*service.Request) service.Scheduler { return rtWith(t.numbers.fork()) }

// Prepare implements service.Scheduler.
func (*rt) Prepare(servers []*service.RealServer) {
	for _, rs := range servers {
		rs.TimeSetups()
	}
}

// Pick implements service.Scheduler.
func (t *rt) Pick(r *service.Request, servers []*service.RealServer) *service.RealServer {
	var setup, probe time.Duration // of the quickest, 0 if none is known
	for _, rs := range servers {
		if !rs.Eligible() {
			continue
		}
		if d, _ := rs.SetupLatency(r.Now); d != 0 && (setup == 0 || d < setup) {
			setup = d
		}
		if d, _ := rs.ProbeLatency(r.Now); d != 0 && (probe == 0 || d < probe) {
			probe = d
		}
	}
	// A draw from a stream: each server takes the place of the one before with its share of the chances so far.
	var picked *service.RealServer
	var sum float64
	for _, rs := range servers {
		weight := float64(rs.Weight())
		if !rs.Eligible() || weight <= 0 {
			continue
		}
		d, age := rs.SetupLatency(r.Now)
		latency := believed(setup, d, age)
		d, age = rs.ProbeLatency(r.Now)
		latency = max(latency+believed(probe, d, age), rtLeast)
		cost := latency.Seconds() * (1 + float64(max(rs.SettingUp(), 0))/weight)
		chance := weight / (cost * cost)
		sum += chance
		if picked == nil || t.random()*sum < chance {
			picked = rs
		}
	}
	return picked
}

// believed is what of a latency is still believed at its age, if best is the quickest's.
func believed(best, d, age time.Duration) time.Duration {
	excess := d - best
	if excess <= 0 {
		return best // none known, or become quicker since best was read
	}
	if age > rtFresh {
		excess = time.Duration(float64(excess) * math.Exp2(-age.Seconds()/rtForget.Seconds()))
	}
	return best + excess
}
