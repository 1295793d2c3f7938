package health

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/service"
)

// ward is an InBand whose counts are made up, in virtual time.
type ward struct {
	t        *testing.T
	w        *InBand
	now      time.Time
	rng      *rand.Rand
	table    *service.Table
	symptoms service.Symptoms
	counters service.Counters
	said     []string
	answers  []time.Time // when those to come will be counted
	dead     bool
	rate     float64 // new connections a second
	away     func() time.Duration
}

func newWard(t *testing.T) *ward {
	w := &ward{t: t, now: time.Unix(1000, 0), rng: rand.New(rand.NewPCG(1, 2)), rate: 100}
	w.away = func() time.Duration { return 200 * time.Microsecond }
	key := service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("192.0.2.100:80")}
	servers := new(service.ServerIndex)
	rs := service.NewRealServer(key, netip.MustParseAddrPort("192.0.2.11:80"), service.Route, 1)
	if err := servers.Add(rs); err != nil {
		t.Fatal(err)
	}
	w.table = service.NewTable([]*service.VirtualService{{Key: key, Servers: []*service.RealServer{rs}}}, servers, 1)
	w.w = NewInBand(InBandConfig{
		Table:       func() *service.Table { return w.table },
		AddSymptoms: func(s []service.Symptoms) { s[0].Add(w.symptoms) },
		AddCounters: func(_, s []service.Counters) { s[0].Add(w.counters) },
		Suspect: func(k service.Key, server netip.AddrPort, why string) {
			if k != key || server != rs.Addr {
				t.Errorf("suspect %v of %v", server, k)
			}
			w.said = append(w.said, why)
		},
	})
	w.w.look(w.now)
	return w
}

// pass lets time pass, with connections at random.
func (w *ward) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(watchTick)
		mean := w.rate * watchTick.Seconds()
		for p := w.rng.ExpFloat64(); p < mean; p += w.rng.ExpFloat64() {
			w.open()
		}
		w.answers = slices.DeleteFunc(w.answers, func(at time.Time) bool {
			if at.After(w.now) {
				return false
			}
			w.symptoms.Answered++
			return true
		})
		w.w.look(w.now)
	}
}

// open is a new connection.
func (w *ward) open() {
	w.symptoms.Opened++
	if !w.dead {
		w.answers = append(w.answers, w.now.Add(w.away()))
	}
}

func TestDeadServerIsSuspectedSoon(t *testing.T) {
	for _, tt := range []struct {
		rate float64
		want time.Duration
	}{{1000, 150 * time.Millisecond}, {100, 200 * time.Millisecond}, {20, 1200 * time.Millisecond}} {
		w := newWard(t)
		w.rate = tt.rate
		w.pass(20 * time.Second)
		if len(w.said) != 0 {
			t.Fatalf("at %v a second: suspected while it was well: %v", tt.rate, w.said)
		}
		w.dead = true
		died := w.now
		for len(w.said) == 0 && w.now.Sub(died) < time.Minute {
			w.pass(watchTick)
		}
		if took := w.now.Sub(died); took > tt.want || !strings.Contains(w.said[0], "new connections have had no answer") {
			t.Errorf("at %v a second: suspected after %v, want %v: %v", tt.rate, took, tt.want, w.said)
		}
	}
}

func TestWellServersAreHardlySuspected(t *testing.T) {
	far := func(w *ward) { w.away = func() time.Duration { return 400 * time.Millisecond } }
	for _, tt := range []struct {
		name string
		set  func(*ward)
		most int // suspicions in five minutes
	}{
		{"near clients", func(*ward) {}, 0},
		{"rare clients", func(w *ward) { w.rate = 2 }, 0},
		{"far clients", far, 2},
		{"rare far clients", func(w *ward) { far(w); w.rate = 5 }, 2},
		{"many far clients", func(w *ward) { far(w); w.rate = 500 }, 2},
		{"all kinds of clients", func(w *ward) {
			w.away = func() time.Duration { return time.Duration(w.rng.ExpFloat64() * float64(100*time.Millisecond)) }
		}, 2},
	} {
		w := newWard(t)
		tt.set(w)
		w.pass(5 * time.Minute)
		if len(w.said) > tt.most {
			t.Errorf("%s: suspected %d times in five minutes: %v", tt.name, len(w.said), w.said[:min(len(w.said), 5)])
		}
	}
}

func TestBurstsOfFarClientsAreLearnt(t *testing.T) {
	w := newWard(t)
	w.rate = 0
	w.away = func() time.Duration { return 300 * time.Millisecond }
	for range 60 {
		w.pass(10 * time.Second)
		for range 500 {
			w.open()
		}
	}
	if len(w.said) > 1 {
		t.Errorf("suspected %d times: %v", len(w.said), w.said)
	}
}

// Spoofed SYNs are never answered; while others are, they say nothing, and alone they have the server asked now and then.
func TestSpoofedSYNsHaveTheServerAskedNowAndThen(t *testing.T) {
	w := newWard(t)
	w.pass(10 * time.Second)
	flood := func() {
		for range 400 {
			w.symptoms.Opened += 100
			w.pass(watchTick)
		}
	}
	if flood(); len(w.said) != 0 {
		t.Errorf("suspected though it answers: %v", w.said)
	}
	w.rate = 0
	for range 6 {
		flood() // ten seconds
	}
	if n := len(w.said); n == 0 || n > 8 {
		t.Errorf("asked %d times in a minute", n)
	}
}

func TestOtherSigns(t *testing.T) {
	for _, tt := range []struct {
		name string
		sign func(w *ward)
		want string // part of why; empty: none
	}{
		{"refused", func(w *ward) { w.symptoms.Refused += 2; w.symptoms.Opened += 2 }, "resets"},
		{"one refused among many", func(w *ward) { w.symptoms.Refused++; w.symptoms.Answered += 5 }, ""},
		{"unreachable", func(w *ward) { w.symptoms.Unreachable++ }, "unreachable"},
		{"repeated", func(w *ward) { w.symptoms.Opened++; w.symptoms.Repeated += 2 }, "repeated"},
		{"repeated by one client of many", func(w *ward) { w.symptoms.Repeated += 2; w.symptoms.Answered += 5 }, ""},
	} {
		w := newWard(t)
		w.rate = 0
		w.pass(time.Second)
		tt.sign(w)
		w.pass(50 * time.Millisecond)
		if got := fmt.Sprint(w.said); (tt.want == "") != (len(w.said) == 0) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestStalledServer(t *testing.T) {
	w := newWard(t)
	w.rate = 0
	traffic := func(d time.Duration, out uint64) {
		for range d / watchTick {
			w.counters.InPkts += 10
			w.counters.OutPkts += out
			w.pass(watchTick)
		}
	}
	traffic(10*time.Second, 0) // nobody ever answers: DR, or a service that has nothing to say
	traffic(10*time.Second, 12)
	if len(w.said) != 0 {
		t.Fatalf("suspected while it was well: %v", w.said)
	}
	traffic(300*time.Millisecond, 0)
	if len(w.said) != 1 || !strings.Contains(w.said[0], "packets have had no answer") {
		t.Errorf("suspected: %v", w.said)
	}
}

func TestServerThatWasOutBeginsAnew(t *testing.T) {
	w := newWard(t)
	w.pass(10 * time.Second)
	w.dead = true
	w.pass(time.Second)
	if len(w.said) != 1 {
		t.Fatalf("suspected: %v", w.said)
	}
	with := w.table
	w.table = service.NewTable(nil, new(service.ServerIndex), 2)
	w.table.ServerSlots = with.ServerSlots
	w.dead, w.rate = false, 0
	w.pass(5 * time.Second)
	w.table = with
	w.pass(10 * time.Second)
	if len(w.said) != 1 {
		t.Errorf("suspected for what was before it was out: %v", w.said[1:])
	}
}

func TestInBandAllocatesNothing(t *testing.T) {
	w := newWard(t)
	w.pass(time.Second)
	w.w.cfg.Suspect = func(service.Key, netip.AddrPort, string) {}
	if n := testing.AllocsPerRun(100, func() {
		w.now = w.now.Add(watchTick)
		w.symptoms.Opened++
		w.symptoms.Answered++
		w.w.look(w.now)
	}); n != 0 {
		t.Errorf("%v allocations a look", n)
	}
}

func BenchmarkInBand(b *testing.B) {
	for _, n := range []int{100, 5000, 100_000} {
		b.Run(fmt.Sprintf("servers=%d", n), func(b *testing.B) {
			key := service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("192.0.2.100:80")}
			servers, vs := new(service.ServerIndex), &service.VirtualService{Key: key}
			for i := range n {
				rs := service.NewRealServer(key, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80), service.Route, 1)
				if err := servers.Add(rs); err != nil {
					b.Fatal(err)
				}
				vs.Servers = append(vs.Servers, rs)
			}
			table := service.NewTable([]*service.VirtualService{vs}, servers, 1)
			var round uint32
			w := NewInBand(InBandConfig{
				Table: func() *service.Table { return table },
				AddSymptoms: func(s []service.Symptoms) {
					for i := range s {
						s[i].Add(service.Symptoms{Opened: round, Answered: round})
					}
				},
				AddCounters: func(_, s []service.Counters) {
					for i := range s {
						s[i].Add(service.Counters{InPkts: uint64(round)})
					}
				},
				Suspect: func(service.Key, netip.AddrPort, string) {},
			})
			now := time.Unix(1000, 0)
			for b.Loop() {
				now, round = now.Add(watchTick), round+1
				w.look(now)
			}
		})
	}
}
