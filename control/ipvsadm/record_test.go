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

// machine is a Program on a backend of its own, which is the kernel unless something else is said.
type machine struct {
	*kernel
	backend api.Backend
	names   Names
}

func newMachine() *machine {
	k := newKernel()
	return &machine{k, k, hosts{}}
}

// run carries out a command line and returns what ipvsadm shows of it.
func (m *machine) run(args []string, stdin string) (out, errs string, exit int) {
	var stdout, stderr strings.Builder
	p := &Program{Name: prog, Backend: m.backend, Names: m.names, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr}
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

// fresh gives a machine the table that errors.json and recorded.jsonl start with.
func (m *machine) fresh(t testing.TB) *machine {
	m.must(t, "-A -t 10.9.0.100:80 -s rr", "-a -t 10.9.0.100:80 -r 10.1.0.11:80 -g", "-A -f 1 -s rr", "-A -u 10.9.0.100:53 -s wlc")
	return m
}

func TestErrorsAreIpvsadms(t *testing.T) { checkErrors(t, newMachine) }

// checkErrors holds that the command lines of errors.json say and change what they did.
func checkErrors(t *testing.T, newMachine func() *machine) {
	var rows []struct {
		Cmd, Out, Err string
		Exit          int
		Diff          []string `json:"save_diff"`
	}
	read(t, golden+"errors.json", &rows)
	for _, row := range rows {
		m := newMachine().fresh(t)
		before := m.table()
		out, errs, exit := m.run(strings.Fields(row.Cmd), "")
		if strings.Contains(row.Cmd, "--nosort") {
			out, row.Out = ordered(out), ordered(row.Out)
		}
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

// ordered sorts a listing's services, each with its servers in their order: the kernel's order of services comes from
// hash functions that are no part of this.
func ordered(listing string) string {
	services := strings.Split(strings.ReplaceAll(listing, "\n  -> ", "\x00"), "\n")
	slices.Sort(services)
	return strings.Join(services, "\n")
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

func TestCommandLinesDoAsRecorded(t *testing.T) { checkRecordings(t, newMachine) }

// checkRecordings holds that recorded command lines say and change what they did, but for those with certain text in them.
func checkRecordings(t *testing.T, newMachine func() *machine, without ...string) {
	var m *machine
	var table []string
	list := readRecordings(t)
	for _, r := range list {
		if !r.Then {
			m = newMachine().fresh(t)
			table = m.table()
		}
		line := strings.Join(r.Cmd, " ")
		if slices.ContainsFunc(without, func(text string) bool { return strings.Contains(line, text) }) {
			continue
		}
		out, errs, exit := m.run(r.Cmd, r.In)
		if slices.Contains(r.Cmd, "--nosort") {
			out, r.Out = ordered(out), ordered(r.Out)
		}
		if out != r.Out || errs != r.Err || exit != r.Exit {
			t.Errorf("ipvsadm %q < %q\n got exit %d, %q, %q\nwant exit %d, %q, %q", line, r.In, exit, errs, out, r.Exit, r.Err, r.Out)
		}
		if r.Table != nil {
			table = r.Table
		}
		if got := m.table(); !slices.Equal(got, table) {
			t.Errorf("ipvsadm %q < %q\nleaves\n%s\nwant\n%s", line, r.In, strings.Join(got, "\n"), strings.Join(table, "\n"))
			table = got
		}
	}
}
