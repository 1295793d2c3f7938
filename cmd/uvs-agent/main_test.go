package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleVariable makes the test binary be uvs-agent.
const roleVariable = "UVS_AGENT_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func agentCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVariable+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// ask is a director.
func ask(t *testing.T, addr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line))
}

func TestDrainsBySignalCommandAndFile(t *testing.T) {
	dir := t.TempDir()
	socket, drain := filepath.Join(dir, "s"), filepath.Join(dir, "drain")
	cmd := agentCommand("--listen", "127.0.0.1:0", "--socket", socket, "--drain-file", drain)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	first, err := bufio.NewReader(log).ReadString('\n')
	m := regexp.MustCompile(`answers on (\S+): up ready \d+%`).FindStringSubmatch(first)
	if err != nil || m == nil {
		t.Fatalf("the log begins with %q, %v", first, err)
	}
	wait := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			got := ask(t, m[1])
			if regexp.MustCompile("^" + want + "$").MatchString(got) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("it answers %q, want %s", got, want)
			}
		}
	}
	wait(`up ready \d+%`)
	_ = cmd.Process.Signal(syscall.SIGUSR1)
	wait(`up drain \d+%`)
	_ = cmd.Process.Signal(syscall.SIGUSR2)
	wait(`up ready \d+%`)
	if out, err := agentCommand("--socket", socket, "drain", "new", "disk").CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "% #new disk\n") {
		t.Errorf("drain: %v, %q", err, out)
	}
	wait(`up drain \d+% #new disk`)
	if out, err := agentCommand("--socket", socket, "ready").CombinedOutput(); err != nil {
		t.Errorf("ready: %v, %q", err, out)
	}
	if err := os.WriteFile(drain, []byte("file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait(`up drain \d+% #file`)
	if out, err := agentCommand("--socket", socket, "sing").CombinedOutput(); err == nil || !strings.Contains(string(out), "sing") {
		t.Errorf("an unknown command: %v, %q", err, out)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket stays behind")
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", ""}, {"--version", ""}, {"drain why not", ""},
		{"--load 0 --cpu 2.5 --memory 0 --io 1 --least 10 --director 192.0.2.1,2001:db8::/64", ""},
		{"--load -1", "from 0"}, {"--io NaN", "from 0"}, {"--least 0", "percentage"}, {"--director nobody", "nobody"},
		{"--socket= drain", "--socket"}, {"--loud", "loud"},
	} {
		_, err := parseOptions(strings.Fields(c.args), io.Discard)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	o, err := parseOptions([]string{"--director", "192.0.2.1, 10.0.0.0/8"}, io.Discard)
	if err != nil || fmt.Sprint(o.agent.Directors) != "[192.0.2.1/32 10.0.0.0/8]" {
		t.Errorf("parsed %v, %v", o, err)
	}
}
