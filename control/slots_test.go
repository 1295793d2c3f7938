package control

import (
	"errors"
	"testing"

	"uvs/control/api"
	"uvs/service"
)

func TestServiceSlotsAreNeverSharedBySomebody(t *testing.T) {
	s := newServiceSlots()
	k1, k2 := service.Key{Mark: 1}, service.Key{Mark: 2}
	take := func(situation string, k service.Key, index uint32, stale bool) {
		t.Helper()
		if i, st := s.take(k); i != index || st != stale {
			t.Errorf("%s: slot %d, stale %v, want %d, %v", situation, i, st, index, stale)
		}
	}
	take("first", k1, 0, false)
	s.give(k1, 0, true)
	take("others get another while its servers are in the trash", k2, 1, false)
	take("it comes back", k1, 0, true)
	s.release(k1) // the trash was emptied: nothing was given up
	s.give(k1, 0, false)
	s.tick()
	take("given up one tick ago: not yet free", service.Key{Mark: 3}, 2, false)
	s.tick()
	take("two ticks ago", k1, 0, false)
	take("and only once", service.Key{Mark: 4}, 3, false)
	s.give(k2, 1, true)
	s.release(k2)
	s.release(k2)
	s.tick()
	s.tick()
	take("released with the last of its servers", k2, 1, false)
	take("and only once", service.Key{Mark: 5}, 4, false)
}

func TestServersBeyondTheIndexAreRefused(t *testing.T) {
	f := newFixture(t)
	f.must("-A " + web + " -s rr")
	filler := service.NewRealServer(service.Key{}, f.addr("10.3.0.1:80"), service.Route, 1)
	for f.cfg.Servers.Free() > 2 {
		if err := f.cfg.Servers.Add(filler); err != nil {
			t.Fatal(err)
		}
	}
	lines := []string{"-a " + web + " -r 10.1.0.11", "-a " + web + " -r 10.1.0.12", "-a " + web + " -r 10.1.0.13"}
	if err := f.change(lines...); !errors.Is(err, api.NoMemory) {
		t.Errorf("one server more than there is room for: %v", err)
	}
	f.wantRules("nothing was added", "-A "+web+" -s rr")
	f.must(lines[:2]...)
	if n := f.cfg.Servers.Free(); n != 0 {
		t.Errorf("room for %d more", n)
	}
}
