package link

import (
	"bytes"
	"encoding/binary"
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
			for _, v := range near.tx.iovs {
				if v.Base != nil {
					t.Error("memory of sent frames is still referred to after Flush")
				}
			}
			frames := make([]Frame, 3)
			var kept []Frame
			for i, want := range []int{3, 1, 0} { // four buffers
				n := far.Recv(frames)
				if n != want {
					t.Fatalf("Recv %d = %d, want %d", i, n, want)
				}
				kept = append(kept, frames[:n]...)
			}
			for i, f := range kept {
				if !bytes.Equal(f.Eth(), superFrame(i, 40000)[packet.VnetLen:]) || f.Type != unix.PACKET_OTHERHOST {
					t.Errorf("super-frame %d of those held differs", i)
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
	frames := receive(t, far, slots)
	if len(frames) != slots || len(receive(t, far, 0)) != 0 || far.Stats().RxRingFull != 70 {
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

func TestHeldSlotsAreNotHandedOutAgain(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", Kind: KindRing, RingSlots: 32})
	slots := far.Info().Slots
	for round := range 3 { // the later ones begin in the middle of the ring
		for i := range slots + 5 {
			near.Send(testFrame(i, 60), nil)
		}
		near.Flush()
		frames := make([]Frame, 7)
		for seq := 0; seq < slots; {
			n := far.Recv(frames)
			if n == 0 {
				t.Fatalf("round %d: %d of %d frames", round, seq, slots)
			}
			for _, f := range frames[:n] {
				if got := binary.BigEndian.Uint32(f.Eth()[14:]); got != uint32(seq) {
					t.Fatalf("round %d: frame %d is number %d", round, seq, got)
				}
				seq++
			}
		}
		if n := far.Recv(frames); n != 0 {
			t.Fatalf("round %d: %d frames beyond the ring's length", round, n)
		}
		far.Release()
		sendAll(near, testFrame(1, 60), testFrame(2, 60), testFrame(3, 60))
		if n := len(receive(t, far, 3)); n != 3 {
			t.Fatalf("round %d: received %d frames after Release, want 3", round, n)
		}
	}
}

func TestHeaderIsZeroWhereTheKernelGivesNone(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		t.Run(kind.String(), func(t *testing.T) {
			s := twoEnds(t)
			near := s.open(Config{Interface: "near"})
			far := s.open(Config{Interface: "far", Kind: kind, NoVnet: true, RingSlots: 32, Batch: 32})
			frames := make([]Frame, 32)
			for seen := 0; seen < 100; { // each slot and buffer more than once
				f := testFrame(seen, 60)
				if seen%3 == 0 {
					f = testFrame(seen, 1514)
				}
				sendAll(near, f)
				n := far.Recv(frames)
				for i := range frames[:n] {
					if *frames[i].Vnet() != (packet.Vnet{}) {
						t.Fatalf("frame %d has header % x", seen, frames[i].Vnet())
					}
					for j := range frames[i].Buf {
						frames[i].Buf[j] = 0xff
					}
				}
				seen += n
				far.Release()
			}
		})
	}
}
