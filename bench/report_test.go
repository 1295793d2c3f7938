package bench

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"uvs/bench/result"
)

// madeUp is a report of three rounds, in the second of which the machine was half as fast, and NAT once failed.
func madeUp() *Report {
	r := &Report{Machine: "a machine", Rounds: 3, Seconds: 2}
	add := func(round int, subject string, figures map[string]float64) {
		r.Samples = append(r.Samples, Sample{Round: round, Subject: subject, Work: "packets-4k", Figures: figures})
	}
	for round, bare := range []float64{1, 0.5, 1.2} {
		add(round, "bare", map[string]float64{Mpps: bare})
		add(round, "uvs-dr", map[string]float64{Mpps: bare * 0.95})
		add(round, Nobody, map[string]float64{nullNs: 700})
	}
	add(0, "uvs-nat", map[string]float64{Mpps: 0.8, PerCPUSecond: 0.5})
	add(2, "uvs-nat", map[string]float64{Mpps: 0.9, PerCPUSecond: 0.6})
	add(0, "nft", map[string]float64{PerCPUSecond: 1})
	add(2, "nft", map[string]float64{PerCPUSecond: 0.75})
	r.Samples = append(r.Samples, Sample{Round: 1, Subject: "uvs-nat", Work: "packets-4k", Error: "no frame arrived"})
	return r
}

func TestMarkdownHasRatiosOfTheSameRoundBesideTheGoals(t *testing.T) {
	var out bytes.Buffer
	if err := madeUp().Markdown(&out); err != nil {
		t.Fatal(err)
	}
	want := `a machine; 3 interleaved rounds of 2s a stretch; medians, [lowest-highest]; ratios of the same round.

| figure | uvs | against | ratio | goal |
| --- | --- | --- | --- | --- |
| packets/s, DR, 4 k flows | 0.950 | bare 1 | 0.950 [0.950-0.950] | ≥ 0.900 |
| packets/s, NAT, 4 k flows | 0.850 | bare 1 | 0.775 [0.750-0.800] | ≥ 0.850 (missed) |
| packets per CPU-second, NAT, saturated | 0.550 | nft 0.875 | 0.650 [0.500-0.800] | ≥ 0.600, stretch 0.800 |
`
	if got := out.String(); got != want {
		t.Errorf("Markdown:\n%s\nwant:\n%s", got, want)
	}
}

func TestTextTellsWhatFailed(t *testing.T) {
	r := madeUp()
	r.Left = []string{"testpmd at packets-4k: dpdk-testpmd is not installed"}
	var out bytes.Buffer
	if err := r.Text(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"round 2: uvs-nat at packets-4k failed: no frame arrived",
		"not measured: testpmd at packets-4k: dpdk-testpmd is not installed",
		"null receiver: 700 [700-700] ns",
		"uvs-dr   0.950 [0.950-0.950]  0.950 [0.475-1.14]",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, out.String())
		}
	}
}

func TestGoalsAreOfSubjectsAndWorksThatExist(t *testing.T) {
	for _, g := range goals {
		var w *work
		for i := range works {
			if works[i].name == g.work {
				w = &works[i]
			}
		}
		if w == nil {
			t.Errorf("%s: no work %q", g.what, g.work)
			continue
		}
		found := 0
		for _, s := range subjects {
			if (s.name == g.subject || s.name == g.against) && (w.packets && s.packets || !w.packets && s.streams) {
				found++
			}
		}
		if want := map[bool]int{true: 1, false: 2}[g.against == ""]; found != want {
			t.Errorf("%s: %q or %q isn't measured at %s", g.what, g.subject, g.against, g.work)
		}
		ok := false
		for _, f := range w.figures {
			ok = ok || f == g.figure
		}
		if !ok {
			t.Errorf("%s: %s has no figure %q", g.what, g.work, g.figure)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1: "1", 0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 41406: "41406"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestAReportIsAResultOfMediansWithTheirExtremes(t *testing.T) {
	r := madeUp()
	r.Left = []string{"testpmd at packets-4k: dpdk-testpmd is not installed"}
	r.Samples = append(r.Samples, Sample{Subject: "haproxy", Work: "http-close", Error: "it doesn't come up"},
		Sample{Subject: "uvs-nat", Work: "server-dies", Figures: map[string]float64{Failed: 3, Longest: 40}})
	f := r.Result()
	var out bytes.Buffer
	if err := f.Encode(&out); err != nil {
		t.Fatal(err)
	}
	again, err := result.Decode(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Scenarios) != 3 || again.Scenarios[0].Name != "packets-4k" || again.Scenarios[0].Main != "packets" || len(again.Notes) != 3 {
		t.Fatalf("%s", &out)
	}
	v := again.Scenarios[0].Rows[0].Values["packets"]
	if want := (result.Value{Value: 1e6, Low: 0.5e6, High: 1.2e6, N: 3, Spread: true}); v != want {
		t.Errorf("bare: %+v, want %+v", v, want)
	}
	if row := again.Scenarios[1].Rows[0]; row.Subject != "haproxy" || row.Error != "it doesn't come up" {
		t.Errorf("a subject that failed: %+v", row)
	}
	if row := again.Scenarios[2].Rows[0]; row.Values["failed-requests"].Value != 3 || row.Values["longest"].Value != 0.04 {
		t.Errorf("failures: %+v", row)
	}
}

func TestEveryFigureOfAWorkHasItsPlaceInResults(t *testing.T) {
	for _, w := range works {
		for _, figure := range append([]string{w.main}, w.figures...) {
			if !slices.ContainsFunc(wireFigures, func(x wireFigure) bool { return x.figure == figure }) {
				t.Errorf("%s: results don't know %q", w.name, figure)
			}
		}
	}
}
