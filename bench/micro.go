package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/bench/progress"
)

// Micro measures stages of the packet path one by one. Zero fields take the defaults named.
type Micro struct {
	Stages string        // regular expression of the stages' names; default all
	Time   time.Duration // of each; default 1 s
	Count  int           // how often each is measured, in turn; default 1
	Large  bool          // with ten million connections, too
	Bar    *progress.Bar // shows which stage is being measured; nil for nobody
}

// stage is something to be measured as Go's benchmarks are.
type stage struct {
	name string
	run  func(b *testing.B)
}

// Run measures and prints in the format of Go's benchmarks, for benchstat. All stages are measured in turn before the next
// count begins, so that a machine that drifts does so for all of them.
func (m *Micro) Run(ctx context.Context, out io.Writer) error {
	chosen, err := regexp.Compile(m.Stages)
	if err != nil {
		return fmt.Errorf("stages: %w", err)
	}
	if m.Time <= 0 {
		m.Time = time.Second
	}
	testing.Init()
	if err := flag.Set("test.benchtime", m.Time.String()); err != nil {
		return err
	}
	fmt.Fprintf(out, "goos: %s\ngoarch: %s\npkg: uvs/bench\n", runtime.GOOS, runtime.GOARCH)
	measured := slices.DeleteFunc(stages(m.Large), func(s stage) bool { return !chosen.MatchString(s.name) })
	if len(measured) == 0 {
		return errors.New("no such stage")
	}
	counts := max(m.Count, 1)
	for count := range counts {
		for i, s := range measured {
			if err := ctx.Err(); err != nil {
				return err
			}
			var r testing.BenchmarkResult
			m.Bar.While(float64(count*len(measured)+i), float64(counts*len(measured)), s.name, func() error {
				r = testing.Benchmark(func(b *testing.B) {
					b.ReportAllocs()
					s.run(b)
				})
				return nil
			})
			if r.N == 0 { // the stage said why on standard error
				return fmt.Errorf("stage %s failed", s.name)
			}
			if _, err := fmt.Fprintln(out, line(s.name, runtime.GOMAXPROCS(0), r)); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is a result as `go test -bench` prints it.
func line(name string, procs int, r testing.BenchmarkResult) string {
	full := "Benchmark" + strings.ReplaceAll(name, " ", "_")
	if procs > 1 {
		full += fmt.Sprintf("-%d", procs)
	}
	return fmt.Sprintf("%-44s\t%s\t%s", full, r.String(), r.MemString())
}

// size is a number of connections, with its name.
type size struct {
	name string
	n    int
}

func sizes(large bool) []size {
	all := []size{{"1k", 1 << 10}, {"64k", 1 << 16}, {"1M", 1 << 20}}
	if large {
		all = append(all, size{"10M", 10_000_000})
	}
	return all
}
