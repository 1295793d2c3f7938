package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run measured, and on what.
type Report struct {
	Machine string
	Started time.Time
	Took    float64 // seconds
	Rounds  int
	Seconds float64  // of each measured stretch
	Left    []string // what could not be measured here, and why
	Samples []Sample
}

// values are a figure by round, NaN where a round has none.
func (r *Report) values(work, subject, figure string) []float64 {
	v := make([]float64, r.Rounds)
	for i := range v {
		v[i] = math.NaN()
	}
	for _, s := range r.Samples {
		if f, ok := s.Figures[figure]; ok && s.Work == work && s.Subject == subject && s.Round < len(v) {
			v[s.Round] = f
		}
	}
	return v
}

// ratio summarises a figure of a subject over that of another, round by round.
func (r *Report) ratio(work, figure, subject, against string) Summary {
	return Summarise(Ratios(r.values(work, subject, figure), r.values(work, against, figure)))
}

// subjectsOf are those that were measured at a work, in the order of the list.
func (r *Report) subjectsOf(work string) []string {
	var names []string
	for _, s := range subjects {
		if slices.ContainsFunc(r.Samples, func(x Sample) bool { return x.Work == work && x.Subject == s.name }) {
			names = append(names, s.name)
		}
	}
	return names
}

// reference is the subject that another is compared with at w: one-armed too, where there is such a one.
func (w *work) reference(name string) string {
	if own := w.against + oneArmedSuffix; strings.HasSuffix(name, oneArmedSuffix) && slices.ContainsFunc(subjects, func(x subject) bool { return x.name == own }) {
		return own
	}
	return w.against
}

// head is what every print of a report begins with.
func (r *Report) head() string {
	return fmt.Sprintf("%s; %d interleaved rounds of %gs a stretch; medians, [lowest-highest]; ratios of the same round", r.Machine, r.Rounds, r.Seconds)
}

// Text prints every figure, a table for each work, and the goals.
func (r *Report) Text(out io.Writer) error {
	fmt.Fprintln(out, r.head())
	for _, l := range works {
		names := r.subjectsOf(l.name)
		if len(names) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s: %s\n", l.name, l.about)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprint(w, "subject\tratio to "+l.against)
		for _, f := range l.figures {
			fmt.Fprint(w, "\t"+f)
		}
		fmt.Fprintln(w)
		for _, s := range names {
			fmt.Fprintf(w, "%s\t%s", s, spread(r.ratio(l.name, l.main, s, l.reference(s))))
			for _, f := range l.figures {
				fmt.Fprint(w, "\t"+spread(Summarise(r.values(l.name, s, f))))
			}
			fmt.Fprintln(w)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if l.packets {
			fmt.Fprintf(out, "null receiver: %s ns of the generator's CPU for each frame, taken from receive ns/packet\n", spread(Summarise(r.values(l.name, Nobody, nullNs))))
		}
	}
	fmt.Fprintln(out, "\ngoals")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range r.goalRows() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", row[0], row[1], row[2], row[3], row[4])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return r.faults(out)
}

// Markdown prints the goals with what was reached, as a table for the README.
func (r *Report) Markdown(out io.Writer) error {
	fmt.Fprintf(out, "%s.\n\n| figure | uvs | against | ratio | goal |\n| --- | --- | --- | --- | --- |\n", r.head())
	for _, row := range r.goalRows() {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", row[0], row[1], row[2], row[3], row[4])
	}
	return nil
}

// goalRows are what each goal is about, uvs's value, the other's, the ratio with its spread, and the goal. Goals that nothing
// was measured for have no row.
func (r *Report) goalRows() (rows [][5]string) {
	for _, g := range goals {
		own := Summarise(r.values(g.work, g.subject, g.figure))
		ratio, other := own, "-"
		if g.against != "" {
			ratio = r.ratio(g.work, g.figure, g.subject, g.against)
			other = g.against + " " + number(Summarise(r.values(g.work, g.against, g.figure)).Median)
		}
		if own.N == 0 || ratio.N == 0 {
			continue
		}
		want := g.sign() + " " + number(g.want)
		if g.stretch != 0 {
			want += ", stretch " + number(g.stretch)
		}
		if !g.met(ratio.Median) {
			want += " (missed)"
		}
		rows = append(rows, [5]string{g.what, number(own.Median), other, spread(ratio), want})
	}
	return rows
}

// faults lists the samples that failed, and what was left out.
func (r *Report) faults(out io.Writer) error {
	var err error
	say := func(format string, args ...any) {
		if _, e := fmt.Fprintf(out, format, args...); e != nil {
			err = e
		}
	}
	for _, s := range r.Samples {
		if s.Error != "" {
			say("round %d: %s at %s failed: %s\n", s.Round+1, s.Subject, s.Work, s.Error)
		}
	}
	for _, l := range r.Left {
		say("not measured: %s\n", l)
	}
	return err
}

// spread is a summary in print: "1.23 [1.10-1.31]", and how many rounds it is of if that is one alone.
func spread(s Summary) string {
	switch s.N {
	case 0:
		return "-"
	case 1:
		return number(s.Median) + " (one round)"
	}
	return fmt.Sprintf("%s [%s-%s]", number(s.Median), number(s.Low), number(s.High))
}

// number is v with three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
