package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uvs/service"
)

var (
	webKey = service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("192.0.2.100:80")}
	tlsKey = service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("192.0.2.100:443")}
	rs1    = netip.MustParseAddrPort("10.0.0.11:80")
	rs2    = netip.MustParseAddrPort("10.0.0.12:80")
)

// scripted is a kind whose probes do as a test says.
type scripted struct {
	Path string `json:"path"`
	do   func(ctx context.Context, to *Target) (string, error)
}

func (*scripted) Kind() string   { return "scripted" }
func (*scripted) Prepare() error { return nil }
func (s *scripted) Probe(ctx context.Context, to *Target) (string, error) {
	return s.do(ctx, to)
}

// farm is servers that answer a scripted check, and the engine that asks them.
type farm struct {
	*Engine
	mu     sync.Mutex
	broken map[netip.AddrPort]error
	hangs  map[netip.AddrPort]bool
	asked  map[netip.AddrPort][]time.Time
	told   []Subject
	weight float64
	cancel context.CancelFunc
	ended  chan struct{}
}

func newFarm(t *testing.T) *farm {
	f := &farm{
		broken: map[netip.AddrPort]error{}, hangs: map[netip.AddrPort]bool{}, asked: map[netip.AddrPort][]time.Time{},
		ended: make(chan struct{}), weight: 1,
	}
	f.Engine = NewEngine(Config{Changed: func(s []Subject) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.told = append(f.told, s...)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	go func() { defer close(f.ended); f.Run(ctx) }()
	t.Cleanup(func() { f.cancel(); <-f.ended })
	return f
}

func (f *farm) answer(ctx context.Context, to *Target) (string, error) {
	f.mu.Lock()
	f.asked[to.Address] = append(f.asked[to.Address], time.Now())
	err, hangs := f.broken[to.Address], f.hangs[to.Address]
	weight := f.weight
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if weight != 1 {
		to.Weigh(weight)
	}
	return "fine", err
}

func (f *farm) set(at netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[at] = err
}

func (f *farm) hang(at netip.AddrPort, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangs[at] = yes
}

func (f *farm) times(at netip.AddrPort) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.asked[at]...)
}

// spec is a scripted check with default settings but for what change makes of them.
func (f *farm) spec(t *testing.T, change func(*Settings)) *Spec {
	t.Helper()
	s := &Spec{Options: &scripted{do: f.answer}}
	s.Kind = "scripted"
	if err := s.Settings.prepare(nil, s.Options); err != nil {
		t.Fatal(err)
	}
	s.Interval, s.Timeout, s.Retry = Duration(time.Second), Duration(500*time.Millisecond), Duration(time.Second)
	if change != nil {
		change(&s.Settings)
	}
	return s
}

func realServer(k service.Key, at netip.AddrPort) *service.RealServer {
	return service.NewRealServer(k, at, service.Masq, 1)
}

func (f *farm) want(t *testing.T, situation string, k Subject, want State) {
	t.Helper()
	synctest.Wait()
	if got := f.Standing(k); got.State != want {
		t.Errorf("%s: %+v, want %v", situation, got, want)
	}
}

var errNo = errors.New("no")

func TestAServerFallsAndRises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		s := Subject{webKey, rs1}
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{f.spec(t, func(s *Settings) { s.Jitter, s.Rise, s.Fall = 0, 2, 3 })})
		time.Sleep(10 * time.Millisecond) // then each second
		f.want(t, "the first probe comes at once where there are few", s, Up)
		f.set(rs1, errNo)
		time.Sleep(2 * time.Second)
		f.want(t, "two failures of three", s, Up)
		f.set(rs1, nil)
		time.Sleep(time.Second)
		f.set(rs1, errNo)
		time.Sleep(2 * time.Second)
		f.want(t, "a success in between: two of three again", s, Up)
		time.Sleep(time.Second)
		f.want(t, "three failures", s, Down)
		if st := f.Standing(s); st.Serves || st.Why != "scripted: no (fine)" {
			t.Errorf("down: %+v", st)
		}
		f.set(rs1, nil)
		time.Sleep(time.Second)
		f.want(t, "one success of two", s, Down)
		time.Sleep(time.Second)
		f.want(t, "two successes", s, Up)
		r := f.Reports(s)[0]
		if len(r.Changes) != 3 || r.Changes[0].To != Up || r.Changes[1].To != Down || r.Changes[1].Why == "" || r.InRow != 2 {
			t.Errorf("history: %+v", r)
		}
	})
}

func TestTheFirstProbeDecidesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		f.set(rs1, errNo)
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{f.spec(t, nil)})
		time.Sleep(10 * time.Millisecond)
		f.want(t, "the first fails", Subject{webKey, rs1}, Down)
	})
}

func TestASlowServerDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		for i := range 200 {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 80)
			f.hang(at, i != 7)
			f.Watch(webKey, realServer(webKey, at), service.Masq, []*Spec{f.spec(t, func(s *Settings) { s.Timeout = Duration(time.Hour) })})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(f.times(netip.MustParseAddrPort("10.0.1.7:80"))); n < 59 {
			t.Errorf("asked %d times in a minute beside servers that hang, want 60 or more", n)
		}
		if s := f.Stats(); s.Out != 199 {
			t.Errorf("%d probes are out, want 199", s.Out)
		}
		f.cancel()
		<-f.ended // or synctest finds goroutines that were left
	})
}

func TestProbesAreSpreadAndNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		for i := range 1000 {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
			f.Watch(webKey, realServer(webKey, at), service.Masq, []*Spec{f.spec(t, nil)})
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		slots := make([]int, 120)
		f.mu.Lock()
		defer f.mu.Unlock()
		for at, times := range f.asked {
			for i, when := range times {
				if i > 0 && when.Sub(times[i-1]) > time.Second {
					t.Fatalf("%v: %v after the one before", at, when.Sub(times[i-1]))
				}
				slots[when.UnixMilli()/100%120]++
			}
		}
		for i, n := range slots[20:] { // though all were asked for the first time within a fifth of a second
			if n < 50 || n > 170 {
				t.Errorf("the tenth of a second %d has %d probes, want some 105", i+20, n)
			}
		}
	})
}

func TestTheSameProbeIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		spec := f.spec(t, func(s *Settings) { s.Jitter = 0; s.Port = 8080 })
		other := netip.AddrPortFrom(rs1.Addr(), 443)
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{spec})
		f.Watch(tlsKey, realServer(tlsKey, other), service.Masq, []*Spec{spec})
		at := netip.AddrPortFrom(rs1.Addr(), 8080)
		time.Sleep(10*time.Second + 10*time.Millisecond)
		synctest.Wait()
		if n := len(f.times(at)); n != 11 {
			t.Errorf("asked %d times for two services, want 11", n)
		}
		f.mu.Lock()
		f.told = nil
		f.mu.Unlock()
		f.set(at, errNo)
		time.Sleep(2 * time.Second)
		f.want(t, "one service", Subject{webKey, rs1}, Down)
		f.want(t, "the other", Subject{tlsKey, other}, Down)
		if len(f.told) != 2 {
			t.Errorf("told of %v", f.told)
		}
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, nil)
		n := len(f.times(at))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := len(f.times(at)) - n; got != 5 {
			t.Errorf("asked %d times in 5 s for the service that is left", got)
		}
		f.Watch(tlsKey, realServer(tlsKey, other), service.Masq, nil)
		n = len(f.times(at))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := len(f.times(at)) - n; got != 0 || len(f.probes)+len(f.queue) != 0 {
			t.Errorf("asked %d times for nobody; %d probes left", got, len(f.probes))
		}
	})
}

func TestASuspectIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		s := Subject{webKey, rs1}
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{f.spec(t, func(s *Settings) {
			s.Interval, s.Retry, s.Timeout, s.Fall, s.Jitter = Duration(time.Minute), Duration(time.Minute), Duration(10*time.Second), 3, 0
		})})
		time.Sleep(time.Second)
		f.want(t, "at first", s, Up)
		f.Suspect(webKey, rs1, "resets")
		time.Sleep(100 * time.Millisecond)
		f.want(t, "it answers", s, Up)
		if n := len(f.times(rs1)); n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
		for range 1000 { // an attacker's flood of suspicions is no flood of probes
			f.Suspect(webKey, rs1, "resets")
			time.Sleep(time.Millisecond)
		}
		if n := len(f.times(rs1)); n > 8 {
			t.Errorf("asked %d times within a second", n)
		}
		time.Sleep(time.Second)
		f.set(rs1, errNo)
		f.Suspect(webKey, rs1, "resets")
		time.Sleep(50 * time.Millisecond)
		f.want(t, "it refuses", s, Down)

		f.set(rs1, nil)
		time.Sleep(5 * time.Minute)
		f.want(t, "it is back", s, Up)
		f.hang(rs1, true)
		f.Suspect(webKey, rs1, "no answers")
		time.Sleep(250 * time.Millisecond)
		f.want(t, "it says nothing", s, Down)

		f.Watch(webKey, realServer(webKey, rs2), service.Masq, []*Spec{f.spec(t, func(s *Settings) { s.InBand, s.Jitter = false, 0 })})
		time.Sleep(100 * time.Millisecond)
		f.Suspect(webKey, rs2, "resets")
		time.Sleep(100 * time.Millisecond)
		if n := len(f.times(rs2)); n != 1 {
			t.Errorf("asked %d times although packets are not to matter", n)
		}
	})
}

func TestWhatIsWantingHereSaysNothingOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		s := Subject{webKey, rs1}
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{f.spec(t, nil)})
		time.Sleep(time.Second)
		f.set(rs1, fmt.Errorf("a program: %w", ErrUnable))
		time.Sleep(time.Minute)
		f.want(t, "probes can't be made", s, Up)
		if r := f.Reports(s)[0]; !r.Last.Unable || r.Last.Text == "" {
			t.Errorf("reported: %+v", r.Last)
		}
		n := len(f.times(rs1))
		f.Suspect(webKey, rs1, "resets")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n = len(f.times(rs1)) - n; n > 15 {
			t.Errorf("a suspect was asked %d times in 10 s although nothing can be asked", n)
		}
		long := f.spec(t, nil)
		long.Options.(*scripted).do = func(context.Context, *Target) (string, error) { return strings.Repeat("é", 1<<20), nil }
		if r := f.Test(t.Context(), &Route{Service: webKey, Server: realServer(webKey, rs1), To: rs1}, long, nil); !r.OK || len(r.Text) > maxText {
			t.Errorf("a server that says much: %v, %d bytes", r.OK, len(r.Text))
		}
		none := netip.AddrPortFrom(rs1.Addr(), 0)
		if r := f.Test(t.Context(), &Route{Service: webKey, Server: realServer(webKey, none), To: none}, &Spec{Options: &TCP{}, Settings: Settings{Timeout: Duration(time.Second)}}, nil); !r.Unable {
			t.Errorf("a server of no port: %+v", r)
		}
		faulty := f.spec(t, nil)
		faulty.Options.(*scripted).do = func(context.Context, *Target) (string, error) { panic("a fault") }
		if r := f.Test(t.Context(), &Route{Service: webKey, Server: realServer(webKey, rs1), To: rs1}, faulty, nil); !r.Unable || !strings.Contains(r.Text, "a fault") {
			t.Errorf("a check with a fault: %+v", r)
		}
	})
}

func TestAChangedCheckKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		s := Subject{webKey, rs1}
		rs := realServer(webKey, rs1)
		f.set(rs1, errNo)
		f.Watch(webKey, rs, service.Masq, []*Spec{f.spec(t, nil)})
		time.Sleep(10 * time.Millisecond)
		f.want(t, "it fails", s, Down)
		f.hang(rs1, true)
		f.Watch(webKey, rs, service.Masq, []*Spec{f.spec(t, func(s *Settings) { s.Fall = 7 })})
		f.want(t, "changed", s, Down)
		f.hang(rs1, false)
		f.set(rs1, nil)
		time.Sleep(2 * time.Second)
		f.want(t, "and asked", s, Up)
	})
}

func TestAServerMayAskForAShareOfItsWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		s := Subject{webKey, rs1}
		f.weight = 0.5
		f.Watch(webKey, realServer(webKey, rs1), service.Masq, []*Spec{f.spec(t, nil)})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := f.Standing(s); st.Factor != 0.5 {
			t.Errorf("%+v, want factor 0.5", st)
		}
		f.mu.Lock()
		f.weight, f.told = 1, nil
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := f.Standing(s); st.Factor != 1 || len(f.told) != 1 {
			t.Errorf("%+v, told %d times; want factor 1, once", st, len(f.told))
		}
	})
}

func TestAServerThatNobodyHasAskedYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t)
		f.hang(rs2, true)
		for start, serves := range map[string]bool{StartUp: true, StartDown: false} {
			f.Watch(webKey, realServer(webKey, rs2), service.Masq, []*Spec{f.spec(t, func(s *Settings) { s.Start = start })})
			synctest.Wait()
			if st := f.Standing(Subject{webKey, rs2}); st.State != Unknown || st.Serves != serves {
				t.Errorf("start=%s, before the first probe has ended: %+v", start, st)
			}
		}
	})
}
