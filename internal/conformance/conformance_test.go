package conformance

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const traces = "../../testdata/golden/traces"

// notYet are traces of what uvs doesn't do so far.
var notYet = regexp.MustCompile(`^(sync-|v6-|ftp-|fwd-tun-g|fwd-localnode|fwd-persist-sip)`)

func TestConformance(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(traces, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded traces: %v", err)
	}
	allowed := readAllowed(t)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if notYet.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := ReadTrace(f)
			if err != nil {
				t.Fatal(err)
			}
			replay(t, tr, allowed[name])
		})
	}
}

// difference is one that testdata/allowed.json lets pass, with its reason.
type difference struct {
	Steps  []int  `json:"steps"` // empty: all
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func readAllowed(t *testing.T) map[string][]difference {
	b, err := os.ReadFile("testdata/allowed.json")
	if err != nil {
		t.Fatal(err)
	}
	var m map[string][]difference
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// replay runs a trace and reports where uvs differs from the recording.
func replay(t *testing.T, tr *Trace, allowed []difference) {
	d, err := NewDirector()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, v := range tr.Sysctl {
		if err := d.Sysctl(name, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range tr.SetupSh {
		if err := d.Shell(line); err != nil {
			t.Fatalf("setup %q: %v", line, err)
		}
	}
	for _, line := range tr.Setup {
		if out, errs, status := d.IPVSAdm(line, ""); status != 0 {
			t.Fatalf("setup ipvsadm %s: status %d\n%s%s", line, status, out, errs)
		}
	}
	r := &run{t: t, d: d, trace: tr, allowed: allowed}
	if tr.FirstID != nil {
		r.build.id = *tr.FirstID
	} else {
		r.build.id = 1
	}
	for i := range tr.Steps {
		if r.step(i, &tr.Steps[i]); r.failures > 8 {
			t.Fatalf("more differences are not shown")
		}
	}
}

// run is a replay under way.
type run struct {
	t        *testing.T
	d        *Director
	trace    *Trace
	allowed  []difference
	build    builder
	at       float64 // seconds since the first step
	failures int
}

// differs reports a difference, unless it is allowed.
func (r *run) differs(i int, field string, got, want any) {
	for _, a := range r.allowed {
		if (a.Field == field || a.Field == "") && (len(a.Steps) == 0 || slices.Contains(a.Steps, i)) {
			return
		}
	}
	r.failures++
	s := r.trace.Steps[i]
	what, _ := json.Marshal(s.raw)
	r.t.Errorf("step %d %s\n     got %v\n    want %v\n    step %.300s", i, field, got, want, what)
}

func (r *run) step(i int, s *Step) {
	if s.T != nil && *s.T > r.at {
		r.pass(*s.T - r.at)
	}
	switch {
	case s.Pkt != "":
		r.packet(i, s)
	case s.IPVS != nil:
		out, errs, status := r.d.IPVSAdm(*s.IPVS, s.Stdin)
		if status != s.RC {
			r.differs(i, "rc", fmt.Sprintf("%d %s", status, errs), s.RC)
		}
		if s.Err != "" && errs != s.Err {
			r.differs(i, "err", errs, s.Err)
		}
		if len(s.Text) > 0 {
			r.text(i, out, s.Text)
		}
	case s.Show != nil:
		out, errs, _ := r.d.IPVSAdm(*s.Show, "")
		r.show(i, s, out+errs)
	case s.Sh != nil:
		if err := r.d.Shell(*s.Sh); err != nil {
			r.differs(i, "sh", err, nil)
		}
	case s.Sleep > 0:
		r.pass(s.Sleep)
	case s.has("counts"):
		r.counts(i, s)
	case s.has("conns"):
		r.conns(i, s)
	}
}

func (r *run) pass(seconds float64) {
	r.at += seconds
	r.d.Pass(time.Duration(seconds * float64(time.Second)))
}

func (r *run) packet(i int, s *Step) {
	wire, frame, err := r.build.frame(s)
	if err != nil {
		r.t.Fatalf("step %d: %v", i, err)
	}
	if s.In != "" && s.In != hex.EncodeToString(frame) {
		r.t.Fatalf("step %d: built %x, recorded %s: the test itself is wrong", i, frame, s.In)
	}
	out := r.d.Inject(wire, frame)
	gap := r.trace.Gap
	if gap == 0 {
		gap = 0.002
	}
	r.pass(gap)
	if s.Wait > 0 {
		r.pass(s.Wait)
	}
	if got, want := briefly(s, out), (brief{s.To, s.Fwd, s.From, s.NOut}); got != want {
		r.differs(i, "to", got, want)
	} else if len(s.Out) > 0 {
		r.frames(i, s, out)
	}
	if s.has("conn1") {
		r.conn1(i, s)
	}
	if s.has("conns") {
		r.conns(i, s)
	}
}

// frames compares what was sent field by field, and byte by byte where the bytes were recorded.
func (r *run) frames(i int, s *Step, out []sent) {
	for k, want := range s.Out {
		got := described(jsonRound(describe(out[k])))
		wantHex, _ := want["hex"].(string)
		made := isMade(got)
		for _, m := range []described{got, want} {
			delete(m, "hex")
			if made {
				delete(m, "id")
			}
			delete(m, "eth")
		}
		if a, b := jsonText(got), jsonText(want); a != b {
			r.differs(i, "out", a, b)
			continue
		}
		if wantHex != "" && !made {
			if gotHex := hex.EncodeToString(out[k].frame); gotHex != wantHex {
				r.differs(i, "hex", gotHex, wantHex)
			}
		}
	}
}

// isMade says that the director made the packet itself, so that its IP identification is its own: answers, and tunnels' outer
// headers.
func isMade(d described) bool {
	fl, _ := d["fl"].(string)
	icmp, _ := d["icmp"].(string)
	return strings.HasPrefix(fl, "R") && d["if"] == "cli" || d["proto"] == float64(4) ||
		icmp != "" && d["tos"] == float64(0xc0) || icmp == "0/0"
}

func jsonRound(v any) map[string]any {
	b, _ := json.Marshal(v)
	var m map[string]any
	_ = json.Unmarshal(b, &m)
	return m
}

func jsonText(v any) string { b, _ := json.Marshal(v); return string(b) }

func (r *run) conn1(i int, s *Step) {
	all, err := r.d.Conns()
	if err != nil {
		r.t.Fatal(err)
	}
	var got [][]any
	for _, c := range all {
		if c[1] == s.C && (s.V == "" || c[2] == s.V) {
			got = append(got, []any{c[4], c[5], c[3]})
		}
	}
	compareEntries(r, i, "conn1", got, slices.Clone(s.Conn1), 1)
}

func (r *run) conns(i int, s *Step) {
	got, err := r.d.Conns()
	if err != nil {
		r.t.Fatal(err)
	}
	want := make([][]any, 0, len(s.Conns))
	for _, c := range s.Conns {
		want = append(want, c[:6:6])
	}
	compareEntries(r, i, "conns", got, want, 5)
}

// compareEntries compares entries in any order; the seconds to live, in column seconds, may differ by two, and an entry with no
// more than two left may be there or not.
func compareEntries(r *run, i int, field string, got, want [][]any, seconds int) {
	key := func(c []any) string {
		k := slices.Clone(c)
		k[seconds] = nil
		return jsonText(k)
	}
	left := make(map[string][]float64)
	for _, c := range want {
		left[key(c)] = append(left[key(c)], c[seconds].(float64))
	}
	for _, c := range got {
		k, a := key(c), c[seconds].(float64)
		same := slices.IndexFunc(left[k], func(b float64) bool { return a-b <= 2 && b-a <= 2 })
		if same < 0 {
			if a > 2 {
				r.differs(i, field, jsonText(c), jsonText(want))
				return
			}
			continue
		}
		left[k] = slices.Delete(left[k], same, same+1)
	}
	for k, times := range left {
		for _, b := range times {
			if b > 2 {
				r.differs(i, field, jsonText(got), k)
				return
			}
		}
	}
}

func (r *run) counts(i int, s *Step) {
	got, err := r.d.Counts()
	if err != nil {
		r.t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s.Counts) && jsonText(got) != jsonText(s.Counts) {
		r.differs(i, "counts", jsonText(got), jsonText(s.Counts))
	}
}

func (r *run) show(i int, s *Step, out string) {
	got, want := timeless(out), timeless(strings.Join(s.Text, "\n"))
	if first := strings.Fields(*s.Show)[0]; strings.HasPrefix(first, "-L") && strings.Contains(first, "c") {
		for _, lines := range [][]string{got, want} {
			if len(lines) > 2 {
				slices.Sort(lines[2:])
			}
		}
	}
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		r.differs(i, "text", "\n"+a, "\n"+b)
	}
}

var timeText = regexp.MustCompile(`\b\d\d:\d\d\b|expires \d+sec`)

// timeless cuts a listing into lines without the times in it.
func timeless(text string) []string {
	return strings.Split(timeText.ReplaceAllString(strings.TrimSuffix(text, "\n"), ""), "\n")
}

func (r *run) text(i int, got string, want []string) {
	a, b := strings.Join(timeless(got), "\n"), strings.Join(timeless(strings.Join(want, "\n")), "\n")
	if a != b {
		r.differs(i, "text", "\n"+a, "\n"+b)
	}
}
