package trial

import (
	"math"
	"net/netip"
)

// Imbalance says how unevenly something is spread over servers, each by its weight.
type Imbalance struct {
	// MaxMean is the most loaded server's load over the mean; 1 is even, the number of servers the worst.
	MaxMean float64
	// Jain is Jain's fairness index: 1 is even, one over the number of servers the worst.
	Jain float64
	// CV is the coefficient of variation, the standard deviation over the mean; 0 is even.
	CV float64
}

// Measure is the imbalance of loads. Without any load it is the even one.
func Measure(loads []float64) Imbalance {
	var sum, squares, most float64
	for _, x := range loads {
		sum += x
		squares += x * x
		most = max(most, x)
	}
	if sum == 0 {
		return Imbalance{MaxMean: 1, Jain: 1}
	}
	n := float64(len(loads))
	mean := sum / n
	return Imbalance{
		MaxMean: most / mean, Jain: sum * sum / (n * squares),
		CV: math.Sqrt(max(squares/n-mean*mean, 0)) / mean,
	}
}

// heldSums are sums over samples of the connections that servers hold.
type heldSums struct {
	samples uint64
	sum     Imbalance
}

// Sample looks at how many connections the servers hold. It is to be called at equal distances of time, such as a second.
func (g *Group) Sample() {
	loads := make([]float64, 0, len(g.list))
	for _, t := range g.trials {
		if t == nil {
			continue
		}
		loads = loads[:0]
		held := int32(0)
		for _, rs := range t.list {
			if w := rs.Weight(); w > 0 {
				n := rs.Active() // what closes or is a datagram's is held where nothing else is
				loads = append(loads, float64(n)/float64(w))
				held += n
			}
		}
		if held == 0 {
			loads = loads[:0]
			for _, rs := range t.list {
				if w := rs.Weight(); w > 0 {
					loads = append(loads, float64(rs.Inactive())/float64(w))
					held += rs.Inactive()
				}
			}
		}
		if held > 0 {
			m := Measure(loads)
			t.held.samples++
			t.held.sum.MaxMean += m.MaxMean
			t.held.sum.Jain += m.Jain
			t.held.sum.CV += m.CV
		}
	}
}

// endEpoch shares the connections of the epoch out by weight, as a measure for what the trials did.
func (g *Group) endEpoch() {
	var weights float64
	for _, slot := range g.list {
		weights += float64(max(g.servers[slot].Weight, 0))
	}
	for _, slot := range g.list {
		if weights > 0 {
			g.servers[slot].fair += float64(g.opened) * float64(max(g.servers[slot].Weight, 0)) / weights
		}
	}
	g.opened = 0
}

// Figures are what a trial has to show.
type Figures struct {
	// Scheduler is what the trial was added as.
	Scheduler string
	// Offered counts the connections that it was asked about, Misses those that it had no server for, and Differs those that
	// it sent elsewhere than they really went.
	Offered, Misses, Differs uint64
	// Returning counts those of clients whose earlier connection is remembered, and Moved those of them that went to another
	// server than that. AfterChange and MovedByChange are the same for clients that come for the first time since servers or
	// weights changed.
	Returning, Moved, AfterChange, MovedByChange uint64
	// New is how unevenly new connections were spread, by weight; Held is that of the connections held at a time (active
	// ones, or inactive where there is no active one), the mean of all samples. Samples is their number.
	New, Held Imbalance
	Samples   uint64
	// Servers has those that are in the service, the latest added first, and behind them others that had connections.
	Servers []ServerFigures
}

// ServerFigures are what a trial's server has to show.
type ServerFigures struct {
	Addr   netip.AddrPort
	Weight int32
	// Listed says that it is in the service.
	Listed bool
	// Conns counts the connections that it got; Fair is how many it would have got by weight alone.
	Conns uint64
	Fair  float64
	// Active and Inactive are the connections that it has, Peak the most of both that it had at a time.
	Active, Inactive, Peak int32
}

// Figures are those of all trials.
func (g *Group) Figures() (all []Figures) {
	g.endEpoch()
	for _, t := range g.trials {
		if t == nil {
			continue
		}
		f := Figures{
			Scheduler: t.name, Offered: t.offered, Misses: t.misses, Differs: t.differs, Returning: t.returning, Moved: t.moved,
			AfterChange: t.returningAfterChange, MovedByChange: t.movedByChange, Samples: t.held.samples,
			Held: Imbalance{MaxMean: 1, Jain: 1},
		}
		if n := float64(t.held.samples); n > 0 {
			f.Held = Imbalance{MaxMean: t.held.sum.MaxMean / n, Jain: t.held.sum.Jain / n, CV: t.held.sum.CV / n}
		}
		var loads []float64
		for i := range g.servers {
			if fair := g.servers[i].fair; fair >= 1 {
				loads = append(loads, float64(t.picks[i])/fair)
			}
		}
		f.New = Measure(loads)
		for _, slot := range g.list {
			f.Servers = append(f.Servers, t.figures(slot, &g.servers[slot]))
		}
		for i := range g.servers {
			if m := &g.servers[i]; !m.listed && t.picks[i] > 0 {
				f.Servers = append(f.Servers, t.figures(Slot(i), m))
			}
		}
		all = append(all, f)
	}
	return all
}

func (t *trial) figures(slot Slot, m *member) ServerFigures {
	rs := t.rs[slot]
	return ServerFigures{
		Addr: m.Addr, Weight: m.Weight, Listed: m.listed, Conns: t.picks[slot], Fair: m.fair,
		Active: rs.Active(), Inactive: rs.Inactive(), Peak: t.peak[slot],
	}
}
