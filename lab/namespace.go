package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns"               // where `ip netns` looks for names
	ownNetns = "/proc/thread-self/ns/net" // the network namespace of the calling thread
)

// Namespace is a network namespace of a Lab: a host, or the switch between hosts.
//
// A nil *Namespace stands for the one the program already runs in. Do, Listen, ListenPacket, the Dial methods,
// HTTPClient, Capture and the servers of this package accept it.
type Namespace struct {
	name string
	lab  *Lab
	path string // bind mount under /run/netns; empty if anonymous

	nl       *netlink.Handle
	hasLinks atomic.Bool   // links of linkGroup were made here
	dials    atomic.Uint32 // each takes another local port

	mu sync.RWMutex // guards fd
	fd int          // of the namespace; -1 once closed
}

// nsID identifies a namespace in the kernel: device and inode of its nsfs file.
type nsID struct{ dev, ino uint64 }

// Namespace makes a new network namespace whose loopback is up. The name is for errors and logs, and in a named lab
// the last part of the name under /run/netns.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	n := &Namespace{name: name, lab: l, fd: -1}
	if l.id != "" {
		n.path = filepath.Join(netnsDir, l.id+"-"+name)
	}
	if err := n.create(); err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	l.spaces = append(l.spaces, n) // from here on Close removes it
	nl, err := netlink.NewHandleAt(netns.NsHandle(n.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in namespace %s: %w", name, err)
	}
	n.nl = nl
	if err := n.SetUp("lo", true); err != nil {
		return nil, err
	}
	return n, nil
}

// create unshares on the calling thread, keeps the new namespace's descriptor, and brings the thread back.
func (n *Namespace) create() (err error) {
	return onVisitingThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		fd, err := unix.Open(ownNetns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", ownNetns, err)
		}
		if n.path != "" {
			if err := bindNamespace(n.path); err != nil {
				unix.Close(fd)
				return err
			}
		}
		n.fd = fd
		return nil
	})
}

// bindNamespace gives the calling thread's namespace a name, as `ip netns add` does.
func bindNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(ownNetns, path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("bind namespace to %s: %w", path, err)
	}
	return nil
}

// onVisitingThread moves the goroutine's thread to another namespace with enter, runs f, and brings the thread back
// whatever f does, be it a panic or the Goexit of a failed test. Visits nest.
func onVisitingThread(enter, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(ownNetns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open %s: %w", ownNetns, err)
	}
	if err := enter(); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			// The thread is still locked. Going on would run the caller's next lines against a lab's network
			// instead of the machine's, or the other way round.
			panic(fmt.Sprintf("lab: cannot bring a thread back to its network namespace: %v", err))
		}
		unix.Close(home)
		runtime.UnlockOSThread()
	}()
	return f()
}

// Do runs f inside the namespace, on the calling goroutine and a thread locked for it. Sockets that f opens and
// processes that it starts stay in the namespace; goroutines that it starts do not run there.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onVisitingThread(n.enter, f)
}

// enter moves the calling thread into the namespace.
func (n *Namespace) enter() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.fd < 0 {
		return fmt.Errorf("enter namespace %s: %w", n.name, errClosed)
	}
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", n.name, err)
	}
	return nil
}

// Name is the namespace's name within its lab, such as "client1".
func (n *Namespace) Name() string {
	if n == nil {
		return "host"
	}
	return n.name
}

// String is Name.
func (n *Namespace) String() string { return n.Name() }

// Path is the namespace's file under /run/netns, or empty if it has no name there.
func (n *Namespace) Path() string { return n.path }

// Netlink is a route-netlink handle inside the namespace, for whatever this package has no method for. It is closed
// with the lab.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// EnterCommand is a shell command that runs what follows it inside the namespace: "nsenter ... ". It works while this
// process runs, and for a kept lab outside a user namespace as long as the machine is up.
func (n *Namespace) EnterCommand() string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	pid := os.Getpid()
	file := fmt.Sprintf("/proc/%d/fd/%d", pid, n.fd)
	if n.path != "" {
		file = n.path
	}
	if !inUserNamespace() {
		return "nsenter --net=" + file
	}
	// Entering the user namespace first gives the right to enter the network; names under /run are its own.
	if n.path != "" {
		file = fmt.Sprintf("/proc/%d/root%s", pid, n.path)
	}
	return fmt.Sprintf("nsenter --preserve-credentials --target %d --user --mount --net=%s", pid, file)
}

// sysctlPath is the file of a sysctl below /proc/sys, given as net/ipv4/ip_forward or net.ipv4.ip_forward.
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return filepath.Join("/proc/sys", name)
}

// Sysctl sets a network sysctl inside the namespace: Sysctl("net/ipv4/ip_forward", "1").
func (n *Namespace) Sysctl(name, value string) error {
	return n.sysctls([]sysctl{{name, value}})
}

// SysctlValue reads a network sysctl inside the namespace, without its final newline.
func (n *Namespace) SysctlValue(name string) (string, error) {
	var value []byte
	err := n.Do(func() (err error) {
		value, err = os.ReadFile(sysctlPath(name))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl in %s: %w", n, err)
	}
	return strings.TrimSpace(string(value)), nil
}

type sysctl struct{ name, value string }

// sysctls sets several in one visit, in order.
func (n *Namespace) sysctls(settings []sysctl) error {
	return n.Do(func() error {
		for _, s := range settings {
			// Without O_CREATE: a misspelt name must say "no such file", not "permission denied".
			f, err := os.OpenFile(sysctlPath(s.name), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString(s.value)
				f.Close()
			}
			if err != nil {
				return fmt.Errorf("set sysctl %s=%s in %s: %w", s.name, s.value, n, err)
			}
		}
		return nil
	})
}

// id identifies the namespace in the kernel.
func (n *Namespace) id() (nsID, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return nsID{}, fmt.Errorf("stat namespace %s: %w", n.name, err)
	}
	return nsID{st.Dev, st.Ino}, nil
}

// close lets go of the namespace. Unless it is kept, its links and its name go too: a socket that somebody left open
// keeps the bare namespace alive, but nothing reaches it any more.
func (n *Namespace) close(keep bool) error {
	var errs []error
	if !keep && n.hasLinks.Load() {
		errs = append(errs, n.deleteLinks())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nl != nil {
		n.nl.Close()
	}
	if n.path != "" && !keep {
		errs = append(errs, unbindNamespace(n.path))
	}
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close namespace %s: %w", n.name, err)
	}
	return nil
}

// unbindNamespace takes a name under /run/netns away.
func unbindNamespace(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT { // EINVAL: not mounted, a maker that died half-way
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
