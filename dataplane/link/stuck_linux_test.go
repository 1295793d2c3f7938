package link

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// tap makes a tap interface. What is written to the file, virtio-net header first, arrives on it.
func (s *space) tap(name string) *os.File {
	s.tb.Helper()
	var fd int
	var err error
	s.do(func() {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq(name); err != nil {
			return
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		s.tb.Fatalf("tap %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	s.tb.Cleanup(func() { f.Close() })
	s.up(name)
	return f
}

// ufoFrame is a UDP super-frame to be cut into IP fragments. A virtual machine may send such; a received frame's
// virtio-net header cannot say it.
func ufoFrame() []byte {
	const n = 4000
	b := superFrame(0, n-12)
	ip := b[packet.VnetLen+14:]
	ip[9] = 17
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(ip[:20], 0)))
	binary.BigEndian.PutUint16(ip[24:], 8+n)
	v := (*packet.Vnet)(b)
	v.SetGSOType(packet.GSOUDP)
	v.SetGSOSize(1480)
	v.SetHdrLen(42)
	v.SetCsumOffset(6)
	return b
}

func inject(tb testing.TB, tap *os.File, frame []byte) {
	tb.Helper()
	if _, err := tap.Write(frame); err != nil {
		tb.Fatalf("write to tap: %v", err)
	}
}

func TestFrameThatCannotBeDescribedDoesNotSilenceTheLink(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		t.Run(kind.String(), func(t *testing.T) {
			s := newSpace(t)
			tap := s.tap("tap0")
			l := s.open(Config{Interface: "tap0", Kind: kind})
			inject(t, tap, testFrame(1, 60))
			inject(t, tap, ufoFrame())
			if n := len(receive(t, l, 1)) + len(receive(t, l, 0)); n != 1 {
				t.Fatalf("received %d frames, want the one in front of the bad one", n)
			}
			// The ring is blocked now, and frames are lost until it is found out: at most two looks.
			begin := time.Now()
			for arrived := 0; arrived == 0; {
				inject(t, tap, testFrame(2, 60))
				arrived = len(takeSome(l))
				time.Sleep(time.Millisecond)
				if time.Since(begin) > 20*time.Second {
					t.Fatalf("nothing arrives any more: %+v", l.Stats())
				}
			}
			t.Logf("arrives again after %v: %+v", time.Since(begin), l.Stats())
			st := l.Stats()
			if st.RxError != 1 || st.RxRestarts != map[Kind]uint64{KindRing: 1}[kind] {
				t.Errorf("counted %+v, want one undescribable frame and the ring's restart", st)
			}
			for i := range 200 {
				inject(t, tap, testFrame(i, 60))
			}
			if n := len(receive(t, l, 200)); n != 200 {
				t.Errorf("received %d of 200 frames afterwards", n)
			}
		})
	}
}

func takeSome(l Link) []Frame {
	frames := make([]Frame, 8)
	n := l.Recv(frames)
	l.Release()
	return frames[:n]
}

func TestRingThatIsBlockedAgainAndAgainGivesWay(t *testing.T) {
	s := newSpace(t)
	tap := s.tap("tap0")
	l := s.open(Config{Interface: "tap0"})
	begin := time.Now()
	for l.Info().Kind == KindRing {
		inject(t, tap, ufoFrame())
		inject(t, tap, testFrame(2, 60))
		takeSome(l)
		time.Sleep(5 * time.Millisecond)
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("still a ring: %+v", l.Stats())
		}
	}
	if info := l.Info(); info.Kind != KindSimple || !strings.Contains(info.Reason, "cannot describe") {
		t.Errorf("Info() = %+v, want the simple link and why", info)
	}
	for len(takeSome(l)) > 0 { // what came meanwhile
	}
	for i := range 100 {
		inject(t, tap, ufoFrame())
		inject(t, tap, testFrame(i, 60))
	}
	if n := len(receive(t, l, 100)); n != 100 {
		t.Errorf("received %d of 100 good frames among bad ones: %+v", n, l.Stats())
	}
	if st := l.Stats(); st.RxRestarts != 3 || st.RxError < 100 {
		t.Errorf("counted %+v, want 3 restarts and 100 bad frames", st)
	}
}

func TestFullRingIsNotTakenForBlocked(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", RingSlots: 32})
	slots := far.Info().Slots
	for round := range 5 {
		takeSome(far) // an empty ring is looked at
		time.Sleep(stuckInterval + 5*time.Millisecond)
		for i := range 2 * slots {
			near.Send(testFrame(i, 60), nil)
		}
		near.Flush()
		if n := len(receive(t, far, slots)); n != slots {
			t.Fatalf("round %d: received %d, want %d", round, n, slots)
		}
		time.Sleep(stuckInterval + 5*time.Millisecond)
		takeSome(far)
	}
	if st := far.Stats(); st.RxRestarts != 0 || st.RxRingFull != uint64(5*slots) {
		t.Errorf("counted %+v, want no restart", st)
	}
}

func TestPollerFindsABlockedRing(t *testing.T) {
	s := newSpace(t)
	tap := s.tap("tap0")
	l := s.open(Config{Interface: "tap0", Kind: KindRing})
	p, err := NewPoller(l)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	inject(t, tap, ufoFrame())
	// Like a worker that receives only from links that are readable.
	for begin := time.Now(); p.Wait(20*time.Millisecond) == 0; {
		inject(t, tap, testFrame(2, 60))
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("nothing arrives any more: %+v", l.Stats())
		}
	}
	if n := len(takeSome(l)); n == 0 || l.Stats().RxRestarts != 1 {
		t.Errorf("received %d frames, %+v; want one and a restart", n, l.Stats())
	}
}
