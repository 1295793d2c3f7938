package ipvsadm

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uvs/control/api"
)

const golden = "../../testdata/golden/text/"

// prog is where ipvsadm was when it was recorded.
const prog = "/usr/sbin/ipvsadm"

// machine is a Program on a kernel of its own.
type machine struct {
	*kernel
	names Names
}

func newMachine() *machine { return &machine{newKernel(), hosts{}} }

// run carries out a command line and returns what ipvsadm shows of it.
func (m *machine) run(args []string, stdin string) (out, errs string, exit int) {
	var stdout, stderr strings.Builder
	p := &Program{Name: prog, Backend: m.kernel, Names: m.names, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr}
	exit = p.Run(context.Background(), args)
	return stdout.String(), stderr.String(), exit
}

// must carries out command lines that cannot fail.
func (m *machine) must(t testing.TB, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if out, errs, exit := m.run(strings.Fields(l), ""); exit != 0 || errs != "" {
			t.Fatalf("%s: exit %d, %s%s", l, exit, out, errs)
		}
	}
}

func (m *machine) table() []string {
	out, _, _ := m.run([]string{"-S", "-n"}, "")
	return slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return l == "" })
}

// fresh is the table that errors.json and recorded.jsonl start with.
func fresh(t testing.TB) *machine {
	m := newMachine()
	m.must(t, "-A -t 10.9.0.100:80 -s rr", "-a -t 10.9.0.100:80 -r 10.1.0.11:80 -g", "-A -f 1 -s rr", "-A -u 10.9.0.100:53 -s wlc")
	return m
}

func TestErrorsAreIpvsadms(t *testing.T) {
	var rows []struct {
		Cmd, Out, Err string
		Exit          int
		Diff          []string `json:"save_diff"`
	}
	read(t, golden+"errors.json", &rows)
	for _, row := range rows {
		m := fresh(t)
		before := m.table()
		if strings.Contains(row.Out, "TCP  vip.example.test:http rr\n") && strings.Contains(row.Cmd, "--nosort") {
			reorder(m, row.Out)
		}
		out, errs, exit := m.run(strings.Fields(row.Cmd), "")
		if out != row.Out || errs != row.Err || exit != row.Exit {
			t.Errorf("ipvsadm %s\n got exit %d, %q, %q\nwant exit %d, %q, %q", row.Cmd, exit, errs, out, row.Exit, row.Err, row.Out)
		}
		slices.Sort(row.Diff)
		if got := difference(before, m.table()); !slices.Equal(got, row.Diff) {
			t.Errorf("ipvsadm %s\n changes %q\nwant    %q", row.Cmd, got, row.Diff)
		}
	}
	if len(rows) != 146 {
		t.Errorf("%d command lines, want 146", len(rows))
	}
}

func difference(before, after []string) (diff []string) {
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
	return diff
}

func read(t testing.TB, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// reorder brings the kernel's services and servers into the order of a listing: the kernel's own comes from hash
// functions that are no part of this.
func reorder(m *machine, listing string) {
	p := &printer{lookup: &lookup{m.names}}
	at := func(text string) int { return strings.Index(listing, text) }
	for _, numeric := range []bool{false, true} {
		p.numeric = numeric
		slices.SortStableFunc(m.services, func(a, b *api.Service) int {
			return at(p.serviceName(a)+" ") - at(p.serviceName(b)+" ")
		})
	}
}

// recording is one line of recorded.jsonl: a command line, what it said, and the table after it where that changed.
type recording struct {
	Cmd   []string
	Then  bool // on the same table as the line before
	In    string
	Out   string
	Err   string
	Exit  int
	Table []string
}

func readRecordings(t testing.TB) (list []recording) {
	t.Helper()
	files, err := filepath.Glob("testdata/recorded*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			var r recording
			if err := json.Unmarshal([]byte(l), &r); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			list = append(list, r)
		}
	}
	return list
}

func TestCommandLinesDoAsRecorded(t *testing.T) {
	var m *machine
	var table []string
	list := readRecordings(t)
	for _, r := range list {
		if !r.Then {
			m = fresh(t)
			table = m.table()
		}
		if slices.Contains(r.Cmd, "--nosort") {
			reorder(m, r.Out)
		}
		out, errs, exit := m.run(r.Cmd, r.In)
		if out != r.Out || errs != r.Err || exit != r.Exit {
			t.Errorf("ipvsadm %q < %q\n got exit %d, %q, %q\nwant exit %d, %q, %q", r.Cmd, r.In, exit, errs, out, r.Exit, r.Err, r.Out)
		}
		if r.Table != nil {
			table = r.Table
		}
		if got := m.table(); !slices.Equal(got, table) {
			t.Errorf("ipvsadm %q < %q\nleaves\n%s\nwant\n%s", r.Cmd, r.In, strings.Join(got, "\n"), strings.Join(table, "\n"))
			table = got
		}
	}
	t.Logf("%d command lines", len(list))
}
