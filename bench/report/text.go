// Package report turns results (package result) into what people read: tables on a terminal, plots, and one HTML file that
// needs nothing beside it.
package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"uvs/bench/result"
)

// most is how many figures the tables on a terminal have.
const most = 10

// Text prints a result's tables: for each scenario a line for each subject with the figures that any has.
func Text(out io.Writer, f *result.File) error {
	fmt.Fprintf(out, "%s\n%s\n", f.Title, strings.Repeat("=", len([]rune(f.Title))))
	if f.Partial {
		fmt.Fprintln(out, "interrupted: what is missing was not measured")
	}
	for i := range f.Scenarios {
		s := &f.Scenarios[i]
		if len(s.Rows) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s (%s)\n", s.Title, s.Name)
		table := figuresText
		if s.Axis != "" {
			table = seriesText
		}
		if err := table(out, f, s); err != nil {
			return err
		}
		for _, p := range explain(f, s) {
			fmt.Fprintf(out, "  %s\n", wrap(p, 100, "  "))
		}
	}
	fmt.Fprintln(out)
	for _, n := range f.Notes {
		fmt.Fprintln(out, wrap(n, 100, ""))
	}
	_, err := fmt.Fprintf(out, "took %v\n", (time.Duration(f.Took * float64(time.Second))).Round(100*time.Millisecond))
	return err
}

// figuresText has a line for each row with the first figures.
func figuresText(out io.Writer, f *result.File, s *result.Scenario) error {
	figures := shown(f, s)
	if len(figures) > most {
		figures = figures[:most]
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "  subject")
	for _, fig := range figures {
		fmt.Fprint(w, "\t"+fig.Name)
	}
	fmt.Fprintln(w)
	for _, r := range s.Rows {
		fmt.Fprint(w, "  "+r.Subject)
		if r.Error != "" {
			fmt.Fprint(w, "\t"+r.Error)
		}
		for _, fig := range figures {
			fmt.Fprint(w, "\t"+withInterval(fig, r.Values[fig.Name]))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// seriesText has a line for each point of the axis with every subject's main figure.
func seriesText(out io.Writer, f *result.File, s *result.Scenario) error {
	fig := mainFigure(f, s)
	fmt.Fprintf(out, "  %s by %s\n", fig.Title, s.Axis)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "  ")
	subjects := s.Subjects()
	for _, name := range subjects {
		fmt.Fprint(w, "\t"+name)
	}
	for _, c := range s.Reference {
		fmt.Fprint(w, "\t"+c.Subject)
	}
	fmt.Fprintln(w)
	for _, x := range points(s) {
		fmt.Fprintf(w, "  %g", x)
		for _, name := range subjects {
			text := "-"
			for _, r := range s.Rows {
				if r.Subject == name && r.X != nil && *r.X == x {
					if text = withInterval(fig, r.Values[fig.Name]); r.Error != "" {
						text = r.Error
					}
				}
			}
			fmt.Fprint(w, "\t"+text)
		}
		for _, c := range s.Reference {
			text := "-"
			if i := slices.Index(c.X, x); i >= 0 {
				text = quantity(c.Y[i], fig.Unit)
			}
			fmt.Fprint(w, "\t"+text)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// points are the values of the axis that rows have, rising.
func points(s *result.Scenario) (all []float64) {
	for _, r := range s.Rows {
		if r.X != nil {
			all = append(all, *r.X)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// shown are the document's figures that any of the scenario's rows has, the scenario's main one first.
func shown(f *result.File, s *result.Scenario) []result.Figure {
	main := mainFigure(f, s)
	var all []result.Figure
	for _, fig := range f.Figures {
		has := false
		for _, r := range s.Rows {
			// What is 0 for all says nothing, but that nothing failed.
			if v, ok := r.Values[fig.Name]; ok && v.N > 0 && (v.Value != 0 || fig.Name == "failed") {
				has = true
				break
			}
		}
		switch {
		case !has:
		case fig.Name == main.Name:
			all = append([]result.Figure{fig}, all...)
		default:
			all = append(all, fig)
		}
	}
	return all
}

// mainFigure is what a scenario's subjects are ranked by.
func mainFigure(f *result.File, s *result.Scenario) result.Figure {
	if fig, ok := f.Figure(s.Main); ok {
		return fig
	}
	if len(f.Figures) > 0 {
		return f.Figures[0]
	}
	return result.Figure{}
}

// axisValue is a place on the axis.
func axisValue(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%g", *x)
}

// withInterval is a value with half its interval, or its extremes.
func withInterval(fig result.Figure, v result.Value) string {
	switch {
	case v.N == 0:
		return "-"
	case v.N == 1 || v.High-v.Low <= 1e-9*math.Abs(v.Value):
		return quantity(v.Value, fig.Unit)
	case v.Spread:
		return fmt.Sprintf("%s [%s-%s]", quantity(v.Value, fig.Unit), quantity(v.Low, fig.Unit), quantity(v.High, fig.Unit))
	}
	return quantity(v.Value, fig.Unit) + " ±" + quantity((v.High-v.Low)/2, fig.Unit)
}

// quantity is a number with three digits that count and its unit, with a prefix where that shortens it.
func quantity(v float64, unit string) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return fmt.Sprint(v)
	case unit == "%":
		return digits(v) + " %"
	case unit == "" && a < 1e5:
		return digits(v)
	case v == 0:
		return strings.TrimSpace("0 " + unit)
	}
	for _, p := range []struct {
		factor float64
		name   string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}} {
		if a >= p.factor*0.9995 || p.factor == 1e-9 || unit != "s" && p.factor == 1 {
			if unit == "s" && p.factor > 1 {
				continue // thousands of seconds are no kiloseconds
			}
			if rest, ok := strings.CutPrefix(unit, "1/"); ok {
				return strings.TrimSpace(digits(v/p.factor)+" "+p.name) + "/" + rest
			}
			return strings.TrimSpace(digits(v/p.factor) + " " + p.name + unit)
		}
	}
	return digits(v)
}

// digits is v with three digits that count.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.9995:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.001:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// wrap breaks a text into lines of at most so many characters, all but the first indented.
func wrap(text string, width int, indent string) string {
	var b strings.Builder
	n := 0
	for i, word := range strings.Fields(text) {
		if l := len([]rune(word)); i > 0 && n+1+l > width {
			b.WriteString("\n" + indent)
			n = 0
		} else if i > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len([]rune(word))
	}
	return b.String()
}
