package control

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
	"uvs/service"
)

func TestEditKeepsTheSchedulersState(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11", "-a "+web+" -r 10.1.0.12", "-a "+web+" -r 10.1.0.13")
	pick := func() string {
		vs := f.vs(web)
		return vs.Scheduler.Pick(&service.Request{Service: vs}, vs.Servers).Addr.Addr().String()
	}
	want := func(situation, addr string) {
		t.Helper()
		if got := pick(); got != addr {
			t.Errorf("%s: picked %s, want %s", situation, got, addr)
		}
	}
	want("the latest first", "10.1.0.13")
	index := f.vs(web).Index
	f.must("-E " + web + " -s rr -p 60")
	want("-E with the same scheduler goes on", "10.1.0.12")
	if got := f.vs(web).Index; got != index {
		t.Errorf("the service's slot went from %d to %d", index, got)
	}
	f.must("-d " + web + " -r 10.1.0.12:80")
	want("the cursor's server removed: on from the one before it", "10.1.0.11")
	f.must("-E " + web + " -s lc")
	want("another scheduler", "10.1.0.13")
	f.must("-E " + web + " -s rr")
	want("starts afresh", "10.1.0.13")
}

func TestEditTellsTheSchedulerItsFlags(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s sh", "-a "+web+" -r 10.1.0.11", "-a "+web+" -r 10.1.0.12")
	vs := f.vs(web)
	r := &service.Request{Service: vs}
	home := vs.Scheduler.Pick(r, vs.Servers)
	home.SetWeight(0)
	if rs := vs.Scheduler.Pick(r, vs.Servers); rs != nil {
		t.Errorf("picked %v although its bucket's server is quiesced", rs)
	}
	f.must("-E " + web + " -s sh -b sh-fallback")
	if rs := vs.Scheduler.Pick(r, vs.Servers); rs == nil {
		t.Error("sh-fallback doesn't reach the scheduler")
	}
}

func TestRemovedServerComesBackAsItself(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11 -x 9", "-a "+web+" -r 10.1.0.12")
	vs := f.vs(web)
	rs := vs.Servers[1]
	rs.Bind(true)
	f.counters.count(vs, rs, service.Counters{Conns: 1, InPkts: 7})
	f.estimate()

	f.must("-d " + web + " -r 10.1.0.11:80")
	if rs.Available() || f.conns.expired != 1 {
		t.Errorf("removed: Available() = %v, ExpireRemoved was called %d times", rs.Available(), f.conns.expired)
	}
	if f.cfg.Servers.At(rs.Index) != rs {
		t.Error("removed: its connections don't find it any more")
	}
	f.must("-a " + web + " -r 10.1.0.11 -m -w 5")
	back := f.vs(web).Servers[0]
	if back != rs || !rs.Available() || rs.Active() != 1 || rs.Method() != service.Masq || rs.Weight() != 5 {
		t.Errorf("added again: %p %+v, was %p", back, back, rs)
	}
	if u, _ := rs.Thresholds(); u != 0 {
		t.Errorf("added again: its upper threshold still is %d", u)
	}
	if s := f.server(web, 0); s.Stats.InPackets != 7 || s.Active != 1 {
		t.Errorf("added again: it is listed with %+v", s)
	}

	f.must("-d "+web+" -r 10.1.0.11:80", "-a "+web+" -r 10.1.0.11:8080 -m")
	if other := f.vs(web).Servers[0]; other == rs {
		t.Error("another port is the same server")
	}
	f.must("-d "+web+" -r 10.1.0.12:80", "-A "+dns+" -s rr", "-a "+dns+" -r 10.1.0.12:80 -m")
	if other := f.vs(dns).Servers[0]; other.Service != f.vs(dns).Key {
		t.Error("the server came back to another service")
	}
}

// mh keeps a quiesced server's place by its last weight; one that comes back quiesced has none yet, as if new.
func TestServerAddedQuiescedHasNoLastWeight(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s mh", "-a "+web+" -r 10.1.0.11 -w 5")
	rs := f.vs(web).Servers[0]
	f.must("-e " + web + " -r 10.1.0.11 -w 0")
	if rs.LastWeight() != 5 {
		t.Errorf("quiesced: last weight %d, want 5", rs.LastWeight())
	}
	f.must("-d "+web+" -r 10.1.0.11:80", "-a "+web+" -r 10.1.0.11 -w 0")
	if rs.LastWeight() != 0 || f.vs(web).Servers[0] != rs {
		t.Errorf("removed and added quiesced: last weight %d, want 0", rs.LastWeight())
	}
}

func TestDeletedServiceComesBackWithItsServers(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11 -m", "-A "+mark+" -s rr", "-a "+mark+" -r 10.1.0.11 -m")
	for _, key := range []string{web, mark} {
		vs := f.vs(key)
		rs := vs.Servers[0]
		rs.Bind(true)
		f.counters.count(vs, rs, service.Counters{InPkts: 7})
		f.estimate()
		port := rs.Addr.String()
		f.must("-D " + key)
		if rs.Available() {
			t.Errorf("%s: a deleted service's server is available", key)
		}
		f.counters.count(vs, rs, service.Counters{OutPkts: 3}) // answers on their way
		f.must("-A "+key+" -s lc", "-a "+key+" -r "+port+" -m")
		again := f.vs(key)
		if again.Index != vs.Index || again.Servers[0] != rs || !rs.Available() {
			t.Errorf("%s: came back in slot %d with %p, was slot %d, %p", key, again.Index, again.Servers[0], vs.Index, rs)
		}
		if s := f.service(key); s.Stats != (api.Stats{}) || s.Servers[0].Stats != (api.Stats{}) || s.Servers[0].Active != 1 {
			t.Errorf("%s: a new service begins with %+v and %+v", key, s.Stats, s.Servers[0])
		}
		f.counters.count(vs, rs, service.Counters{InPkts: 2})
		f.estimate()
		if s := f.service(key); s.Stats.InPackets != 2 || s.Stats.OutPackets != 0 {
			t.Errorf("%s: old connections count %+v at the new service", key, s.Stats)
		}
	}
}

// A change that takes everything down and puts it up again leaves no moment in which a server is away.
func TestReloadKeepsServersAvailable(t *testing.T) {
	f := newFixture(t)
	lines := []string{"-C", "-A " + web + " -s sh", "-a " + web + " -r 10.1.0.11 -w 2", "-a " + web + " -r 10.1.0.12"}
	f.must(lines...)
	rs := f.vs(web).Servers[1]
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if !rs.Available() {
					t.Error("the server was not available for a moment")
					return
				}
			}
		}
	}()
	for range 200 {
		f.must(lines...)
	}
	close(stop)
	<-done
	if f.vs(web).Servers[1] != rs {
		t.Error("it is another server now")
	}
}

// Weight taken from one server and given to another in one change: there is no moment without a server.
func TestWeightsChangeWithoutAGap(t *testing.T) {
	for _, scheduler := range []string{"rr", "wrr", "wlc", "sed", "nq", "lblc", "lblcr", "sh -b sh-fallback", "mh -b mh-fallback"} {
		f := newFixture(t)
		f.must("-A "+web+" -s "+scheduler, "-a "+web+" -r 10.1.0.11 -w 3", "-a "+web+" -r 10.1.0.12 -w 0")
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					vs := f.Table().Services[0]
					if vs.Scheduler.Pick(&service.Request{Service: vs}, vs.Servers) == nil && f.Table().Services[0] == vs {
						t.Errorf("%s: a request was refused while the weights changed", scheduler)
						return
					}
				}
			}
		}()
		for range 300 {
			f.must("-e "+web+" -r 10.1.0.11 -w 0", "-e "+web+" -r 10.1.0.12 -w 3")
			f.must("-e "+web+" -r 10.1.0.12 -w 0", "-e "+web+" -r 10.1.0.11 -w 3")
		}
		close(stop)
		<-done
	}
}

func TestLocalServers(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.9.0.1:8080 -m", "-a "+web+" -r 10.1.0.11 -m")
	vs := f.vs(web)
	if m := vs.Servers[1].Method(); m != service.Local {
		t.Errorf("the director's own address is forwarded by %v", m)
	}
	if m := vs.Servers[0].Method(); m != service.Masq {
		t.Errorf("another address is forwarded by %v", m)
	}
	f.wantRules("listed as asked for", "-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11:80 -m -w 1", "-a "+web+" -r 10.9.0.1:8080 -m -w 1")
	f.must("-e " + web + " -r 10.9.0.1:8080 -m -w 2")
	if m := vs.Servers[1].Method(); m != service.Local {
		t.Errorf("after an edit it is forwarded by %v", m)
	}
}

// TestTrashIsEmptied counts minutes: a look each, forgotten two minutes after the first that found no connection.
func TestTrashIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.run()()
		f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11", "-a "+web+" -r 10.1.0.12")
		vs := f.vs(web)
		busy, idle := vs.Servers[0], vs.Servers[1]
		busy.Bind(true)
		time.Sleep(30 * time.Second)
		f.must("-D " + web)
		known := func(at time.Duration, wantBusy, wantIdle bool) {
			t.Helper()
			synctest.Wait()
			b, i := f.cfg.Servers.At(busy.Index) == busy, f.cfg.Servers.At(idle.Index) == idle
			if b != wantBusy || i != wantIdle {
				t.Errorf("%v after: busy known %v, idle known %v, want %v, %v", at, b, i, wantBusy, wantIdle)
			}
		}
		time.Sleep(149 * time.Second) // the looks are 30, 90, 150 s after the removal
		known(149*time.Second, true, true)
		time.Sleep(2 * time.Second)
		known(151*time.Second, true, false)
		busy.Unbind(true)
		time.Sleep(178 * time.Second) // looks at 210, 270, 330 s
		known(329*time.Second, true, false)
		time.Sleep(2 * time.Second)
		known(331*time.Second, false, false)

		// The slots serve others, once the counters have settled.
		time.Sleep(5 * time.Second)
		f.must("-A "+dns+" -s rr", "-a "+dns+" -r 10.1.0.13", "-a "+dns+" -r 10.1.0.14")
		other := f.vs(dns)
		if other.Index != vs.Index || f.Table().ServerSlots != 2 {
			t.Errorf("slot %d for the next service, want %d; %d server slots, want 2", other.Index, vs.Index, f.Table().ServerSlots)
		}
	})
}

func TestReusedSlotsStartFromZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.run()()
		f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11")
		vs := f.vs(web)
		f.counters.count(vs, vs.Servers[0], service.Counters{Conns: 5, InBytes: 1000})
		f.must("-C")
		time.Sleep(10 * time.Minute)
		f.must("-A "+dns+" -s rr", "-a "+dns+" -r 10.1.0.11")
		if other := f.vs(dns); other.Index != vs.Index || other.Servers[0].Index != vs.Servers[0].Index {
			t.Fatal("the slots were not used again")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := f.service(dns); s.Stats != (api.Stats{}) || s.Servers[0].Stats != (api.Stats{}) || s.Rates != (api.Rates{}) {
			t.Errorf("another service in the slot begins with %+v", s)
		}
	})
}

// run runs the Director until the returned function is called.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (f *fixture) estimate() {
	f.Director.mu.Lock()
	defer f.Director.mu.Unlock()
	f.estimateLocked()
}

func (f *fixture) service(key string) api.Service {
	f.t.Helper()
	o := op("-D " + key)
	list, err := f.Services(f.t.Context(), o.Service)
	if err != nil || len(list) != 1 {
		f.t.Fatalf("Services(%s) = %v, %v", key, list, err)
	}
	return list[0]
}

func (f *fixture) server(key string, i int) api.Server { return f.service(key).Servers[i] }

func TestIsLocalIsOptional(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.IsLocal = nil })
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.9.0.1 -m")
	if rs := f.vs(web).Servers[0]; rs.Method() != service.Masq || rs.Addr != netip.MustParseAddrPort("10.9.0.1:80") {
		t.Errorf("%v by %v", rs, rs.Method())
	}
}
