package load

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"uvs/bench/result"
)

// Report is what became of a load.
type Report struct {
	// Kinds are in the order connections, requests, held, datagrams.
	Kinds []Kind
	// Took is how long it lasted, what was under way at the end included. Partial says that it was interrupted.
	Started time.Time
	Took    time.Duration
	Partial bool
	Targets []string
}

// Kind is what became of one kind of load.
type Kind struct {
	Name string
	// Asked is the rate that was asked for, a second; of held connections their number.
	Asked float64
	// Begun and Done count things, Failures what failed, by what the client saw.
	Begun, Done uint64
	Failures    map[string]uint64
	// Duplicates and Reordered count datagrams' answers that came again, or behind later ones.
	Duplicates, Reordered uint64
	// Latencies are from the intended start to the end of the answer, in microseconds; of held connections those of opening.
	Latencies *hdrhistogram.Histogram
	// Seconds are by second of the intended start.
	Seconds []Second
	// Lasted is how long things were begun.
	Lasted time.Duration
}

// Second is what was begun in one second. P50 and P99 are quantiles of its latencies, 0 if there are none.
type Second struct {
	Begun, Done, Failed uint64
	P50, P99            time.Duration
}

// Failed is how many failed.
func (k *Kind) Failed() (n uint64) {
	for _, f := range k.Failures {
		n += f
	}
	return n
}

// Failed says that anything did.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Kinds, func(k Kind) bool { return k.Failed() > 0 })
}

func (g *generator) report(loads []load, partial bool) *Report {
	r := &Report{Started: g.start, Took: time.Since(g.start), Partial: partial}
	if g.cfg.TCP.IsValid() {
		r.Targets = append(r.Targets, "tcp "+g.cfg.TCP.String())
	}
	if g.cfg.UDP.IsValid() && g.cfg.Datagrams > 0 {
		r.Targets = append(r.Targets, "udp "+g.cfg.UDP.String())
	}
	for _, l := range loads {
		k := l.tally().kindOf()
		k.Asked = map[string]float64{Connections: g.cfg.Connections, Requests: g.cfg.Requests, Held: float64(g.cfg.Hold), Datagrams: g.cfg.Datagrams}[k.Name]
		k.Lasted = min(g.cfg.Time, r.Took)
		r.Kinds = append(r.Kinds, k)
	}
	return r
}

func (t *tally) kindOf() Kind {
	k := Kind{Name: t.kind, Failures: map[string]uint64{}, Latencies: hdrhistogram.New(1, mostLatency, digits)}
	var seconds []second
	for i := range t.shards {
		s := &t.shards[i]
		s.Lock()
		k.Begun += s.begun
		k.Done += s.done
		k.Duplicates += s.duplicates
		k.Reordered += s.reordered
		for why, n := range s.failed {
			k.Failures[why] += n
		}
		k.Latencies.Merge(s.all)
		for j := range s.seconds {
			if len(seconds) <= j {
				seconds = append(seconds, second{})
			}
			to, from := &seconds[j], &s.seconds[j]
			to.begun, to.done, to.failed = to.begun+from.begun, to.done+from.done, to.failed+from.failed
			if from.latencies != nil {
				if to.latencies == nil {
					to.latencies = hdrhistogram.New(1, mostLatency, 2)
				}
				to.latencies.Merge(from.latencies)
			}
		}
		s.Unlock()
	}
	for i := range seconds {
		s := &seconds[i]
		out := Second{Begun: s.begun, Done: s.done, Failed: s.failed}
		if s.latencies != nil {
			out.P50, out.P99 = micros(s.latencies.ValueAtQuantile(50)), micros(s.latencies.ValueAtQuantile(99))
		}
		k.Seconds = append(k.Seconds, out)
	}
	return k
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// quantiles are those of the latencies that are told, the largest last.
var quantiles = []struct {
	name, title string
	of          float64
}{
	{"p50", "median latency", 50}, {"p90", "90th percentile of the latency", 90}, {"p99", "99th percentile of the latency", 99},
	{"p999", "99.9th percentile of the latency", 99.9}, {"max", "longest latency", 100},
}

// Text prints the report.
func (r *Report) Text(w io.Writer) error {
	fmt.Fprintf(w, "%s, %v\n\n", strings.Join(r.Targets, ", "), r.Took.Round(time.Millisecond))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tasked/s\tbegun\tdone/s\tfailed\t")
	for _, q := range quantiles {
		fmt.Fprintf(t, "%s\t", q.name)
	}
	fmt.Fprintln(t)
	for i := range r.Kinds {
		k := &r.Kinds[i]
		asked, done := fmt.Sprintf("%.0f", k.Asked), fmt.Sprintf("%.0f", float64(k.Done)/k.Lasted.Seconds())
		if k.Name == Held {
			asked, done = fmt.Sprintf("(%.0f)", k.Asked), fmt.Sprintf("(%d)", k.Done)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t", k.Name, asked, k.Begun, done, k.Failed())
		for _, q := range quantiles {
			if k.Latencies.TotalCount() == 0 {
				fmt.Fprint(t, "-\t")
				continue
			}
			fmt.Fprintf(t, "%v\t", brief(micros(k.Latencies.ValueAtQuantile(q.of))))
		}
		fmt.Fprintln(t)
	}
	err := t.Flush()
	for i := range r.Kinds {
		k := &r.Kinds[i]
		for _, why := range sortedKeys(k.Failures) {
			fmt.Fprintf(w, "%s failed, %s: %d\n", k.Name, why, k.Failures[why])
		}
		if k.Duplicates+k.Reordered > 0 {
			fmt.Fprintf(w, "%s: %d answers came again, %d behind later ones\n", k.Name, k.Duplicates, k.Reordered)
		}
	}
	return err
}

// brief is a duration with three digits that count.
func brief(d time.Duration) time.Duration {
	for unit := time.Microsecond; ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}

func sortedKeys(m map[string]uint64) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Result is the report in the form of all of uvsbench's. Subject is what the load was put on.
func (r *Report) Result(subject string) *result.File {
	f := &result.File{
		Kind: result.Load, Title: "Load on " + subject, Started: r.Started, Took: r.Took.Seconds(), Partial: r.Partial,
		About: "Things begin at their times whatever becomes of others; latency counts from when a thing was to begin.",
		Figures: []result.Figure{
			{Name: "rate", Title: "answered in a second", Unit: "1/s", Better: result.More, About: "of held connections: those that were there to the end"},
		},
	}
	for _, q := range quantiles {
		f.Figures = append(f.Figures, result.Figure{Name: q.name, Title: q.title, Unit: "s", Better: result.Less})
	}
	f.Figures = append(f.Figures, result.Figure{Name: "failed", Title: "failed", Unit: "%", Better: result.Less},
		result.Figure{Name: "failures", Title: "failures, by kind"},
		result.Figure{Name: "duplicates", Title: "answers that came again", Better: result.Less},
		result.Figure{Name: "reordered", Title: "answers behind later ones", Better: result.Less})
	for i := range r.Kinds {
		f.Scenarios = append(f.Scenarios, r.Kinds[i].scenario(subject))
	}
	return f
}

func (k *Kind) scenario(subject string) result.Scenario {
	rate, title := float64(k.Done)/k.Lasted.Seconds(), fmt.Sprintf("%.0f %s a second", k.Asked, k.Name)
	if k.Name == Held {
		rate, title = float64(k.Done), fmt.Sprintf("%.0f connections held", k.Asked)
	}
	row := result.Row{Subject: subject, Values: map[string]result.Value{
		"rate": result.Single(rate), "failed": result.Single(100 * float64(k.Failed()) / float64(max(k.Begun, 1))),
	}}
	if k.Name == Datagrams {
		row.Values["duplicates"], row.Values["reordered"] = result.Single(float64(k.Duplicates)), result.Single(float64(k.Reordered))
	}
	for _, why := range sortedKeys(k.Failures) {
		if row.Parts == nil {
			row.Parts = map[string][]result.Part{}
		}
		row.Parts["failures"] = append(row.Parts["failures"], result.Part{Name: why, Value: result.Single(float64(k.Failures[why]))})
	}
	s := result.Scenario{Name: k.Name, Title: title, Main: "p99"}
	if k.Latencies.TotalCount() > 0 {
		for _, q := range quantiles {
			row.Values[q.name] = result.Single(micros(k.Latencies.ValueAtQuantile(q.of)).Seconds())
		}
		spread := result.Curve{Subject: subject, Plot: "latency", XTitle: "percentile", XUnit: "%", YTitle: "latency", YUnit: "s", LogY: true}
		for _, q := range []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100} {
			spread.X = append(spread.X, q)
			spread.Y = append(spread.Y, micros(k.Latencies.ValueAtQuantile(q)).Seconds())
		}
		s.Curves = append(s.Curves, spread)
	}
	over := result.Curve{Subject: subject, Plot: "answered over time", XTitle: "time", XUnit: "s", YTitle: "answered in a second", YUnit: "1/s"}
	late := result.Curve{Subject: subject, Plot: "p99 over time", XTitle: "time", XUnit: "s", YTitle: "99th percentile of the latency", YUnit: "s", LogY: true}
	for i, x := range k.Seconds {
		over.X, over.Y = append(over.X, float64(i)), append(over.Y, float64(x.Done))
		if x.P99 > 0 {
			late.X, late.Y = append(late.X, float64(i)), append(late.Y, x.P99.Seconds())
		}
	}
	if k.Name != Held {
		s.Curves = append(s.Curves, over, late)
	}
	s.Rows = []result.Row{row}
	return s
}
