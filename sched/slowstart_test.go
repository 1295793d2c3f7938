package sched

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// startOf is a service in which one server of those in list, the last but for others before it, has just come back.
func startOf(t testing.TB, name string, list servers, starting ...*service.RealServer) (*SlowStart, service.Scheduler, service.Scheduler) {
	t.Helper()
	full := prepared(t, name, 0, list)
	s := new(SlowStart)
	for _, rs := range starting {
		s.Begin(rs, 0, 100*time.Second)
	}
	return s, full, s.Wrap(new(Config), name, 0, full, list, 0)
}

// shareOf makes n decisions at a time and says what part of them goes to rs. Connections stay, but everything ends before each
// thousandth, so that no server has more of them than others for long.
func shareOf(t testing.TB, s service.Scheduler, list servers, rs *service.RealServer, at time.Duration, n int) float64 {
	t.Helper()
	got := 0
	random := rand.New(rand.NewPCG(3, uint64(at)))
	bound := servers{}
	for range n {
		if len(bound) == 1000 {
			for _, b := range bound {
				b.Unbind(true)
			}
			bound = bound[:0]
		}
		q := &service.Request{Now: int64(at), Flow: packet.Flow{
			Src: packet.AddrFrom4(random.Uint32()), Dst: packet.AddrFrom4(random.Uint32()), DstPort: 80, SrcPort: 9, Proto: packet.ProtoTCP,
		}}
		p := s.Pick(q, list)
		if p == nil {
			t.Fatal("a connection is refused")
		}
		p.Bind(true)
		bound = append(bound, p)
		if p == rs {
			got++
		}
	}
	for _, b := range bound {
		b.Unbind(true)
	}
	return float64(got) / float64(n)
}

// With every scheduler a server that starts has at first a small part of its share, later more, at last all of it; with weights
// of 1 as well.
func TestSlowStartRampsWithEveryScheduler(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			list := servers{server(1, 1, 0, 0), server(2, 1, 0, 0), server(3, 1, 0, 0), server(4, 1, 0, 0)}
			if name == "fo" || name == "ovf" { // all there is goes to the heaviest
				for i := range list {
					list[i].SetWeight(50000)
				}
				list[1].SetWeight(100000)
			}
			rs := list[1]
			s, full, w := startOf(t, name, list, rs)
			if w == full {
				t.Fatal("Wrap() returned the bare scheduler")
			}
			fair := shareOf(t, prepared(t, name, 0, list), list, rs, 0, 4000)
			last := 0.0
			for _, at := range []time.Duration{0, 25 * time.Second, 50 * time.Second, 75 * time.Second, 95 * time.Second} {
				part := s.Share(rs, int64(at))
				got := shareOf(t, w, list, rs, at, 4000)
				t.Logf("after %v %.1f %% of the connections, of %.1f %% in the end", at, 100*got, 100*fair)
				if got > part*fair*1.15+0.02 || got < part*fair*0.8-0.02 {
					t.Errorf("after %v it has %.3f of the connections, want %.2f of %.3f", at, got, part, fair)
				}
				if got <= last {
					t.Errorf("after %v it has %.3f of the connections, before that %.3f", at, got, last)
				}
				last = got
			}
			if !s.Over(int64(100*time.Second)) || s.Over(int64(99*time.Second)) {
				t.Error("Over() is wrong")
			}
			if got := s.Wrap(new(Config), name, 0, full, list, int64(100*time.Second)); got != full {
				t.Error("after the slow start the scheduler isn't bare")
			}
		})
	}
}

// A least-connection scheduler would send everything to the server that has nothing (users of Envoy, Caddy, Traefik and Skipper
// have met that).
func TestSlowStartKeepsLeastConnectionFromFlooding(t *testing.T) {
	for _, name := range []string{"lc", "wlc", "sed", "nq", "lblc", "lblcr"} {
		list := servers{}
		for i := range 10 {
			list = append(list, server(i+1, 1, 200, 0))
		}
		fresh := server(11, 1, 0, 0)
		list = append(servers{fresh}, list...)
		flooded := shareOf(t, prepared(t, name, 0, list), list, fresh, 0, 150)
		_, _, w := startOf(t, name, list, fresh)
		got := shareOf(t, w, list, fresh, time.Second, 150)
		if flooded < 0.9 || got > 0.05 {
			t.Errorf("%s: of the first connections %.2f go to the new server, without slow start %.2f", name, got, flooded)
		}
	}
}

// A client that a hash leads to the server goes there from some moment on, and until then to where it would be without it.
func TestSlowStartOfHashesMovesEachClientOnce(t *testing.T) {
	for _, name := range []string{"sh", "mh", "dh"} {
		list := servers{server(1, 3, 0, 0), server(2, 3, 0, 0), server(3, 3, 0, 0)}
		without := prepared(t, name, 0, list[1:])
		_, full, w := startOf(t, name, list, list[0])
		for n := range 2000 {
			q := request(n)
			there, before := full.Pick(q, list), without.Pick(q, list[1:])
			moved := false
			for at := time.Duration(0); at <= 100*time.Second; at += 5 * time.Second {
				q.Now = int64(at)
				switch got := w.Pick(q, list); {
				case there != list[0]:
					if got != there {
						t.Fatalf("%s: a client of %v is sent to %v", name, there, got)
					}
				case got == there:
					moved = true
				case moved || got != before:
					t.Fatalf("%s: a client of %v is sent to %v after %v", name, before, got, at)
				}
			}
			if there == list[0] && !moved {
				t.Fatalf("%s: a client never came to its server", name)
			}
		}
	}
}

// When only servers that are starting can take a connection, they take it as the scheduler says.
func TestSlowStartRefusesNobody(t *testing.T) {
	for _, name := range Names() {
		list := servers{server(1, 2000, 0, 0), server(2, 2000, 0, 0)}
		_, _, w := startOf(t, name, list, list...)
		shareOf(t, w, list, list[0], time.Second, 500)
		if name == "sh" || name == "mh" || name == "dh" {
			continue // they refuse those whose server is overloaded, as ever
		}
		_, _, w = startOf(t, name, list, list[0])
		overloaded(list[1])
		if got := shareOf(t, w, list, list[0], time.Second, 500); got != 1 {
			t.Errorf("%s: %.2f of the connections go to the only server that can take any", name, got)
		}
	}
}

// Beside servers that start, edits of others keep what is earned, and what is asked ahead changes nothing.
func TestSlowStartOutlivesTables(t *testing.T) {
	list := servers{server(1, 1, 0, 0), server(2, 1, 0, 0), server(3, 1, 0, 0)}
	s, full, w := startOf(t, "rr", list, list[0])
	got := 0
	for n := range 3000 {
		if n%7 == 0 {
			w = s.Wrap(new(Config), "rr", 0, full, list, 0)
		}
		q := request(n)
		q.Now = int64(50 * time.Second)
		foretold := service.Fork(w, q).Pick(q, list)
		rs := w.Pick(q, list)
		if foretold != rs {
			t.Fatalf("decision %d: %v was foretold, %v picked", n, foretold, rs)
		}
		if rs == list[0] {
			got++
		}
	}
	if got < 450 || got > 550 {
		t.Errorf("at half its time it has %d of 3000 connections, want some 525", got)
	}
	s.End(list[0])
	if s.Wrap(new(Config), "rr", 0, full, list, 0) != full {
		t.Error("End() ends nothing")
	}
	s.Begin(list[0], 0, 0)
	if s.Wrap(new(Config), "rr", 0, full, list, 0) != full {
		t.Error("a slow start of no time starts")
	}
}

// What a decision will be can be told ahead while servers start, with every scheduler, and asking changes nothing.
func TestSlowStartIsForetold(t *testing.T) {
	for _, name := range Names() {
		r := rand.New(rand.NewPCG(5, 6))
		list := randomList(r, 8, 9)
		for len(list) < 3 {
			list = randomList(r, 8, 9)
		}
		_, _, w := startOf(t, name, list, list[0], list[len(list)-1])
		for n := range 500 {
			q := request(r.IntN(40))
			q.Now = int64(n) * int64(200*time.Millisecond)
			for range r.IntN(3) {
				service.Fork(w, q).Pick(q, list)
			}
			foretold := service.Fork(w, q).Pick(q, list)
			rs := w.Pick(q, list)
			if rs != foretold {
				t.Fatalf("%s, decision %d: %v was foretold, %v picked", name, n, foretold, rs)
			}
			if rs != nil && r.IntN(2) == 0 {
				rs.Bind(true)
			}
		}
	}
}

func TestSlowStartAllocatesNothing(t *testing.T) {
	for _, name := range []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "mh", "dh", "twos", "rt"} {
		list := servers{server(1, 1, 0, 0), server(2, 1, 0, 0)}
		_, _, w := startOf(t, name, list, list[0])
		q := request(1)
		q.Now = int64(time.Second)
		if n := testing.AllocsPerRun(1000, func() { w.Pick(q, list) }); n != 0 {
			t.Errorf("%s: %v allocations a decision", name, n)
		}
	}
}

// Workers share what is earned: together they never take more.
func TestSlowStartByManyWorkers(t *testing.T) {
	list := servers{server(1, 1, 0, 0), server(2, 1, 0, 0)}
	_, _, w := startOf(t, "lc", list, list[0])
	var workers sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for range 4 {
		workers.Go(func() {
			mine := 0
			for range 5000 {
				q := service.Request{Now: int64(50 * time.Second)}
				if w.Pick(&q, list) == list[0] {
					mine++
				}
			}
			mu.Lock()
			got += mine
			mu.Unlock()
		})
	}
	workers.Wait()
	if got < 4800 || got > 5300 { // lc picks it always; half its time, half of the connections: 0.525 * 0.5 * 20000
		t.Errorf("at half its time it has %d of 20000 connections, want some 5250", got)
	}
}

// What a decision costs while nobody starts, and while one of two servers does.
func BenchmarkSlowStart(b *testing.B) {
	for _, name := range []string{"rr", "wlc", "mh"} {
		list := servers{server(1, 1, 0, 0), server(2, 1, 0, 0)}
		s, full, starting := startOf(b, name, list, list[0])
		s.End(list[0])
		for what, w := range map[string]service.Scheduler{"nobody": s.Wrap(new(Config), name, 0, full, list, 0), "one": starting} {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				q := request(7)
				for b.Loop() {
					w.Pick(q, list)
				}
			})
		}
	}
}
