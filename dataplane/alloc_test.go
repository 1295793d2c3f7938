package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"uvs/dataplane/link"
	"uvs/packet"
	"uvs/service"
)

// replaying returns a worker whose port 0 hands out an established connection's frames for ever, and the frames' number.
func replaying(t testing.TB, m service.Method, flows int) (*worker, int) {
	var frames []link.Frame
	d := newDirector(t, nil)
	d.serve(service.TCP, m, "10.1.0.11:8080", "10.1.0.12:8080", "10.1.0.13:8080")
	d.run()
	for i := range flows {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i >> 14)}), uint16(1024+i&0x3fff))
		d.mem[0].Inject(fromClient(t, src, "S", ""))
		f := fromClient(t, src, "A", "")
		d.mem[0].Inject(f)
		frames = append(frames, link.Frame{Buf: append(make([]byte, packet.VnetLen), f...)})
		if i%1024 == 0 {
			d.run()
		}
	}
	d.run()
	if s := d.conns.Stats(); s.Conns != flows {
		t.Fatalf("%d connections established, want %d", s.Conns, flows)
	}
	w := d.plane.workers[0]
	w.rx = []link.Link{link.NewReplay(frames...)}
	w.setTx([]link.Link{w.rx[0], link.NewReplay(frames[0])}) // the second for its throwing away what is sent
	return w, len(frames)
}

func TestAllocEstablishedConnectionsAllocateNothing(t *testing.T) {
	for _, m := range []service.Method{service.Route, service.Masq} {
		w, _ := replaying(t, m, 64)
		now := 1001 * second
		w.step(now)
		if n := testing.AllocsPerRun(100, func() { now += 1000; w.step(now) }); n != 0 {
			t.Errorf("%v: %v allocations per batch, want 0", m, n)
		}
		if v := w.verdicts; v[ForwardedDR]+v[ForwardedNAT] != w.received {
			t.Errorf("%v: frames were not forwarded: %v", m, v)
		}
	}
}

func benchmarkEstablished(b *testing.B, m service.Method) {
	for _, flows := range []int{4096} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			w, _ := replaying(b, m, flows)
			now := 1001 * second
			w.step(now)
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				// One iteration is one packet: a batch is worth as many as it had.
				if n == 0 {
					start := w.received
					now += 50_000
					w.step(now)
					n = w.received - start
				}
				n--
			}
			if done := w.verdicts[ForwardedDR] + w.verdicts[ForwardedNAT]; done != w.received {
				b.Fatalf("%d of %d frames forwarded", done, w.received)
			}
		})
	}
}

func BenchmarkEstablishedDR(b *testing.B)  { benchmarkEstablished(b, service.Route) }
func BenchmarkEstablishedNAT(b *testing.B) { benchmarkEstablished(b, service.Masq) }
