package local

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"uvs/dataplane/link"
	"uvs/lab"
	"uvs/packet"
)

// TestMain runs the tests in a user namespace where the user isn't root.
func TestMain(m *testing.M) {
	if err := lab.Reexec(false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a network namespace with a Stack in it.
type host struct {
	*lab.Namespace
	*Stack
	t    testing.TB
	made []string
}

func newHost(t testing.TB, queues int) *host {
	t.Helper()
	l, err := lab.New(lab.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	h := &host{t: t}
	h.Namespace, err = l.Namespace("host")
	must(t, err)
	h.Stack = New(Config{Queues: queues, Made: func(name string) { h.made = append(h.made, name) }})
	t.Cleanup(func() { must(t, h.Stack.Close()) })
	return h
}

func (h *host) link(queue int) *Link {
	h.t.Helper()
	var l *Link
	must(h.t, h.Do(func() (err error) { l, err = h.Link(queue); return err }))
	h.t.Cleanup(func() { l.Close() })
	return l
}

var loopback4, loopback6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()

// makeFor is Make for an address.
func (h *host) makeFor(a netip.Addr) func() error { return func() error { return h.Make(a) } }

func (h *host) make() {
	h.t.Helper()
	must(h.t, h.Do(h.makeFor(loopback4)))
}

// datagram is a frame with a UDP datagram of four bytes for a loopback address, a virtio-net header in front.
func datagram(port uint16) []byte {
	const l4 = packet.VnetLen + packet.EthLen + packet.IPv4Len
	b := append(make([]byte, l4+packet.UDPLen), "ping"...)
	packet.PutEth(b[packet.VnetLen:], MAC, MAC, packet.EtherIPv4)
	ip := b[packet.VnetLen+packet.EthLen:]
	packet.PutIPv4(ip, len(ip), packet.Header4{TTL: 64, Proto: packet.ProtoUDP, Src: 0xc0000207, Dst: 0x7f000001})
	(*packet.UDP)(b[l4:]).SetLen(packet.UDPLen + 4)
	ports := (*packet.Ports)(b[l4:])
	ports.SetSrc(1234)
	ports.SetDst(port)
	return b
}

// datagram6 is the like for ::1, of a client at 2001:db8:c::7; its checksum is left to the interface.
func datagram6(port uint16) []byte {
	const l4 = packet.VnetLen + packet.EthLen + packet.IPv6Len
	b := append(make([]byte, l4+packet.UDPLen), "ping"...)
	packet.PutEth(b[packet.VnetLen:], Loopback, MAC, packet.EtherIPv6)
	src, n := packet.AddrFrom(netip.MustParseAddr("2001:db8:c::7")), packet.UDPLen+4
	dst := packet.AddrFrom(loopback6)
	packet.PutIPv6(b[packet.VnetLen+packet.EthLen:], n, packet.Header6{NextHeader: packet.ProtoUDP, HopLimit: 64, Src: src, Dst: dst})
	u := (*packet.UDP)(b[l4:])
	u.SetLen(n)
	u.SetChecksum(packet.Fold(packet.Pseudo6(src, dst, packet.ProtoUDP, n)))
	ports := (*packet.Ports)(b[l4:])
	ports.SetSrc(1234)
	ports.SetDst(port)
	v := (*packet.Vnet)(b)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(packet.EthLen + packet.IPv6Len)
	v.SetCsumOffset(6)
	return b
}

// ::1 is reached by the loopback interface, by links that were there before it was asked for and by later ones.
func TestLoopbackOfIPv6(t *testing.T) {
	h := newHost(t, 2)
	early := h.link(0)
	h.make()
	if b, err := h.SysctlValue("net/ipv6/conf/" + h.Device() + "/disable_ipv6"); err != nil || b != "1" {
		t.Errorf("disable_ipv6 = %q, %v before there is an IPv6 server", b, err)
	}
	for range 2 {
		must(t, h.Do(h.makeFor(loopback6)))
	}
	for name, want := range map[string]string{"disable_ipv6": "0", "forwarding": "0", "use_oif_addrs_only": "1"} {
		if got, err := h.SysctlValue("net/ipv6/conf/" + h.Device() + "/" + name); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %s", name, got, err, want)
		}
	}
	closed := h.link(0)
	must(t, closed.Close())
	late := h.link(1)
	pc, err := h.ListenPacket("udp6", "[::1]:0")
	must(t, err)
	defer pc.Close()
	must(t, pc.SetReadDeadline(time.Now().Add(5*time.Second)))
	b := datagram6(netip.MustParseAddrPort(pc.LocalAddr().String()).Port())
	for i, l := range []*Link{early, late} {
		l.Send(b[:40+i], b[40+i:])
		l.Flush()
		buf := make([]byte, 10)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "ping" || from.(*net.UDPAddr).String() != "[2001:db8:c::7]:1234" {
			t.Errorf("link %d: received %q from %v, %v", i, buf[:n], from, err)
		}
		if s := l.Stats(); s.TxFrames != 1 {
			t.Errorf("link %d: %+v", i, s)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		late.Send(b, nil)
		late.Flush()
	}); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}

// Without the loopback interface there is no way to ::1, and that is said.
func TestLoopbackThatIsDown(t *testing.T) {
	h := newHost(t, 1)
	h.link(0)
	must(t, h.SetUp("lo", false))
	if err := h.Do(h.makeFor(loopback6)); !errors.Is(err, link.ErrDown) {
		t.Errorf("Make(::1) = %v, want ErrDown", err)
	}
	must(t, h.SetUp("lo", true))
	must(t, h.Do(h.makeFor(loopback6)))
}

// The links are there before the device, and take part from when it is made.
func TestDeviceIsMadeOnDemand(t *testing.T) {
	h := newHost(t, 2)
	early := h.link(0)
	if n := early.Recv(make([]link.Frame, 1)); n != 0 || early.FD() != -1 || h.Device() != "" {
		t.Errorf("without a device: %d frames, descriptor %d, device %q", n, early.FD(), h.Device())
	}
	early.Send(datagram(9), nil)
	if s := early.Stats(); s.TxError != 1 {
		t.Errorf("what is sent without a device: %+v, want an error counted", s)
	}
	h.make()
	h.make()
	if len(h.made) != 1 || h.Device() != h.made[0] {
		t.Errorf("made %v, device %q", h.made, h.Device())
	}
	late := h.link(1)
	if early.FD() < 0 || late.FD() < 0 {
		t.Fatalf("descriptors %d and %d", early.FD(), late.FD())
	}
	must(t, h.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, h.Device())) // a way back there must be
	pc, err := h.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer pc.Close()
	must(t, pc.SetReadDeadline(time.Now().Add(5*time.Second)))
	port := netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
	for i, l := range []*Link{early, late} {
		b := datagram(port)
		l.Send(b[:20+i], b[20+i:])
		buf := make([]byte, 10)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "ping" || from.(*net.UDPAddr).String() != "192.0.2.7:1234" {
			t.Errorf("link %d: received %q from %v, %v", i, buf[:n], from, err)
		}
	}
}

// Somebody deletes the device: who finds that out asks for another link, and gets one to a new device.
func TestDeletedDeviceIsMadeAnew(t *testing.T) {
	h := newHost(t, 1)
	worker, slow := h.link(0), h.link(0)
	h.make()
	must(t, h.DeleteLink(h.Device()))
	if n := worker.Recv(make([]link.Frame, 1)); n != 0 || !errors.Is(worker.Err(), link.ErrGone) {
		t.Fatalf("Recv() = %d, Err() = %v, want ErrGone", n, worker.Err())
	}
	must(t, worker.Close())
	again := h.link(0)
	if len(h.made) != 2 || again.FD() < 0 || again.Err() != nil {
		t.Errorf("made %v; descriptor %d, %v", h.made, again.FD(), again.Err())
	}
	slow.Send(datagram(9), nil)
	if !errors.Is(slow.Err(), link.ErrGone) {
		t.Errorf("the other link: %v, want ErrGone", slow.Err())
	}
	if _, err := h.Index(h.Device()); err != nil {
		t.Error(err)
	}
}

func TestCloseTakesTheDeviceAway(t *testing.T) {
	h := newHost(t, 1)
	l := h.link(0)
	h.make()
	name := h.Device()
	must(t, h.Stack.Close())
	must(t, l.Close())
	if _, err := h.Index(name); err == nil {
		t.Errorf("%s is still there", name)
	}
	if err := h.Do(h.makeFor(loopback4)); !errors.Is(err, link.ErrClosed) {
		t.Errorf("Make() after Close() = %v", err)
	}
}

func TestAllocTapAllocatesNothing(t *testing.T) {
	h := newHost(t, 1)
	l := h.link(0)
	h.make()
	pc, err := h.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer pc.Close()
	b := datagram(netip.MustParseAddrPort(pc.LocalAddr().String()).Port())
	frames := make([]link.Frame, 8)
	l.Recv(frames) // makes its buffers
	if n := testing.AllocsPerRun(100, func() {
		l.Send(b[:30], b[30:])
		l.Flush()
		l.Recv(frames)
		l.Release()
	}); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}
