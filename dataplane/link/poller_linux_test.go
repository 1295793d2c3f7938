package link

import (
	"errors"
	"testing"
	"time"
)

func TestPollerTellsWhichLinkIsReadable(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			mem := NewMem(MemConfig{})
			p, err := NewPoller(near, mem, far)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if n := p.Wait(0); n != 0 {
				t.Errorf("Wait(0) = %d with nothing there", n)
			}
			begin := time.Now()
			if n := p.Wait(250 * time.Millisecond); n != 0 || time.Since(begin) < 240*time.Millisecond {
				t.Errorf("Wait = %d after %v, want 0 after 250ms", n, time.Since(begin))
			}
			sendAll(near, testFrame(1, 60))
			if n := p.Wait(time.Second); n != 1 || p.Readable(0) || p.Readable(1) || !p.Readable(2) || p.Woken() {
				t.Errorf("Wait = %d, readable %v %v %v", n, p.Readable(0), p.Readable(1), p.Readable(2))
			}
			frames := make([]Frame, 4)
			if n := far.Recv(frames); n != 1 {
				t.Fatalf("Recv = %d, want 1", n)
			}
			far.Release()
			if n := p.Wait(0); n != 0 || p.Readable(2) {
				t.Errorf("Wait = %d after the only frame was released", n)
			}
		})
	}
}

func TestPollerSleepsAfterSuperFramesWereReleased(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far", Kind: KindRing})
	p, err := NewPoller(far)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := range 5 {
		sendAll(near, superFrame(i, 30000))
	}
	if n := len(receiveIPv4(t, far, 5)); n != 5 {
		t.Fatalf("received %d of 5", n)
	}
	mustSleep(t, p)
}

func TestWakeEndsTheWaitUnderWayOrTheNext(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	p.Wake()
	p.Wake()
	if n := p.Wait(-1); n != 0 || !p.Woken() {
		t.Errorf("Wait = %d, woken %v; want 0, true", n, p.Woken())
	}
	if p.Wait(0); p.Woken() {
		t.Error("two calls of Wake end two Waits")
	}
	for range 100 {
		done := make(chan bool)
		go func() {
			for !p.Woken() {
				p.Wait(-1)
			}
			close(done)
		}()
		p.Wake()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("Wake was lost")
		}
		p.Wait(0) // takes nothing: the wake-up is used up
		p.woken = false
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := p.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close() = %v, want ErrClosed", err)
	}
	p.Wake() // too late, and harmless
}

func TestPollerDoesNotSpinOnAClosedLink(t *testing.T) {
	s := twoEnds(t)
	far := s.open(Config{Interface: "far"})
	p, err := NewPoller(far)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	far.Close()
	if n := p.Wait(time.Second); n != 1 || !errors.Is(p.Err(0), ErrClosed) {
		t.Errorf("Wait = %d, Err = %v; want 1, ErrClosed", n, p.Err(0))
	}
	mustSleep(t, p)
	if n := far.Recv(make([]Frame, 1)); n != 0 {
		t.Errorf("Recv on a closed link = %d", n)
	}
	far.Release()
}

func TestAReplacedLinkIsPolledInTheOldOnesPlace(t *testing.T) {
	s := twoEnds(t)
	near, old := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far"})
	p, err := NewPoller(old)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	p.Replace(0, NewMem(MemConfig{}))
	if n := p.Wait(10 * time.Millisecond); n != 0 || p.Err(0) != nil {
		t.Errorf("Wait = %d, error %v with a link that cannot be polled", n, p.Err(0))
	}
	again := s.open(Config{Interface: "far"})
	p.Replace(0, again)
	sendAll(near, testFrame(1, 60))
	if n := p.Wait(time.Second); n != 1 || !p.Readable(0) {
		t.Errorf("Wait = %d, readable %v", n, p.Readable(0))
	}
	if n := again.Recv(make([]Frame, 4)); n != 1 {
		t.Errorf("Recv = %d, want 1", n)
	}
	again.Release()
}
