package sched

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"uvs/service"
)

const ms = time.Millisecond

// seededRT is rt with random numbers that are the same in every run.
func seededRT(seed uint64) *rt { return &rt{random: rand.New(rand.NewPCG(seed, 0)).Float64} }

// quick gives rs a set-up latency as of now.
func quick(rs *service.RealServer, d time.Duration, now int64) *service.RealServer {
	rs.ObserveSetup(d, now)
	return rs
}

// draws counts which servers n decisions fall on. No connection is made.
func draws(s service.Scheduler, list servers, n int, now int64) []int {
	counts := make([]int, len(list))
	r := request(1)
	r.Now = now
	for range n {
		rs := s.Pick(r, list)
		for i := range list {
			if list[i] == rs {
				counts[i]++
			}
		}
	}
	return counts
}

func TestResponseTimeChances(t *testing.T) {
	const now = int64(time.Hour)
	waiting := func(rs *service.RealServer, n int) *service.RealServer {
		for range n {
			rs.BeginSetup()
		}
		return rs
	}
	probed := func(rs *service.RealServer, d time.Duration) *service.RealServer {
		rs.ObserveProbe(d, now)
		return rs
	}
	for _, c := range []struct {
		situation string
		list      servers
		want      []float64 // chances, to any scale
	}{
		{"nothing known: by weight", servers{server(1, 1, 0, 0), server(2, 3, 0, 0), server(3, 0, 0, 0)}, []float64{1, 3, 0}},
		{"twice as slow: a quarter", servers{quick(server(1, 1, 0, 0), 5*ms, now), quick(server(2, 1, 0, 0), 10*ms, now)},
			[]float64{4, 1}},
		{"weights", servers{quick(server(1, 1, 0, 0), 5*ms, now), quick(server(2, 8, 0, 0), 10*ms, now)}, []float64{1, 2}},
		{"a new one counts as the quickest", servers{quick(server(1, 1, 0, 0), 20*ms, now), server(2, 1, 0, 0),
			quick(server(3, 1, 0, 0), 10*ms, now)}, []float64{1, 4, 4}},
		{"waiting clients", servers{waiting(quick(server(1, 1, 0, 0), 5*ms, now), 1),
			quick(server(2, 1, 0, 0), 5*ms, now)}, []float64{1, 4}},
		{"waiting clients by weight", servers{waiting(server(1, 2, 0, 0), 2), server(2, 2, 0, 0)}, []float64{1, 4}},
		{"probes add", servers{probed(quick(server(1, 1, 0, 0), 5*ms, now), 25*ms),
			probed(quick(server(2, 1, 0, 0), 5*ms, now), 5*ms)}, []float64{1, 9}},
		{"differences below 0.1 ms are none", servers{quick(server(1, 1, 0, 0), 90*time.Microsecond, now),
			quick(server(2, 1, 0, 0), 10*time.Microsecond, now)}, []float64{1, 1}},
		{"ten seconds old: half of the excess", servers{quick(server(1, 1, 0, 0), 9*ms, now-int64(rtForget)),
			quick(server(2, 1, 0, 0), 1*ms, now)}, []float64{1, 25}},
		{"minutes old: forgotten", servers{quick(server(1, 1, 0, 0), 9*ms, now-int64(10*time.Minute)),
			quick(server(2, 1, 0, 0), 1*ms, now)}, []float64{1, 1}},
		{"overloaded", servers{overloaded(quick(server(1, 9, 0, 0), ms, now)), quick(server(2, 1, 0, 0), time.Second, now)},
			[]float64{0, 1}},
	} {
		got := draws(seededRT(1), c.list, 20000, now)
		chiSquare(t, c.situation, got, c.want)
	}
}

// chiSquare fails t if counts are not what draws with these chances give, but for once in a million.
func chiSquare(t *testing.T, situation string, counts []int, chances []float64) {
	t.Helper()
	n, sum, free := 0, 0.0, -1.0
	for i := range counts {
		n += counts[i]
		sum += chances[i]
	}
	x := 0.0
	for i := range counts {
		want := float64(n) * chances[i] / sum
		if want == 0 {
			if counts[i] != 0 {
				t.Errorf("%s: server %d without a chance was picked %d times", situation, i, counts[i])
			}
			continue
		}
		x += (float64(counts[i]) - want) * (float64(counts[i]) - want) / want
		free++
	}
	// The quantile after Wilson and Hilferty; 4.753 is the normal distribution's.
	limit := free * math.Pow(1-2/(9*free)+4.753*math.Sqrt(2/(9*free)), 3)
	if free > 0 && x > limit {
		t.Errorf("%s: picks %v, chances %v: chi-square %.1f, want at most %.1f", situation, counts, chances, x, limit)
	}
}

// station is a real server in virtual time: it sets up connections after a delay, so many at a time.
type station struct {
	*service.RealServer
	delay time.Duration
}

// rtWorld lets clients come at a steady rate for a while and tells, of each tenth of a second, how many each server got.
type rtWorld struct {
	s        service.Scheduler
	stations []*station
	list     servers
	now      int64
	waiting  map[int64][]func() // what happens at a millisecond
}

func newRTWorld(seed uint64, delays ...time.Duration) *rtWorld {
	w := &rtWorld{s: seededRT(seed), now: int64(time.Hour), waiting: map[int64][]func(){}}
	for i, d := range delays {
		st := &station{server(i+1, 1, 0, 0), d}
		w.stations = append(w.stations, st)
		w.list = append(w.list, st.RealServer)
	}
	w.s.Prepare(w.list)
	return w
}

func (w *rtWorld) run(d time.Duration, perMilli int) (tenths [][]int) {
	r := request(1)
	for i := range int64(d / ms) {
		if i%100 == 0 {
			tenths = append(tenths, make([]int, len(w.list)))
		}
		at := w.now / int64(ms)
		for _, f := range w.waiting[at] {
			f()
		}
		delete(w.waiting, at)
		r.Now = w.now
		for range perMilli {
			rs := w.s.Pick(r, w.list)
			for n, st := range w.stations {
				if st.RealServer != rs {
					continue
				}
				tenths[len(tenths)-1][n]++
				delay := st.delay
				rs.BeginSetup()
				done := at + int64(delay/ms)
				w.waiting[done] = append(w.waiting[done], func() {
					rs.EndSetup()
					rs.ObserveSetup(delay, w.now)
				})
			}
		}
		w.now += int64(ms)
	}
	return tenths
}

func total(tenths [][]int, server int) (n int) {
	for _, t := range tenths {
		n += t[server]
	}
	return n
}

func TestResponseTimeDoesNotHerd(t *testing.T) {
	w := newRTWorld(1, 10*ms, 10*ms, 10*ms, 10*ms)
	w.run(2*time.Second, 4)
	for i, tenth := range w.run(10*time.Second, 4) { // 400 in a tenth of a second
		for n, got := range tenth {
			if got < 50 || got > 150 {
				t.Errorf("equal server %d got %d of 400 connections in tenth %d", n, got, i)
			}
		}
	}
}

func TestResponseTimeLeavesAServerThatTurnsSlowAndComesBack(t *testing.T) {
	w := newRTWorld(2, 5*ms, 5*ms, 5*ms)
	if n := total(w.run(5*time.Second, 2), 0); n < 3000 || n > 3700 {
		t.Errorf("one of three equals got %d of 10000 connections", n)
	}
	w.stations[0].delay = time.Second
	if n := total(w.run(time.Second, 2), 0); n > 120 { // before the first late sample
		t.Errorf("a server turned slow got %d of 2000 connections while it was silent", n)
	}
	w.run(2*time.Second, 2)
	if n := total(w.run(60*time.Second, 2), 0); n > 600 {
		t.Errorf("a slow server got %d of 120000 connections", n)
	}
	w.stations[0].delay = 5 * ms
	tenths := w.run(120*time.Second, 2)
	for i, tenth := range tenths {
		if tenth[0] > 140 {
			t.Errorf("the recovered server got %d of 200 connections in tenth %d", tenth[0], i)
		}
	}
	if n := total(tenths[len(tenths)-100:], 0); n < 5000 || n > 8000 {
		t.Errorf("two minutes after it recovered the server gets %d of 20000 connections, want a third", n)
	}
}

func TestResponseTimeDoesNotFloodANewServer(t *testing.T) {
	w := newRTWorld(3, 20*ms, 20*ms, 20*ms)
	w.run(2*time.Second, 3)
	fresh := &station{server(9, 1, 0, 0), 50 * ms}
	w.stations = append(w.stations, fresh)
	w.list = append(w.list, fresh.RealServer)
	w.s.Prepare(w.list)
	tenths := w.run(2*time.Second, 3)
	if n := tenths[0][3]; n > 100 {
		t.Errorf("a new server got %d of its first 300 connections, want no more than a third", n)
	}
	if n := total(tenths[10:], 3); n == 0 || n > 400 {
		t.Errorf("a new server that is slower gets %d of 3000 connections, want some, but fewer than its quarter", n)
	}
}

func TestResponseTimeAsksForSamples(t *testing.T) {
	rs := server(1, 1, 0, 0)
	if rs.SetupsTimed() {
		t.Error("set-ups are timed before anybody asks")
	}
	prepared(t, "rt", 0, servers{rs})
	if !rs.SetupsTimed() {
		t.Error("rt's servers' set-ups aren't timed")
	}
}
