package replay

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"uvs/bench/result"
	"uvs/sched/trial"
)

// figures are those of a replay, the most telling first.
var figures = []struct {
	result.Figure
	of func(*trial.Figures) (float64, bool)
}{
	{result.Figure{Name: "imbalance", Title: "most loaded server by the mean", Better: result.Less,
		About: "connections that a server holds by its weight, looked at every second; 1 is even"}, held(func(m trial.Imbalance) float64 { return m.MaxMean })},
	{result.Figure{Name: "jain", Title: "Jain's index of fairness", Better: result.More, About: "of the same loads; 1 is even, 1/n all on one of n servers"},
		held(func(m trial.Imbalance) float64 { return m.Jain })},
	{result.Figure{Name: "cv", Title: "coefficient of variation of the load", Better: result.Less, About: "of the same loads: their standard deviation by their mean; 0 is even"},
		held(func(m trial.Imbalance) float64 { return m.CV })},
	{result.Figure{Name: "imbalance-new", Title: "server with most new connections by the mean", Better: result.Less, About: "of all connections, by weight; 1 is even"},
		func(f *trial.Figures) (float64, bool) { return f.New.MaxMean, f.Offered > 0 }},
	{result.Figure{Name: "cv-new", Title: "coefficient of variation of new connections", Better: result.Less, About: "of the same; 0 is even"},
		func(f *trial.Figures) (float64, bool) { return f.New.CV, f.Offered > 0 }},
	{result.Figure{Name: "kept", Title: "returning clients at their server", Unit: "%", Better: result.More,
		About: "connections of remembered clients that came to the same server as the client's last one"},
		func(f *trial.Figures) (float64, bool) {
			return 100 * (1 - float64(f.Moved)/float64(max(f.Returning, 1))), f.Returning > 0
		}},
	{result.Figure{Name: "moved", Title: "clients moved by changes", Unit: "%", Better: result.Less,
		About: "of clients that come for the first time after servers or weights changed, those that came to another server"},
		func(f *trial.Figures) (float64, bool) {
			return 100 * float64(f.MovedByChange) / float64(max(f.AfterChange, 1)), f.AfterChange > 0
		}},
	{result.Figure{Name: "refused", Title: "connections without a server", Unit: "%", Better: result.Less},
		func(f *trial.Figures) (float64, bool) {
			return 100 * float64(f.Misses) / float64(max(f.Offered, 1)), f.Offered > 0
		}},
	{result.Figure{Name: "peak", Title: "most connections of one server at a time", Better: result.Less},
		func(f *trial.Figures) (float64, bool) {
			peak := int32(0)
			for _, s := range f.Servers {
				peak = max(peak, s.Peak)
			}
			return float64(peak), f.Offered > 0
		}},
}

func held(of func(trial.Imbalance) float64) func(*trial.Figures) (float64, bool) {
	return func(f *trial.Figures) (float64, bool) { return of(f.Held), f.Samples > 0 }
}

// Result is the outcome in the form of all of uvsbench's.
func (o *Outcome) Result(name string) *result.File {
	f := &result.File{
		Kind: result.Replay, Title: "Schedulers offered " + name, Started: time.Now().Add(-o.Stats.Took), Took: o.Stats.Took.Seconds(), Partial: o.Partial,
		About: fmt.Sprintf("%d connections within %v of recorded traffic were offered to each scheduler, over the same servers.", o.Stats.Opened, o.Stats.Lasted.Round(time.Millisecond)),
		Notes: o.Stats.Notes(),
	}
	for _, x := range figures {
		f.Figures = append(f.Figures, x.Figure)
	}
	f.Figures = append(f.Figures, result.Figure{Name: "server-connections", Title: "share of connections, by server", Unit: "%"},
		result.Figure{Name: "server-peak", Title: "most connections at a time, by server"})
	s := result.Scenario{Name: "recording", Title: name}
	for i := range o.Figures {
		t := &o.Figures[i]
		row := result.Row{Subject: t.Scheduler, Values: map[string]result.Value{}, Parts: map[string][]result.Part{}}
		for _, x := range figures {
			if v, ok := x.of(t); ok {
				row.Values[x.Name] = result.Single(v)
			}
		}
		for _, rs := range t.Servers {
			part := func(figure string, v float64) {
				row.Parts[figure] = append(row.Parts[figure], result.Part{Name: rs.Addr.String(), Value: result.Single(v)})
			}
			part("server-connections", 100*float64(rs.Conns)/float64(max(t.Offered, 1)))
			part("server-peak", float64(rs.Peak))
		}
		s.Rows = append(s.Rows, row)
	}
	f.Scenarios = []result.Scenario{s}
	return f
}

// Notes say what a reader of the figures must know about the recording.
func (s *Stats) Notes() (notes []string) {
	note := func(n uint64, format string, args ...any) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%d ", n)+fmt.Sprintf(format, args...))
		}
	}
	for why, n := range s.Skipped {
		note(n, "packets were passed over: %s", skipNames[why])
	}
	note(s.Elsewhere, "packets were for other addresses than the services'")
	note(s.Midway, "packets were of connections whose beginning isn't in the recording")
	if n := s.Thinned + s.Unheld; n > 0 {
		notes = append(notes, fmt.Sprintf("%d connections or packets were left out, at the end those of all clients but one in %d: more than %d connections were open at a time; --flows takes more",
			n, s.OneIn(), s.MostHeld))
	}
	note(s.Backward, "packets were older than one before them")
	switch {
	case s.Corrupt > 0 && s.Kind == "trace":
		note(s.Corrupt, "rows were passed over as wrong; the first: %s", s.CorruptWhy)
	case s.Corrupt > 0:
		note(s.Corrupt, "places in the file make no sense, the first at byte %d; %d bytes were skipped there", s.CorruptAt, s.CorruptBytes)
	}
	if s.Cut {
		notes = append(notes, fmt.Sprintf("the file ends within a packet, the one after %d others", s.Packets))
	}
	return notes
}

// Text prints the outcome.
func (o *Outcome) Text(w io.Writer) error {
	fmt.Fprintf(w, "%d connections in %d packets or rows (%s) within %v; %d open at most\n", o.Stats.Opened, o.Stats.Packets, o.Stats.Kind,
		o.Stats.Lasted.Round(time.Millisecond), o.Stats.MostHeld)
	for _, n := range o.Stats.Notes() {
		fmt.Fprintln(w, "note:", n)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\theld:\t\t\tnew:\t\tclients\tmoved by\twithout\tmost on\t\nscheduler\tmax/mean\tJain\tCV\tmax/mean\tCV\tkept\tchange\tserver\tone server\t\n")
	for i := range o.Figures {
		f := &o.Figures[i]
		fmt.Fprintf(t, "%s\t", f.Scheduler)
		for _, x := range figures {
			v, ok := x.of(f)
			switch {
			case !ok:
				fmt.Fprint(t, "-\t")
			case x.Unit == "%":
				fmt.Fprintf(t, "%.1f%%\t", v)
			case x.Name == "peak":
				fmt.Fprintf(t, "%.0f\t", v)
			default:
				fmt.Fprintf(t, "%.3f\t", v)
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil || len(o.Figures) == 0 {
		return err
	}
	fmt.Fprintln(w, "\nconnections (most at a time)")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "scheduler\t")
	var servers []string
	for _, f := range o.Figures {
		for _, s := range f.Servers {
			if name := s.Addr.String(); !strings.Contains("\t"+strings.Join(servers, "\t")+"\t", "\t"+name+"\t") {
				servers = append(servers, name)
			}
		}
	}
	for _, s := range servers {
		fmt.Fprintf(t, "%s\t", s)
	}
	fmt.Fprintln(t)
	for _, f := range o.Figures {
		fmt.Fprintf(t, "%s\t", f.Scheduler)
		cells := map[string]string{}
		for _, s := range f.Servers {
			cells[s.Addr.String()] = fmt.Sprintf("%d (%d)", s.Conns, s.Peak)
		}
		for _, s := range servers {
			fmt.Fprintf(t, "%s\t", cells[s])
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
