package decap

import (
	"errors"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"uvs/dataplane/tun"
	"uvs/packet"
)

// memory is a device that remembers the last packet.
type memory struct {
	last []byte
	err  error
}

func (m *memory) Write(b []byte) (int, error) {
	m.last = b
	return len(b), m.err
}

// bench makes a worker without sockets.
func bench(t testing.TB) (*worker, *memory, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	h := new(host)
	h.local.Store(&here)
	m := new(memory)
	return &worker{rules: rules(t), host: h, device: m, notices: notices{log: zap.New(core)}, now: time.Unix(1e9, 0)}, m, logs
}

// buffer is the frame as the tap receives it.
func buffer(frame []byte, v packet.Vnet) received {
	return received{buf: append(v[:], frame...), l3: 14, ifindex: 2}
}

func datagram(t testing.TB, outerSrc, innerDst string) received {
	t.Helper()
	return buffer(tunnelled(t, ip4(outerSrc, rip, layers.IPProtocolIPv4, 0), ip4(cip, innerDst, layers.IPProtocolUDP, 0), "x"), packet.Vnet{})
}

func TestEveryPacketEndsInOneVerdict(t *testing.T) {
	w, m, _ := bench(t)
	must(t, w.handle(datagram(t, dip, vip)))
	if v := (*packet.Vnet)(m.last); *v != (packet.Vnet{}) || m.last[packet.VnetLen] != 0x45 || len(m.last) != packet.VnetLen+29 {
		t.Errorf("wrote %x", m.last)
	}
	frame, v := segment(t, ip4(dip, rip, layers.IPProtocolIPv4, 0), ip4(cip, vip, layers.IPProtocolTCP, 0), 3000, 1000)
	must(t, w.handle(buffer(frame, v)))
	if v := (*packet.Vnet)(m.last); v.CsumStart() != 20 || v.GSOSize() != 1000 || len(m.last) != packet.VnetLen+3040 {
		t.Errorf("wrote %x", m.last)
	}
	must(t, w.handle(datagram(t, "10.9.9.9", vip)))
	must(t, w.handle(datagram(t, dip, "192.0.2.200")))
	cut := datagram(t, dip, vip)
	cut.truncated = true
	must(t, w.handle(cut))
	m.err = tun.ErrDown
	must(t, w.handle(datagram(t, dip, vip)))
	m.err = tun.ErrGone
	if err := w.handle(datagram(t, dip, vip)); !errors.Is(err, tun.ErrGone) {
		t.Errorf("handle() = %v without a device, want ErrGone", err)
	}
	m.err = nil
	w.host.only = "eth0"
	w.host.ifindex.Store(3)
	must(t, w.handle(datagram(t, dip, vip)))
	w.host.ifindex.Store(2)
	must(t, w.handle(datagram(t, dip, vip)))

	want := Stats{Received: 9, Bytes: 29 + 3040 + 29, SuperFrames: 1}
	for verdict, n := range map[Verdict]uint64{Delivered: 3, DropDirector: 1, DropNotVIP: 1, DropTruncated: 1, DropDevice: 2, PassInterface: 1} {
		want.Verdicts[verdict] = n
	}
	if w.stats != want {
		t.Errorf("stats %+v, want %+v", w.stats, want)
	}
	sum := uint64(0)
	for v, n := range w.stats.Verdicts {
		if Verdict(v).String() == "" {
			t.Errorf("verdict %d has no name", v)
		}
		sum += n
	}
	if sum != w.stats.Received {
		t.Errorf("%d verdicts for %d packets", sum, w.stats.Received)
	}
}

func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	w, _, logs := bench(t)
	for range 100 {
		must(t, w.handle(datagram(t, "10.9.9.9", vip)))
		must(t, w.handle(datagram(t, dip, "192.0.2.200")))
	}
	if n := logs.Len(); n != 2 {
		t.Fatalf("%d lines for 200 refused packets of two kinds, want 2", n)
	}
	w.now = w.now.Add(noticeInterval)
	must(t, w.handle(datagram(t, "10.9.9.8", vip)))
	all := logs.All()
	fields := all[len(all)-1].ContextMap()
	if len(all) != 3 || fields["tunnel-from"] != "10.9.9.8" || fields["source"] != cip || fields["destination"] != vip ||
		fields["more-since-last"] != uint64(99) {
		t.Errorf("%d lines, the last %v", len(all), fields)
	}
}

func TestStatsAreLoggedByName(t *testing.T) {
	w, _, logs := bench(t)
	must(t, w.handle(datagram(t, dip, vip)))
	must(t, w.handle(datagram(t, "10.9.9.9", vip)))
	w.stats.QueueFull = 7
	w.notices.log.Info("packets", zap.Inline(&w.stats))
	all := logs.All()
	got := all[len(all)-1].ContextMap()
	for name, want := range map[string]uint64{"received": 2, "delivered": 1, "director-not-allowed": 1, "bytes": 29, "queue-full": 7} {
		if got[name] != want {
			t.Errorf("%s: %v, want %d", name, got[name], want)
		}
	}
	if len(got) != 5 {
		t.Errorf("logged %v, want nothing that is 0", got)
	}
}

func TestAllocHandleAllocatesNothing(t *testing.T) {
	w, _, _ := bench(t)
	good, bad := datagram(t, dip, vip), datagram(t, "10.9.9.9", vip)
	before := good.buf
	good.buf = make([]byte, len(before))
	must(t, w.handle(bad)) // the line in the log
	if n := testing.AllocsPerRun(100, func() {
		copy(good.buf, before) // handling it wrote over the outer header
		for _, r := range []received{good, bad} {
			if err := w.handle(r); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
	if w.stats.Verdicts[Delivered] != 101 || w.stats.Verdicts[DropDirector] != 102 {
		t.Errorf("stats %+v", w.stats)
	}
}
