package sched

import (
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// at is request n at a time after the start.
func at(n int, d time.Duration) *service.Request {
	r := request(n)
	r.Now = int64(time.Hour + d)
	return r
}

func TestLBLCStaysAndLeaves(t *testing.T) {
	a, b := server(1, 2, 0, 0), server(2, 4, 0, 0)
	list := servers{a, b}
	s := prepared(t, "lblc", 0, list)
	pick := func(situation string, want *service.RealServer) {
		t.Helper()
		if rs := s.Pick(at(1, 0), list); rs != want {
			t.Errorf("%s: picked %v, want %v", situation, rs, want)
		}
	}
	pick("new destination, by wlc", a)
	a.Bind(true)
	a.Bind(true)
	pick("as many active as weight", a)
	a.Bind(true)
	pick("crowded, and b is idle", b)
	b.Bind(true)
	b.Bind(true)
	pick("remembered", b)
	overloaded(b)
	pick("the threshold doesn't evict", b)
	b.SetThresholds(0, 0)
	b.SetWeight(0)
	pick("quiesced", a)
	b.SetWeight(4)
	pick("remembered again: crowded but nobody has room", a)
	a.SetAvailable(false)
	list = servers{b}
	pick("gone", b)
}

func TestLBLCRSetGrowsAndShrinks(t *testing.T) {
	a, b, c := server(1, 1, 0, 0), server(2, 1, 0, 0), server(3, 10, 20, 0)
	list := servers{a, b, c}
	s := newLBLCR(10 * time.Second)
	pick := func(d time.Duration, situation string, want *service.RealServer, members ...*service.RealServer) {
		t.Helper()
		r := at(1, d)
		if rs := s.Pick(r, list); rs != want {
			t.Errorf("%s: picked %v, want %v", situation, rs, want)
		}
		bk := s.known.bucket(r.Flow.Dst)
		bk.mu.Lock()
		defer bk.mu.Unlock()
		got := bk.findLocked(r.Flow.Dst).what.members
		if len(got) != len(members) {
			t.Fatalf("%s: set is %v, want %v", situation, got, members)
		}
		for i := range got {
			if got[i] != members[i] {
				t.Errorf("%s: set is %v, want %v", situation, got, members)
			}
		}
	}
	pick(0, "new destination", a, a)
	a.Bind(true)
	a.Bind(true)
	pick(time.Second, "a crowded: b joins, first in the set", b, b, a)
	b.Bind(true)
	pick(2*time.Second, "least of the set", b, b, a)
	b.Bind(true)
	b.Bind(true)
	pick(11*time.Second, "set changed 10 s ago, not more: nothing goes; nobody has room, a is least", a, b, a)
	pick(11*time.Second+1, "b, the most loaded, goes", a, a)
	for range 18 {
		c.Unbind(true)
	}
	pick(12*time.Second, "a crowded and c has room", c, c, a)
}

func TestDestinationsExpire(t *testing.T) {
	list := servers{server(1, 1, 0, 0)}
	s := newLBLC(0)
	s.Pick(at(1, 0), list)
	for m := 1; m < 24*60; m++ { // a tick a minute, a full sweep at each half hour
		s.Pick(at(2, time.Duration(m)*time.Minute), list)
	}
	if n := s.known.entries.Load(); n != 2 {
		t.Errorf("%d destinations are known after less than a day, want 2", n)
	}
	s.Pick(at(2, 24*time.Hour), list)
	if n := s.known.entries.Load(); n != 1 {
		t.Errorf("%d destinations are known after a day, want the one in use", n)
	}
}

func TestSurplusDestinationsGoEarly(t *testing.T) {
	list := servers{server(1, 1, 0, 0)}
	s := newLBLC(0)
	const many = destMax + 3000
	for n := range many {
		s.Pick(at(n, 0), list)
	}
	s.Pick(at(0, 2*time.Minute), list)
	if n := s.known.entries.Load(); n != many {
		t.Errorf("%d destinations are known after 2 minutes, want all %d: none was idle for 6", n, many)
	}
	s.Pick(at(0, 7*time.Minute), list)
	if n := s.known.entries.Load(); n != many-4000 {
		t.Errorf("%d destinations are known after 7 minutes, want %d: 4/3 of the surplus gone", n, many-4000)
	}
}

func TestDestinationsAreBounded(t *testing.T) {
	list := servers{server(1, 1, 0, 0)}
	s := newLBLC(0)
	s.known.limit = 1000
	r := request(0)
	for n := range 1100 {
		r.Flow.Dst = packet.AddrFrom4(uint32(n))
		if s.Pick(r, list) != list[0] {
			t.Fatalf("request %d was refused", n)
		}
	}
	if n := s.known.entries.Load(); n != 1000 {
		t.Errorf("%d destinations are known, want the limit of 1000", n)
	}
}

func TestSettingsReachSchedulersThatLive(t *testing.T) {
	a, b := server(1, 1, 0, 0), server(2, 1, 0, 0)
	list := servers{a, b}
	var c Config
	for _, name := range []string{"lblc", "lblcr"} {
		s, err := c.New(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.Pick(at(1, 0), list)
		s.Pick(at(1, time.Minute), list) // the first sweep is due in a minute
		changed := Config{LBLCExpiration: 10 * time.Second, LBLCRExpiration: 10 * time.Second}
		changed.Apply(s)
		s.Pick(at(2, 40*time.Minute), list) // thirty sweeps later: that of all
		var remembered int64
		switch s := s.(type) {
		case *lblc:
			remembered = s.known.entries.Load()
		case *lblcr:
			remembered = s.known.entries.Load()
		}
		if remembered != 1 {
			t.Errorf("%s: %d destinations remembered, want that of the last request alone", name, remembered)
		}
	}
	changed := Config{LBLCExpiration: time.Second}
	changed.Apply(nil) // a service without scheduler
	changed.Apply(wlc{})
}
