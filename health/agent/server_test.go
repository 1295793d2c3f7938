package agent

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// begin runs an agent whose host has one process for each CPU, and returns its address.
func begin(t *testing.T, cfg Config) (a *Agent, addr string) {
	t.Helper()
	cfg.Proc, cfg.CPUs, cfg.Importance = fstest.MapFS{"loadavg": file("2.00 0 0 1/1 1\n")}, 2, DefaultImportance
	a = New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return a.Serve(ctx, l) })
	return a, l.Addr().String()
}

func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// ask is a director that sends something first, as HAProxy's agent-send does.
func ask(t *testing.T, addr, send string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	line, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	return string(line)
}

func TestAnswersDirectors(t *testing.T) {
	a, addr := begin(t, Config{})
	for _, send := range []string{"", "hello\n", strings.Repeat("x", 5000)} {
		if got := ask(t, addr, send); got != "up ready 50%\n" {
			t.Errorf("answer %q", got)
		}
	}
	if err := a.cfg.Drain.Set("drain"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr, ""); got != "up drain 50%\n" {
		t.Errorf("answer %q", got)
	}
}

// Those that connect and neither read nor close hold nobody up for longer than inTime, and more of them than are served.
func TestSilentDirectorsHoldNobodyUp(t *testing.T) {
	_, addr := begin(t, Config{})
	for range maxConns + 10 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := ask(t, addr, ""); got != "up ready 50%\n" {
		t.Errorf("answer %q", got)
	}
}

func TestAnswersOnlyThoseAllowed(t *testing.T) {
	_, addr := begin(t, Config{Directors: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if got := ask(t, addr, ""); got != "" {
		t.Errorf("a stranger is told %q", got)
	}
	_, addr = begin(t, Config{Directors: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.0/8")}})
	if got := ask(t, addr, ""); got != "up ready 50%\n" {
		t.Errorf("answer %q", got)
	}
}

func TestNoWeightWithoutLoad(t *testing.T) {
	var logged []string
	a := New(Config{Proc: fstest.MapFS{}, Log: func(format string, _ ...any) { logged = append(logged, format) }})
	for range 2 {
		if got := a.Reply().String(); got != "up ready" {
			t.Errorf("reply %q", got)
		}
		a.read = time.Time{}
	}
	if len(logged) != 1 {
		t.Errorf("logged %q", logged)
	}
}

func TestCommands(t *testing.T) {
	a, addr := begin(t, Config{Least: 60})
	socket := filepath.Join(t.TempDir(), "s")
	for range 2 { // the second replaces what a crash left behind
		l, err := ListenControl(socket)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	l, err := ListenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return a.Control(ctx, l) })
	if _, err := ListenControl(socket); err == nil {
		t.Error("two agents have one socket")
	}
	for _, c := range []struct{ command, want string }{
		{"status", "up ready 60%"}, {"drain going home", "up drain 60% #going home"}, {"down", "down drain 60%"}, {"ready", "up ready 60%"},
		{"maint", "up maint 60%"},
	} {
		if got, err := Tell(t.Context(), socket, c.command); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.command, got, err, c.want)
		}
	}
	if got := ask(t, addr, ""); got != "up maint 60%\n" {
		t.Errorf("answer %q", got)
	}
	for _, command := range []string{"explode", "", "drain\nready", strings.Repeat("x", 2*MaxLine)} {
		if got, err := Tell(t.Context(), socket, command); err == nil {
			t.Errorf("command %q is answered %q", command, got)
		}
	}
	if _, err := Tell(t.Context(), socket+"x", "status"); err == nil {
		t.Error("nobody answers, and that is no error")
	}
}
