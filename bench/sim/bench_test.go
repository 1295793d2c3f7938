package sim

import (
	"fmt"
	"testing"
)

// parse reads a study of one scenario.
func parse(t testing.TB, text string) *Scenario {
	t.Helper()
	s, err := ParseStudy([]byte("scenarios:\n- name: x\n"+text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &s.Scenarios[0]
}

// BenchmarkRun measures simulated connections a second of one core, by scheduler; a loop is one connection.
func BenchmarkRun(b *testing.B) {
	for _, name := range []string{"rr", "wrr", "wlc", "twos", "mh", "lblc"} {
		for _, n := range []int{4, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				sc := parse(b, fmt.Sprintf(`
  schedulers: [%s]
  connections: 1000
  servers: [{count: %d}]
  arrivals: {poisson: {load: 0.7}}
  work: [{demand: {exponential: 10ms}}]
`, name, n))
				sc.Connections = b.N
				b.ReportAllocs()
				b.ResetTimer()
				if _, err := simulate(b.Context(), sc, sc.choices[0], 1); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mconn/s")
			})
		}
	}
}
