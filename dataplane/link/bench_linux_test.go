package link

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forwardOnce carries a batch from one link to another, as a worker does.
func forwardOnce(p *Poller, in, out *Socket, frames []Frame) int {
	p.Wait(time.Millisecond)
	n := in.Recv(frames)
	for i := range frames[:n] {
		out.Send(frames[i].Buf, nil)
	}
	out.Flush()
	in.Release()
	return n
}

// near --- far [forwarder] out --- sink    sink's kernel drops what is not for its MAC
func newForwarder(tb testing.TB, kind Kind) (near, in, out *Socket, p *Poller) {
	s := newSpace(tb)
	veth(s, "near", s, "far")
	veth(s, "out", s, "sink")
	near = s.open(Config{Interface: "near"})
	in, out = s.open(Config{Interface: "far", Kind: kind}), s.open(Config{Interface: "out", Kind: kind})
	p, err := NewPoller(in, out)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return near, in, out, p
}

func TestForwardingAllocatesNothing(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		near, in, out, p := newForwarder(t, kind)
		batch := [][]byte{testFrame(1, 60), testFrame(2, 1514), testFrame(3, 1600), superFrame(4, 30000)}
		frames := make([]Frame, 64)
		carried := 0
		allocs := testing.AllocsPerRun(500, func() {
			for _, f := range batch {
				near.Send(f, nil)
			}
			near.Flush() // one of the four is refused
			carried += forwardOnce(p, in, out, frames)
			carried += forwardOnce(p, in, out, frames) // nothing there
		})
		if allocs != 0 || carried < 1400 {
			t.Errorf("%v: %v allocations per batch, %d frames carried", kind, allocs, carried)
		}
	}
}

// The figures hold the generator's and the receive side's price as well: on veth all run one after the other.
func benchmarkForward(b *testing.B, kind Kind, size int) {
	near, in, out, p := newForwarder(b, kind)
	var batch [][]byte
	for i := range 64 {
		if size > 1514 {
			batch = append(batch, superFrame(i, size-54))
		} else {
			batch = append(batch, testFrame(i, size))
		}
	}
	frames := make([]Frame, 64)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var spent time.Duration // of the processor: others may use the machine as well
	carried := 0
	b.ReportAllocs()
	for b.Loop() {
		sendAll(near, batch...)
		begin := threadTime(b)
		carried += forwardOnce(p, in, out, frames)
		spent += threadTime(b) - begin
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(carried), "cpu-ns/frame")
	b.SetBytes(int64(64 * size))
	if st := out.Stats(); st.TxFrames != uint64(carried) || in.Stats().RxRingFull != 0 {
		b.Errorf("carried %d: %+v, %+v", carried, in.Stats(), st)
	}
}

func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func BenchmarkRingForward60(b *testing.B)     { benchmarkForward(b, KindRing, 60) }
func BenchmarkSimpleForward60(b *testing.B)   { benchmarkForward(b, KindSimple, 60) }
func BenchmarkRingForward1514(b *testing.B)   { benchmarkForward(b, KindRing, 1514) }
func BenchmarkSimpleForward1514(b *testing.B) { benchmarkForward(b, KindSimple, 1514) }
func BenchmarkRingForward60K(b *testing.B)    { benchmarkForward(b, KindRing, 60000) }
func BenchmarkSimpleForward60K(b *testing.B)  { benchmarkForward(b, KindSimple, 60000) }
