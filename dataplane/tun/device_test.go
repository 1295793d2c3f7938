package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// namespace makes an empty host, whose kernel checks reverse paths strictly.
func namespace(t testing.TB) *lab.Namespace {
	t.Helper()
	l, err := lab.New(lab.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	ns, err := l.Namespace("host")
	must(t, err)
	for _, which := range []string{"all", "default"} {
		must(t, ns.Sysctl("net/ipv4/conf/"+which+"/rp_filter", "1"))
	}
	return ns
}

func open(t testing.TB, ns *lab.Namespace, cfg Config) *Device {
	t.Helper()
	var d *Device
	must(t, ns.Do(func() (err error) {
		d, err = Open(cfg)
		return err
	}))
	t.Cleanup(func() { _ = d.Close() })
	return d
}

var (
	vip    = netip.MustParseAddr("192.0.2.100")
	client = netip.MustParseAddr("198.51.100.7")
)

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// datagram is a UDP datagram from client:1234 to vip:port behind an empty virtio-net header, its checksum left undone if
// partial.
func datagram(port uint16, payload []byte, partial bool) []byte {
	b := make([]byte, packet.VnetLen+packet.IPv4Len+packet.UDPLen, packet.VnetLen+packet.IPv4Len+packet.UDPLen+len(payload))
	b = append(b, payload...)
	ip := b[packet.VnetLen:]
	packet.PutIPv4(ip, len(ip), packet.Header4{TTL: 64, Proto: packet.ProtoUDP, Src: number(client), Dst: number(vip)})
	l4 := ip[packet.IPv4Len:]
	u := (*packet.UDP)(l4)
	u.SetLen(len(l4))
	ports := (*packet.Ports)(l4)
	ports.SetSrc(1234)
	ports.SetDst(port)
	pseudo := packet.Pseudo4(number(client), number(vip), packet.ProtoUDP, len(l4))
	if partial {
		v := (*packet.Vnet)(b)
		v.SetFlags(packet.VnetNeedsCsum)
		v.SetCsumStart(packet.IPv4Len)
		v.SetCsumOffset(6)
		u.SetChecksum(packet.Fold(pseudo))
	} else {
		u.SetChecksum(^packet.Fold(packet.Sum(l4, pseudo)))
	}
	return b
}

// receiver is a UDP socket on the VIP.
func receiver(t testing.TB, ns *lab.Namespace) (c net.PacketConn, port uint16) {
	t.Helper()
	c, err := ns.ListenPacket("udp4", netip.AddrPortFrom(vip, 0).String())
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func expect(t *testing.T, c net.PacketConn, want string) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatalf("waiting for %d bytes: %v", len(want), err)
	}
	if got := string(b[:n]); got != want || from.String() != "198.51.100.7:1234" {
		t.Errorf("received %d bytes from %v, want %d from the client", n, from, len(want))
	}
}

func TestWhatIsWrittenReachesTheHostAndAnswersLeaveElsewhere(t *testing.T) {
	ns := namespace(t)
	d := open(t, ns, Config{Name: "in0", Addresses: []netip.Prefix{netip.PrefixFrom(vip, 32)}})
	way := open(t, ns, Config{Name: "out0", MTU: 1400})
	must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "out0"))
	c, port := receiver(t, ns)
	for _, partial := range []bool{false, true} {
		want := fmt.Sprintf("checksum left undone: %v", partial)
		_, err := d.Write(datagram(port, []byte(want), partial))
		must(t, err)
		expect(t, c, want)
	}
	must(t, func() error {
		_, err := c.WriteTo([]byte("answer"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 1234)))
		return err
	}())
	b := make([]byte, MaxPacket)
	n, err := way.Read(b)
	must(t, err)
	ip, l4, ok := packet.ParseIPv4(b[packet.VnetLen:n])
	if !ok || ip.Src() != number(vip) || ip.Dst() != number(client) || string(l4[packet.UDPLen:]) != "answer" {
		t.Errorf("read %x, want the answer from the VIP to the client", b[:n])
	}
}

func TestSuperFrameIsCutForItsReceiver(t *testing.T) {
	ns := namespace(t)
	d := open(t, ns, Config{Name: "in0", Addresses: []netip.Prefix{netip.PrefixFrom(vip, 32)}})
	must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "in0"))
	c, port := receiver(t, ns)
	b := datagram(port, make([]byte, 2500), true)
	v := (*packet.Vnet)(b)
	v.SetGSOType(packet.GSOUDPL4)
	v.SetGSOSize(1000)
	v.SetHdrLen(packet.IPv4Len + packet.UDPLen)
	_, err := d.Write(b)
	must(t, err)
	for _, n := range []int{1000, 1000, 500} {
		expect(t, c, string(make([]byte, n)))
	}
}

func TestOffloadsLeaveTheStacksWorkToTheReader(t *testing.T) {
	for _, offloads := range []bool{false, true} {
		ns := namespace(t)
		d := open(t, ns, Config{Name: "out0", Offloads: offloads})
		must(t, ns.AddAddr("out0", netip.PrefixFrom(vip, 32)))
		must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "out0"))
		c, _ := receiver(t, ns)
		_, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 1234)))
		must(t, err)
		b := make([]byte, MaxPacket)
		n, err := d.Read(b)
		must(t, err)
		if v := (*packet.Vnet)(b); v.NeedsCsum() != offloads || offloads && v.CsumStart() != packet.IPv4Len {
			t.Errorf("offloads %v: read %x, checksum left undone: %v", offloads, b[:n], v.NeedsCsum())
		}
	}
}

func TestErrorsHaveAMeaning(t *testing.T) {
	ns := namespace(t)
	d := open(t, ns, Config{Name: "in%d"})
	if d.Name() != "in0" {
		t.Errorf("Name() = %s, want the first free number", d.Name())
	}
	if index, err := ns.Index("in0"); err != nil || d.Index() != index {
		t.Errorf("Index() = %d, want %d, %v", d.Index(), index, err)
	}
	must(t, ns.Do(func() error {
		if _, err := Open(Config{Name: "in0"}); !errors.Is(err, ErrExists) {
			t.Errorf("Open() = %v, want ErrExists", err)
		}
		for _, name := range []string{"", "sixteen-bytes-no", "a/b"} {
			if d, err := Open(Config{Name: name}); err == nil {
				t.Errorf("Open(%q) made %s", name, d.Name())
			}
		}
		return nil
	}))
	bad := datagram(1, nil, true)
	(*packet.Vnet)(bad).SetHdrLen(len(bad))
	if _, err := d.Write(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Write() of a header longer than its packet = %v, want EINVAL", err)
	}
	must(t, ns.SetUp("in0", false))
	if _, err := d.Write(datagram(1, nil, false)); !errors.Is(err, ErrDown) {
		t.Errorf("Write() = %v, want ErrDown", err)
	}
	must(t, ns.DeleteLink("in0"))
	if _, err := d.Write(datagram(1, nil, false)); !errors.Is(err, ErrGone) {
		t.Errorf("Write() = %v, want ErrGone", err)
	}
}

func TestCloseRemovesTheDeviceAndEndsRead(t *testing.T) {
	ns := namespace(t)
	d := open(t, ns, Config{Name: "in0"})
	ended := make(chan error)
	go func() {
		_, err := d.Read(make([]byte, MaxPacket))
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond) // so that it waits, most likely; ended or not begun, it must end too
	must(t, d.Close())
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read() = %v, want os.ErrClosed", err)
	}
	if _, err := ns.Index("in0"); err == nil {
		t.Error("in0 is still there")
	}
}

func TestAllocWriteAllocatesNothing(t *testing.T) {
	ns := namespace(t)
	d := open(t, ns, Config{Name: "in0", Addresses: []netip.Prefix{netip.PrefixFrom(vip, 32)}})
	b := datagram(9, make([]byte, 100), false)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Write(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}

func TestSysctlsAreRaisedAndPutBack(t *testing.T) {
	ns := namespace(t)
	const ignore, announce, filter = "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce", "net/ipv4/conf/all/arp_filter"
	must(t, ns.Sysctl(ignore, "0"))
	must(t, ns.Sysctl(announce, "0"))
	must(t, ns.Sysctl(filter, "1"))
	var s Sysctls
	must(t, ns.Do(func() error {
		for _, c := range []struct {
			name    string
			least   int
			changed bool
		}{{ignore, 1, true}, {announce, 2, true}, {filter, 1, false}} {
			if changed, err := s.Raise(c.name, c.least); changed != c.changed || err != nil {
				t.Errorf("Raise(%s, %d) = %v, %v, want %v", c.name, c.least, changed, err, c.changed)
			}
		}
		if _, err := s.Raise("net/ipv4/conf/all/no_such", 1); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Raise() of what isn't there = %v", err)
		}
		return nil
	}))
	check := func(want ...string) {
		t.Helper()
		for i, name := range []string{ignore, announce, filter} {
			if got, err := ns.SysctlValue(name); err != nil || got != want[i] {
				t.Errorf("%s = %s, %v, want %s", name, got, err, want[i])
			}
		}
	}
	check("1", "2", "1")
	must(t, ns.Sysctl(announce, "1")) // by somebody else
	must(t, s.Restore())              // from outside the namespace
	check("0", "1", "1")
}
