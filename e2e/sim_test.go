package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// uvsbench sim compares schedulers by a study, in simulation and on real servers behind uvsd, and uvsbench report makes one page of
// both; a wrong study is refused with its place.
func TestStudySimulatedAndInTheLab(t *testing.T) {
	must(t, goBuild(nil, "uvs/cmd/uvsbench"))
	dir := t.TempDir()
	study := filepath.Join(dir, "mine.yaml")
	text := `title: Mine
scenarios:
- name: closed
  title: Three clients
  schedulers: [rr, wlc]
  connections: 1000
  seeds: 2
  main: mean
  servers: [{weight: 1}, {weight: 2, processors: 2}]
  arrivals: {closed: {clients: 3}}
  work: [{demand: {exponential: 5ms}, latency: {constant: 20ms}}]
  sweep: {over: clients, values: [3]}
`
	must(t, os.WriteFile(study, []byte(text), 0o644))
	uvsbench := func(args ...string) (string, error) {
		cmd := exec.CommandContext(shortly(t), program("uvsbench"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := uvsbench("sim", "--study", "mine.yaml", "--lab", "--lab-time", "1s", "--lab-schedulers", "wlc", "--plots", "plots")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := uvsbench("report", "--html", "both.html", "mine.json", "mine-lab.json"); err != nil {
		t.Fatalf("report: %v\n%s", err, out)
	}
	for _, name := range []string{"mine.html", "both.html", "plots/2-closed-series.png"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() < 5000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, subjects := range map[string]int{"mine.json": 2, "mine-lab.json": 1} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		var f struct {
			Scenarios []struct {
				Rows []struct {
					Subject string
					Values  map[string]struct{ Value float64 }
				}
			}
		}
		must(t, json.Unmarshal(b, &f))
		rows := f.Scenarios[0].Rows
		if len(rows) != subjects {
			t.Fatalf("%s: %d rows, want %d\n%s", name, len(rows), subjects, out)
		}
		// However slow this machine is, no answer comes before its latency.
		if v := rows[subjects-1].Values; rows[subjects-1].Subject != "wlc" || v["mean"].Value < 0.020 || v["failed"].Value != 0 || v["throughput"].Value <= 0 {
			t.Errorf("%s: %+v\n%s", name, rows, out)
		}
	}
	must(t, os.WriteFile(study, []byte(strings.Replace(text, "weight: 2", "wieght: 2", 1)), 0o644))
	if out, err := uvsbench("sim", "--study", "mine.yaml"); err == nil || !strings.Contains(out, `mine.yaml: line 9, column 27: no setting "wieght"`) {
		t.Errorf("a wrong study: %v\n%s", err, out)
	}
}
