package importer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Grade says how well a directive was carried over. The order is that of growing loss.
type Grade uint8

// The grades.
const (
	ungraded    Grade = iota
	Needless          // has nothing to carry over: it is about the other program, or asks for what uvs does anyway
	Exact             // means in uvs.yaml what it meant before
	Kept              // stands in the result, for the high-availability section
	Approximate       // something near it is in uvs.yaml
	Missing           // is lost
)

var gradeNames = map[Grade]string{
	Exact: "exactly", Needless: "needless", Kept: "kept", Approximate: "approximately", Missing: "not",
}

// String gives the word that the report uses.
func (g Grade) String() string { return gradeNames[g] }

// MarshalText implements encoding.TextMarshaler.
func (g Grade) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// Item is what became of one directive.
type Item struct {
	// File is as it was named or included, Line counts from 1. 0 is the file as a whole.
	File string `json:"file"`
	Line int    `json:"line"`
	// Name is the directive's keyword, Directive all of it, shortened.
	Name      string `json:"name"`
	Directive string `json:"directive"`
	Grade     Grade  `json:"grade"`
	// Note is the key of uvs.yaml for what was carried over exactly; how, or why not, for the rest.
	Note string `json:"note,omitempty"`
}

// Report says of every directive what became of it, in the order of the files.
type Report struct {
	Items []Item `json:"directives"`
}

// Count is the number of directives with a grade.
func (r *Report) Count(g Grade) (n int) {
	for i := range r.Items {
		if r.Items[i].Grade == g {
			n++
		}
	}
	return n
}

// add takes a directive and its block into the report. One that no mapper graded was not understood.
func (r *Report) add(d *directive) {
	if d.grade == ungraded {
		d.missing("not understood")
	}
	r.Items = append(r.Items, Item{File: d.file, Line: d.line, Name: d.name, Directive: d.text(), Grade: d.grade,
		Note: strings.Join(d.notes, "; ")})
	for _, in := range d.block {
		r.add(in)
	}
}

// files numbers the files in the order in which they are first named.
func (r *Report) files() map[string]int {
	order := map[string]int{}
	for i := range r.Items {
		if _, known := order[r.Items[i].File]; !known {
			order[r.Items[i].File] = len(order)
		}
	}
	return order
}

// sections are the parts of the report, the worst first.
var sections = []struct {
	grade Grade
	title string
}{
	{Missing, "Not carried over"},
	{Approximate, "Carried over approximately"},
	{Kept, "Kept for high availability, as comments at the end of the result"},
	{Needless, "Nothing to carry over"},
	{Exact, "Carried over exactly"},
}

// WriteTo writes the report for people: directives with the same fate together, with the lines on which they stand.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d carried over exactly, %d approximately, %d kept for high availability, %d needless, %d not\n",
		plural(len(r.Items), "directive"), r.Count(Exact), r.Count(Approximate), r.Count(Kept), r.Count(Needless), r.Count(Missing))
	for _, s := range sections {
		groups := r.groups(s.grade)
		if len(groups) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", s.title)
		for _, g := range groups {
			text := g[0].Name
			if !slices.ContainsFunc(g, func(i Item) bool { return i.Directive != g[0].Directive }) {
				text = g[0].Directive
			}
			fmt.Fprintf(&b, "  %s", text)
			if g[0].Note != "" {
				fmt.Fprintf(&b, ": %s", g[0].Note)
			}
			fmt.Fprintf(&b, "\n    %s\n", lines(g))
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// groups are the directives of a grade that share name and note, in the order of their first.
func (r *Report) groups(of Grade) (groups [][]Item) {
	at := map[[2]string]int{}
	for _, i := range r.Items {
		if i.Grade != of {
			continue
		}
		key := [2]string{i.Name, i.Note}
		n, known := at[key]
		if !known {
			n = len(groups)
			at[key] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], i)
	}
	return groups
}

// lines writes where directives stand: "keepalived.conf:3,8-10 more.conf:7".
func lines(of []Item) string {
	of = slices.Clone(of)
	slices.SortStableFunc(of, func(a, b Item) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	var b strings.Builder
	for i := 0; i < len(of); {
		end := i
		for end+1 < len(of) && of[end+1].File == of[i].File && of[end+1].Line <= of[end].Line+1 {
			end++
		}
		first, last := of[i], of[end]
		switch {
		case i > 0 && of[i-1].File == first.File:
			b.WriteByte(',')
		case i > 0:
			b.WriteByte(' ')
			fallthrough
		default:
			b.WriteString(first.File + ":")
		}
		if fmt.Fprint(&b, first.Line); last.Line > first.Line {
			fmt.Fprintf(&b, "-%d", last.Line)
		}
		i = end + 1
	}
	return b.String()
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
