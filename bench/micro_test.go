package bench

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestLinesAreWhatBenchstatReads(t *testing.T) {
	r := testing.BenchmarkResult{N: 1000, T: 42 * time.Microsecond, Extra: map[string]float64{"ns/conn": 7}}
	want := `^BenchmarkPath/NAT/1M-2 +\t +1000\t +42\.00 ns/op\t +7\.000 ns/conn\t +0 B/op\t +0 allocs/op$`
	if got := line("Path/NAT/1M", 2, r); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("line = %q, want %s", got, want)
	}
}

// Stages run, and the packet path forwards what they send through it.
func TestMicroMeasuresStages(t *testing.T) {
	var out bytes.Buffer
	m := Micro{Stages: `^(Decode|NATRewrite|ConntrackHitBatch/1k|ConntrackExpire/1k|Marks/10|Schedule/wlc/3|Path/(DR|TUN|NAT|NATAnswer)/1k|Path/NewNAT)$`, Time: time.Millisecond, Count: 2}
	if err := m.Run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\nBenchmark"); n != 2*11 {
		t.Errorf("%d lines, want 22:\n%s", n, out.String())
	}
	for _, zero := range []string{"Path/NAT/1k", "Path/TUN/1k", "Path/DR/1k", "Path/NATAnswer/1k", "Decode"} {
		if !regexp.MustCompile(`Benchmark` + zero + `-?\d* .* 0 allocs/op`).MatchString(out.String()) {
			t.Errorf("%s allocates:\n%s", zero, out.String())
		}
	}
	m.Stages = "nosuch"
	if err := m.Run(t.Context(), &out); err == nil {
		t.Error("a stage that doesn't exist is no error")
	}
}
