package conntrack

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// follower keeps counts by what a watcher is told.
type follower struct {
	conns  map[ID]*followed
	counts map[uint32][2]int32 // by real server: active, inactive
	kinds  [Refused + 1]int
	last   uint64
}

type followed struct {
	rs     uint32
	active bool
}

func newFollower() *follower {
	return &follower{conns: map[ID]*followed{}, counts: map[uint32][2]int32{}}
}

func (f *follower) add(rs uint32, active bool, n int32) {
	c := f.counts[rs]
	if active {
		c[0] += n
	} else {
		c[1] += n
	}
	f.counts[rs] = c
}

func (f *follower) take(t *testing.T, events []Event) {
	t.Helper()
	for _, e := range events {
		f.kinds[e.Kind]++
		if e.Seq <= f.last {
			t.Fatalf("event %+v comes behind number %d", e, f.last)
		}
		f.last = e.Seq
		switch c := f.conns[e.ID]; {
		case e.Kind == Passed || e.Kind == Refused:
		case e.Kind == Opened:
			if c != nil {
				t.Fatalf("opened twice: %+v", e)
			}
			f.conns[e.ID] = &followed{rs: e.RS}
			f.add(e.RS, false, 1)
		case c == nil:
			t.Fatalf("of a connection that was never opened: %+v", e)
		case e.Kind == Closed:
			f.add(c.rs, c.active, -1)
			delete(f.conns, e.ID)
		case c.active == (e.Kind == Activated):
			t.Fatalf("it is so already: %+v", e)
		default:
			f.add(c.rs, c.active, -1)
			c.active = e.Kind == Activated
			f.add(c.rs, c.active, 1)
		}
	}
}

// TestAWatcherCountsAsTheServersDo lets watched connections live at random and compares the counts that a watcher comes to
// with those of the servers.
func TestAWatcherCountsAsTheServersDo(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			w := newWorld(t, Config{Shards: 4})
			rs := []*service.RealServer{w.server(t, family.server, service.Masq), w.server(t, family.server, service.Route)}
			w.Watch()
			f, c := newFollower(), Conn{}
			var events []Event
			flags := []uint8{packet.TCPSyn, packet.TCPAck, packet.TCPFin | packet.TCPAck, packet.TCPRst}
			doomed := func(s *service.RealServer) bool { return s == rs[1] }
			for step := range 8000 {
				proto := []service.Proto{service.TCP, service.UDP}[random.IntN(2)]
				flow := family.numbered(proto, random.IntN(300))
				switch n := random.IntN(20); {
				case n < 8:
					one := newConn(flow, rs[random.IntN(2)], flags[random.IntN(2)], w.now)
					one.Flags = Watched
					w.Insert(one, &c)
				case n < 14:
					w.In(&flow, flags[random.IntN(4)], w.now, &c)
				case n < 18:
					a := answer(flow, rs[0])
					w.Out(&a, flags[random.IntN(4)], w.now, &c)
				case step%1000 == 0:
					w.Cut(doomed, w.now)
				default:
					w.pass(time.Duration(random.IntN(5)) * time.Second)
				}
				if events = w.Events(events[:0]); len(events) == 0 {
					continue
				}
				f.take(t, events)
				for _, s := range rs {
					if got := f.counts[s.Index]; got != [2]int32{s.Active(), s.Inactive()} {
						t.Fatalf("step %d: counted %v, the server has %d and %d", step, got, s.Active(), s.Inactive())
					}
				}
			}
			for kind, n := range f.kinds[:Passed] {
				if n < 50 {
					t.Errorf("kind %d came %d times: that tests little", kind, n)
				}
			}
			if missed, torn := w.Missed(); missed+torn != 0 {
				t.Errorf("missed %d, torn %d", missed, torn)
			}
			w.pass(time.Hour)
			f.take(t, w.Events(nil))
			if len(f.conns) != 0 {
				t.Errorf("%d connections never ended", len(f.conns))
			}
		})
	}
}

func TestOnlyWatchedConnectionsAreTold(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	one := newConn(numbered(service.TCP, 1), rs, packet.TCPSyn, w.now)
	one.Flags = Watched
	if w.Insert(one, &c); len(w.Events(nil)) != 0 {
		t.Error("told though nobody watches")
	}
	w.Watch()
	w.open(numbered(service.TCP, 2), rs, &c)
	if e := w.Events(nil); len(e) != 0 {
		t.Errorf("told of a connection that isn't watched: %+v", e)
	}
	two := newConn(numbered(service.UDP, 3), rs, 0, w.now)
	two.Flags, two.Service, two.Mark = Watched|OnePacket, 5, 6
	w.Insert(two, &c)
	w.Refuse(&two.Flow, 7, w.now)
	e := w.Events(nil)
	if len(e) != 2 || e[0].Kind != Passed || e[0].RS != rs.Index || e[0].Service != 5 || e[0].Flow != two.Flow || e[0].Now != w.now ||
		e[1].Kind != Refused || e[1].RS != service.NoServer || e[1].Service != 7 {
		t.Errorf("events %+v", e)
	}
	w.Insert(newWatched(numbered(service.TCP, 4), rs, w.now), &c)
	w.Unwatch()
	w.pass(time.Hour)
	if e := w.Events(nil); len(e) != 0 {
		t.Errorf("told after the watch was over: %+v", e)
	}
}

func newWatched(f packet.Flow, rs *service.RealServer, now int64) *NewConn {
	n := newConn(f, rs, packet.TCPSyn, now)
	n.Flags = Watched
	return n
}

func TestWhatASlowWatcherMissesIsCounted(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	w.Watch()
	var c Conn
	for i := range 200 {
		w.Insert(newWatched(numbered(service.TCP, i), rs, w.now), &c)
	}
	const told = watchOpens / 2 // each is opened and becomes active
	if missed, torn := w.Missed(); missed != 200-told || torn != 0 {
		t.Errorf("missed %d, torn %d", missed, torn)
	}
	w.pass(time.Hour) // all end, the untold ones silently
	missed, torn := w.Missed()
	if e := w.Events(nil); len(e) != watchRoom || torn != told-(watchRoom-watchOpens) || missed != 200-told {
		t.Errorf("%d events, missed %d, torn %d", len(e), missed, torn)
	}
	if w.Events(nil) != nil {
		t.Error("events come twice")
	}
}

func TestWatchingAllocatesNothing(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	w.Watch()
	var c Conn
	events := make([]Event, 0, 1000)
	i := 0
	one := newWatched(numbered(service.TCP, 0), rs, w.now)
	if n := testing.AllocsPerRun(1000, func() {
		i++
		one.Flow = numbered(service.TCP, i%100)
		w.Insert(one, &c)
		w.In(&one.Flow, packet.TCPAck, w.now, &c)
		w.In(&one.Flow, packet.TCPRst, w.now, &c)
		events = w.Events(events[:0])
	}); n != 0 {
		t.Errorf("%v allocations a connection", n)
	}
}

func TestWorkersAndAWatcherTogether(t *testing.T) {
	w := newWorld(t, Config{Shards: 16})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	w.Watch()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			var c Conn
			for i := range 3000 {
				f := numbered(service.TCP, worker*3000+i)
				w.Insert(newWatched(f, rs, w.now), &c)
				w.In(&f, packet.TCPAck, w.now, &c)
				w.In(&f, packet.TCPRst, w.now, &c)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	opened := 0
	var events []Event
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		events = w.Events(events[:0])
		for _, e := range events {
			if e.Kind == Opened {
				opened++
			}
		}
	}
	if missed, _ := w.Missed(); opened+int(missed) != 12000 {
		t.Errorf("%d opened and %d missed of 12000", opened, missed)
	}
}

func BenchmarkWatchedConnection(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%v", watched), func(b *testing.B) {
			w := newWorld(b, Config{})
			rs := w.server(b, "10.1.0.11:80", service.Masq)
			if watched {
				w.Watch()
			}
			var c Conn
			events := make([]Event, 0, 1<<16)
			one := newConn(numbered(service.TCP, 0), rs, packet.TCPSyn, w.now)
			if watched {
				one.Flags = Watched
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				one.Flow, one.Now = numbered(service.TCP, i), w.now
				w.Insert(one, &c)
				w.In(&one.Flow, packet.TCPAck, w.now, &c)
				w.In(&one.Flow, packet.TCPRst, w.now, &c)
				if i%4096 == 0 {
					events = w.Events(events[:0])
					w.now += int64(20 * time.Second) // all of them expire
					w.settle()
				}
			}
		})
	}
}
