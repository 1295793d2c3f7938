package sim

import (
	"context"
	"time"

	"uvs/bench/result"
	"uvs/service"
)

// figure is one of a result's, and how it comes from a run. ok is false where it means nothing.
type figure struct {
	result.Figure
	of func(sc *Scenario, o *outcome) (v float64, ok bool)
}

// quantileOf is a figure that is a quantile of the response time.
func quantileOf(q float64) func(*Scenario, *outcome) (float64, bool) {
	return func(_ *Scenario, o *outcome) (float64, bool) { return o.response.quantile(q), o.response.n > 0 }
}

// share is a part of a whole in percent.
func share(part, whole uint64) (float64, bool) {
	return 100 * float64(part) / float64(whole), whole > 0
}

// decision is the name of the figure that is measured by the clock.
const decision = "decision"

// figures are all, in the order of a report.
var figures = []figure{
	{result.Figure{Name: "mean", Title: "mean response time", Unit: "s", Better: result.Less, About: "from a connection's arrival at the director to its answer, of those that got one"},
		func(_ *Scenario, o *outcome) (float64, bool) { return o.response.mean(), o.response.n > 0 }},
	{result.Figure{Name: "p50", Title: "median response time", Unit: "s", Better: result.Less}, quantileOf(0.5)},
	{result.Figure{Name: "p95", Title: "95th percentile of the response time", Unit: "s", Better: result.Less}, quantileOf(0.95)},
	{result.Figure{Name: "p99", Title: "99th percentile of the response time", Unit: "s", Better: result.Less}, quantileOf(0.99)},
	{result.Figure{Name: "p999", Title: "99.9th percentile of the response time", Unit: "s", Better: result.Less}, quantileOf(0.999)},
	{result.Figure{Name: "slowdown", Title: "mean slowdown", Better: result.Less, About: "a connection's response time by the time that its work takes alone at speed 1: what short connections suffer from long ones"},
		func(_ *Scenario, o *outcome) (float64, bool) { return o.slowdown / float64(o.slowed), o.slowed > 0 }},
	{result.Figure{Name: "throughput", Title: "answers in a second", Unit: "1/s", Better: result.More},
		func(_ *Scenario, o *outcome) (float64, bool) { return float64(o.answers) / o.span, o.span > 0 }},
	{result.Figure{Name: "failed", Title: "connections without an answer", Unit: "%", Better: result.Less, About: "a server died or its backlog was full, the scheduler found no server, or the answer hadn't come when the run was given up"},
		func(_ *Scenario, o *outcome) (float64, bool) { return share(o.fails+o.refuses+o.left, o.conns) }},
	{result.Figure{Name: "refused", Title: "connections that the scheduler found no server for", Unit: "%", Better: result.Less, About: "part of those without an answer"},
		func(_ *Scenario, o *outcome) (float64, bool) { return share(o.refuses, o.conns) }},
	{result.Figure{Name: "imbalance", Title: "most loaded server by the mean", Better: result.Less, About: "connections in service and waiting by a server's capacity, averaged over each window; the largest by the mean of all servers, averaged over windows; 1 is even"},
		func(_ *Scenario, o *outcome) (float64, bool) {
			return o.windows.maxMean / float64(o.windows.n), o.windows.n > 0
		}},
	{result.Figure{Name: "jain", Title: "Jain's index of fairness", Better: result.More, About: "of the same loads; 1 is even, 1/n all on one of n servers"},
		func(_ *Scenario, o *outcome) (float64, bool) {
			return o.windows.jain / float64(o.windows.n), o.windows.n > 0
		}},
	{result.Figure{Name: "cv", Title: "coefficient of variation of the load", Better: result.Less, About: "of the same loads: their standard deviation by their mean; 0 is even"},
		func(_ *Scenario, o *outcome) (float64, bool) {
			return o.windows.variation / float64(o.windows.n), o.windows.n > 0
		}},
	{result.Figure{Name: "cv-new", Title: "coefficient of variation of new connections", About: "of the number that came to each server in a window, by its capacity"},
		func(_ *Scenario, o *outcome) (float64, bool) {
			return o.windows.conn / float64(o.windows.nConns), o.windows.nConns > 0
		}},
	{result.Figure{Name: "utilisation", Title: "utilisation of the servers", Unit: "%", About: "the share of their processors that worked, by capacity"},
		func(sc *Scenario, o *outcome) (float64, bool) {
			var busy, capacity float64
			for i, s := range o.servers {
				c := sc.list[i].Speed * sc.list[i].Processors
				busy, capacity = busy+s.busy*c, capacity+c
			}
			return 100 * busy / capacity, capacity > 0
		}},
	{result.Figure{Name: "busiest", Title: "utilisation of the busiest server", Unit: "%", Better: result.Less},
		func(_ *Scenario, o *outcome) (most float64, ok bool) {
			for _, s := range o.servers {
				most = max(most, 100*s.busy)
			}
			return most, true
		}},
	{result.Figure{Name: "hits", Title: "cache hits", Unit: "%", Better: result.More, About: "connections whose server had done the same before and still remembered"},
		func(sc *Scenario, o *outcome) (float64, bool) {
			v, ok := share(o.hits, o.conns)
			return v, ok && sc.Cache.Of != ""
		}},
	{result.Figure{Name: "kept", Title: "returning clients at their server", Unit: "%", Better: result.More, About: "connections of clients who had one before that came to the same server as that"},
		func(_ *Scenario, o *outcome) (float64, bool) { return share(o.kept, o.returned) }},
	{result.Figure{Name: "moved", Title: "clients moved by changes", Unit: "%", Better: result.Less, About: "of clients who come back after a change of the servers and whose server is still there, those who came to another"},
		func(_ *Scenario, o *outcome) (float64, bool) { return share(o.moved, o.moved+o.unmoved) }},
}

// parts are the figures that each server has.
var parts = []struct {
	result.Figure
	of func(*serverOutcome, *outcome) float64
}{
	{result.Figure{Name: "server-utilisation", Title: "utilisation, by server", Unit: "%"}, func(s *serverOutcome, _ *outcome) float64 { return 100 * s.busy }},
	{result.Figure{Name: "server-connections", Title: "share of connections, by server", Unit: "%"},
		func(s *serverOutcome, o *outcome) float64 { return 100 * float64(s.conns) / float64(max(o.conns, 1)) }},
	{result.Figure{Name: "server-inside", Title: "connections in service and waiting, by server"}, func(s *serverOutcome, _ *outcome) float64 { return s.inside }},
}

// kindFigure is the figure of the mean response time of a kind of work.
func kindFigure(k *Kind) result.Figure {
	return result.Figure{Name: "mean-" + k.Name, Title: "mean response time of " + k.Name, Unit: "s", Better: result.Less}
}

// allFigures are those that results of these scenarios have.
func allFigures(scenarios []Scenario) []result.Figure {
	var all []result.Figure
	seen := map[string]bool{}
	add := func(f result.Figure) {
		if !seen[f.Name] {
			seen[f.Name] = true
			all = append(all, f)
		}
	}
	for _, f := range figures {
		add(f.Figure)
	}
	for i := range scenarios {
		if work := scenarios[i].Work; len(work) > 1 {
			for j := range work {
				add(kindFigure(&work[j]))
			}
		}
	}
	add(result.Figure{Name: decision, Title: "cost of a decision", Unit: "s", Better: result.Less, Clock: true, About: "one call of the scheduler with the scenario's servers, on this machine"})
	for _, p := range parts {
		add(p.Figure)
	}
	return all
}

// row is what several runs of one scheduler found.
func row(pt point, c choice, runs []*outcome) result.Row {
	r := result.Row{Subject: c.text, X: pt.x, Values: map[string]result.Value{}, Parts: map[string][]result.Part{}}
	add := func(name string, of func(o *outcome) (float64, bool)) {
		var values []float64
		for _, o := range runs {
			if v, ok := of(o); ok {
				values = append(values, v)
			}
		}
		if len(values) > 0 {
			r.Values[name] = result.Estimate(values)
		}
	}
	for _, f := range figures {
		add(f.Name, func(o *outcome) (float64, bool) { return f.of(pt.Scenario, o) })
	}
	for i := range pt.Work {
		if len(pt.Work) > 1 {
			add(kindFigure(&pt.Work[i]).Name, func(o *outcome) (float64, bool) { return o.kinds[i].mean(), o.kinds[i].n > 0 })
		}
	}
	for _, p := range parts {
		for i := range pt.list {
			var values []float64
			for _, o := range runs {
				values = append(values, p.of(&o.servers[i], o))
			}
			r.Parts[p.Name] = append(r.Parts[p.Name], result.Part{Name: pt.list[i].Name, Value: result.Estimate(values)})
		}
	}
	return r
}

// curves are the distribution of the response time over all runs, and of runs with changes what happened over time.
func curves(pt point, c choice, runs []*outcome) []result.Curve {
	if pt.x != nil {
		return nil
	}
	total := newHistogram()
	for _, o := range runs {
		total.merge(&o.response)
	}
	x, y := total.tail()
	all := []result.Curve{{Subject: c.text, Plot: "response time: share of connections that take longer", XTitle: "response time", XUnit: "s",
		YTitle: "share that takes longer", LogX: true, LogY: true, X: x, Y: y}}
	if len(pt.Changes) == 0 {
		return all
	}
	mean := result.Curve{Subject: c.text, Plot: "mean response time over time", XTitle: "time", XUnit: "s", YTitle: "mean response time", YUnit: "s", LogY: true}
	fault := result.Curve{Subject: c.text, Plot: "connections without an answer over time", XTitle: "time", XUnit: "s", YTitle: "ended without an answer", YUnit: "%"}
	for i := range bins {
		var b bin
		for _, o := range runs {
			b.answers, b.faults, b.sum = b.answers+o.timeline[i].answers, b.faults+o.timeline[i].faults, b.sum+o.timeline[i].sum
		}
		t := (float64(i) + 0.5) * runs[0].binLength
		if b.answers > 0 {
			mean.X, mean.Y = append(mean.X, t), append(mean.Y, b.sum/float64(b.answers))
		}
		if b.answers+b.faults > 0 {
			fault.X, fault.Y = append(fault.X, t), append(fault.Y, 100*float64(b.faults)/float64(b.answers+b.faults))
		}
	}
	return append(all, mean, fault)
}

// decisionCost measures calls of a scheduler with a scenario's servers, with some connections on each.
func decisionCost(ctx context.Context, sc *Scenario, c choice) (float64, error) {
	d, err := newDirector(sc, c, 1, 0)
	if err != nil {
		return 0, err
	}
	r := newRandom(1, 6)
	for _, rs := range d.all {
		for range r.below(10) {
			rs.Bind(true)
		}
	}
	requests := make([]service.Request, 256)
	for i := range requests {
		q := &requests[i]
		q.Service, q.Now = &d.vs, int64(i)
		q.Flow.Src, q.Flow.Dst, q.Flow.SrcPort, q.Flow.DstPort = addr(r.next()), vipAddr, uint16(r.next()), vip.Port()
		if sc.Destinations.Count > 0 {
			q.Flow.Dst = addr(uint64(address(int32(r.below(uint64(sc.Destinations.Count))))))
		}
	}
	const rounds, calls = 5, 4096
	best := never
	for range rounds {
		begun := time.Now()
		for i := range calls {
			d.scheduler.Pick(&requests[i%len(requests)], d.list)
		}
		best = min(best, time.Since(begun).Seconds()/calls)
	}
	return best, ctx.Err()
}
