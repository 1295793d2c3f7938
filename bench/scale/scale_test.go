package scale

import (
	"strings"
	"testing"
	"time"
)

// TestEveryMeasurementRuns has each done with little, as nobody looks at figures that are never made.
func TestEveryMeasurementRuns(t *testing.T) {
	for name, run := range map[string]func(out *strings.Builder) error{
		"table/1000":   func(out *strings.Builder) error { return Table(t.Context(), out, []int{1000}) },
		"services/100": func(out *strings.Builder) error { return Services(t.Context(), out, []int{100}) },
		"changes/50":   func(out *strings.Builder) error { return Changes(t.Context(), out, 50, 100, 1, 50*time.Millisecond) },
		"listing/3000": func(out *strings.Builder) error { return Listing(t.Context(), out, 3000, 50*time.Millisecond) },
		"workers/2":    func(out *strings.Builder) error { return Workers(t.Context(), out, 2, 50*time.Millisecond) },
	} {
		var out strings.Builder
		if err := run(&out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(out.String(), name) {
			t.Errorf("%s printed %q", name, out.String())
		}
	}
}

func TestAStopwatchKeepsTheLongest(t *testing.T) {
	var s stopwatch
	for i := range 1000 {
		s.note(time.Duration(i * 7919 % 1000))
	}
	if s.n != 1000 || s.total != 499500 || s.tail[0] != 999 || s.tail[9] != 990 || s.tail[63] != 936 {
		t.Errorf("n %d, total %d, the longest %v", s.n, s.total, s.tail)
	}
}

func TestPaceTellsHowLateAFrameWas(t *testing.T) {
	p := &pace{start: time.Now().Add(-time.Second), interval: 100 * time.Millisecond, late: make([]time.Duration, 0, 5)}
	for p.due() {
	}
	p.flushed()
	if p.given != 5 || len(p.late) != 5 || p.late[0] < time.Second || p.late[0]-p.late[4] != 400*time.Millisecond {
		t.Errorf("%d frames, late by %v", p.given, p.late)
	}
}
