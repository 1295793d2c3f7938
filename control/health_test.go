package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// clinic is a fixture whose servers accept connections unless they are said to be ill. Its checks run on synctest's clock.
type clinic struct {
	*fixture
	mu  sync.Mutex
	ill map[netip.AddrPort]bool
}

func newClinic(t *testing.T) *clinic {
	c := &clinic{ill: map[netip.AddrPort]bool{}}
	c.fixture = newFixture(t, func(cfg *Config) {
		cfg.Health.Dial = func(_ context.Context, _ string, r *health.Route) (net.Conn, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.ill[r.To] {
				return nil, syscall.ECONNREFUSED
			}
			a, b := net.Pipe()
			b.Close()
			return a, nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// set makes servers ill, or well, and waits until that is known.
func (c *clinic) set(ill bool, servers ...string) {
	c.mu.Lock()
	for _, s := range servers {
		c.ill[netip.MustParseAddrPort(s)] = ill
	}
	c.mu.Unlock()
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

// do applies operations about health as one change.
func (c *clinic) do(list ...api.Op) error {
	c.t.Helper()
	for i := range list {
		if err := list[i].Check(); err != nil {
			c.t.Fatal(err)
		}
	}
	reply, err := c.Change(c.t.Context(), &api.ChangeRequest{Ops: list, OnError: api.Atomic})
	if err != nil {
		c.t.Fatal(err)
	}
	return reply.Err()
}

func addCheck(key string, spec api.CheckSpec) api.Op {
	return api.Op{Kind: api.AddCheck, Service: op("-D " + key).Service, CheckSpec: spec}
}

func setPolicy(key string, p api.PolicySpec) api.Op {
	return api.Op{Kind: api.SetPolicy, Service: op("-D " + key).Service, Policy: p}
}

// tcpCheck is asked each second, and decides by one answer.
func tcpCheck() api.CheckSpec {
	return api.CheckSpec{"kind": "tcp", "interval": "1s", "rise": 1, "fall": 1}
}

func (c *clinic) check(list ...api.Op) {
	c.t.Helper()
	if err := c.do(list...); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

// inForce is what the packet path has of a service: servers in their order, with their weights.
func (c *clinic) inForce(key string) string {
	var out []string
	for _, rs := range c.vs(key).Servers {
		out = append(out, fmt.Sprintf("%v=%d", rs.Addr, rs.Weight()))
	}
	return strings.Join(out, " ")
}

func (c *clinic) want(situation, key, want string) {
	c.t.Helper()
	synctest.Wait()
	if got := c.inForce(key); got != want {
		c.t.Errorf("%s: the packet path has %q, want %q", situation, got, want)
	}
}

func TestAServerThatIsDownLeavesItsServiceAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m -w 3", "-a "+web+" -r 10.1.0.12 -m -w 5")
		c.check(addCheck(web, tcpCheck()))
		rules := c.rules()
		c.want("all is well", web, "10.1.0.12:80=5 10.1.0.11:80=3")
		rs := c.vs(web).Servers[1]
		c.set(true, "10.1.0.11:80")
		c.want("one is down", web, "10.1.0.12:80=5")
		if rs.Available() {
			t.Error("the server that is down is still available to its connections")
		}
		if got := c.rules(); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(rules))) {
			t.Errorf("what is configured became\n%s\nwas\n%s", strings.Join(got, "\n"), strings.Join(rules, "\n"))
		}
		row := c.server(web, 1)
		if !row.Removed || row.Weight() != 0 || row.Config.Weight != 3 {
			t.Errorf("it is listed as %+v", row)
		}

		// What ipvsadm does meanwhile is kept for when it is back.
		if err := c.change("-a " + web + " -r 10.1.0.11 -m"); !errors.Is(err, api.ServerExists) {
			t.Errorf("added although it is configured: %v", err)
		}
		c.must("-e " + web + " -r 10.1.0.11 -m -w 7 -x 100")
		c.want("edited while down", web, "10.1.0.12:80=5")
		c.set(false, "10.1.0.11:80")
		c.want("it is back, and the same", web, "10.1.0.11:80=7 10.1.0.12:80=5")
		if got := c.vs(web).Servers[0]; got != rs || !rs.Available() {
			t.Errorf("it came back as %p, was %p, available %v", got, rs, rs.Available())
		}
		if upper, _ := rs.Thresholds(); upper != 100 {
			t.Errorf("its upper threshold is %d", upper)
		}

		c.set(true, "10.1.0.11:80")
		c.must("-d " + web + " -r 10.1.0.11:80")
		c.set(false, "10.1.0.11:80")
		c.want("deleted while down", web, "10.1.0.12:80=5")
		c.must("-a " + web + " -r 10.1.0.11 -m -w 2")
		c.want("added again", web, "10.1.0.11:80=2 10.1.0.12:80=5")
		if !rs.Available() || c.vs(web).Servers[0] != rs {
			t.Error("added again it isn't available, or isn't itself")
		}
		c.set(true, "10.1.0.11:80", "10.1.0.12:80")
		c.want("all are down", web, "")
		c.must("-D "+web, "-A "+web, "-a "+web+" -r 10.1.0.11 -m")
		c.set(true, "10.1.0.11:80")
		c.want("the service was deleted with its checks", web, "10.1.0.11:80=1")
	})
}

func TestAServerThatIsDownIsQuiesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m -w 3", "-a "+web+" -r 10.1.0.12 -m -w 5")
		c.check(addCheck(web, tcpCheck()), setPolicy(web, api.PolicySpec{"reaction": "quiesce"}))
		rs := c.vs(web).Servers[1]
		rs.BindTemplate()
		c.set(true, "10.1.0.11:80")
		c.want("one is down", web, "10.1.0.12:80=5 10.1.0.11:80=0")
		if !rs.Available() || rs.LastWeight() != 3 {
			t.Errorf("available %v, last weight %d", rs.Available(), rs.LastWeight())
		}
		if len(c.conns.forsaken) != 1 || !c.conns.forsaken[0](rs) || c.conns.forsaken[0](c.vs(web).Servers[0]) {
			t.Errorf("its flows and templates weren't dropped, or those of others were")
		}
		c.must("-e " + web + " -r 10.1.0.11 -m -w 9")
		c.want("edited while down", web, "10.1.0.12:80=5 10.1.0.11:80=0")
		if row := c.server(web, 1); row.Config.Weight != 9 || row.Weight() != 0 || row.Removed {
			t.Errorf("it is listed as %+v", row)
		}
		c.check(setPolicy(web, api.PolicySpec{"reaction": "remove"}))
		c.want("now it is removed instead", web, "10.1.0.12:80=5")
		c.check(setPolicy(web, api.PolicySpec{"reaction": "quiesce"}))
		c.want("and quiesced again", web, "10.1.0.11:80=0 10.1.0.12:80=5")
		c.set(false, "10.1.0.11:80")
		c.want("it is back", web, "10.1.0.11:80=9 10.1.0.12:80=5")
	})
}

func TestAServerThatIsDownIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m -w 3")
		c.check(addCheck(web, tcpCheck()))
		c.set(true, "10.1.0.11:80")
		addr := netip.MustParseAddr("10.1.0.11")
		if _, err := c.Drain(t.Context(), &api.DrainRequest{Address: addr}); err != nil {
			t.Fatal(err)
		}
		c.set(false, "10.1.0.11:80")
		c.want("up and drained", web, "10.1.0.11:80=0")
		c.set(true, "10.1.0.11:80")
		rows, err := c.Undrain(t.Context(), &api.UndrainRequest{Address: addr})
		if err != nil || len(rows) != 1 {
			t.Fatalf("undrained while down: %v, %v", rows, err)
		}
		c.want("undrained while down", web, "")
		c.set(false, "10.1.0.11:80")
		c.want("up", web, "10.1.0.11:80=3")
	})
}

func TestAGroupStandsAndFallsTogether(t *testing.T) {
	const tls = "-t 10.9.0.100:443"
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		for _, key := range []string{web, tls} {
			c.must("-A "+key, "-a "+key+" -r 10.1.0.11 -m", "-a "+key+" -r 10.1.0.12 -m")
			c.check(addCheck(key, tcpCheck()), setPolicy(key, api.PolicySpec{"group": "shop"}))
		}
		c.set(true, "10.1.0.11:443")
		c.want("443 fails", tls, "10.1.0.12:443=1")
		c.want("80 leaves too", web, "10.1.0.12:80=1")
		list, _ := c.Health(t.Context(), op("-D "+web).Service)
		if i := slices.IndexFunc(list, func(h api.ServerHealth) bool { return !h.Serving }); i < 0 || list[i].State != api.StateUp ||
			list[i].Why != "tcp 10.9.0.100:443, of the same group: tcp: connection refused" {
			t.Errorf("health of 80: %+v", list)
		}
		c.set(true, "10.1.0.12:80")
		c.want("80 of the other", tls, "")
		c.set(false, "10.1.0.11:443")
		c.want("443 is back", web, "10.1.0.11:80=1")
		c.check(setPolicy(web, nil))
		c.want("no group any more", tls, "10.1.0.12:443=1 10.1.0.11:443=1")
		c.check(setPolicy(web, api.PolicySpec{"group": "shop"}))
		c.want("a group again", tls, "10.1.0.11:443=1")
		c.must("-d " + web + " -r 10.1.0.12:80")
		c.want("who failed is deleted", tls, "10.1.0.12:443=1 10.1.0.11:443=1")
		c.set(true, "10.1.0.11:80")
		c.must("-D " + web)
		c.want("its service is deleted", tls, "10.1.0.11:443=1 10.1.0.12:443=1")
	})
}

func TestWeightsAreMultiplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m -w 100", "-a "+web+" -r 10.1.0.12 -m -w 1", "-a "+web+" -r 10.1.0.13 -m -w 0")
		all := func(f float64) map[health.Subject]float64 {
			m := map[health.Subject]float64{}
			for _, rs := range []string{"10.1.0.11:80", "10.1.0.12:80", "10.1.0.13:80", "10.1.0.99:80"} {
				m[health.Subject{Service: keyOf(op("-D " + web).Service), Server: netip.MustParseAddrPort(rs)}] = f
			}
			return m
		}
		for range 100 { // nothing adds up
			c.SetFactors("agent", all(0.5))
		}
		c.want("half; what isn't 0 stays above it", web, "10.1.0.13:80=0 10.1.0.12:80=1 10.1.0.11:80=50")
		c.SetFactors("slow start", all(0.1))
		c.want("two want less", web, "10.1.0.13:80=0 10.1.0.12:80=1 10.1.0.11:80=5")
		c.must("-e " + web + " -r 10.1.0.11 -m -w 200")
		c.want("edited: what is configured is multiplied", web, "10.1.0.13:80=0 10.1.0.12:80=1 10.1.0.11:80=10")
		c.SetFactors("agent", all(0))
		c.want("none at all", web, "10.1.0.13:80=0 10.1.0.12:80=0 10.1.0.11:80=0")
		c.SetFactors("agent", all(1e300))
		c.want("bounded", web, "10.1.0.13:80=0 10.1.0.12:80=1 10.1.0.11:80=200")
		c.SetFactors("agent", all(1))
		c.SetFactors("slow start", all(1))
		c.want("taken back", web, "10.1.0.13:80=0 10.1.0.12:80=1 10.1.0.11:80=200")
		if s := c.server(web, 2); s.EffectiveWeight != nil || s.Config.Weight != 200 {
			t.Errorf("listed as %+v", s)
		}
	})
}

func TestChecksOfServicesAndServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m", "-a "+web+" -r 10.1.0.12 -m", "-A "+dns)
		own := addCheck(web, api.CheckSpec{"kind": "tcp", "port": 8080, "interval": "1s", "rise": 1, "fall": 1})
		own.Server = &api.ServerKey{Address: netip.MustParseAddr("10.1.0.11"), Port: 80}
		c.check(addCheck(web, tcpCheck()), own)
		c.set(true, "10.1.0.11:80", "10.1.0.12:8080")
		c.want("its own check stands in the place of the service's", web, "10.1.0.12:80=1 10.1.0.11:80=1")
		c.set(true, "10.1.0.11:8080")
		c.want("its own fails", web, "10.1.0.12:80=1")
		del := api.Op{Kind: api.DeleteCheck, Service: own.Service, Server: own.Server, CheckID: "tcp"}
		c.set(false, "10.1.0.11:80")
		c.check(del)
		c.want("it is asked by the service's check", web, "10.1.0.11:80=1 10.1.0.12:80=1")
		for _, x := range []struct {
			situation string
			op        api.Op
			code      api.Code
		}{
			{"twice", addCheck(web, tcpCheck()), api.CheckExists},
			{"deleted twice", del, api.CheckNotFound},
			{"no such service", addCheck(mark, tcpCheck()), api.ServiceNotFound},
			{"no such server", api.Op{Kind: api.AddCheck, Service: own.Service, CheckSpec: tcpCheck(),
				Server: &api.ServerKey{Address: netip.MustParseAddr("10.1.0.99"), Port: 80}}, api.ServerNotFound},
			{"no such kind", addCheck(web, api.CheckSpec{"kind": "tpc"}), api.Invalid},
			{"no such policy", setPolicy(web, api.PolicySpec{"raection": "remove"}), api.Invalid},
			{"no such option", addCheck(web, api.CheckSpec{"kind": "tcp", "intervall": 1}), api.Invalid},
		} {
			if err := c.do(x.op); !errors.Is(err, x.code) {
				t.Errorf("%s: %v, want %s", x.situation, err, x.code)
			}
		}
		// All of one change.
		if err := c.do(append(ops("-d "+web+" -r 10.1.0.12:80", "-a "+web+" -r 10.1.0.12 -m", "-D "+web, "-A "+web, "-a "+web+" -r 10.1.0.11 -m"),
			addCheck(web, tcpCheck()), api.Op{Kind: api.DeleteCheck, Service: own.Service, CheckID: "tcp"}, addCheck(web, tcpCheck()))...); err != nil {
			t.Fatal(err)
		}
		c.set(true, "10.1.0.11:80")
		c.want("made anew with its check", web, "")
		c.check(api.Op{Kind: api.DeleteCheck, Service: own.Service, CheckID: "tcp"})
		c.want("without check", web, "10.1.0.11:80=1")
	})
}

func TestAServerStartsDownIfItIsToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		spec := tcpCheck()
		spec["start"] = "down"
		c.must("-A " + web)
		c.check(addCheck(web, spec))
		c.set(true, "10.1.0.11:80")
		c.must("-a " + web + " -r 10.1.0.11 -m")
		time.Sleep(time.Second)
		synctest.Wait()
		c.fixture.mu.Lock()
		if slices.ContainsFunc(c.published, func(t *service.Table) bool { return len(t.Services) > 0 && len(t.Services[0].Servers) > 0 }) {
			t.Error("it was published before it was found to be up")
		}
		c.fixture.mu.Unlock()
		c.set(false, "10.1.0.11:80")
		c.want("it is up", web, "10.1.0.11:80=1")
		if rs := c.vs(web).Servers[0]; !rs.Available() || rs.Service != (service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}) {
			t.Errorf("%+v isn't available", rs)
		}
	})
}

func TestChecksAreTested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m", "-a "+web+" -r 10.1.0.12 -m")
		c.mu.Lock()
		c.ill[netip.MustParseAddrPort("10.1.0.11:80")] = true
		c.mu.Unlock()
		key := *op("-D " + web).Service
		tests, err := c.TestChecks(t.Context(), &api.CheckTestRequest{Service: key, Spec: tcpCheck()})
		if err != nil || len(tests) != 2 || !tests[0].Outcome.OK || tests[1].Outcome.OK || tests[1].Outcome.Text != "connection refused" {
			t.Errorf("%+v, %v", tests, err)
		}
		c.want("nothing changed", web, "10.1.0.12:80=1 10.1.0.11:80=1")
		if _, err := c.TestChecks(t.Context(), &api.CheckTestRequest{Service: key}); !errors.Is(err, api.CheckNotFound) {
			t.Errorf("none is set: %v", err)
		}
	})
}
