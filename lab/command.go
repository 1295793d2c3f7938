package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Cmd is an exec.Cmd that starts inside a namespace. It has exec.Cmd's fields and pipes; Start, Run, Wait, Output and
// CombinedOutput are its own.
//
// The process is killed when its lab is closed, and, but for a kept lab, when this process dies.
type Cmd struct {
	*exec.Cmd
	ns       *Namespace
	waitOnce sync.Once
	waitErr  error
}

// Command prepares a program to run inside the namespace, as exec.CommandContext does; the end of ctx kills it.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: n}
	c.WaitDelay = 2 * time.Second // for pipes that grandchildren hold open
	return c
}

// Start starts the process.
func (c *Cmd) Start() error {
	l := c.ns.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("start %s in %s: %w", c.Path, c.ns, errClosed)
	}
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	if l.keep {
		c.SysProcAttr.Setsid = true // outlives the terminal's ^C, as it outlives us
	} else if c.SysProcAttr.Pdeathsig == 0 {
		c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if l.spawner == nil {
		l.spawner = startSpawner()
	}
	if err := l.spawner.do(func() error { return c.ns.Do(c.Cmd.Start) }); err != nil {
		return fmt.Errorf("start in %s: %w", c.ns, err)
	}
	l.cmds[c] = struct{}{}
	return nil
}

// Wait waits for the process's end as exec.Cmd.Wait does. Unlike there, calling it again gives the same answer, so
// that Close can wait too.
func (c *Cmd) Wait() error {
	if c.Process == nil {
		return errors.New("exec: not started")
	}
	c.waitOnce.Do(func() {
		c.waitErr = c.Cmd.Wait()
		l := c.ns.lab
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.cmds, c)
	})
	return c.waitErr
}

// Run starts the process and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var stdout bytes.Buffer
	c.Stdout = &stdout
	err := c.Run()
	return stdout.Bytes(), err
}

// CombinedOutput runs the process and returns what it wrote to its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run()
	return both.Bytes(), err
}

// spawner starts a lab's processes, all from one thread. The parent-death signal comes when the *thread* that started
// a child ends, not the process: from a goroutine's thread of the moment it could come at any time.
type spawner struct {
	requests chan func()
	ended    chan struct{}
}

func startSpawner() *spawner {
	s := &spawner{requests: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		runtime.LockOSThread() // and so alive until the lab is closed and the children are dead
		defer runtime.UnlockOSThread()
		for f := range s.requests {
			f()
		}
	}()
	return s
}

// do runs f on the spawner's thread and returns its error.
func (s *spawner) do(f func() error) error {
	result := make(chan error)
	s.requests <- func() { result <- f() }
	return <-result
}

// stop ends the goroutine and waits for it.
func (s *spawner) stop() {
	close(s.requests)
	<-s.ended
}
