package guard

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// space is a network namespace of a test: a host of its own.
type space struct {
	t  *testing.T
	ns netns.NsHandle
	*netlink.Handle
}

// newSpace makes an empty host with its loopback up; it ends with the test.
func newSpace(t *testing.T) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root to make network namespaces")
	}
	type made struct {
		ns  netns.NsHandle
		err error
	}
	ch := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		ns, err := netns.New()
		ch <- made{ns, err}
	}()
	m := <-ch
	if m.err != nil {
		t.Fatalf("netns.New: %v", m.err)
	}
	h, err := netlink.NewHandleAt(m.ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("netlink in the new namespace: %v", err)
	}
	s := &space{t, m.ns, h}
	t.Cleanup(func() { h.Close(); m.ns.Close() })
	s.up("lo")
	return s
}

// in runs f in the namespace.
func (s *space) in(f func() error) {
	s.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.LinkByName(name)
	if err != nil {
		s.t.Fatalf("link %s: %v", name, err)
	}
	return l
}

func (s *space) up(name string) { s.t.Helper(); s.must(s.LinkSetUp(s.link(name))) }

func (s *space) mac(name string) packet.MAC { return packet.MAC(s.link(name).Attrs().HardwareAddr) }

// addr gives an interface an address such as 10.0.0.1/24.
func (s *space) addr(name, prefix string) {
	s.t.Helper()
	s.must(s.AddrReplace(s.link(name), address(s.t, prefix)))
}

func address(t *testing.T, prefix string) *netlink.Addr {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	a.Flags |= unix.IFA_F_NODAD
	return a
}

// defaultRoute makes the route to everywhere.
func (s *space) defaultRoute(gateway string) {
	s.t.Helper()
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	s.must(s.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP(gateway)}))
}

// sysctl writes a file below /proc/sys/net.
func (s *space) sysctl(path, value string) {
	s.t.Helper()
	s.in(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644) })
}

// wire joins two hosts by a cable with an interface at either end, both up.
func wire(a *space, nameA string, b *space, nameB string) {
	a.t.Helper()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns),
	}
	a.must(a.LinkAdd(veth))
	a.up(nameA)
	b.up(nameB)
}

// await fails the test unless ok becomes true in time. what says what is awaited.
func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

const (
	soon = 2 * time.Second // for what should take milliseconds, on a busy machine
)
