package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// space is a network namespace of a test's own, gone when the test ends.
type space struct {
	tb testing.TB
	h  netns.NsHandle
	nl *netlink.Handle
}

func newSpace(tb testing.TB) *space {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		tb.Fatalf("this thread's network namespace: %v", err)
	}
	defer home.Close()
	h, err := netns.New() // enters it
	if err != nil {
		tb.Fatalf("new network namespace: %v (needs root)", err)
	}
	// Keeps neighbour discovery out of the frames that tests count.
	for _, which := range []string{"all", "default"} {
		os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
	}
	if err := netns.Set(home); err != nil {
		runtime.LockOSThread() // the thread must not serve anyone else
		tb.Fatalf("return from the namespace: %v", err)
	}
	nl, err := netlink.NewHandleAt(h)
	if err != nil {
		tb.Fatalf("netlink: %v", err)
	}
	s := &space{tb: tb, h: h, nl: nl}
	tb.Cleanup(func() {
		nl.Close()
		h.Close()
	})
	return s
}

// do runs f on a thread inside the namespace.
func (s *space) do(f func()) {
	s.tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		s.tb.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(s.h); err != nil {
		s.tb.Fatal(err)
	}
	defer netns.Set(home)
	f()
}

// link finds an interface.
func (s *space) link(name string) netlink.Link {
	s.tb.Helper()
	l, err := s.nl.LinkByName(name)
	if err != nil {
		s.tb.Fatalf("interface %s: %v", name, err)
	}
	return l
}

func (s *space) up(name string) {
	s.tb.Helper()
	if err := s.nl.LinkSetUp(s.link(name)); err != nil {
		s.tb.Fatalf("%s up: %v", name, err)
	}
}

func (s *space) down(name string) {
	s.tb.Helper()
	if err := s.nl.LinkSetDown(s.link(name)); err != nil {
		s.tb.Fatalf("%s down: %v", name, err)
	}
}

// address gives an interface an address, "10.0.0.1/24".
func (s *space) address(name, cidr string) {
	s.tb.Helper()
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := s.nl.AddrAdd(s.link(name), addr); err != nil {
		s.tb.Fatalf("%s on %s: %v", cidr, name, err)
	}
}

// veth joins two namespaces by a pair of interfaces, up and with offloads on, as the kernel makes them.
func veth(a *space, aName string, b *space, bName string) {
	a.tb.Helper()
	err := a.nl.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.h),
	})
	if err != nil {
		a.tb.Fatalf("veth %s-%s: %v", aName, bName, err)
	}
	a.up(aName)
	b.up(bName)
	a.settle(aName)
	b.settle(bName)
}

// settle waits until the kernel has noticed that the other end is up. Before that it takes frames and drops them.
func (s *space) settle(name string) {
	s.tb.Helper()
	for range 1000 {
		if s.link(name).Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	s.tb.Fatalf("%s does not come up", name)
}

// open opens a link in the namespace, closed when the test ends.
func (s *space) open(cfg Config) *Socket {
	s.tb.Helper()
	var l *Socket
	var err error
	s.do(func() { l, err = Open(cfg) })
	if err != nil {
		s.tb.Fatalf("Open(%+v): %v", cfg, err)
	}
	s.tb.Cleanup(func() { l.Close() })
	return l
}

// kinds are the ways to receive that every test of the contract goes through.
var kinds = []struct {
	name string
	cfg  Config
}{
	{"ring", Config{Kind: KindRing}},
	{"ring of large slots", Config{Kind: KindRing, SlotSize: 64 << 10}},
	{"ring without headers", Config{Kind: KindRing, NoVnet: true}},
	{"simple", Config{Kind: KindSimple}},
	{"simple without headers", Config{Kind: KindSimple, NoVnet: true}},
}

func (c Config) on(name string) Config {
	c.Interface = name
	return c
}

// got is a received frame, copied out.
type got struct {
	vnet packet.Vnet
	eth  []byte
	meta meta
}

// meta is what is said beside a frame.
type meta struct {
	vlan, tpid        uint16
	tagged, truncated bool
	kind              uint8
}

func copyOut(f *Frame) got {
	return got{
		vnet: *f.Vnet(),
		eth:  bytes.Clone(f.Eth()),
		meta: meta{f.VLAN, f.TPID, f.Tagged, f.Truncated, f.Type},
	}
}

// receive takes frames until n have come or nothing came for a while, giving every batch back. Frames of other
// protocols than the tests' own are passed over.
func receive(tb testing.TB, l Link, n int) []got {
	tb.Helper()
	return receiveThose(tb, l, n, func(eth []byte) bool { return binary.BigEndian.Uint16(eth[12:]) == testProto })
}

// receiveThose is receive for the frames that are says yes to.
func receiveThose(tb testing.TB, l Link, n int, are func(eth []byte) bool) []got {
	tb.Helper()
	p, err := NewPoller(l)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	var all []got
	frames := make([]Frame, 32)
	quiet := 2 * time.Second // a busy machine may be slow; only a failing test waits so long
	if n == 0 {
		quiet = 100 * time.Millisecond
	}
	for len(all) < n || n == 0 {
		if p.Wait(quiet) == 0 {
			break
		}
		for {
			k := l.Recv(frames)
			for _, f := range frames[:k] {
				if len(f.Eth()) >= 14 && are(f.Eth()) {
					all = append(all, copyOut(&f))
				}
			}
			l.Release()
			if k == 0 {
				break
			}
		}
	}
	return all
}

// testProto is an EtherType for experiments (IEEE 802, local experimental 1).
const testProto = 0x88b5

// testFrame is a frame of n bytes, at least 18, with a virtio-net header of zeros in front. Its content tells seq.
func testFrame(seq, n int) []byte {
	b := make([]byte, packet.VnetLen+n)
	eth := b[packet.VnetLen:]
	copy(eth, []byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 0x11}) // to nobody's MAC: the kernel leaves it alone
	binary.BigEndian.PutUint16(eth[12:], testProto)
	binary.BigEndian.PutUint32(eth[14:], uint32(seq))
	for i := 18; i < n; i++ {
		eth[i] = byte(seq + i)
	}
	return b
}

// superFrame is a TCP super-frame over IPv4 with n bytes of payload and a partial checksum. Its EtherType is IPv4's.
func superFrame(seq, n int) []byte {
	const l3, l4, headers = 14, 34, 54
	b := testFrame(seq, headers+n)
	eth := b[packet.VnetLen:]
	binary.BigEndian.PutUint16(eth[12:], 0x0800)
	ip := eth[l3:]
	copy(ip, []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[2:], uint16(40+n))
	binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(ip[:20], 0)))
	tcp := eth[l4:]
	copy(tcp, []byte{0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0})
	binary.BigEndian.PutUint32(tcp[4:], uint32(seq))
	pseudo := packet.Sum(ip[12:20], uint64(6+20+n))
	binary.BigEndian.PutUint16(tcp[16:], packet.Fold(pseudo))
	v := (*packet.Vnet)(b)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetGSOType(packet.GSOTCPv4)
	v.SetGSOSize(1448)
	v.SetHdrLen(headers)
	v.SetCsumStart(l4)
	v.SetCsumOffset(16)
	return b
}

// sendAll sends frames, each as one part.
func sendAll(l Link, frames ...[]byte) {
	for _, f := range frames {
		l.Send(f, nil)
	}
	l.Flush()
}

// withoutCapabilities runs f on a thread that has given up capabilities for good, and ends with it.
func withoutCapabilities(tb testing.TB, s *space, drop []int, f func()) {
	tb.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		defer close(done)
		if err := netns.Set(s.h); err != nil {
			done <- err
			return
		}
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			done <- fmt.Errorf("capget: %w", err)
			return
		}
		for _, c := range drop {
			data[c/32].Effective &^= 1 << (c % 32)
			data[c/32].Permitted &^= 1 << (c % 32)
		}
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			done <- fmt.Errorf("capset: %w", err)
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
}

// parityProgram picks a fanout member by the parity of the TCP or UDP source port: offset 0 is the IP header.
var parityProgram = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 20},
	{Code: unix.BPF_RET | unix.BPF_A},
}
