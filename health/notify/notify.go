// Package notify runs programs that are told of changes: never by a shell, each for a limited time, few at once, and in order
// where they are about the same thing. Who tells never waits.
package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Event is a change and the program that is to be told of it.
type Event struct {
	// About is what changed. Of events about the same thing one program runs at a time, in their order, and of those that wait
	// only the latest: what is no longer so is told to nobody.
	About string
	// Program is the program and its arguments, in which Names are put in place.
	Program []string
	// Names are what stands for what in Program, such as "%h" for the real server's address. "%%" is a percent sign.
	Names map[string]string
	// Env is what the program has in its environment beside PATH, as "NAME=value".
	Env []string
	// Timeout is how long it may take before it is killed with all that it started.
	Timeout time.Duration
}

const (
	// most are how many programs run at once.
	most = 8
	// maxWaiting are how many events wait; there is at most one for each thing, so that this many things changed at once.
	maxWaiting = 1 << 16
	// maxSaid is how much of a program's output is kept for the log.
	maxSaid = 2048
	// leave is how long a program's children may hold its output open after it has ended.
	leave = time.Second
)

// Notifier runs programs. Tell may be called by many goroutines.
type Notifier struct {
	log *zap.Logger

	mu      sync.Mutex
	waiting map[string]Event // by About; guarded by mu, as are the next two
	order   []string         // of those that wait
	running map[string]bool  // by About

	wake chan struct{}
}

// New returns a Notifier that logs to log.
func New(log *zap.Logger) *Notifier {
	if log == nil {
		log = zap.NewNop()
	}
	return &Notifier{log: log, waiting: map[string]Event{}, running: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// Tell has a program run, soon. An event without program is none.
func (n *Notifier) Tell(e Event) {
	if len(e.Program) == 0 {
		return
	}
	n.mu.Lock()
	_, had := n.waiting[e.About]
	full := !had && len(n.waiting) >= maxWaiting
	if !full {
		if n.waiting[e.About] = e; !had {
			n.order = append(n.order, e.About)
		}
	}
	n.mu.Unlock()
	if full {
		n.log.Error("a program is not told: too many wait already", zap.String("about", e.About), zap.Strings("program", e.Program))
		return
	}
	n.poke()
}

func (n *Notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default: // it is awake
	}
}

// Run runs what is told until ctx ends; then it kills what runs.
func (n *Notifier) Run(ctx context.Context) error {
	var programs sync.WaitGroup
	defer programs.Wait()
	for {
		for {
			e, ok := n.next()
			if !ok {
				break
			}
			programs.Go(func() {
				n.run(ctx, &e)
				n.mu.Lock()
				delete(n.running, e.About)
				n.mu.Unlock()
				n.poke()
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		}
	}
}

// next takes the first event that may run now.
func (n *Notifier) next() (Event, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.running) >= most {
		return Event{}, false
	}
	for i, about := range n.order {
		if !n.running[about] {
			e := n.waiting[about]
			delete(n.waiting, about)
			n.order = append(n.order[:i:i], n.order[i+1:]...)
			n.running[about] = true
			return e, true
		}
	}
	return Event{}, false
}

// run runs one program to its end.
func (n *Notifier) run(ctx context.Context, e *Event) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	words := e.words()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, e.Env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = leave
	said := new(head)
	cmd.Stdout, cmd.Stderr = said, said
	began := time.Now()
	err := cmd.Run()
	fields := []zap.Field{zap.String("about", e.About), zap.Strings("program", words), zap.Duration("took", time.Since(began))}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it ended well and left something running
		n.log.Debug("a program was told", fields...)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		n.log.Error("a program that was told took too long and was killed", append(fields, zap.String("said", said.String()))...)
	case ctx.Err() != nil: // uvsd stops
	default:
		n.log.Error("a program that was told failed", append(fields, zap.Error(err), zap.String("said", said.String()))...)
	}
}

// words are the program and its arguments with the names put in place.
func (e *Event) words() []string {
	pairs := []string{"%%", "%"}
	for name, value := range e.Names {
		pairs = append(pairs, name, value)
	}
	r := strings.NewReplacer(pairs...)
	words := make([]string, len(e.Program))
	for i, w := range e.Program {
		if words[i] = w; i > 0 {
			words[i] = r.Replace(w)
		}
	}
	return words
}

// head keeps the beginning of what is written to it.
type head struct {
	kept bytes.Buffer
	more int
}

// Write implements io.Writer.
func (t *head) Write(b []byte) (int, error) {
	n := min(maxSaid-t.kept.Len(), len(b))
	t.kept.Write(b[:n])
	t.more += len(b) - n
	return len(b), nil
}

func (t *head) String() string {
	s := strings.ToValidUTF8(t.kept.String(), "?")
	if t.more > 0 {
		s += fmt.Sprintf("... (%d bytes more)", t.more)
	}
	return s
}
