package control

import (
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// TestRatesAreTheKernels replays what the recorded kernel showed in fwd-stats.json for the director as a whole: 3
// connections, 7 packets of 892 bytes in, 3 of 1412 out, read 4.5 seconds later; and a steady stream.
func TestRatesAreTheKernels(t *testing.T) {
	var s slotStats
	c := service.Counters{Conns: 3, InPkts: 7, InBytes: 0x37c, OutPkts: 3, OutBytes: 0x584}
	s.tick(c)
	s.tick(c)
	if stats, rates := s.shown(); stats != (api.Stats{Conns: 3, InPackets: 7, InBytes: 0x37c, OutPackets: 3, OutBytes: 0x584}) ||
		rates != (api.Rates{Conns: 0, InPackets: 1, InBytes: 0x54, OutPackets: 0, OutBytes: 0x84}) {
		t.Errorf("after two ticks: %+v, %+v", stats, rates)
	}
	s = slotStats{}
	var total service.Counters
	var shown []uint64
	for range 60 {
		total.Add(service.Counters{Conns: 2, InPkts: 2000, InBytes: 120000})
		s.tick(total)
		_, rates := s.shown()
		shown = append(shown, rates.Conns)
	}
	if _, rates := s.shown(); rates.Conns != 1 || rates.InPackets != 1000 || rates.InBytes != 60000 {
		t.Errorf("1 connection, 1000 packets and 60000 bytes a second are shown as %+v", rates)
	}
	if shown[0] != 0 || shown[1] != 0 || shown[2] != 1 {
		t.Errorf("the first rates of 1 connection a second are %v, want 0, 0, 1", shown[:3])
	}
	for range 60 {
		s.tick(total)
	}
	if _, rates := s.shown(); rates != (api.Rates{}) {
		t.Errorf("two minutes after the last packet the rates are %+v", rates)
	}
}

func TestCountersMoveAtTheTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.run()()
		f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11", "-A "+dns+" -s rr", "-a "+dns+" -r 10.1.0.11")
		one := service.Counters{Conns: 1, InPkts: 1, InBytes: 44}
		want := func(situation, key string, conns uint64) {
			t.Helper()
			synctest.Wait()
			if s := f.service(key); s.Stats.Conns != conns || s.Servers[0].Stats.Conns != conns || s.Stats.InBytes != 44*conns {
				t.Errorf("%s: %s shows %+v, its server %+v, want %d connections", situation, key, s.Stats, s.Servers[0].Stats, conns)
			}
		}
		count := func() {
			for _, key := range []string{web, dns} {
				f.counters.count(f.vs(key), f.vs(key).Servers[0], one)
			}
		}
		time.Sleep(time.Second)
		count()
		want("at once", web, 0)
		time.Sleep(2 * time.Second)
		want("after the tick", web, 1)
		count()
		f.must("-Z " + web)
		want("zeroed at once", web, 0)
		want("the other service is not", dns, 1)
		time.Sleep(2 * time.Second)
		want("what was counted since the tick shows after all", web, 1)
		f.must("-Z")
		want("all zeroed", web, 0)
		want("all zeroed", dns, 0)
		time.Sleep(time.Minute)
		want("nothing comes back", dns, 0)
	})
}

func BenchmarkEstimate(b *testing.B) {
	f := newFixture(b)
	restore(b, f, 5000, 2)
	b.ReportAllocs()
	for b.Loop() {
		f.estimate()
	}
}
