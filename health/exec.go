package health

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exec is the kind "exec": a program decides. It ends with status 0 if the server can serve and with another if not, and what it
// prints first is the reason. No shell is involved. When its time is over it is killed, with all the processes that it
// started; also what a program leaves behind that ends in time.
type Exec struct {
	// Command is the program's path and its arguments, with blanks between them; quotation marks, single or double, keep one with
	// blanks together, and a backslash takes the meaning of what follows. In an argument %h is the real server's address, %p its
	// port, %% a percent sign. The program also finds them in its environment as UVS_SERVER and UVS_PORT, with the service's
	// protocol as UVS_PROTOCOL; beside them it has PATH alone.
	Command string `json:"command"`
	// Match is a regular expression (Go's, RE2) that must match somewhere in what the program prints, beside its status. Default:
	// whatever it prints.
	Match string `json:"match,omitempty"`
	// RunAs is the user that the program runs as. Default: uvsd's own, mostly root, which is more than a check should be.
	RunAs string `json:"run_as,omitempty"`
	// Dynamic is for programs that say what the server can take: status 2 is nothing of its weight, 102 all of it, in percent, as
	// misc_dynamic of keepalived has it for a weight of 100; 0 is all as well, 1 down. Default: only 0 is good.
	Dynamic bool `json:"dynamic,omitempty"`

	words []string
	match *regexp.Regexp
	cred  *syscall.Credential
}

const (
	maxExecOutput = 4 << 10 // how much of what a program prints is kept
	execPath      = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	execGrace     = 100 * time.Millisecond // for what a program printed to arrive
	dynamicFirst  = 2
	dynamicLast   = 102
)

// Kind implements Prober.
func (*Exec) Kind() string { return "exec" }

// DirectOnly implements DirectOnly.
func (*Exec) DirectOnly() {}

// Prepare implements Prober.
func (e *Exec) Prepare() error {
	words, err := splitWords(e.Command)
	if err != nil {
		return fmt.Errorf("command: %w", err)
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], "/") {
		return errors.New("command: it begins with the path of a program")
	}
	e.words = words
	if e.Match != "" {
		if e.match, err = regexp.Compile(e.Match); err != nil {
			return fmt.Errorf("match: %w", err)
		}
	}
	if e.RunAs == "" {
		return nil
	}
	who, err := user.Lookup(e.RunAs)
	if err != nil {
		return fmt.Errorf("run_as: %w", err)
	}
	uid, err1 := strconv.ParseUint(who.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(who.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("run_as: %w", err)
	}
	e.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// Probe implements Prober.
func (e *Exec) Probe(ctx context.Context, to *Target) (string, error) {
	host, port := to.Server.Addr().String(), strconv.Itoa(int(to.Server.Port()))
	in := strings.NewReplacer("%h", host, "%p", port, "%%", "%")
	words := make([]string, len(e.words))
	for i, w := range e.words {
		words[i] = w
		if i > 0 {
			words[i] = in.Replace(w)
		}
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"PATH=" + execPath, "UVS_SERVER=" + host, "UVS_PORT=" + port, "UVS_PROTOCOL=" + strings.ToLower(to.Protocol.String())}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: e.cred}
	cmd.WaitDelay = execGrace
	out := &firstOutput{}
	cmd.Stdout, cmd.Stderr = out, out
	to.record(true, []byte(strings.Join(words, " ")+"\n"))
	if err := cmd.Start(); err != nil {
		return "", err // of want of processes or files as well, which the engine knows
	}
	status, err := await(ctx, cmd)
	text := out.text()
	to.record(false, []byte(text))
	said, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	said = printable(said)
	if err != nil {
		return "", because("the program was killed", err)
	}
	good := e.match == nil || e.match.MatchString(text)
	switch code := status.ExitStatus(); {
	case !status.Signaled() && !good:
		return "", fmt.Errorf("status %d, and what it printed doesn't match: %s", code, said)
	case status.Signaled():
		return "", fmt.Errorf("the program died by signal %d (%v): %s", int(status.Signal()), status.Signal(), said)
	case code == 0:
		return said, nil
	case e.Dynamic && code >= dynamicFirst && code <= dynamicLast:
		if to.Weigh != nil {
			to.Weigh(float64(code-dynamicFirst) / (dynamicLast - dynamicFirst))
		}
		return said, nil
	default:
		return "", fmt.Errorf("status %d: %s", code, said)
	}
}

// await waits for a program's end, or ends it when ctx does, with its whole process group.
func await(ctx context.Context, cmd *exec.Cmd) (syscall.WaitStatus, error) {
	var mu sync.Mutex // guards reaped: afterwards the group's number may be another's
	reaped := false
	kill := func() {
		if !reaped {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	}
	done := make(chan syscall.WaitStatus, 1)
	go func() { // ends with the program, which is killed at the latest when ctx ends
		for {
			// It stays a zombie, which keeps the group's number.
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				break
			}
		}
		mu.Lock()
		kill()
		reaped = true
		mu.Unlock()
		_ = cmd.Wait() // its status is in ProcessState, whatever became of its output
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		done <- status
	}()
	select {
	case status := <-done:
		return status, nil
	case <-ctx.Done():
	}
	mu.Lock()
	kill()
	mu.Unlock()
	select {
	case <-done:
	case <-time.After(5 * execGrace): // it hangs in a system call: nobody waits for that, but who reaps it
	}
	return 0, ctx.Err()
}

// firstOutput keeps the beginning of what is written to it.
type firstOutput struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (o *firstOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, b[:min(len(b), maxExecOutput-len(o.b))]...)
	return len(b), nil
}

func (o *firstOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// splitWords splits a command line as a shell does that knows blanks, quotation marks and backslashes alone.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
			continue
		case '\\':
			if i++; i == len(line) {
				return nil, errors.New(`a \ at the end`)
			}
			word.WriteByte(line[i])
		case '\'', '"':
			for i++; i < len(line) && line[i] != c; i++ {
				if line[i] == '\\' && c == '"' && i+1 < len(line) {
					i++
				}
				word.WriteByte(line[i])
			}
			if i == len(line) {
				return nil, fmt.Errorf("a quotation mark %c without its other", c)
			}
		case 0:
			return nil, errors.New("a byte of 0")
		default:
			word.WriteByte(c)
		}
		begun = true
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
