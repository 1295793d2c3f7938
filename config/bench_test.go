package config

import (
	"fmt"
	"strings"
	"testing"
)

// large is a file with n services of four servers each; with changed half of them differ.
func large(n int, changed bool) []byte {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		scheduler, weight := "wlc", 1
		if changed && i%2 == 1 {
			scheduler, weight = "sed", 3
		}
		fmt.Fprintf(&b, "  - {name: s%d, address: 10.9.%d.%d, port: 80, scheduler: %s, checks: tcp, servers: [{address: 10.8.0.11, weight: %d}, 10.8.0.12, 10.8.0.13, 10.8.0.14]}\n",
			i, 100+i/200, i%200+1, scheduler, weight)
	}
	return []byte(b.String())
}

func BenchmarkParse10000Services(b *testing.B) {
	data := large(10_000, false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("uvs.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff10000ServicesHalfChanged(b *testing.B) {
	state := func(changed bool) *State {
		f, err := Parse("uvs.yaml", large(10_000, changed))
		if err != nil {
			b.Fatal(err)
		}
		s, err := f.State(nil)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	have, want := state(false), state(true)
	b.ReportAllocs()
	for b.Loop() {
		if c := Diff(have, want, have, true); len(c.Ops) != 10_000 {
			b.Fatalf("%d operations", len(c.Ops))
		}
	}
}
