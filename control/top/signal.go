package top

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gdamore/tcell/v3"
)

// ending are the signals that end the process: the terminal is given back first. SIGINT and SIGQUIT come from outside, not from
// the keyboard, which sends keys.
var ending = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

func notify() (c chan os.Signal, stop func()) {
	c = make(chan os.Signal, 8)
	signal.Notify(c, append([]os.Signal{syscall.SIGTSTP, syscall.SIGCONT}, ending...)...)
	return c, func() { signal.Stop(c) }
}

// onSignal does what a signal asks for; its error ends the view.
func onSignal(sig os.Signal, screen tcell.Screen, signals <-chan os.Signal) error {
	switch sig {
	case syscall.SIGTSTP:
		return stop(screen, signals)
	case syscall.SIGCONT:
		// Stopped by SIGSTOP, which nobody is told of: the shell has used the terminal in the meantime.
		if err := screen.Suspend(); err != nil {
			return err
		}
		return resume(screen)
	}
	return &EndedBy{sig}
}

// stop gives the terminal back and stops the process, until it is continued. Where nobody would continue it, it does nothing,
// as the kernel does with SIGTSTP.
func stop(screen tcell.Screen, signals <-chan os.Signal) error {
	if !hasShell("/proc", os.Getpid()) {
		return nil
	}
	if err := screen.Suspend(); err != nil {
		return err
	}
	// Not SIGTSTP, which Go's runtime ignores once it has been caught. The whole group, for who runs us may be in it.
	if err := syscall.Kill(0, syscall.SIGSTOP); err != nil {
		return err
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCONT:
			return resume(screen)
		case syscall.SIGTSTP: // stopped already
		default:
			return &EndedBy{sig}
		}
	}
	return nil
}

func resume(screen tcell.Screen) error {
	if err := screen.Resume(); err != nil {
		return err
	}
	screen.Sync()
	return nil
}

// hasShell says that the process's group is a job of a shell with job control: the nearest ancestor outside of the group is of
// the same session. Else the group is orphaned (POSIX), and who is stopped in it stays so.
func hasShell(proc string, pid int) bool {
	parent, group, session, err := relations(proc, pid)
	const farthest = 64
	for range farthest {
		if err != nil {
			return false
		}
		var itsGroup, itsSession, next int
		next, itsGroup, itsSession, err = relations(proc, parent)
		if err == nil && itsGroup != group {
			return itsSession == session
		}
		parent = next
	}
	return false
}

// relations reads a process's parent, group and session (proc_pid_stat(5)).
func relations(proc string, pid int) (parent, group, session int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", proc, pid))
	if err != nil {
		return 0, 0, 0, err
	}
	// The name before may contain anything, a parenthesis too.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	var state string
	_, err = fmt.Sscan(rest, &state, &parent, &group, &session)
	return parent, group, session, err
}
