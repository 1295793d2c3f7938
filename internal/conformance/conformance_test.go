package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const traces = "../../testdata/golden/traces"

// notYet are traces of what uvs doesn't do so far.
var notYet = regexp.MustCompile(`^sync-`)

func TestConformance(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(traces, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded traces: %v", err)
	}
	allowed := readAllowed(t)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if notYet.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := ReadTrace(f)
			if err != nil {
				t.Fatal(err)
			}
			replay(t, tr, allowed[name])
		})
	}
}

// difference is one that testdata/allowed.json lets pass, with its reason.
type difference struct {
	Steps  []int  `json:"steps"` // empty: all
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func readAllowed(t *testing.T) map[string][]difference {
	b, err := os.ReadFile("testdata/allowed.json")
	if err != nil {
		t.Fatal(err)
	}
	var m map[string][]difference
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// replay runs a trace and reports where uvs differs from the recording.
func replay(t *testing.T, tr *Trace, allowed []difference) {
	list, err := Replay(tr, func(step int, field string) bool {
		return slices.ContainsFunc(allowed, func(a difference) bool {
			return (a.Field == field || a.Field == "") && (len(a.Steps) == 0 || slices.Contains(a.Steps, step))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Errorf("step %d %s\n     got %s\n    want %s\n    step %.300s", d.Step, d.Field, d.Got, d.Want, tr.Steps[d.Step].Recording())
	}
}
