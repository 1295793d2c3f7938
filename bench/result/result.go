// Package result is the form in which every word of uvsbench writes down what it found: one JSON document, which
// `uvsbench report` turns into tables and plots whatever it is of. A document says what was compared (subjects: schedulers,
// or directors), in which situations (scenarios), by which figures, and how sure it is of each.
package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Version is the version of the form. A reader refuses a later one; an added field that may be missing doesn't raise it.
const Version = 1

// Format is what the field of that name says in every document.
const Format = "uvsbench-result"

// The kinds of document, by the word of uvsbench that writes them.
const (
	Sim    = "sim"    // simulated: time is virtual
	Lab    = "lab"    // a study on real servers in the lab
	Wire   = "wire"   // directors side by side
	Load   = "load"   // of the load generator
	Replay = "replay" // schedulers offered recorded traffic
	Shadow = "shadow" // schedulers offered a director's own traffic
)

// File is a document.
type File struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Kind    string    `json:"kind"`
	Title   string    `json:"title"`
	About   string    `json:"about,omitempty"`   // what it is for, in plain text; blank lines part paragraphs
	Machine string    `json:"machine,omitempty"` // where it was measured; of a simulation only the decisions' cost depends on it
	Command string    `json:"command,omitempty"` // what repeats it
	Started time.Time `json:"started"`
	Took    float64   `json:"took"`              // seconds
	Partial bool      `json:"partial,omitempty"` // it was interrupted: what is missing was not measured
	Notes   []string  `json:"notes,omitempty"`   // what could not be measured, and why; what a reader must know

	// Figures are those that rows have values of, the most telling first: reports show the first ones at the top.
	Figures   []Figure   `json:"figures"`
	Scenarios []Scenario `json:"scenarios"`
}

// Figure is something measured.
type Figure struct {
	Name   string `json:"name"`             // as rows have it: "p99", "throughput"
	Title  string `json:"title"`            // as people read it: "99th percentile of the response time"
	Unit   string `json:"unit,omitempty"`   // SI without a prefix where there is one: "s", "1/s", "B", ""; "%" is of a hundred
	Better Better `json:"better,omitempty"` // which values are good
	About  string `json:"about,omitempty"`  // how it is defined
	// Clock says that it was measured by the machine's clock in an otherwise deterministic document.
	Clock bool `json:"clock,omitempty"`
}

// Better says which values of a figure are good.
type Better string

// The directions.
const (
	Less    Better = "less"
	More    Better = "more"
	Neither Better = ""
)

// Scenario is a situation that every subject was put into.
type Scenario struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	About string `json:"about,omitempty"`
	// Main is the figure that subjects are ranked by; empty is the first of the document's.
	Main string `json:"main,omitempty"`
	// Axis is what rows' X is, where the scenario is a series of runs: "concurrent clients"; Unit its unit.
	Axis string `json:"axis,omitempty"`
	Unit string `json:"unit,omitempty"`
	// LogX and LogY ask plots for logarithmic axes.
	LogX   bool    `json:"logX,omitempty"`
	LogY   bool    `json:"logY,omitempty"`
	Rows   []Row   `json:"rows"`
	Curves []Curve `json:"curves,omitempty"`
	// Reference are published values to hold the rows against, as curves.
	Reference []Curve `json:"reference,omitempty"`
	// Verdict is what to conclude, where the writer knows better than a comparison of the numbers does.
	Verdict string `json:"verdict,omitempty"`
}

// Row is what was found of one subject, at one point of the axis if there is one.
type Row struct {
	Subject string           `json:"subject"`
	X       *float64         `json:"x,omitempty"`
	Values  map[string]Value `json:"values"` // by figure
	// Parts are values by part of the subject, such as real servers: figure, then the parts in order.
	Parts map[string][]Part `json:"parts,omitempty"`
	Error string            `json:"error,omitempty"` // why it has no values
}

// Part is a value of a part of a subject.
type Part struct {
	Name  string `json:"name"`
	Value Value  `json:"value"`
}

// Value is an estimate with its interval: of repeated runs the mean and its confidence interval (95 %) or, where Spread says
// so, the median with the lowest and the highest. Of a single run all three are equal.
type Value struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	N     int     `json:"n"` // runs
	// Spread says that Low and High are extremes and not a confidence interval.
	Spread bool `json:"spread,omitempty"`
}

// Curve is a line of a plot: a distribution, or something over time.
type Curve struct {
	Subject string    `json:"subject"`
	Plot    string    `json:"plot"` // curves of one name go into one plot: "response", "p99 over time"
	XTitle  string    `json:"xTitle,omitempty"`
	YTitle  string    `json:"yTitle,omitempty"`
	XUnit   string    `json:"xUnit,omitempty"`
	YUnit   string    `json:"yUnit,omitempty"`
	LogX    bool      `json:"logX,omitempty"`
	LogY    bool      `json:"logY,omitempty"`
	X       []float64 `json:"x"`
	Y       []float64 `json:"y"`
}

// Single is the value of one run.
func Single(v float64) Value { return Value{Value: v, Low: v, High: v, N: 1} }

// Figure is the document's figure of that name; ok is false if it has none.
func (f *File) Figure(name string) (fig Figure, ok bool) {
	for _, fig := range f.Figures {
		if fig.Name == name {
			return fig, true
		}
	}
	return Figure{}, false
}

// Subjects lists the scenario's subjects in the order in which they come up.
func (s *Scenario) Subjects() []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range s.Rows {
		if !seen[r.Subject] {
			seen[r.Subject] = true
			names = append(names, r.Subject)
		}
	}
	return names
}

// Encode writes the document, with its format and version.
func (f *File) Encode(w io.Writer) error {
	f.Format, f.Version = Format, Version
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(f)
}

// Write writes the document into a file, which is there whole or not at all.
func (f *File) Write(name string) error {
	var b bytes.Buffer
	if err := f.Encode(&b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // a pipe, a terminal
		return os.WriteFile(name, b.Bytes(), 0o644)
	}
	t, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // when it didn't get its name
	_, err = t.Write(b.Bytes())
	if err = errors.Join(err, t.Chmod(0o644), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}

// Read reads a document from a file.
func Read(name string) (*File, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Decode reads a document. Errors say where it is wrong.
func Decode(b []byte) (*File, error) {
	var head struct {
		Format  string
		Version int
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, at(b, err)
	}
	switch {
	case head.Format != Format:
		return nil, fmt.Errorf("is no result of uvsbench's: its format is %q, not %q", head.Format, Format)
	case head.Version < 1 || head.Version > Version:
		return nil, fmt.Errorf("is of version %d; this uvsbench reads versions up to %d", head.Version, Version)
	}
	f := new(File)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, at(b, err)
	}
	return f, f.check()
}

// at adds the line and column to an error of package json's.
func at(b []byte, err error) error {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(b)) {
		return err
	}
	before := b[:offset]
	line := 1 + bytes.Count(before, []byte{'\n'})
	return fmt.Errorf("line %d, column %d: %w", line, len(before)-bytes.LastIndexByte(before, '\n')-1, err)
}

// check finds what a report could not draw.
func (f *File) check() error {
	for _, s := range f.Scenarios {
		for _, r := range s.Rows {
			for name := range r.Values {
				if _, ok := f.Figure(name); !ok {
					return fmt.Errorf("scenario %q, subject %q: the figure %q is not among the document's", s.Name, r.Subject, name)
				}
			}
		}
		for _, c := range append(s.Curves[:len(s.Curves):len(s.Curves)], s.Reference...) {
			if len(c.X) != len(c.Y) {
				return fmt.Errorf("scenario %q, curve %q of %q: %d x and %d y", s.Name, c.Plot, c.Subject, len(c.X), len(c.Y))
			}
		}
	}
	return nil
}
