package conformance

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// errorMachine has the table that the command lines of errors.json and errors.txt start with.
func errorMachine(t *testing.T) *textMachine {
	t.Helper()
	m := newTextMachine(t)
	for _, line := range []string{"-A -t 10.9.0.100:80 -s rr", "-a -t 10.9.0.100:80 -r 10.1.0.11:80 -g", "-A -f 1 -s rr", "-A -u 10.9.0.100:53 -s wlc"} {
		m.must(line)
	}
	return m
}

// table is what -S -n prints, by lines.
func (m *textMachine) table() []string {
	return strings.Split(strings.TrimSpace(m.must("-S -n")), "\n")
}

// checkErrorLine has a command line carried out on a table of its own, and compares what it says and changes.
func checkErrorLine(t *testing.T, want *transcript) {
	t.Helper()
	m := errorMachine(t)
	before := m.table()
	out, errs, exit := m.run(want.args, want.in)
	wantOut := want.out
	if slices.Contains(want.args, "--nosort") {
		out, wantOut = ordered(out), ordered(wantOut)
	}
	if out != wantOut || errs != want.errs || exit != want.exit {
		t.Errorf("ipvsadm %s\n got exit %d, %q, %q\nwant exit %d, %q, %q", strings.Join(want.args, " "), exit, errs, out, want.exit, want.errs, wantOut)
	}
	var diff []string
	after := m.table()
	for _, l := range after {
		if !slices.Contains(before, l) {
			diff = append(diff, "+"+l)
		}
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			diff = append(diff, "-"+l)
		}
	}
	slices.Sort(diff)
	slices.Sort(want.table)
	if !slices.Equal(diff, want.table) {
		t.Errorf("ipvsadm %s\n changes %q\nwant    %q", strings.Join(want.args, " "), diff, want.table)
	}
}

func checkErrorLines(t *testing.T, file string) {
	var rows []struct {
		Cmd, Out, Err string
		Exit          int
		Diff          []string `json:"save_diff"`
	}
	if err := json.Unmarshal([]byte(readText(t, file)), &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		checkErrorLine(t, &transcript{args: strings.Fields(r.Cmd), out: r.Out, errs: r.Err, exit: r.Exit, table: r.Diff})
	}
	if len(rows) != 146 {
		t.Errorf("%d command lines, want 146", len(rows))
	}
}

func checkErrorTranscripts(t *testing.T, file string) {
	list := transcripts(t, file)
	for i := range list {
		checkErrorLine(t, &list[i])
	}
	if len(list) != 146 {
		t.Errorf("%d command lines, want 146", len(list))
	}
}
