package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// TB is the part of testing.TB that DR and NAT use, small enough that a program without tests can offer it too.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Options are the settings of a Lab. The zero value makes an anonymous one.
type Options struct {
	// Name tells labs of one process apart in the names of named namespaces: letters and digits. Default "lab".
	Name string
	// Named also gives each namespace a name under /run/netns, as `ip netns add` does, so that other programs can
	// enter it: uvs-PID-NAME-client1 for the namespace client1.
	Named bool
	// Keep leaves everything standing at Close: implies Named. RemoveKept of this process removes it later. In a user namespace (see
	// Reexec) what is kept stands only as long as a process runs there.
	Keep bool
}

// Lab owns what it makes: namespaces, links, processes, servers, captures. Its methods may be called at once from
// several goroutines.
type Lab struct {
	name string
	id   string // "uvs-PID-NAME", the prefix of named namespaces; empty for an anonymous lab
	keep bool

	veths atomic.Uint32 // made so far

	mu      sync.Mutex // guards what follows; never held while a child is waited for or a closer runs
	closed  bool
	spaces  []*Namespace
	closers map[*closer]struct{}
	order   int // of the closers
	cmds    map[*Cmd]struct{}
	spawner *spawner
	state   *os.File // locked while this process owns the named namespaces
}

// closer is one thing to close with the lab, in reverse order of making.
type closer struct {
	order int
	close func() error
}

// New makes an empty lab. With Named or Keep set it first removes what a crashed run left behind.
func New(o Options) (*Lab, error) {
	if o.Name == "" {
		o.Name = "lab"
	}
	l := &Lab{name: o.Name, keep: o.Keep, closers: map[*closer]struct{}{}, cmds: map[*Cmd]struct{}{}}
	if o.Named || o.Keep {
		if err := l.claimName(); err != nil {
			return nil, fmt.Errorf("lab %s: %w", o.Name, err)
		}
	}
	return l, nil
}

// errClosed is what every method answers after Close.
var errClosed = errors.New("the lab is closed")

// own registers f to run when the lab is closed, and returns a function that takes it off the list again, for things
// that were closed before.
func (l *Lab) own(f func() error) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	l.order++
	c := &closer{order: l.order, close: f}
	l.closers[c] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.closers, c)
	}, nil
}

// Discard makes a kept lab one that Close removes, for a program that fails before there is something worth keeping.
func (l *Lab) Discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = false
}

// Close ends every process, server and capture of the lab and removes its links and namespaces. A kept lab's
// processes, links and namespaces stay; its servers and captures, which live in this process, don't. Closing twice
// is harmless.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	cmds := make([]*Cmd, 0, len(l.cmds))
	for c := range l.cmds {
		cmds = append(cmds, c)
	}
	closers := make([]*closer, 0, len(l.closers))
	for c := range l.closers {
		closers = append(closers, c)
	}
	spaces, spawner := l.spaces, l.spawner
	l.mu.Unlock()

	var errs []error
	if !l.keep {
		errs = append(errs, endProcesses(cmds, spaces, spawner != nil || l.id != ""))
	}
	slices.SortFunc(closers, func(a, b *closer) int { return b.order - a.order })
	for _, c := range closers {
		errs = append(errs, c.close())
	}
	for _, n := range spaces {
		errs = append(errs, n.close(l.keep))
	}
	if spawner != nil {
		spawner.stop()
	}
	if l.state != nil {
		errs = append(errs, l.releaseName())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab %s: %w", l.name, err)
	}
	return nil
}

// endProcesses kills the lab's children, and, where others can be there, every process inside its namespaces:
// grandchildren, or a shell that somebody opened in a named one.
func endProcesses(cmds []*Cmd, spaces []*Namespace, others bool) error {
	for _, c := range cmds {
		c.Process.Kill() // an error says it's already over; Wait below knows
	}
	var err error
	if others {
		ids := make(map[nsID]bool, len(spaces))
		for _, n := range spaces {
			id, idErr := n.id()
			if idErr != nil {
				err = errors.Join(err, idErr)
				continue
			}
			ids[id] = true
		}
		err = errors.Join(err, killInside(ids))
	}
	for _, c := range cmds {
		c.Wait() // its status was the owner's business, and says "killed" now
	}
	return err
}
