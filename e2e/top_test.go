package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// terminal is a real shell with job control in a terminal of tmux.
type terminal struct {
	t   *testing.T
	dir string
}

// newTerminal opens a terminal of 80 columns and 24 lines.
func newTerminal(t *testing.T) *terminal {
	t.Helper()
	needs(t, "tmux", "tmux")
	term := &terminal{t: t, dir: socketDir(t)}
	term.tmux("new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=prompt> ", "bash", "--norc", "-i")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal shows\n%s", term.text())
		}
		term.tmux("kill-server")
	})
	term.await("prompt>")
	return term
}

// tmux runs a command of tmux.
func (t *terminal) tmux(args ...string) string {
	t.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-f", "/dev/null", "-S", filepath.Join(t.dir, "tmux")}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HISTFILE=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// text is what the terminal shows.
func (t *terminal) text() string { return t.tmux("capture-pane", "-p") }

// keys presses keys by tmux's names; a text is typed.
func (t *terminal) keys(keys ...string) {
	t.t.Helper()
	t.tmux(append([]string{"send-keys", "-t", ":"}, keys...)...)
}

// await waits until the terminal shows what a regular expression matches.
func (t *terminal) await(pattern string) {
	t.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	eventually(t.t, "the terminal shows "+pattern, func() (bool, any) {
		text := t.text()
		return re.MatchString(text), "\n" + text
	})
}

// settings are those of the terminal, as the shell sees them: line discipline, alternate screen and cursor. The name tells
// one look from another.
func (t *terminal) settings(name string) string {
	t.t.Helper()
	path := filepath.Join(t.dir, name)
	t.keys("stty -a > "+path+"; echo looked-"+name, "Enter")
	t.await("^looked-" + name)
	stty, err := os.ReadFile(path)
	must(t.t, err)
	return string(stty) + t.tmux("display-message", "-p", "alternate screen #{alternate_on}, cursor #{cursor_flag}, keypad #{keypad_flag}, mouse #{mouse_any_flag}")
}

func TestTopInATerminal(t *testing.T) {
	r := newRig(t, rigConfig{NAT: true})
	load := lab.StartHTTPLoad(t.Context(), r.client(), r.url()+"/", 2, 20*time.Second)
	defer load.Stop()
	term := newTerminal(t)
	before := term.settings("before")
	restored := func(name string) {
		t.Helper()
		if now := term.settings(name); now != before {
			t.Errorf("after %s the terminal is\n%s\nit was\n%s", name, now, before)
		}
	}
	start := func() {
		t.Helper()
		term.keys(program("uvsadm")+" --socket "+r.socket+" top --interval 500ms; echo exit=$?", "Enter")
		term.await(`^tcp ` + regexp.QuoteMeta(r.VIP().String()) + `:80 +rr`)
	}
	pid := func() int {
		t.Helper()
		out, err := exec.Command("pgrep", "-f", regexp.QuoteMeta(program("uvsadm")+" --socket "+r.socket+" top")).Output()
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(out)))
		must(t, err)
		return n
	}
	service := fmt.Sprintf(`^tcp %v:80 +rr +2 +\d+ +\d+ +[1-9]\d* +\S+ +\S+`, r.VIP())
	foreground := func() {
		t.Helper()
		term.keys("clear", "Enter") // so that nothing of before is taken for what comes
		term.await(`\A\s*prompt>\s*\z`)
		term.keys("fg", "Enter")
		term.await(service)
	}

	start()
	term.await(service) // with a rate of connections
	term.await(`^  ` + regexp.QuoteMeta(r.webServer(1)) + ` +masq +1 `)
	term.await(`frames/s: [1-9]`)
	term.await(`^q quit .*p pause *$`)

	term.keys("Enter")
	term.await(fmt.Sprintf(`^%v:\d+ +%v:8080 +[A-Z_]+ +\d+:\d\d`, regexp.QuoteMeta(r.Clients[0].Addr().String()), `[\d.]+`))
	term.await(`^tcp \S+:80, \d+ connections .*Esc back`)
	term.keys("Escape")
	term.await(service)
	term.keys("/udp", "Enter")
	term.await(`^\[udp\] q quit`)
	if text := term.text(); strings.Contains(text, "tcp ") {
		t.Errorf("with the filter udp it shows\n%s", text)
	}
	term.keys("/", "C-u", "Enter")
	term.await(service)
	term.keys("?")
	term.await(`any key goes back`)
	term.keys("x")
	term.await(service)

	term.tmux("resize-window", "-x", "40", "-y", "10")
	term.await(`^SERVICE, SERVER +ACTIVE CONN/s$`)
	term.tmux("resize-window", "-x", "12", "-y", "3")
	term.await(`^\S`)
	term.tmux("resize-window", "-x", "80", "-y", "24")
	term.await(service)

	term.keys("C-z")
	term.await(`Stopped`)
	restored("C-z")
	foreground()
	must(t, syscall.Kill(pid(), syscall.SIGTSTP))
	term.await(`Stopped`)
	restored("SIGTSTP")
	foreground()
	must(t, syscall.Kill(pid(), syscall.SIGSTOP))
	term.await(`Stopped`)
	foreground()
	term.keys("q")
	term.await(`^prompt>`)
	term.keys("echo left=$?", "Enter")
	term.await(`^left=0`)
	restored("q")

	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		term.keys("clear", "Enter")
		start()
		must(t, syscall.Kill(pid(), sig))
		term.await(fmt.Sprintf(`^exit=%d`, 128+int(sig)))
		restored(fmt.Sprintf("signal-%d", sig))
	}
	term.keys("clear", "Enter")
	start()
	term.keys("C-c")
	term.await(`^exit=0`)
	restored("C-c")
}

func TestTopWithoutATerminal(t *testing.T) {
	cmd := exec.Command(program("uvsadm"), "--socket", "/nowhere", "top")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal at all
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no terminal") {
		t.Errorf("uvsadm top without a terminal: %v, %s", err, out)
	}
}
