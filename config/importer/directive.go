package importer

import (
	"slices"
	"strings"
)

// place is where something stands: a file as it was named, and a line from 1.
type place struct {
	file string
	line int
}

// directive is one statement of a file, with those in its block, and what became of it.
type directive struct {
	place
	name string   // its keyword
	args []string // what follows, without quotes
	raw  string   // what follows as it is written, where a mapper wants to take it apart by other rules
	// block is what stands between its braces, or is indented below it; isBlock says that there are any, be they empty.
	block   []*directive
	isBlock bool

	grade Grade
	notes []string
}

// arg is an argument, counted from 0, or nothing.
func (d *directive) arg(i int) string {
	if i < len(d.args) {
		return d.args[i]
	}
	return ""
}

// rest joins the arguments from one on.
func (d *directive) rest(from int) string { return strings.Join(d.args[min(from, len(d.args)):], " ") }

// set grades a directive. The worst that is said of it counts, since it may go to several places; notes add up.
func (d *directive) set(g Grade, note string) {
	if g > d.grade {
		d.grade = g
		d.notes = nil
	}
	if g == d.grade && note != "" && !slices.Contains(d.notes, note) {
		d.notes = append(d.notes, note)
	}
}

// exact says that the directive is in the result under the given key and means there what it meant here.
func (d *directive) exact(key string) { d.set(Exact, key) }

// needless says why nothing has to be carried over.
func (d *directive) needless(why string) { d.set(Needless, why) }

// kept says that the directive stands among what is kept for high availability.
func (d *directive) kept() { d.set(Kept, "") }

// approx says what the result does instead.
func (d *directive) approx(how string) { d.set(Approximate, how) }

// missing says why the directive is not in the result.
func (d *directive) missing(why string) { d.set(Missing, why) }

// all grades a directive and everything in its block.
func (d *directive) all(g Grade, note string) {
	d.set(g, note)
	for _, in := range d.block {
		in.all(g, note)
	}
}

// find returns the last directive of a name in the block, as the last one counts in all these files, or nil.
func (d *directive) find(names ...string) *directive {
	for _, in := range slices.Backward(d.block) {
		if slices.Contains(names, in.name) {
			return in
		}
	}
	return nil
}

// longest is how much of a directive the report quotes.
const longest = 72

// text is the directive as the report quotes it, on one line.
func (d *directive) text() string {
	s := d.name
	for _, a := range d.args {
		s += " " + quoted(a)
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest-3]) + "..."
	}
	return s
}

// quoted is a word as it can be written in keepalived.conf.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t#!{}'") {
		return `"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`
	}
	return s
}
