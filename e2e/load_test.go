package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// uvsbench load puts connections, requests and datagrams of many clients on a lab of its own, and says in JSON how they fared.
func TestLoadOnTheLab(t *testing.T) {
	must(t, goBuild(nil, "uvs/cmd/uvsbench"))
	file := filepath.Join(t.TempDir(), "load.json")
	cmd := exec.CommandContext(shortly(t), program("uvsbench"), "load", "--lab", "nat", "--connections", "50", "--requests", "100",
		"--datagrams", "100", "--hold", "20", "--time", "2s", "--timeout", "10s", "--json", file)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 { // 3: a datagram may get lost on a busy machine
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	b, err := os.ReadFile(file)
	must(t, err)
	var result struct {
		Kind      string
		Scenarios []struct {
			Name string
			Rows []struct {
				Subject string
				Values  map[string]struct{ Value float64 }
			}
		}
	}
	must(t, json.Unmarshal(b, &result))
	if result.Kind != "load" || len(result.Scenarios) != 4 {
		t.Fatalf("%s\n%s", b, out)
	}
	for _, s := range result.Scenarios {
		v := s.Rows[0].Values
		if v["rate"].Value < 5 || v["p99"].Value <= 0 || s.Name != "datagrams" && v["failed"].Value != 0 || s.Rows[0].Subject != "uvs, nat" {
			t.Errorf("%s: %v\n%s", s.Name, v, out)
		}
	}
}
