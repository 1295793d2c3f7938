package health

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/service"
)

// script is a program of the test's.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExec(t *testing.T) {
	to := at("127.0.0.1:8080")
	to.Protocol = service.TCP
	var share []float64
	to.Weigh = func(f float64) { share = append(share, f) }
	args := script(t, `for a; do printf '<%s>' "$a"; done; echo "[$UVS_SERVER $UVS_PORT $UVS_PROTOCOL $HOME]"`)
	for _, c := range []struct {
		name  string
		check Exec
		want  string
	}{
		{"arguments", Exec{Command: args + ` -H %h:%p 'a b' "c\"%h" \%p 100%% $HOME ;ls`},
			`<-H><127.0.0.1:8080><a b><c"127.0.0.1><8080><100%><$HOME><;ls>[127.0.0.1 8080 tcp ]`},
		{"status", Exec{Command: script(t, "echo cannot connect >&2; exit 2")}, "down: status 2: cannot connect"},
		{"dynamic", Exec{Command: script(t, "exit 52"), Dynamic: true}, ""},
		{"beyond", Exec{Command: script(t, "exit 103"), Dynamic: true}, "down: status 103"},
		{"signal", Exec{Command: script(t, "kill -SEGV $$")}, "down: the program died by signal 11"},
		{"no such program", Exec{Command: "/no/such/program"}, "down: no such file"},
		{"not root", Exec{Command: "/usr/bin/id -u", RunAs: "nobody"}, "65534"},
		{"endless output", Exec{Command: script(t, "head -c 10000000 /dev/zero | tr '\\0' x")}, strings.Repeat("x", 100)},
	} {
		t.Run(c.name, func(t *testing.T) { wants(t, &c.check, to, c.want) })
	}
	if !slices.Equal(share, []float64{0.5}) {
		t.Errorf("shares of the weight: %v, want one half", share)
	}
	for option, c := range map[string]Exec{"command": {}, "run_as": {Command: "/bin/true", RunAs: "no-such-user"}} {
		refuses(t, &c, option)
	}
	for _, command := range []string{"true", `/bin/echo 'a`, `/bin/echo a\`, "/bin/echo \x00"} {
		refuses(t, &Exec{Command: command}, "command")
	}
}

// A program that doesn't end is killed with all that it started, and what one leaves behind that ends as well. What holds its
// output open is no reason to wait.
func TestExecKillsTheWholeGroup(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		time time.Duration
		want string
	}{
		"hangs":             {"trap '' TERM INT HUP; sleep 1000 & echo $! >%; wait; sleep 1000", 500 * time.Millisecond, "the program was killed: timed out"},
		"leaves one behind": {"sleep 1000 & echo $! >%", 30 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			p := prepared(t, &Exec{Command: script(t, strings.ReplaceAll(c.text, "%", file))})
			ctx, cancel := context.WithTimeout(t.Context(), c.time)
			defer cancel()
			_, err := p.Probe(ctx, at("127.0.0.1:80"))
			if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("Probe() = %v, want %q", err, c.want)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err) // the machine was so slow that it never came so far
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
					t.Fatal("a child of the program lives on")
				}
			}
		})
	}
}

// alive says that a process is there and not only waits for somebody to ask how it ended.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func FuzzSplitWords(f *testing.F) {
	f.Add(`/usr/lib/check -H %h 'a b' "c\"d" \ e`)
	f.Add(`'`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		n := 0
		for _, w := range words {
			n += len(w)
		}
		if err == nil && n > len(line) {
			t.Errorf("%q became %q", line, words)
		}
	})
}
