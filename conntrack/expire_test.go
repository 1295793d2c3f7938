package conntrack

import (
	"fmt"
	"math"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

func TestTimersAreNeverEarlyAndSoonEnough(t *testing.T) {
	const late = 500 * time.Millisecond
	syn, ack, fin, rst := uint8(packet.TCPSyn), uint8(packet.TCPAck), uint8(packet.TCPFin|packet.TCPAck), uint8(packet.TCPRst)
	for _, tt := range []struct {
		name  string
		proto service.Proto
		flags []uint8
		want  time.Duration
	}{
		{"SYN_RECV", service.TCP, []uint8{syn}, time.Minute},
		{"ESTABLISHED", service.TCP, []uint8{syn, ack}, 15 * time.Minute},
		{"from 15 minutes to 2", service.TCP, []uint8{syn, ack, fin}, 2 * time.Minute},
		{"from 15 minutes to 10 seconds", service.TCP, []uint8{syn, ack, rst}, 10 * time.Second},
		{"UDP", service.UDP, []uint8{0}, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Shards: 1})
			rs := w.server(t, "10.1.0.11:80", service.Route)
			for i := range 50 {
				f := numbered(tt.proto, i)
				var c Conn
				begin := w.now
				for j, flags := range tt.flags {
					if j == 0 {
						w.Insert(newConn(f, rs, flags, begin), &c)
					} else {
						w.In(&f, flags, begin, &c)
					}
				}
				w.now = begin + int64(tt.want)
				w.settle()
				if !w.Find(&f, In, w.now, &c) || rs.Refs() != 1 {
					t.Fatal("gone early")
				}
				w.now += int64(50 * time.Millisecond)
				if w.Find(&f, In, w.now, &c) {
					t.Fatal("found after its time")
				}
				w.open(f, rs, &c) // again, to see when the wheel comes to it
				if tt.proto == service.TCP {
					for _, flags := range tt.flags[1:] {
						w.In(&f, flags, w.now, &c)
					}
				}
				w.now += int64(tt.want + late)
				w.settle()
				if rs.Refs() != 0 {
					t.Fatalf("still counted %v after its time", late)
				}
				w.now += int64(i) * 7654321 // another phase of the wheel
			}
		})
	}
}

func TestTimerSpansWrapsOfClockAndWheel(t *testing.T) {
	const tickWrap = int64(1) << (32 + tickShift)
	for _, now := range []int64{0, 1, tickWrap/2 - int64(time.Minute), tickWrap - int64(time.Minute), 3*tickWrap - int64(time.Minute)} {
		w := newWorld(t, Config{Shards: 2})
		rs := w.server(t, "10.1.0.11:80", service.Route)
		w.now = now
		w.SetTimeouts(0, 0, time.Hour)
		f := flow(service.UDP, "192.0.2.1:1000", "10.9.0.100:53")
		var c Conn
		w.open(f, rs, &c)
		w.pass(59 * time.Minute)
		if w.In(&f, 0, w.now, &c) != Hit {
			t.Fatalf("from %d: gone after 59 minutes", now)
		}
		w.pass(59 * time.Minute)
		if !w.Find(&f, In, w.now, &c) || rs.Inactive() != 1 {
			t.Fatalf("from %d: gone 59 minutes after its last packet", now)
		}
		w.pass(61 * time.Second)
		if rs.Inactive() != 0 || w.Stats().Conns != 0 {
			t.Fatalf("from %d: still there after its time", now)
		}
	}
}

func TestWorkerWhoseTimeIsBehind(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:80", service.Route)
	var c Conn
	w.open(numbered(service.UDP, 0), rs, &c)
	w.pass(90 * time.Second)
	n := newConn(numbered(service.TCP, 1), rs, packet.TCPSyn, w.now-int64(80*time.Second)) // SYN_RECV lasts 60
	w.Insert(n, &c)
	w.pass(time.Second)
	if got := rs.Refs(); got != 1 {
		t.Errorf("%d connections counted, want the one whose time isn't up", got)
	}
}

func TestLongSleepIsCaughtUp(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	for i := range 5000 {
		w.open(numbered(service.TCP, i), rs, &c)
	}
	w.now += int64(30 * 24 * time.Hour)
	calls := 1
	for w.Advance(w.now, 100) {
		calls++
	}
	if rs.Refs() != 0 || calls < 40 {
		t.Errorf("%d connections left after %d calls of Advance with a budget of 100", rs.Refs(), calls)
	}
}

func TestAdvanceKeepsToItsBudget(t *testing.T) {
	w := newWorld(t, Config{Shards: 4})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	for i := range 1000 {
		w.open(numbered(service.TCP, i), rs, &c)
	}
	w.now += int64(2 * time.Minute)
	for before := rs.Refs(); before > 0; before = rs.Refs() {
		w.Advance(w.now, 10)
		if done := before - rs.Refs(); done > 12 {
			t.Fatalf("%d expirations with a budget of 10", done)
		}
	}
}

func TestSetTimeouts(t *testing.T) {
	w := newWorld(t, Config{})
	if got := w.Timeouts(); got != DefaultTimeouts() {
		t.Errorf("Timeouts() = %v at first", got)
	}
	w.SetTimeouts(0, 7*time.Second, 0)
	w.SetTimeouts(100*time.Second, 0, 3*time.Second)
	want := Timeouts{TCP: 100 * time.Second, TCPFin: 7 * time.Second, UDP: 3 * time.Second}
	if got := w.Timeouts(); got != want {
		t.Errorf("Timeouts() = %v, want %v", got, want)
	}
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	var c Conn
	w.open(f, rs, &c)
	w.In(&f, packet.TCPAck, w.now, &c)
	w.SetTimeouts(10*time.Second, 0, 0)
	w.pass(50 * time.Second)
	if o := w.In(&f, packet.TCPAck, w.now, &c); o != Hit {
		t.Errorf("a changed timeout reached an entry before its next packet: %v", o)
	}
	w.pass(11 * time.Second)
	if n := rs.Refs(); n != 0 {
		t.Error("a shorter timeout isn't kept after the next packet")
	}
}

func TestTimeoutTicks(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want uint32
	}{
		{0, 1}, {-time.Second, 1}, {1, 2}, {1 << tickShift, 2}, {1<<tickShift + 1, 3}, {time.Second, 61},
		{100 * 365 * 24 * time.Hour, maxTimeout}, {math.MaxInt64, maxTimeout}, {math.MinInt64, 1},
	} {
		if got := timeoutTicks(tt.d); got != tt.want {
			t.Errorf("timeoutTicks(%v) = %d, want %d", tt.d, got, tt.want)
		}
	}
}

func TestRemovedServersAreFlushed(t *testing.T) {
	w := newWorld(t, Config{Shards: 4})
	stays, goes := w.server(t, "10.1.0.11:80", service.Masq), w.server(t, "10.1.0.12:80", service.Route)
	var c Conn
	for i := range 3000 {
		rs := stays
		if i%3 == 0 {
			rs = goes
		}
		f := numbered(service.UDP, i)
		n := newConn(f, rs, 0, w.now)
		if i%2 == 0 {
			k := TemplateKey{Proto: service.UDP, Client: f.Src, Virtual: packet.AddrFrom4(uint32(i)), VirtualPort: 80}
			w.InsertTemplate(&NewTemplate{TemplateKey: k, Server: rs.IP, RS: rs, Timeout: time.Hour, Now: w.now}, &c)
			n.Template = c.ID
		}
		w.Insert(n, &c)
	}
	// A template without connections goes as well.
	k := TemplateKey{Proto: service.UDP, Client: packet.AddrFrom4(1), Virtual: packet.AddrFrom4(2)}
	w.InsertTemplate(&NewTemplate{TemplateKey: k, Server: goes.IP, RS: goes, Timeout: time.Hour, Now: w.now}, &c)

	goes.SetAvailable(false)
	w.ExpireRemoved()
	w.settle()
	if got, want := counts(goes), [3]int32{0, 1000, 501}; got != want {
		t.Fatalf("counts with expire_nodest_conn=0 = %v, want %v", got, want)
	}
	w.SetSettings(Settings{ConnReuseMode: 1, ExpireNodestConn: true})
	w.ExpireRemoved()
	calls := 1
	for w.Advance(w.now, 50) {
		calls++
	}
	if got := counts(goes); got != [3]int32{} {
		t.Errorf("counts of the removed server = %v, want none", got)
	}
	if got, want := counts(stays), [3]int32{0, 2000, 1000}; got != want {
		t.Errorf("counts of the other server = %v, want %v", got, want)
	}
	if calls < 20 {
		t.Errorf("the flush took %d calls of Advance with a budget of 50", calls)
	}
}

func TestReusedEntryIsCountedUntilTheNextAdvance(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	var c Conn
	w.open(f, rs, &c)
	w.In(&f, packet.TCPAck, w.now, &c)
	w.In(&f, packet.TCPRst, w.now, &c)
	if o := w.In(&f, packet.TCPSyn, w.now, &c); o != MissReused || !o.Missed() {
		t.Fatalf("SYN in CLOSE: %v", o)
	}
	if got, want := counts(rs), [3]int32{0, 1, 0}; got != want {
		t.Errorf("counts when the scheduler is asked = %v, want %v as in the kernel", got, want)
	}
	w.open(f, rs, &c)
	w.settle()
	if got, want := counts(rs), [3]int32{1, 0, 0}; got != want {
		t.Errorf("counts = %v, want %v", got, want)
	}
}

func TestOverloadFollowsBindAndUnbind(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:53", service.Route)
	rs.SetThresholds(4, 2)
	var c Conn
	for i := range 4 {
		if rs.Overloaded() {
			t.Fatalf("overloaded after %d of 4 connections", i)
		}
		w.open(numbered(service.UDP, i), rs, &c)
	}
	if !rs.Overloaded() {
		t.Fatal("not overloaded at the threshold")
	}
	w.pass(6 * time.Minute)
	if rs.Overloaded() || rs.Refs() != 0 {
		t.Error("still overloaded without connections")
	}
}

func ExampleState_String() {
	fmt.Println(SynRecv, UDPNormal, TemplateAssured)
	// Output: SYN_RECV UDP ASSURED
}
