package link

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

func TestTransmitOnlyLink(t *testing.T) {
	s := twoEnds(t)
	var tx *Socket
	var err error
	s.do(func() { tx, err = OpenTx(Config{Interface: "near"}) })
	if err != nil {
		t.Fatal(err)
	}
	far := s.open(Config{Interface: "far"})
	sendAll(tx, testFrame(3, 60))
	if n := len(receive(t, far, 1)); n != 1 {
		t.Errorf("received %d frames, want 1", n)
	}
	sendAll(far, testFrame(4, 60))
	if n := tx.Recv(make([]Frame, 4)); n != 0 || tx.FD() != -1 {
		t.Errorf("Recv = %d, FD = %d; want 0, -1", n, tx.FD())
	}
	tx.Release()
	if err := tx.SetFilter(acceptAll); err == nil {
		t.Error("SetFilter succeeds on a link that only sends")
	}
	if err := tx.Err(); err != nil {
		t.Errorf("Err() = %v", err)
	}
	if err := tx.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := tx.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close() = %v, want ErrClosed", err)
	}
	sendAll(tx, testFrame(5, 60))
	if st := tx.Stats(); st.TxFrames != 1 || st.TxError != 1 {
		t.Errorf("counted %+v, want 1 sent and 1 refused after Close", st)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s := twoEnds(t)
	s.down("far")
	s.up("lo")
	for _, row := range []struct {
		name string
		cfg  Config
		want error
		text string
	}{
		{"no such name", Config{Interface: "nowhere"}, ErrNoInterface, "nowhere"},
		{"name too long", Config{Interface: "a-name-longer-than-any"}, ErrNoInterface, "a-name-longer-than-any"},
		{"no such index", Config{Index: 4999}, ErrNoInterface, "interface 4999"},
		{"nothing named", Config{}, ErrNoInterface, "interface 0"},
		{"down", Config{Interface: "far"}, ErrDown, "ip link set far up"},
		{"loopback", Config{Interface: "lo"}, ErrNotEthernet, "lo"},
	} {
		for kind := KindAuto; kind <= KindSimple; kind++ {
			row.cfg.Kind = kind
			var err error
			s.do(func() { _, err = Open(row.cfg) })
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%s, %v: %v; want %v about %q", row.name, kind, err, row.want, row.text)
			}
		}
	}
	withoutCapabilities(t, s, []int{unix.CAP_NET_RAW}, func() {
		if _, err := Open(Config{Interface: "near"}); !errors.Is(err, ErrPermission) || !errors.Is(err, unix.EPERM) {
			t.Errorf("without CAP_NET_RAW: %v", err)
		}
	})
}

func TestAutoTakesTheRingAndSaysWhyNot(t *testing.T) {
	s := twoEnds(t)
	if info := s.open(Config{Interface: "near"}).Info(); info.Kind != KindRing || info.Reason != "" || !info.Vnet ||
		info.Slots != 4096 || info.SlotSize != 2048 || info.MTU != 1500 || info.MAC == [6]byte{} {
		t.Errorf("Info() = %+v", info)
	}
	index := s.link("near").Attrs().Index
	if info := s.open(Config{Index: index}).Info(); info.Name != "near" || info.Index != index {
		t.Errorf("opened by index %d: %+v", index, info)
	}
	// A ring too large for any machine.
	info := s.open(Config{Interface: "near", RingSlots: 1 << 30, SlotSize: 2048}).Info()
	if info.Kind != KindSimple || !strings.Contains(info.Reason, "PACKET_RX_RING") || info.Slots != 0 {
		t.Errorf("Info() = %+v, want the simple link and why", info)
	}
}

func TestLargeMTUGetsLargeSlots(t *testing.T) {
	s := twoEnds(t)
	for _, name := range []string{"near", "far"} {
		if err := s.nl.LinkSetMTU(s.link(name), 9000); err != nil {
			t.Fatal(err)
		}
	}
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far"})
	if info := far.Info(); info.SlotSize != 16384 || info.Slots != 1024 {
		t.Errorf("Info() = %+v, want 1024 slots of 16384", info)
	}
	want := testFrame(1, 9014)
	sendAll(near, want)
	if f := receive(t, far, 1); len(f) != 1 || !bytes.Equal(f[0].eth, want[packet.VnetLen:]) {
		t.Error("a frame of 9014 bytes did not arrive whole")
	}
}

func TestWithoutNetAdminSlotsHoldSuperFrames(t *testing.T) {
	s := twoEnds(t)
	near := s.open(Config{Interface: "near"})
	withoutCapabilities(t, s, []int{unix.CAP_NET_ADMIN}, func() {
		far, err := Open(Config{Interface: "far", RecvBuffer: 256 << 10})
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		if info := far.Info(); info.Kind != KindRing || info.SlotSize < 64<<10 || info.RecvBuffer > 1<<20 {
			t.Errorf("Info() = %+v, want a ring of slots for super-frames", info)
		}
		for i := range 100 {
			sendAll(near, superFrame(i, 65000))
		}
		for i, f := range receiveIPv4(t, far, 100) {
			if f.meta.truncated || !bytes.Equal(f.eth, superFrame(i, 65000)[packet.VnetLen:]) {
				t.Errorf("super-frame %d differs, truncated %v", i, f.meta.truncated)
			}
		}
		if st := far.Stats(); st.RxFrames != 100 || st.RxTruncated != 0 {
			t.Errorf("counted %+v, want 100 whole frames", st)
		}
	})
}

func TestMembershipsReachTheInterface(t *testing.T) {
	s := twoEnds(t)
	l := s.open(Config{Interface: "near", Unicast: [][6]byte{{2, 0, 0, 0, 0, 1}}})
	promiscuous := func() int { return s.link("near").Attrs().Promisc }
	if promiscuous() != 1 { // veth has no filter for unicast addresses: a further one makes it promiscuous
		t.Errorf("promiscuity %d with a further MAC address, want 1", promiscuous())
	}
	if err := l.LeaveUnicast([6]byte{2, 0, 0, 0, 0, 1}); err != nil || promiscuous() != 0 {
		t.Errorf("LeaveUnicast: %v, promiscuity %d; want 0", err, promiscuous())
	}
	if err := l.Promiscuous(); err != nil || promiscuous() != 1 {
		t.Errorf("Promiscuous: %v, promiscuity %d; want 1", err, promiscuous())
	}
	group := [6]byte{0x33, 0x33, 0xff, 1, 2, 3}
	if err := l.JoinMulticast(group); err != nil {
		t.Errorf("JoinMulticast: %v", err)
	}
	if err := l.LeaveMulticast(group); err != nil {
		t.Errorf("LeaveMulticast: %v", err)
	}
	l.Close()
	if promiscuous() != 0 {
		t.Errorf("promiscuity %d after Close, want 0", promiscuous())
	}
	if err := l.JoinUnicast(group); !errors.Is(err, ErrClosed) {
		t.Errorf("JoinUnicast after Close: %v, want ErrClosed", err)
	}
}

// The interfaces that a director may stand on, apart from veth.
func TestOtherKindsOfInterface(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		t.Run("bridge "+kind.String(), func(t *testing.T) {
			s := newSpace(t)
			if err := s.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
				t.Fatal(err)
			}
			veth(s, "port", s, "host")
			if err := s.nl.LinkSetMaster(s.link("port"), s.link("br0")); err != nil {
				t.Fatal(err)
			}
			s.up("br0")
			s.settle("br0")
			exchange(t, s.open(Config{Interface: "host"}), s.open(Config{Interface: "br0", Kind: kind}))
		})
		t.Run("macvlan "+kind.String(), func(t *testing.T) {
			s := twoEnds(t)
			if err := s.nl.LinkAdd(&netlink.Macvlan{
				LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: s.link("near").Attrs().Index},
				Mode:      netlink.MACVLAN_MODE_BRIDGE,
			}); err != nil {
				t.Fatal(err)
			}
			s.up("mv0")
			s.settle("mv0")
			exchange(t, s.open(Config{Interface: "far"}), s.open(Config{Interface: "mv0", Kind: kind}))
		})
		t.Run("tap "+kind.String(), func(t *testing.T) {
			s := newSpace(t)
			tap := s.tap("tap0")
			l := s.open(Config{Interface: "tap0", Kind: kind})
			want := superFrame(1, 9000)
			inject(t, tap, want)
			if f := receiveIPv4(t, l, 1); len(f) != 1 || !bytes.Equal(f[0].eth, want[packet.VnetLen:]) ||
				!f[0].vnet.NeedsCsum() {
				t.Errorf("received %+v", f)
			}
			sendAll(l, testFrame(1, 60))
			buf := make([]byte, 2000)
			if n, err := tap.Read(buf); err != nil || !bytes.Equal(buf[:n], testFrame(1, 60)) {
				t.Errorf("the tap's reader got % x, %v", buf[:n], err)
			}
		})
	}
}

// exchange sends a frame and a super-frame from a to b's MAC address, and back.
func exchange(t *testing.T, a, b *Socket) {
	t.Helper()
	for _, way := range [][2]*Socket{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		mac := to.Info().MAC
		small, big := testFrame(1, 60), superFrame(2, 30000)
		copy(small[packet.VnetLen:], mac[:])
		copy(big[packet.VnetLen:], mac[:])
		sendAll(from, small)
		if f := receive(t, to, 1); len(f) != 1 || !bytes.Equal(f[0].eth, small[packet.VnetLen:]) {
			t.Errorf("%s to %s: received %+v", from.Info().Name, to.Info().Name, f)
		}
		sendAll(from, big)
		if f := receiveIPv4(t, to, 1); len(f) != 1 || !bytes.Equal(f[0].eth, big[packet.VnetLen:]) {
			t.Errorf("%s to %s: %d super-frames", from.Info().Name, to.Info().Name, len(f))
		}
	}
}
