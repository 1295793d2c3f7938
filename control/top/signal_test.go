package top

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestWhoHasAShell(t *testing.T) {
	for name, row := range map[string]struct {
		processes map[int][3]int // parent, group, session
		want      bool
	}{
		"a shell's job":               {map[int][3]int{9: {5, 9, 5}, 5: {1, 5, 5}}, true},
		"behind a wrapper in its job": {map[int][3]int{9: {8, 8, 5}, 8: {5, 8, 5}, 5: {1, 5, 5}}, true},
		"a session of its own":        {map[int][3]int{9: {5, 9, 9}, 5: {1, 5, 5}}, false},
		"whose parent is gone":        {map[int][3]int{9: {1, 9, 5}, 1: {0, 1, 1}}, false},
		"whose parent is hidden":      {map[int][3]int{9: {5, 9, 5}}, false},
		"no process":                  {nil, false},
		"one that is its own parent":  {map[int][3]int{9: {9, 9, 9}}, false},
	} {
		proc := t.TempDir()
		for pid, r := range row.processes {
			dir := filepath.Join(proc, fmt.Sprint(pid))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			stat := fmt.Sprintf("%d (a) (b) R %d %d %d 34816 9 4194304\n", pid, r[0], r[1], r[2])
			if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := hasShell(proc, 9); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}
