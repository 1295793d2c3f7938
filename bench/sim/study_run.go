package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"uvs/bench/result"
)

// Options say how a study is run. Zero fields take the study's or the defaults named.
type Options struct {
	Schedulers  []string // instead of the study's
	Scenarios   []string // only these
	Seeds       int      // runs of each
	FirstSeed   uint64   // default 1
	Connections int      // of each run, of scenarios whose runs have a number of them
	Workers     int      // runs at once; default as many as processors
	// Progress is told how many of all simulated connections are done, as they come; nil for nobody.
	Progress func(done, of float64)
}

// task is the runs of one scheduler in one scenario, at one value of its sweep.
type task struct {
	scenario int
	point    point
	choice   choice
	runs     []*outcome
}

// Run runs the study on all processors. When ctx ends it returns what is whole so far, marked as partial, with ctx's error.
func (s *Study) Run(ctx context.Context, opts Options) (*result.File, error) {
	begun := time.Now()
	scenarios, tasks, err := s.tasks(&opts)
	if err != nil {
		return nil, err
	}
	used := processorTime()
	runErr := runAll(ctx, tasks, &opts)
	used = processorTime() - used
	if runErr != nil && ctx.Err() == nil {
		return nil, runErr
	}
	f := &result.File{Kind: result.Sim, Title: s.Title, About: s.About, Started: begun, Figures: allFigures(scenarios)}
	out := make([]result.Scenario, len(scenarios))
	var events uint64
	for i := range scenarios {
		out[i] = describe(&scenarios[i])
	}
	for _, t := range tasks {
		t.runs = slices.DeleteFunc(t.runs, func(o *outcome) bool { return o == nil })
		if len(t.runs) == 0 {
			continue
		}
		for _, o := range t.runs {
			events += o.events
		}
		r := row(t.point, t.choice, t.runs)
		if ctx.Err() == nil {
			cost, err := decisionCost(ctx, t.point.Scenario, t.choice)
			if err != nil {
				return nil, err
			}
			r.Values[decision] = result.Single(cost)
		}
		o := &out[t.scenario]
		o.Rows = append(o.Rows, r)
		o.Curves = append(o.Curves, curves(t.point, t.choice, t.runs)...)
	}
	f.Scenarios = out
	f.Took = time.Since(begun).Seconds()
	f.Partial = runErr != nil
	if used > 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("%.3g million connections were simulated, %.2g million in a second of processor time", float64(events)/1e6, float64(events)/used.Seconds()/1e6))
	}
	return f, runErr
}

// describe is a scenario of a result, without rows.
func describe(sc *Scenario) result.Scenario {
	o := result.Scenario{Name: sc.Name, Title: sc.Title, About: sc.About, Main: sc.Main, Verdict: sc.Verdict}
	if w := sc.Sweep; w != nil {
		o.Axis = map[string]string{"clients": "concurrent clients", "load": "load", "rate": "new connections in a second", "directors": "directors",
			"late": "share of connections seen to close late", "missing": "share of connections never seen to close"}[w.Over]
		o.LogX, o.LogY = w.LogX, w.LogY
		for _, p := range sc.Published {
			o.Reference = append(o.Reference, result.Curve{Subject: p.Name, X: p.X, Y: p.Y})
		}
	}
	return o
}

// tasks are what is to be run.
func (s *Study) tasks(opts *Options) (scenarios []Scenario, tasks []*task, err error) {
	for _, name := range opts.Scenarios {
		if !slices.ContainsFunc(s.Scenarios, func(sc Scenario) bool { return sc.Name == name }) {
			return nil, nil, fmt.Errorf("the study has no scenario %q", name)
		}
	}
	for _, sc := range s.Scenarios {
		if len(opts.Scenarios) > 0 && !slices.Contains(opts.Scenarios, sc.Name) {
			continue
		}
		sc.Seeds = cmp.Or(opts.Seeds, sc.Seeds)
		if sc.Time == 0 {
			sc.Connections = cmp.Or(opts.Connections, sc.Connections)
		}
		if len(opts.Schedulers) > 0 {
			sc.choices = nil
			for _, text := range opts.Schedulers {
				c, err := parseChoice(text)
				if err != nil {
					return nil, nil, err
				}
				sc.choices = append(sc.choices, c)
			}
		}
		if sc.Seeds < 1 || sc.Connections < 0 || sc.Connections == 0 && sc.Time == 0 {
			return nil, nil, fmt.Errorf("scenario %s: runs and their connections are 1 or more", sc.Name)
		}
		scenarios = append(scenarios, sc)
		points, err := sc.points()
		if err != nil {
			return nil, nil, err
		}
		for _, c := range sc.choices {
			for _, p := range points {
				tasks = append(tasks, &task{len(scenarios) - 1, p, c, make([]*outcome, sc.Seeds)})
			}
		}
	}
	return scenarios, tasks, nil
}

// expected is about how many connections a run has.
func (s *Scenario) expected() float64 {
	if s.Time > 0 {
		return max(s.rate()*float64(s.Time), 1)
	}
	return float64(s.Connections)
}

// runAll does the tasks' runs, as many at once as there are workers.
func runAll(ctx context.Context, tasks []*task, opts *Options) error {
	type job struct {
		*task
		seed int
	}
	var of float64
	for _, t := range tasks {
		of += t.point.expected() * float64(len(t.runs))
	}
	jobs := make(chan job)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards done, and calls of Progress
	var done float64
	var workers sync.WaitGroup
	first := cmp.Or(opts.FirstSeed, 1)
	n := opts.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range n {
		workers.Go(func() {
			for j := range jobs {
				o, err := simulate(ctx, j.point.Scenario, j.choice, first+uint64(j.seed))
				if err != nil {
					cancel(err)
					continue
				}
				j.runs[j.seed] = o
				mu.Lock()
				if done += j.point.expected(); opts.Progress != nil {
					opts.Progress(done, of)
				}
				mu.Unlock()
			}
		})
	}
send:
	for _, t := range tasks {
		for seed := range t.runs {
			select {
			case jobs <- job{t, seed}:
			case <-ctx.Done():
				break send
			}
		}
	}
	close(jobs)
	workers.Wait()
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx))
	}
	return nil
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
