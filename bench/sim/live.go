package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"uvs/bench/result"
)

// Live is one measurement of a study on real servers: a closed population of clients asks a scheduler's virtual service.
type Live struct {
	Scenario  string
	Scheduler string   // ipvsadm's name
	Flags     []string // of -b
	Clients   int
	Round     int
	Servers   []LiveServer // in the order in which they are added
	sc        *Scenario

	mu     sync.Mutex // guards what follows
	random random
	kinds  alias
}

// LiveServer is a real server's weight, the speed of each of its processors, and their number.
type LiveServer struct {
	Weight            int32
	Speed, Processors float64
}

// Next is what the next transaction asks for: work of a processor of speed 1, and time that it takes besides; and how long its
// client thinks after it. It may be called by many goroutines.
func (l *Live) Next() (demand, latency, think time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := &l.sc.Work[l.kinds.draw(&l.random)]
	span := func(d *Dist) time.Duration { return time.Duration(d.draw(&l.random) * float64(time.Second)) }
	return span(&k.Demand), span(&k.Latency), span(&l.sc.Arrivals.Closed.Think)
}

// LiveResult is what a measurement found: the response times of transactions that ended in the time measured, and how many
// ended without an answer.
type LiveResult struct {
	Responses []time.Duration
	Failures  int
	Time      time.Duration
}

// liveFigures are those of measurements on real servers.
var liveFigures = []string{"mean", "p50", "p95", "p99", "throughput", "failed"}

// RunLive has every scheduler and every point of the study measured in turn, so many rounds of each. The study's arrivals are
// closed populations, and its servers equal to or different from each other in weight, speed and processors alone. When ctx ends
// it returns what was measured until then, with ctx's error.
func (s *Study) RunLive(ctx context.Context, opts Options, measure func(context.Context, *Live) (*LiveResult, error)) (*result.File, error) {
	begun := time.Now()
	rounds := max(opts.Seeds, 1)
	opts.Seeds = rounds
	scenarios, tasks, err := s.tasks(&opts)
	if err != nil {
		return nil, err
	}
	if err := s.CheckLive(opts.Scenarios); err != nil {
		return nil, err
	}
	f := &result.File{Kind: result.Lab, Title: s.Title + ", on real servers", About: s.About, Started: begun}
	for _, fig := range figures {
		if slices.Contains(liveFigures, fig.Name) {
			f.Figures = append(f.Figures, fig.Figure)
		}
	}
	for i := range scenarios {
		d := describe(&scenarios[i])
		d.Verdict = "" // it is about the simulation
		f.Scenarios = append(f.Scenarios, d)
	}
	outcomes := make([][]*outcome, len(tasks))
	done := 0
	for round := range rounds {
		for i, t := range tasks {
			if opts.Progress != nil {
				opts.Progress(float64(done), float64(len(tasks)*rounds))
			}
			done++
			l := t.live(round)
			r, e := measure(ctx, l)
			if ctx.Err() != nil {
				err = ctx.Err()
				break
			}
			if e != nil {
				return nil, fmt.Errorf("scenario %s, %s, %d clients: %w", l.Scenario, t.choice.text, l.Clients, e)
			}
			outcomes[i] = append(outcomes[i], r.outcome(t.point.Scenario))
		}
	}
	for i, t := range tasks {
		if len(outcomes[i]) == 0 {
			continue
		}
		whole := row(t.point, t.choice, outcomes[i])
		whole.Parts = nil
		for name := range whole.Values {
			if !slices.Contains(liveFigures, name) {
				delete(whole.Values, name)
			}
		}
		sc := &f.Scenarios[t.scenario]
		sc.Rows = append(sc.Rows, whole)
	}
	f.Took, f.Partial = time.Since(begun).Seconds(), err != nil
	return f, err
}

// CheckLive finds what RunLive could not measure in these scenarios of the study, or in all if none is named.
func (s *Study) CheckLive(scenarios []string) error {
	for i := range s.Scenarios {
		sc := &s.Scenarios[i]
		if len(scenarios) > 0 && !slices.Contains(scenarios, sc.Name) {
			continue
		}
		if err := sc.live(); err != nil {
			return fmt.Errorf("scenario %s: %w", sc.Name, err)
		}
	}
	return nil
}

// live finds what real servers in the lab don't do.
func (s *Scenario) live() error {
	switch {
	case s.Arrivals.Closed == nil:
		return errors.New("on real servers arrivals are closed")
	case s.Director.Count > 1 || len(s.Changes) > 0 || s.Cache.Of != "" || s.Destinations.Count > 0:
		return errors.New("on real servers there is one director, and no changes, caches and destinations")
	}
	for _, x := range s.list {
		if x.Workers != unlimited || x.Backlog != unlimited || x.Absent {
			return errors.New("on real servers queues are ps, without workers and backlog")
		}
	}
	return nil
}

func (t *task) live(round int) *Live {
	sc := t.point.Scenario
	l := &Live{Scenario: sc.Name, Scheduler: t.choice.name, Flags: t.choice.words(), Clients: sc.Arrivals.Closed.Clients, Round: round, sc: sc,
		random: newRandom(uint64(round)+1, 7)}
	var shares []float64
	for _, k := range sc.Work {
		shares = append(shares, k.Share)
	}
	l.kinds = newAlias(shares)
	for _, x := range sc.list {
		l.Servers = append(l.Servers, LiveServer{*x.Weight, x.Speed, x.Processors})
	}
	return l
}

// outcome is the result as a run's.
func (r *LiveResult) outcome(sc *Scenario) *outcome {
	o := newOutcome(sc, 0)
	for _, d := range r.Responses {
		o.response.add(d.Seconds())
	}
	o.answers, o.fails, o.span = uint64(len(r.Responses)), uint64(r.Failures), r.Time.Seconds()
	o.conns = o.answers + o.fails
	return o
}
