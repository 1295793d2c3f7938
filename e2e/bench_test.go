package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The instrument measures, on networks of its own: each kind of work once, for a moment. What the figures are is nobody's
// business here.
func TestBenchMeasuresUVSBesideOthers(t *testing.T) {
	needs(t, "nginx", "nginx-light")
	needs(t, "wrk", "wrk")
	must(t, goBuild(nil, "uvs/cmd/uvsbench"))
	file := filepath.Join(t.TempDir(), "wire.json")
	cmd := exec.CommandContext(within(t, 2*time.Minute), program("uvsbench"), "wire", "--rounds", "1", "--time", "200ms", "--samples", file, "--json", file+".result",
		"--subjects", "bare,uvs-nat", "--works", "packets-4k,http-close,latency")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	b, err := os.ReadFile(file)
	must(t, err)
	var report struct {
		Samples []struct {
			Subject, Work, Error string
			Figures              map[string]float64
		}
	}
	must(t, json.Unmarshal(b, &report))
	figure := map[string]string{"packets-4k": "Mpps", "http-close": "requests/s", "latency": "p50 us"}
	seen := map[string]bool{}
	for _, s := range report.Samples {
		if s.Subject == "nobody" {
			if s.Figures["null receiver ns/packet"] <= 0 {
				t.Errorf("the null receiver was not measured: %+v", s)
			}
			continue
		}
		seen[s.Subject+" "+s.Work] = true
		if s.Error != "" || s.Figures[figure[s.Work]] <= 0 {
			t.Errorf("%s at %s: %v %s", s.Subject, s.Work, s.Figures, s.Error)
		}
		if s.Work == "packets-4k" && strings.HasPrefix(s.Subject, "uvs") && s.Figures["director ns/packet"] <= 0 {
			t.Errorf("%s uses no CPU time: %v", s.Subject, s.Figures)
		}
	}
	if b, err = os.ReadFile(file + ".result"); err != nil || !strings.Contains(string(b), `"uvsbench-result"`) || !strings.Contains(string(b), `"packet-director"`) {
		t.Errorf("%v: no result for uvsbench report:\n%s", err, b)
	}
	if len(seen) != 2*3 {
		t.Errorf("measured %v", seen)
	}
	if !strings.Contains(string(out), "goals") {
		t.Errorf("no table of goals:\n%s", out)
	}
}
