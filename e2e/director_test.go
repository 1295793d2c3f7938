package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// director is a running uvsd.
type director struct {
	t      testing.TB
	host   *lab.Host
	socket string
	args   []string
	path   string // of the program
	cmd    *lab.Cmd
	log    *logBuffer
	before hostState // as the host was before it
	ended  bool
}

// startDirector runs uvsd in a host of the lab and waits until it answers. At the end of the test it must stop in order
// and leave nothing behind.
func startDirector(t testing.TB, host *lab.Host, path string, args ...string) *director {
	t.Helper()
	d := &director{t: t, host: host, socket: filepath.Join(socketDir(t), "uvsd.sock"), args: args, path: path, log: new(logBuffer)}
	d.before = stateOf(t, host)
	t.Cleanup(func() {
		if t.Failed() && !d.ended {
			status, err := d.tryAdm("", "status")
			t.Logf("status of uvsd %s: %v\n%s", strings.Join(args, " "), err, status)
		}
		if !d.ended {
			d.settle()
			d.stop()
		}
		if t.Failed() {
			t.Logf("log of uvsd %s:\n%s", strings.Join(args, " "), d.log)
		}
	})
	d.start()
	return d
}

// socketDir is a directory for sockets, whose names must be short.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "uvs-s-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start starts the process and waits until it answers.
func (d *director) start() {
	d.t.Helper()
	d.cmd = d.host.Command(d.t.Context(), d.path, append([]string{"--socket", d.socket}, d.args...)...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 "+os.Getenv("GORACE"))
	// The test's context ends before its cleanups run, in which uvsd is asked to stop.
	d.cmd.Cancel = func() error { return os.ErrProcessDone }
	d.cmd.WaitDelay = 0
	must(d.t, d.cmd.Start())
	d.ended = false
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if conn, err := net.Dial("unix", d.socket); err == nil {
			conn.Close()
			break
		}
		if d.cmd.Process.Signal(syscall.Signal(0)) != nil || strings.HasPrefix(d.log.last(), "uvsd: ") || time.Now().After(end) {
			d.ended = true
			d.cmd.Process.Kill()
			d.cmd.Wait()
			d.t.Fatalf("uvsd %s does not come up: %s", strings.Join(d.args, " "), d.log)
		}
	}
	d.adm("version")
}

// stop ends uvsd as a service manager does, which must succeed and leave the host as it was.
func (d *director) stop() {
	d.t.Helper()
	d.ended = true
	start := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.wait(); err != nil {
		d.t.Errorf("uvsd after SIGTERM: %v; its log:\n%s", err, d.log)
	}
	if took := time.Since(start); took > 15*time.Second {
		d.t.Errorf("uvsd took %v to stop", took)
	}
	if _, err := os.Stat(d.socket); err == nil {
		d.t.Errorf("uvsd left its socket behind")
	}
	d.before.check(d.t, d.host)
}

// kill ends uvsd without a chance to clean up.
func (d *director) kill() {
	d.t.Helper()
	d.ended = true
	must(d.t, d.cmd.Process.Kill())
	d.wait()
}

// wait waits for the end of the process, and ends it if it takes too long.
func (d *director) wait() error {
	stuck := time.AfterFunc(10*time.Second, func() { d.cmd.Process.Signal(syscall.SIGQUIT) }) // prints its goroutines
	defer stuck.Stop()
	return d.cmd.Wait()
}

// adm runs uvsadm, which must succeed, and returns what it prints.
func (d *director) adm(args ...string) string {
	d.t.Helper()
	out, err := d.tryAdm("", args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// tryAdm runs uvsadm with something to read. The error has what it said.
func (d *director) tryAdm(stdin string, args ...string) (string, error) {
	cmd := exec.Command(program("uvsadm"), append([]string{"--socket", d.socket}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("uvsadm %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// restore configures many things at once: rules as uvsadm -S prints them.
func (d *director) restore(rules ...string) {
	d.t.Helper()
	if _, err := d.tryAdm(strings.Join(rules, "\n")+"\n", "-R"); err != nil {
		d.t.Fatal(err)
	}
}

// status is what uvsadm status --json says, as far as it is looked at here.
type status struct {
	Revision   uint64
	Interfaces []struct {
		Name, MAC, Mode, Link string
		Offloads              bool
		Addresses             []string
	}
	Workers []struct{ Packets packets }
	Packets packets
	Drops   []struct {
		Reason string
		Count  int
	}
	Connections int
	Warnings    []struct{ Text, Remedy string }
}

type packets struct{ Received, Forwarded, Answered, Passed, Dropped, Held int }

func (d *director) status() status {
	d.t.Helper()
	var s status
	must(d.t, json.Unmarshal([]byte(d.adm("status", "--json")), &s))
	return s
}

// revision counts the changes of the configuration.
func (d *director) revision() uint64 { return d.status().Revision }

// drops is how many frames were dropped for a reason.
func (s status) drops(reason string) int {
	for _, r := range s.Drops {
		if r.Reason == reason {
			return r.Count
		}
	}
	return 0
}

// settle checks that each frame received ended in exactly one verdict: those that wait for something end too.
func (d *director) settle() {
	d.t.Helper()
	var s status
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s = d.status(); s.Packets.Held == 0 || time.Now().After(end) {
			break
		}
	}
	p := s.Packets
	if sum := p.Forwarded + p.Answered + p.Passed + p.Dropped; sum != p.Received || p.Held != 0 {
		d.t.Errorf("%d frames received, but %d forwarded, answered, passed or dropped, and %d held: %+v", p.Received, sum, p.Held, s)
	}
	if p.Received == 0 {
		d.t.Error("no frame received")
	}
}

// logBuffer collects what a process prints.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// last is the last line.
func (b *logBuffer) last() string {
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	return lines[len(lines)-1]
}
