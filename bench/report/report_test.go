package report

import (
	"bytes"
	"encoding/xml"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"uvs/bench/result"
)

// document has a comparison, a series with published values, curves, parts and errors.
func document() *result.File {
	x := []float64{1, 10}
	v := func(mid, half float64) result.Value {
		return result.Value{Value: mid, Low: mid - half, High: mid + half, N: 5}
	}
	row := func(name string, p50, p99, failed float64) result.Row {
		return result.Row{Subject: name, Values: map[string]result.Value{"p50": v(p50, 0.001), "p99": v(p99, 0.002), "failed": v(failed, 0)},
			Parts: map[string][]result.Part{"use": {{Name: "rs1", Value: v(50, 1)}, {Name: "rs2", Value: v(60, 1)}}}}
	}
	return &result.File{
		Kind: result.Sim, Title: "Schedulers <compared>", About: "First.\n\nSecond.", Started: time.Unix(0, 0), Partial: true, Notes: []string{"a note"},
		Figures: []result.Figure{
			{Name: "p99", Title: "99th percentile", Unit: "s", Better: result.Less}, {Name: "p50", Title: "median", Unit: "s", Better: result.Less},
			{Name: "failed", Title: "without an answer", Unit: "%", Better: result.Less}, {Name: "use", Title: "utilisation", Unit: "%"},
		},
		Scenarios: []result.Scenario{
			{Name: "a", Title: "Equal servers", Verdict: "Take wlc.", Rows: []result.Row{row("rr", 0.01, 0.1, 0), row("wlc", 0.01, 0.05, 0), row("dh", 0.001, 0.01, 50), row("sed", 0.01, 0.051, 0)},
				Curves: []result.Curve{{Subject: "rr", Plot: "tail", LogX: true, LogY: true, X: []float64{0, 0.1, 1}, Y: []float64{1, 0.1, 0.01}}}},
			{Name: "b", Title: "Over clients", Axis: "clients", LogX: true, Rows: []result.Row{
				{Subject: "rr", X: &x[0], Values: map[string]result.Value{"p99": v(1, 0.1)}}, {Subject: "rr", X: &x[1], Values: map[string]result.Value{"p99": v(2, 0.1)}},
				{Subject: "wlc", X: &x[0], Error: "it died"}, {Subject: "wlc", X: &x[1], Values: map[string]result.Value{"p99": v(1, 0.1)}}},
				Reference: []result.Curve{{Subject: "published", X: x, Y: []float64{1, 2}}}},
			{Name: "none", Title: "Not reached"},
		},
	}
}

func TestRankingTellsApartOnlyWhatIsApart(t *testing.T) {
	f := document()
	got := explain(f, &f.Scenarios[0])
	want := []string{"Ranking by 99th percentile: wlc and sed are best, about 50.0 ms, and too close to tell apart. Behind: rr (2.00 times). " +
		"Ranked last, because so many connections got no answer: dh (50.0 %).", "Take wlc."}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("explained as\n%q, want\n%q", got, want)
	}
}

// Of counts, 0 may be the best; and what is counted as failed is no percentage.
func TestRankingByCountsThatMayBeNone(t *testing.T) {
	row := func(name string, failed float64) result.Row {
		return result.Row{Subject: name, Values: map[string]result.Value{"failed": result.Single(failed)}}
	}
	f := &result.File{Kind: result.Wire, Figures: []result.Figure{{Name: "failed", Title: "failed requests", Better: result.Less}},
		Scenarios: []result.Scenario{{Name: "s", Rows: []result.Row{row("a", 999), row("b", 0), row("c", 0), row("d", 3)}}}}
	want := "Ranking by failed requests: b and c are best, about 0, and too close to tell apart. Behind: d (3.00), a (999)."
	if got := explain(f, &f.Scenarios[0]); len(got) != 1 || got[0] != want {
		t.Errorf("explained as\n%q, want\n%q", got, want)
	}
	if _, err := HTML([]*result.File{f}); err != nil {
		t.Error(err)
	}
}

func TestHTMLIsWholeAndNeedsNothingBeside(t *testing.T) {
	text, err := HTML([]*result.File{document(), document()})
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, want := range []string{"Schedulers &lt;compared&gt;", "<p>Second.</p>", "Take wlc.", "interrupted", "a note", "it died", "50.0 ms", "var(--s0)", "Which to choose", "rs2"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// What a browser would fetch.
	if m := regexp.MustCompile(`(?i)(src|href)="[^#"][^"]*"|url\(|@import|<script|<link`).FindString(page); m != "" {
		t.Errorf("the page refers to something outside: %s", m)
	}
	for _, c := range series {
		if hex := regexp.MustCompile(`fill:#(?i)[0-9a-f]{6}|stroke:#(?i)[0-9a-f]{6}`).FindString(page); hex != "" {
			t.Errorf("a plot has a colour of its own (%s, series %v): in the dark it can't be seen", hex, c)
			break
		}
	}
}

func TestPlotsAreImages(t *testing.T) {
	dir := t.TempDir()
	if err := WritePlots(dir, []*result.File{document()}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a-comparison", "a-curve1", "b-series"} {
		svg, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s.svg: %v", name, err)
			}
		}
		f, err := os.Open(filepath.Join(dir, name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatalf("%s.png: %v", name, err)
		}
		if w := img.Bounds().Dx(); w < 800 {
			t.Errorf("%s.png is %d pixels wide", name, w)
		}
	}
}

func TestTextHasEveryScenario(t *testing.T) {
	var b strings.Builder
	if err := Text(&b, document()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"interrupted", "Equal servers (a)", "50.0 ms ±2.00 ms", "clients", "it died", "Take wlc.", "a note"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "Not reached") {
		t.Error("the text has an empty scenario")
	}
}

func TestQuantities(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.0123, "s", "12.3 ms"}, {2, "s", "2.00 s"}, {5200, "s", "5200 s"}, {3e-8, "s", "30.0 ns"}, {0, "s", "0 s"}, {1280, "1/s", "1.28 k/s"}, {6.4, "1/s", "6.40/s"},
		{54.8, "%", "54.8 %"}, {0.2, "", "0.2"}, {2.5e9, "bit/s", "2.50 Gbit/s"}, {-0.001, "s", "-1.00 ms"},
	} {
		if got := quantity(c.v, c.unit); got != c.want {
			t.Errorf("quantity(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
	for in, want := range map[string]string{"10.0 ms": "10 ms", "1.50 s": "1.5 s", "2.00": "2", "100": "100", "1.00 k/s": "1 k/s", "0.0001": "0.0001", "10.0/s": "10/s"} {
		if got := round(in); got != want {
			t.Errorf("round(%q) = %q, want %q", in, got, want)
		}
	}
}
