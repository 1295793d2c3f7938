package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uvs/bench/result"
	"uvs/bench/studies"
)

const good = `
title: a title
base:
  schedulers: [rr, wlc]
  connections: 2000
  seeds: 3
  servers: [{count: 2}]
  arrivals: {poisson: {load: 0.5}}
  work: [{demand: {exponential: 10ms}}]
scenarios:
- name: one
- name: two
  arrivals: {closed: {clients: 5}}
  sweep: {over: clients, values: [1, 5]}
`

func TestStudyRunsAndIsTheSameAgain(t *testing.T) {
	s, err := ParseStudy([]byte(good), ".")
	if err != nil {
		t.Fatal(err)
	}
	run := func(workers int) string {
		var last float64
		f, err := s.Run(t.Context(), Options{Workers: workers, Progress: func(done, of float64) { last = done / of }})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(last-1) > 1e-9 {
			t.Errorf("progress ended at %v", last)
		}
		if n := len(f.Scenarios[0].Rows); n != 2 {
			t.Errorf("%d rows of two schedulers", n)
		}
		if n := len(f.Scenarios[1].Rows); n != 4 {
			t.Errorf("%d rows of two schedulers at two points", n)
		}
		for i := range f.Scenarios {
			for _, r := range f.Scenarios[i].Rows {
				delete(r.Values, decision)
				if r.Values["p99"].N != 3 {
					t.Errorf("%s has %d runs, not 3", r.Subject, r.Values["p99"].N)
				}
			}
		}
		f.Started, f.Took, f.Notes = f.Started.AddDate(-2000, 0, 0).Truncate(1), 0, nil
		f.Started = f.Started.UTC().Truncate(1 << 62)
		var b bytes.Buffer
		if err := f.Encode(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := result.Decode(b.Bytes()); err != nil {
			t.Error(err)
		}
		_, rest, _ := strings.Cut(b.String(), `"figures"`)
		return rest
	}
	if run(1) != run(4) {
		t.Error("four workers found something else than one")
	}
}

func TestInterruptedStudyReturnsWhatIsWhole(t *testing.T) {
	s, err := ParseStudy([]byte(good), ".")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f, err := s.Run(ctx, Options{Workers: 1, Connections: 50_000, Progress: func(float64, float64) { cancel() }})
	if !errors.Is(err, context.Canceled) || f == nil || !f.Partial {
		t.Fatalf("Run = %+v, %v", f, err)
	}
	if len(f.Scenarios[0].Rows) != 1 {
		t.Errorf("%d rows after one run", len(f.Scenarios[0].Rows))
	}
}

func TestWrongStudiesAreRefusedWithTheirPlace(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"title:", "titel:", `line 2, column 1: no setting "titel"`},
		{"count: 2", "cuont: 2", `line 7, column 14: no setting "cuont" here; there are absent backlog count`},
		{"count: 2", "count: two", `line 7, column 21: "two" is no whole number`},
		{"exponential: 10ms", "exponential: 10", `line 9, column 33: "10" is no span of time`},
		{"exponential: 10ms", "exponential: 10ms, constant: 1s", `demand of 1: a distribution has one form, not constant and exponential`},
		{"[rr, wlc]", "[rr, wlcc]", `line 11, column 3: scenario one: no scheduler "wlcc"; there are dh`},
		{"[rr, wlc]", "[rr mh-port]", `scheduler flag "mh-port"`},
		{"[rr, wlc]", "rr", `line 4, column 15: a list is expected`},
		{"[rr, wlc]", "[]", "none to compare"},
		{"name: two", "name: one", `line 12, column 3: a second scenario "one"`},
		{"name: two", "seeds: 3", "without a name"},
		{"load: 0.5", "load: 0", "the rate is not above 0"},
		{"{poisson: {load: 0.5}}", "{poisson: {load: 0.5}, closed: {clients: 3}}", "is given, not 2 (poisson, closed)"},
		{"over: clients", "over: weights", "line 12, column 3: scenario two: sweep: over is clients"},
		{"[1, 5]", "[0]", "nothing comes at 0"},
		{"seeds: 3", "seeds: 3\n  seeds: 4", `line 7, column 3: "seeds" for the second time`},
		{"seeds: 3", "seeds: 3\n  time: 1s\n  changes: [{at: 1s, fail: rs9}]", `no server "rs9"`},
		{"seeds: 3", "seeds: 3\n  changes: [{at: 1s, fail: rs1}]", `time is given`},
		{"seeds: 3", "seeds: 3\n  cache: {of: destination, objects: 3}", `no population`},
		{"title: a title", "title: [", "line"},
		{"count: 2", "count: 20000", "more than 10000"},
		{"count: 2", "count: -2", `line 7, column 21: "-2" is below 0`},
		{"count: 2", "speed: .nan", `".nan" is below 0`},
		{"count: 2", "speed: .inf", `".inf" is beyond`},
		{"10ms", "-10ms", `"-10ms" is below 0`},
		{"{poisson: {load: 0.5}}", "{mmpp: {rate: 1, states: [{rate: 0, for: 1s}, {rate: 0, for: 1s}]}}", "no state has a rate"},
		{"{exponential: 10ms}", "{constant: 0s}", "the rate is not above 0"},
		{"- name: two", "- name: two\n  work: [{demand: {constant: 0s}}]", "takes no time"},
		{good, "", "empty"},
		{good, "scenarios: []", "without scenarios"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q isn't there", c.old)
		}
		if _, err := ParseStudy([]byte(text), "."); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q in it", c.new, c.old, err, c.want)
		}
	}
}

func TestTraces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "line 1"}, {"time,size\n", `line 1, column 6: the columns are`}, {"time,time\n", "second column"}, {"time\n", "no connections"},
		{"time,demand\n0,1\n1,x\n", `line 3, column 3: "x" is no number`}, {"time\n2\n1\n", `line 3, column 1: "1" is before`},
		{"time,demand\n0\n", "line 2"}, {"demand\n-1\n", "no number"}, {"demand\nNaN\n", "no number"}, {"time,client\n0,\"a\n", "line"},
	} {
		if _, err := readTrace(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q in it", c.text, err, c.want)
		}
	}
	// Four connections of a second each, one after the other: one server never has two.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.csv"), []byte("# recorded\ntime,demand,client,destination\n10,1,a,x\n11.5,1,b,y\n13,0.5,a,x\n14,1,c,x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := ParseStudy([]byte("scenarios:\n- name: x\n  schedulers: [rr]\n  warmup: 0\n  servers: [{count: 2}]\n  arrivals: {trace: t.csv}\n  work: [{demand: {trace: t.csv}}]\n  cache: {of: destination, objects: 1, hit: 0.5}\n"), dir)
	if err != nil {
		t.Fatal(err)
	}
	sc := &s.Scenarios[0]
	o, err := simulate(t.Context(), sc, sc.choices[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	// The servers take turns: x and then x at one, where the second is a hit; y and then x at the other.
	if o.conns != 4 || o.hits != 1 || math.Abs(o.response.sum-(1+1+0.25+1)) > 1e-9 || o.returned != 1 || o.kept != 1 {
		t.Errorf("%d connections, %d hits, %v seconds, %d returned, %d kept", o.conns, o.hits, o.response.sum, o.returned, o.kept)
	}
}

// TestDegenerateRunsEnd: what makes little sense still comes to an end.
func TestDegenerateRunsEnd(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "once.csv"), []byte("time\n5\n5\n5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"servers: [{speed: 1, backlog: 1, workers: 1}, {absent: true}]\n  arrivals: {poisson: {load: 50}}\n  work: [{demand: {exponential: 10ms}}]",
		"servers: [{weight: 0}]\n  arrivals: {closed: {clients: 5}}\n  work: [{demand: {exponential: 10ms}}]",
		"servers: [{upper: 1}]\n  arrivals: {closed: {clients: 5}}\n  work: [{demand: {exponential: 10ms}}]",
		"servers: [{}]\n  arrivals: {trace: once.csv}\n  work: [{demand: {constant: 0s}}]",
		"servers: [{}]\n  arrivals: {poisson: {rate: 100}}\n  work: [{demand: {constant: 0s}}]",
		"servers: [{}]\n  time: 10s\n  warmup: 0\n  arrivals: {poisson: {rate: 100}}\n  work: [{demand: {constant: 1ms}}]\n  changes: [{at: 0s, slow: rs1, speed: 0}, {at: 0s, fail: rs1}, {at: 0s, remove: rs1}, {at: 5s, add: rs1}]",
		"servers: [{}]\n  time: 1s\n  arrivals: {poisson: {rate: 0.001}}\n  work: [{demand: {constant: 1h}}]",
		"servers: [{}]\n  director: {linger: 0s, late_share: 1, detect: 0s}\n  arrivals: {diurnal: {load: 0.5, swing: 1, period: 1s}}\n  work: [{demand: {pareto: {mean: 10ms, alpha: 1.01}}}]",
	} {
		s, err := ParseStudy([]byte("scenarios:\n- name: x\n  schedulers: [wlc]\n  seeds: 1\n  connections: 500\n  "+text+"\n"), dir)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if strings.Contains(text, "time:") {
			s.Scenarios[0].Connections = 0
		}
		f, err := s.Run(t.Context(), Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := json.Marshal(f); err != nil { // not of numbers that are none
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestFailureTakesItsConnectionsAndIsNoticed: two servers share connections, one dies for a while.
func TestFailureTakesItsConnectionsAndIsNoticed(t *testing.T) {
	for _, c := range []struct {
		scheduler   string
		least, most float64 // percent of connections without an answer
	}{
		// For 3 s of 30 s nobody knows: half of the connections then. Later the other server takes all.
		{"rr", 4, 8},
		// sh then refuses its clients for as long as it is quiesced, 10 s more.
		{"sh", 19, 25},
		{"sh sh-fallback", 4, 8},
	} {
		sc := parse(t, fmt.Sprintf(`
  schedulers: [%s]
  time: 30s
  servers: [{count: 2}]
  arrivals: {poisson: {rate: 200}}
  clients: {count: 1000}
  work: [{demand: {exponential: 1ms}}]
  changes: [{at: 10s, fail: rs1}, {at: 20s, return: rs1}]
`, c.scheduler))
		o, err := simulate(t.Context(), sc, sc.choices[0], 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := 100 * float64(o.fails+o.refuses+o.left) / float64(o.conns); got < c.least || got > c.most {
			t.Errorf("%s: %.3g %% without an answer, not %g to %g", c.scheduler, got, c.least, c.most)
		}
		if s := o.servers[0]; s.busy == 0 || s.busy > o.servers[1].busy {
			t.Errorf("%s: the dead server was busy for %.3g, the other for %.3g", c.scheduler, s.busy, o.servers[1].busy)
		}
	}
}

// TestBacklogAndWorkersAreLimits: a server that serves two at once and lets one wait.
func TestBacklogAndWorkersAreLimits(t *testing.T) {
	m := machine{speed: 1, processors: 2, workers: 2, backlog: 1, up: true}
	for i, want := range []bool{true, true, true, false} {
		if got := m.admit(int32(i), 1); got != want {
			t.Errorf("admit of number %d = %v", i, got)
		}
	}
	if m.conns != 3 || len(m.running) != 2 || m.waiting.size != 1 {
		t.Errorf("%d inside, %d running, %d waiting", m.conns, len(m.running), m.waiting.size)
	}
}

func TestStudiesThatComeAlongAreRight(t *testing.T) {
	names := studies.Names()
	if len(names) == 0 {
		t.Fatal("there are none")
	}
	for _, name := range names {
		text, err := studies.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseStudy(text, "../studies")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, sc := range s.Scenarios {
			if sc.About == "" && s.About == "" || sc.Title == sc.Name {
				t.Errorf("%s, %s: it doesn't say what it is", name, sc.Name)
			}
			if _, ok := (&result.File{Figures: allFigures(s.Scenarios)}).Figure(sc.Main); !ok {
				t.Errorf("%s, %s: no figure %q to rank by", name, sc.Name, sc.Main)
			}
		}
	}
}

func FuzzParseStudy(f *testing.F) {
	f.Add([]byte(good))
	for _, name := range studies.Names() {
		if text, err := studies.Read(name); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := ParseStudy(text, t.TempDir()); err == nil && len(s.Scenarios) == 0 {
			t.Error("a study without scenarios, and no error")
		}
	})
}

func FuzzReadTrace(f *testing.F) {
	f.Add([]byte("time,demand,client,destination\n10,1,a,x\n11.5,1,b,y\n"))
	f.Add([]byte("demand\n1e300\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tr, err := readTrace(bytes.NewReader(text))
		if err != nil {
			return
		}
		for i := 1; i < len(tr.time); i++ {
			if tr.time[i] < tr.time[i-1] {
				t.Errorf("connection %d is before the one above", i)
			}
		}
	})
}

// TestLiveMeasuresEveryPointInTurn has the study's points measured by somebody who makes the responses up.
func TestLiveMeasuresEveryPointInTurn(t *testing.T) {
	s, err := ParseStudy([]byte(good), ".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RunLive(t.Context(), Options{}, nil); err == nil || !strings.Contains(err.Error(), "scenario one: on real servers arrivals are closed") {
		t.Errorf("an open population on real servers: %v", err)
	}
	var asked []string
	f, err := s.RunLive(t.Context(), Options{Scenarios: []string{"two"}, Seeds: 2}, func(_ context.Context, l *Live) (*LiveResult, error) {
		asked = append(asked, fmt.Sprintf("%d %s %d", l.Round, l.Scheduler, l.Clients))
		if demand, latency, think := l.Next(); demand <= 0 || latency != 0 || think != 0 || len(l.Servers) != 2 || l.Servers[0].Speed != 1 {
			t.Errorf("asked for %v, %v, %v of %+v", demand, latency, think, l.Servers)
		}
		return &LiveResult{Responses: []time.Duration{time.Second, 3 * time.Second}, Failures: 2, Time: 10 * time.Second}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(asked, ", "), "0 rr 1, 0 rr 5, 0 wlc 1, 0 wlc 5, 1 rr 1, 1 rr 5, 1 wlc 1, 1 wlc 5"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	r := f.Scenarios[0].Rows[3]
	if r.Subject != "wlc" || *r.X != 5 || r.Values["mean"].Value != 2 || r.Values["failed"].Value != 50 || r.Values["throughput"].Value != 0.2 || r.Values["mean"].N != 2 {
		t.Errorf("the last row is %+v", r)
	}
}
