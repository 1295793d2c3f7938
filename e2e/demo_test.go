package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// demo builds the demo once.
func demo(t *testing.T) string {
	t.Helper()
	path := program("uvsdemo")
	if _, err := os.Stat(path); err != nil {
		must(t, goBuild(nil, "-o", path, "uvs/lab/demo"))
	}
	return path
}

// checkDemo compares the demo's output with what a newcomer is promised.
func checkDemo(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{
		"== DR: direct routing", "== NAT: masquerading", "rs3           10.1.0.13:8080", "50.0 %",
		"download", "upload", "4291e08003394371", "200 datagrams by UDP (rr), all echoed",
		"0 failed", "== Summary", "\n    DR       ok", "\n    NAT      ok",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo doesn't show %q:\n%s", want, out)
		}
	}
}

func TestDemo(t *testing.T) {
	cmd := exec.CommandContext(within(t, time.Minute), demo(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo: %v\n%s", err, out)
	}
	checkDemo(t, string(out))
}

// The demo needs no root where the machine allows user namespaces.
func TestDemoWithoutRoot(t *testing.T) {
	cmd := exec.CommandContext(within(t, time.Minute), demo(t))
	cmd.Dir = "/"
	if !inUserNamespace() {
		cmd.SysProcAttr = asNobody()
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo as nobody: %v\n%s", err, out)
	}
	checkDemo(t, string(out))
}

// A demo that is left up can be played with by the commands it prints, until it is removed.
func TestDemoKeep(t *testing.T) {
	cmd := exec.CommandContext(within(t, time.Minute), demo(t), "--keep")
	out, err := cmd.Output()
	defer func() {
		if out, err := exec.Command(demo(t), "--remove").CombinedOutput(); err != nil {
			t.Errorf("remove the demo: %v\n%s", err, out)
		}
		pid := cmd.Process.Pid
		left, _ := filepath.Glob(fmt.Sprintf("/run/netns/uvs-%d-*", pid))
		if _, err := os.Stat(fmt.Sprintf("/run/uvs-demo/%d", pid)); err == nil || len(left) > 0 {
			t.Errorf("removing the demo left %v and its directory: %v", left, err)
		}
	}()
	if err != nil {
		t.Fatalf("the demo: %v\n%s", err, out)
	}
	checkDemo(t, string(out))
	// What another program has left up is removed by that one only.
	other := filepath.Join(built, "other")
	must(t, os.MkdirAll(other, 0o755))
	for _, name := range []string{"uvsdemo", "uvsd", "uvsadm"} {
		must(t, os.Link(program(name), filepath.Join(other, name)))
	}
	if out, err := exec.Command(filepath.Join(other, "uvsdemo"), "--remove").CombinedOutput(); err != nil {
		t.Errorf("remove another's demo: %v\n%s", err, out)
	}
	tried := 0
	for line := range strings.Lines(string(out)[strings.Index(string(out), "== Left up"):]) {
		line = strings.TrimSpace(line)
		want := ""
		switch {
		case strings.Contains(line, "curl -s "):
			want = "rs"
		case strings.HasSuffix(line, "-L -n --stats"), strings.HasSuffix(line, "-L -n -c"), strings.HasSuffix(line, " status"), strings.HasSuffix(line, " -w 9"):
		default:
			continue
		}
		got, err := exec.CommandContext(shortly(t), "sh", "-c", line).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %v\n%s", line, err, got)
		}
		tried++
	}
	if tried != 10 {
		t.Errorf("%d commands were found, want 10:\n%s", tried, out)
	}
}
