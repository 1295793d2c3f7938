package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// near --veth-- far    both ends in one namespace, no addresses: nothing but the tests' frames
func twoEnds(tb testing.TB) *space {
	s := newSpace(tb)
	veth(s, "near", s, "far")
	return s
}

func TestFramesArriveUnchangedAndInOrder(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			seq := 0
			for size := 18; size <= 1514; size += 187 {
				var want [][]byte
				for range 150 { // more than a batch of either side
					want = append(want, testFrame(seq, size))
					seq++
				}
				for i, f := range want {
					switch i % 3 { // in one part, in two, in two with the cut inside the Ethernet header
					case 0:
						near.Send(f, nil)
					case 1:
						near.Send(f[:packet.VnetLen+14], f[packet.VnetLen+14:])
					case 2:
						near.Send(f[:packet.VnetLen+3], f[packet.VnetLen+3:])
					}
				}
				near.Flush()
				frames := receive(t, far, len(want))
				if len(frames) != len(want) {
					t.Fatalf("size %d: received %d of %d frames; %+v", size, len(frames), len(want), far.Stats())
				}
				for i, f := range frames {
					if !bytes.Equal(f.eth, want[i][packet.VnetLen:]) {
						t.Fatalf("size %d: frame %d differs: % x", size, i, f.eth)
					}
					if f.meta != (meta{kind: unix.PACKET_OTHERHOST}) || f.vnet != (packet.Vnet{}) {
						t.Fatalf("size %d: frame %d: %+v, header % x", size, i, f.meta, f.vnet)
					}
				}
			}
			in, out := far.Stats(), near.Stats()
			if in.RxFrames != uint64(seq) || out.TxFrames != uint64(seq) || in.RxBytes != out.TxBytes {
				t.Errorf("counted %+v at the far end, %+v at the near end, %d frames", in, out, seq)
			}
		})
	}
}

func TestTypeTellsTheDestination(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			own := far.Info().MAC
			for _, row := range []struct {
				dst  [6]byte
				want uint8
			}{
				{own, unix.PACKET_HOST},
				{[6]byte{2, 0, 0, 0, 0, 0x99}, unix.PACKET_OTHERHOST},
				{[6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.PACKET_BROADCAST},
				{[6]byte{1, 0, 0x5e, 0, 0, 0x12}, unix.PACKET_MULTICAST},
			} {
				f := testFrame(1, 60)
				copy(f[packet.VnetLen:], row.dst[:])
				sendAll(near, f)
				frames := receive(t, far, 1)
				if len(frames) != 1 || frames[0].meta.kind != row.want {
					t.Errorf("to %x: %+v, want type %d", row.dst, frames, row.want)
				}
			}
		})
	}
}

func TestVLANTagsArriveBesideTheFrame(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			plain := testFrame(7, 200)
			for _, tpid := range []uint16{0x8100, 0x88a8} {
				tagged := InsertVLAN(make([]byte, 64), plain[:packet.VnetLen+14], tpid, 0xa064)
				near.Send(tagged, plain[packet.VnetLen+14:])
				near.Flush()
				frames := receive(t, far, 1)
				if len(frames) != 1 {
					t.Fatalf("tag %#x: received %d frames, want 1; %+v", tpid, len(frames), near.Stats())
				}
				f := frames[0]
				if f.meta != (meta{vlan: 0xa064, tpid: tpid, tagged: true, kind: unix.PACKET_OTHERHOST}) {
					t.Errorf("tag %#x: %+v", tpid, f.meta)
				}
				if !bytes.Equal(f.eth, plain[packet.VnetLen:]) {
					t.Errorf("tag %#x: the frame without its tag differs: % x", tpid, f.eth)
				}
			}
		})
	}
}

func TestSuperFramesArriveWhole(t *testing.T) {
	for _, k := range kinds {
		if k.cfg.NoVnet {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			for _, n := range []int{3000, 20000, 65400} {
				want := superFrame(1, n)
				sendAll(near, want)
				f := receiveIPv4(t, far, 1)
				if len(f) != 1 {
					t.Fatalf("%d bytes: received %d frames; sent %+v, received %+v", n, len(f), near.Stats(), far.Stats())
				}
				v := f[0].vnet
				if v.GSOType() != packet.GSOTCPv4 || v.GSOSize() != 1448 || !v.NeedsCsum() || v.CsumStart() != 34 ||
					v.CsumOffset() != 16 {
					t.Errorf("%d bytes: header % x", n, v)
				}
				if f[0].meta.truncated || !bytes.Equal(f[0].eth, want[packet.VnetLen:]) {
					t.Errorf("%d bytes: the frame differs, truncated %v, length %d", n, f[0].meta.truncated, len(f[0].eth))
				}
			}
		})
	}
}

// receiveIPv4 is receive for IPv4 frames.
func receiveIPv4(tb testing.TB, l Link, n int) (all []got) {
	tb.Helper()
	frames := make([]Frame, 16)
	for deadline := time.Now().Add(5 * time.Second); len(all) < n && time.Now().Before(deadline); {
		k := l.Recv(frames)
		for _, f := range frames[:k] {
			if binary.BigEndian.Uint16(f.Eth()[12:]) == 0x0800 {
				all = append(all, copyOut(&f))
			}
		}
		l.Release()
		if k == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return all
}

func TestManySuperFramesWaitWithoutLoss(t *testing.T) {
	const n = 300 // 18 MB waiting: far more than SO_RCVBUF's default holds, and several batches
	for _, k := range kinds {
		if k.cfg.NoVnet || k.cfg.SlotSize != 0 {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			for i := range n {
				sendAll(near, superFrame(i, 60000))
				sendAll(near, testFrame(i, 60)) // small ones between them keep the order honest
			}
			frames := receiveIPv4(t, far, n)
			for i, f := range frames {
				if f.meta.truncated || !bytes.Equal(f.eth, superFrame(i, 60000)[packet.VnetLen:]) {
					t.Fatalf("super-frame %d: truncated %v, or differs", i, f.meta.truncated)
				}
			}
			if st := far.Stats(); len(frames) != n || st.RxRingFull != 0 || st.RxTruncated != 0 {
				t.Errorf("received %d of %d: %+v", len(frames), n, st)
			}
		})
	}
}

func TestRecvStopsAtLastBufferUntilRelease(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		t.Run(kind.String(), func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", Kind: kind, Batch: 4})
			for i := range 6 {
				sendAll(near, superFrame(i, 40000))
			}
			frames := make([]Frame, 3)
			for i, want := range []int{3, 1, 0} { // four buffers
				if n := far.Recv(frames); n != want {
					t.Fatalf("Recv %d = %d, want %d", i, n, want)
				}
			}
			far.Release()
			if n := far.Recv(frames); n != 2 {
				t.Fatalf("Recv after Release = %d, want 2", n)
			}
			if !bytes.Equal(frames[1].Eth(), superFrame(5, 40000)[packet.VnetLen:]) {
				t.Error("the last super-frame differs")
			}
		})
	}
}

func TestFullRingIsCounted(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", Kind: KindRing, RingSlots: 32})
	slots := far.Info().Slots
	for i := range slots + 70 {
		near.Send(testFrame(i, 60), nil)
	}
	near.Flush()
	frames := receive(t, far, slots+70)
	if len(frames) != slots || far.Stats().RxRingFull != 70 {
		t.Errorf("received %d, counted %+v; want %d and 70 dropped", len(frames), far.Stats(), slots)
	}
	sendAll(near, testFrame(1, 60))
	if n := len(receive(t, far, 1)); n != 1 {
		t.Errorf("received %d frames after the ring was emptied, want 1", n)
	}
}

func TestFramesLostWithoutBufferAreTruncated(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", Kind: KindRing})
	// As if the queue were small: what does not fit is lost, and must not pass for whole.
	if err := unix.SetsockoptInt(far.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 128<<10); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		sendAll(near, superFrame(i, 60000))
	}
	var whole, cut int
	for i, f := range receiveIPv4(t, far, 40) {
		if f.meta.truncated {
			cut++
		} else if whole++; !bytes.Equal(f.eth, superFrame(i, 60000)[packet.VnetLen:]) {
			t.Errorf("frame %d passes for whole and is not", i)
		}
	}
	if st := far.Stats(); whole == 0 || cut == 0 || whole+cut != 40 || st.RxTruncated != uint64(cut) {
		t.Errorf("%d whole, %d truncated: %+v", whole, cut, st)
	}
}

func TestBadFrameCostsItselfAlone(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far"})
	noSize := superFrame(0, 3000)
	(*packet.Vnet)(noSize).SetGSOSize(0)
	bad := map[int][]byte{
		5:  testFrame(5, 1600),  // longer than the MTU
		6:  noSize,              // EINVAL
		20: testFrame(20, 1600), // and again
		40: testFrame(40, 18)[:packet.VnetLen+8],
		63: testFrame(63, 2000), // the last of the batch
	}
	var want []int
	for i := range 64 {
		if f := bad[i]; f != nil {
			near.Send(f, nil)
			continue
		}
		want = append(want, i)
		near.Send(testFrame(i, 60), nil)
	}
	near.Send(testFrame(0, 60)[:4], nil) // not even a header
	near.Flush()
	frames := receive(t, far, len(want))
	if len(frames) != len(want) {
		t.Fatalf("received %d of %d frames: %+v", len(frames), len(want), near.Stats())
	}
	for i, f := range frames {
		if seq := binary.BigEndian.Uint32(f.eth[14:]); seq != uint32(want[i]) {
			t.Errorf("frame %d is number %d, want %d", i, seq, want[i])
		}
	}
	st := near.Stats()
	if st.TxTooLong != 3 || st.TxError != 3 || st.TxFrames != uint64(len(want)) || st.TxBytes != uint64(60*len(want)) {
		t.Errorf("counted %+v", st)
	}
}

func TestNoBufferIsCounted(t *testing.T) {
	s := twoEnds(t)
	near := s.open(Config{Interface: "near", QdiscBypass: true})
	s.down("far") // no carrier: past the queueing discipline that is a refused frame
	sendAll(near, testFrame(1, 60), testFrame(2, 60))
	if st := near.Stats(); st.TxNoBuffer != 2 || st.TxFrames != 0 {
		t.Errorf("counted %+v, want 2 TxNoBuffer", st)
	}
}

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

func TestNoVnetCompletesChecksumsAndRefusesSuperFrames(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near", NoVnet: true}), s.open(Config{Interface: "far"})
	if near.HasVnet() || !far.HasVnet() {
		t.Fatalf("HasVnet() = %v and %v, want false and true", near.HasVnet(), far.HasVnet())
	}
	f := superFrame(1, 101)
	(*packet.Vnet)(f).SetGSOType(packet.GSONone)
	near.Send(f[:packet.VnetLen+37], f[packet.VnetLen+37:]) // cut in the middle of the TCP header, at an odd place
	near.Send(superFrame(2, 3000), nil)
	near.Flush()
	frames := receiveIPv4(t, far, 1)
	if len(frames) != 1 || frames[0].vnet.NeedsCsum() {
		t.Fatalf("received %+v, want one frame with a complete checksum", frames)
	}
	tcp := frames[0].eth[34:]
	pseudo := packet.Sum(frames[0].eth[26:34], uint64(6+len(tcp)))
	if sum := packet.Fold(packet.Sum(tcp, pseudo)); sum != 0xffff {
		t.Errorf("TCP checksum does not verify: %#x", sum)
	}
	if st := near.Stats(); st.TxTooLong != 1 || st.TxFrames != 1 {
		t.Errorf("counted %+v, want the super-frame refused", st)
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
