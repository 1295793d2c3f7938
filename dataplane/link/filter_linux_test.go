package link

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

func TestOwnTransmissionsAreNotReceived(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		for _, fanout := range []Fanout{{}, {Group: 77}} {
			s := twoEnds(t)
			cfg := Config{Interface: "near", Kind: kind, Fanout: fanout}
			near := s.open(cfg)
			s.open(cfg)
			other := s.open(Config{Interface: "near"})
			far := s.open(Config{Interface: "far"})
			for i := range 20 {
				sendAll(near, testFrame(i, 60))
				sendAll(other, testFrame(i, 60))
			}
			if n := len(receive(t, far, 40)); n != 40 {
				t.Errorf("%v %+v: the other end received %d of 40", kind, fanout, n)
			}
			if n := len(receive(t, near, 0)); n != 0 {
				t.Errorf("%v %+v: received %d frames that this host sent", kind, fanout, n)
			}
		}
	}
}

func TestFilterKeepsOwnTransmissionsOutWithoutTheFlag(t *testing.T) {
	s := twoEnds(t)
	near := s.open(Config{Interface: "near", Fanout: Fanout{Group: 5}})
	// Kernels before the flag behave as this group without it: only the filter is left.
	near.mu.Lock()
	near.hideOwn = false
	near.mu.Unlock()
	plain := s.openGroupWithoutFlag("near")
	if err := attachFilter(plain, acceptAll); err != nil {
		t.Fatal(err)
	}
	far := s.open(Config{Interface: "far"})
	count := func() (n int) {
		for i := range 5 {
			sendAll(near, testFrame(i, 60))
			sendAll(far, testFrame(i, 60))
		}
		for buf := make([]byte, 2000); ; n++ {
			if _, errno := recv(plain, buf); errno != 0 {
				return n
			}
		}
	}
	if n := count(); n != 10 {
		t.Fatalf("without flag and filter: %d frames, want 10: the test no longer tests the filter", n)
	}
	if err := attachFilter(plain, dropOwn(nil)); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 5 {
		t.Errorf("with the filter: %d frames, want the 5 from outside", n)
	}
}

// openGroupWithoutFlag opens a bare socket alone in a fanout group.
func (s *space) openGroupWithoutFlag(name string) int {
	s.tb.Helper()
	var fd int
	var err error
	s.do(func() { fd, err = packetSocket() })
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { unix.Close(fd) })
	index := s.link(name).Attrs().Index
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		s.tb.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, 4711); err != nil {
		s.tb.Fatal(err)
	}
	return fd
}

func TestUserFilterAndOwnFilterWorkTogether(t *testing.T) {
	for _, fanout := range []Fanout{{}, {Group: 9}} {
		s := twoEnds(t)
		// Longer than 100 bytes. A is expected to be zero at the start.
		program := []unix.SockFilter{
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, Jf: 0, K: 0},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
			{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, Jt: 0, Jf: 1, K: 100},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		}
		near := s.open(Config{Interface: "near", Fanout: fanout, Filter: program})
		far := s.open(Config{Interface: "far"})
		sendAll(near, testFrame(0, 200))
		sendAll(far, testFrame(1, 60), testFrame(2, 200))
		frames := receive(t, near, 0)
		if len(frames) != 1 || len(frames[0].eth) != 200 {
			t.Errorf("fanout %d: received %d frames, want the long one from outside", fanout.Group, len(frames))
		}
		if err := near.SetFilter(nil); err != nil {
			t.Fatal(err)
		}
		sendAll(near, testFrame(0, 200))
		sendAll(far, testFrame(1, 60), testFrame(2, 200))
		if n := len(receive(t, near, 0)); n != 2 {
			t.Errorf("fanout %d: received %d frames without a filter, want 2", fanout.Group, n)
		}
	}
}

func TestStationIsSparedOthersFrames(t *testing.T) {
	s := twoEnds(t)
	mac := packet.MAC{2, 0, 0, 0xaa, 0xbb, 0xcc}
	host := packet.MAC(s.link("near").Attrs().HardwareAddr)
	near := s.open(Config{Interface: "near", Promiscuous: true, Unicast: [][6]byte{mac}, Filter: ForStation(mac, 16384, 32767)})
	far := s.open(Config{Interface: "far"})
	almost := [...]packet.MAC{mac, mac}
	almost[0][0] ^= 4
	almost[1][5] ^= 1
	var want []int
	for i, c := range []struct {
		dst  packet.MAC
		len  int
		ip   byte // 0x45, 0x4f or 0x60: with a header that long in front of ports; 0 for another protocol
		port uint16
		pass bool
	}{
		{mac, 60, 0, 0, true}, {mac, 1514, 0, 0, true},
		{almost[0], 60, 0, 0, false}, {almost[1], 60, 0, 0, false},
		{packet.Broadcast, 60, 0, 0, true}, {packet.MAC{0x33, 0x33, 0, 0, 0, 1}, 1514, 0, 0, true},
		{host, 60, 0, 0, true}, {host, hostFrameLen, 0, 0, true}, {host, hostFrameLen + 1, 0, 0, false}, {host, 1514, 0, 0, false},
		{host, 1514, 0x45, 16383, false}, {host, 1514, 0x45, 16384, true}, {host, 1514, 0x45, 32767, true}, {host, 1514, 0x45, 32768, false},
		{host, 1514, 0x4f, 16383, false}, {host, 1514, 0x4f, 32767, true}, {host, 1514, 0x60, 16384, true}, {host, 1514, 0x60, 32768, false},
		{almost[1], 1514, 0x45, 16384, false},
	} {
		f := testFrame(i, c.len)
		copy(f[packet.VnetLen:], c.dst[:])
		if eth := f[packet.VnetLen:]; c.ip != 0 {
			n := int(c.ip&0xf) * 4
			binary.BigEndian.PutUint16(eth[12:], packet.EtherIPv4)
			if c.ip == 0x60 {
				n = packet.IPv6Len
				binary.BigEndian.PutUint16(eth[12:], packet.EtherIPv6)
			}
			eth[14] = c.ip
			binary.BigEndian.PutUint16(eth[14+n+2:], c.port)
		}
		sendAll(far, f)
		if c.pass {
			want = append(want, i)
		}
	}
	var seen []int
	ours := func(eth []byte) bool { return eth[6] == 2 && eth[11] == 0x11 } // testFrame's source
	for _, f := range receiveThose(t, near, len(want), ours) {
		seen = append(seen, int(f.eth[17])) // the last byte of testFrame's number
	}
	if !slices.Equal(seen, want) {
		t.Errorf("received %v, want %v", seen, want)
	}
}
