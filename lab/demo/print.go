package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
)

// width of the output in columns.
const width = 100

// heading begins a method's part.
func heading(text string) {
	fmt.Printf("\n== %s %s\n", text, strings.Repeat("=", max(0, width-4-len(text))))
}

// table is printed with aligned columns: text to the left, numbers to the right.
type table struct{ rows [][]string }

func newTable(titles ...string) *table { return &table{rows: [][]string{titles}} }

func (t *table) row(cells ...any) {
	var texts []string
	for _, c := range cells {
		texts = append(texts, fmt.Sprint(c))
	}
	t.rows = append(t.rows, texts)
}

func (t *table) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	numeric := make([]bool, len(t.rows[0]))
	longest := make([]int, len(t.rows[0]))
	for i, cells := range t.rows {
		for j, c := range cells {
			longest[j] = max(longest[j], len(c))
			if i == 1 {
				numeric[j] = strings.Trim(c, "0123456789. %sMB/") == ""
			}
		}
	}
	for _, cells := range t.rows {
		fmt.Fprint(w, "    ")
		for j, c := range cells {
			if numeric[j] {
				c = fmt.Sprintf("%*s", longest[j], c)
			}
			if j > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// summary says a line per method.
func (d *demo) summary() {
	heading("Summary")
	fmt.Println()
	t := newTable("Method", "Family", "Result", "Requests", "Failed", "Download", "Upload", "Datagrams", "Took")
	for _, r := range d.results {
		if r.absent {
			t.row(r.method.name, "-", "not shown", "-", "-", "-", "-", "-", "-")
			continue
		}
		took := fmt.Sprintf("%.1f s", r.took.Seconds())
		for _, f := range r.families {
			t.row(r.method.name, f.name, "ok", f.requests, 0, rate(f.down), rate(f.up), f.echoed, took)
			took = "" // of both
		}
	}
	t.print()
}
