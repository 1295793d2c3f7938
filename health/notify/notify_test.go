package notify

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// begin runs a Notifier and returns what it logs.
func begin(t *testing.T) (*Notifier, *observer.ObservedLogs, context.CancelFunc) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	n := New(zap.New(core))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return n, logs, stop
}

func eventually(t *testing.T, what string, done func() (bool, any)) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		ok, seen := done()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s: %v", what, seen)
		}
	}
}

// script writes a program.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	// Another test's fork may still hold the descriptor that it was written by (ETXTBSY).
	time.Sleep(10 * time.Millisecond)
	return path
}

func lines(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestTellsInOrderWithoutShell(t *testing.T) {
	n, _, _ := begin(t)
	out := filepath.Join(t.TempDir(), "out")
	program := script(t, `printf '%s|' "$@" >>`+out+"\necho $UVS_STATE >>"+out+"\n")
	for i, state := range []string{"down", "up"} {
		n.Tell(Event{
			About: "rs1", Program: []string{program, "%h", "a b", "; touch /x $(id)", "%%h", "%h%p%"}, Env: []string{"UVS_STATE=" + state},
			Names: map[string]string{"%h": "192.0.2.11 %p", "%p": "80"}, Timeout: time.Minute,
		})
		eventually(t, "the program ran", func() (bool, any) { l := lines(out); return len(l) == i+1 && l[i] != "", l })
	}
	want := "192.0.2.11 %p|a b|; touch /x $(id)|%h|192.0.2.11 %p80%|"
	if got := lines(out); got[0] != want+"down" || got[1] != want+"up" {
		t.Errorf("told\n%q, want\n%q", got, want)
	}
	n.Tell(Event{About: "nobody"})
}

// While a program runs, of the events about the same thing only the latest waits; those about other things don't.
func TestOneAtATimeAndTheLatest(t *testing.T) {
	n, _, _ := begin(t)
	dir := t.TempDir()
	out, gate := filepath.Join(dir, "out"), filepath.Join(dir, "gate")
	program := script(t, "echo $1 >>"+out+"\nwhile [ $1 = first ] && [ ! -e "+gate+" ]; do sleep 0.01; done\n")
	tell := func(about, what string) {
		n.Tell(Event{About: about, Program: []string{program, what}, Timeout: time.Minute})
	}
	tell("rs1", "first")
	eventually(t, "the first runs", func() (bool, any) { l := lines(out); return l[0] == "first", l })
	for i := range 100 {
		tell("rs1", fmt.Sprint(i))
	}
	tell("rs2", "other")
	eventually(t, "the other ran", func() (bool, any) { l := lines(out); return len(l) == 2, l })
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the latest ran", func() (bool, any) { l := lines(out); return len(l) == 3 && l[2] == "99", l })
}

// A program that hangs is killed with what it started, and never are more than most there.
func TestKillsWhatHangs(t *testing.T) {
	n, logs, _ := begin(t)
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	program := script(t, "echo talk\nsleep 1000 & echo $! >>"+pids+"\nwait\n")
	const programs = most + 3
	for i := range programs {
		n.Tell(Event{About: fmt.Sprint(i), Program: []string{program}, Timeout: 1500 * time.Millisecond})
	}
	eventually(t, "programs were killed", func() (bool, any) {
		n.mu.Lock()
		if len(n.running) > most {
			t.Errorf("%d programs run at once", len(n.running))
		}
		n.mu.Unlock()
		l := logs.FilterMessageSnippet("took too long").All()
		return len(l) == programs, len(l)
	})
	if !slices.ContainsFunc(logs.FilterMessageSnippet("took too long").All(), func(l observer.LoggedEntry) bool { // on a busy machine some are killed sooner
		return l.ContextMap()["said"] == "talk\n"
	}) {
		t.Error("the log has nothing of what they said")
	}
	for _, l := range lines(pids) {
		pid, err := strconv.Atoi(l)
		if err != nil {
			continue // killed before it wrote
		}
		eventually(t, "its child is gone", func() (bool, any) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || strings.Contains(string(stat), ") Z "), string(stat)
		})
	}
}

func TestSaysWhatFailed(t *testing.T) {
	n, logs, _ := begin(t)
	n.Tell(Event{About: "a", Program: []string{script(t, "yes | head -c 100000\nexit 3\n")}, Timeout: time.Minute})
	n.Tell(Event{About: "b", Program: []string{"/nonexistent"}, Timeout: time.Minute})
	eventually(t, "both are logged", func() (bool, any) { l := logs.FilterMessageSnippet("failed").All(); return len(l) == 2, l })
	for _, l := range logs.FilterMessageSnippet("failed").All() {
		if m := l.ContextMap(); m["about"] == "a" && (m["error"] != "exit status 3" || !strings.HasSuffix(m["said"].(string), "bytes more)")) {
			t.Errorf("logged %v", m)
		}
	}
}

// What runs when uvsd stops doesn't hold it up.
func TestStops(t *testing.T) {
	n, _, stop := begin(t)
	pid := filepath.Join(t.TempDir(), "pid")
	n.Tell(Event{About: "a", Program: []string{script(t, "echo $$ >"+pid+"\nsleep 1000\n")}, Timeout: time.Hour})
	eventually(t, "it runs", func() (bool, any) { l := lines(pid); return l[0] != "", l })
	stop()
	p, err := strconv.Atoi(lines(pid)[0])
	if err != nil || syscall.Kill(p, 0) == nil {
		t.Errorf("process %d lives on, %v", p, err)
	}
}
