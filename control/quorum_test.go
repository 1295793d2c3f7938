package control

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
	"uvs/packet"
	"uvs/service"
)

// state is what the API says of a service as a whole.
func (c *clinic) state(key string) api.QuorumState {
	c.t.Helper()
	synctest.Wait()
	list, err := c.Services(c.t.Context(), op("-D "+key).Service)
	if err != nil {
		c.t.Fatal(err)
	}
	if list[0].Quorum == nil {
		return api.QuorumState{}
	}
	return *list[0].Quorum
}

func TestTheSorryServerTakesOverWhenTooFewAreUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reaction := range []string{"remove", "quiesce"} {
			for _, scheduler := range []string{"wlc", "sh", "mh", "wrr", "lblc"} {
				c := newClinic(t)
				c.must("-A "+web+" -s "+scheduler, "-a "+web+" -r 10.1.0.11 -m -w 2", "-a "+web+" -r 10.1.0.12 -m -w 2", "-a "+web+" -r 10.1.0.13 -m -w 2")
				rules := c.rules()
				c.check(addCheck(web, tcpCheck()), setPolicy(web, api.PolicySpec{"quorum": 3, "hysteresis": 1, "sorry": "10.1.0.99:8080", "reaction": reaction}))
				before := c.inForce(web)
				if !strings.HasPrefix(before, "10.1.0.13:80=2 ") {
					t.Fatalf("%s: the packet path has %s", scheduler, before)
				}
				up := c.vs(web).Servers[0]
				c.set(true, "10.1.0.11:80")
				if s := c.state(web); !s.Up || s.Weight != 4 || s.Sorry != nil {
					t.Errorf("with 4 of 3: %+v", s)
				}
				c.set(true, "10.1.0.12:80") // 2 is not below 3-1
				if s := c.state(web); !s.Up || s.Weight != 2 {
					t.Errorf("with 2 of 3, hysteresis 1: %+v", s)
				}
				c.set(true, "10.1.0.13:80")
				c.want("nobody is up", web, "10.1.0.99:8080=1")
				if s := c.state(web); s.Up || s.Weight != 0 || s.Sorry == nil || s.Sorry.Port != 8080 || s.Sorry.Config.Method != api.Masq {
					t.Errorf("with none of 3: %+v", s)
				}
				vs := c.vs(web)
				for n := range 50 { // with every scheduler everybody comes to it
					q := &service.Request{Service: vs, Flow: packet.Flow{Src: packet.AddrFrom4(uint32(n) * 7919), Dst: packet.AddrFrom4(1), Proto: packet.ProtoTCP}}
					if rs := vs.Scheduler.Pick(q, vs.Servers); rs != vs.Servers[0] {
						t.Fatalf("%s: picked %v", scheduler, rs)
					}
				}
				c.set(false, "10.1.0.13:80") // 2 is not 3+1
				c.want("one is back, too few", web, "10.1.0.99:8080=1")
				if !up.Available() {
					t.Error("the server that is back isn't available to connections that it has")
				}
				c.set(false, "10.1.0.12:80")
				if got := c.inForce(web); strings.Contains(got, "99") || !strings.Contains(got, "10.1.0.12:80=2") || !strings.Contains(got, "10.1.0.13:80=2") {
					t.Errorf("%s, two are back: the packet path has %s", scheduler, got)
				}
				if s := c.state(web); !s.Up || s.Sorry != nil {
					t.Errorf("with 4 of 3 again: %+v", s)
				}
				synctest.Wait()
				sorry := vs.Servers[0]
				if !slices.ContainsFunc(c.conns.forsaken, func(doomed func(*service.RealServer) bool) bool { return doomed(sorry) }) && sorry.Persistent() > 0 {
					t.Error("clients' templates lead to the sorry server still")
				}
				if got := c.rules(); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(rules))) {
					t.Errorf("what is configured became\n%s\nwas\n%s", strings.Join(got, "\n"), strings.Join(rules, "\n"))
				}
			}
		}
	})
}

func TestPersistentClientsLeaveTheSorryServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web+" -p 300", "-a "+web+" -r 10.1.0.11 -m")
		c.check(addCheck(web, tcpCheck()), setPolicy(web, api.PolicySpec{"sorry": "10.1.0.99"}))
		c.set(true, "10.1.0.11:80")
		sorry := c.vs(web).Servers[0]
		sorry.BindTemplate()
		c.conns.forsaken = nil
		c.set(false, "10.1.0.11:80")
		synctest.Wait()
		if !slices.ContainsFunc(c.conns.forsaken, func(doomed func(*service.RealServer) bool) bool { return doomed(sorry) }) {
			t.Error("their templates lead to the sorry server still")
		}
		if !sorry.Available() {
			t.Error("the last answers of the sorry server are cut off")
		}
	})
}

// Policies that change, services that go: the sorry server's number is free again when its last connection has gone.
func TestSorryServersComeAndGo(t *testing.T) {
	c := newFixture(t)
	used := func() int { return c.cfg.Servers.Cap() - c.cfg.Servers.Free() }
	was := c.cfg.Servers.Free()
	policy := func(p api.PolicySpec) error {
		r, err := c.Change(t.Context(), &api.ChangeRequest{Ops: []api.Op{setPolicy(web, p)}, OnError: api.Atomic})
		if err != nil {
			t.Fatal(err)
		}
		return r.Err()
	}
	c.must("-A " + web + " -s rr")
	for i, sorry := range []string{"10.1.0.98", "10.1.0.99", "none", "10.1.0.99"} {
		if err := policy(api.PolicySpec{"sorry": sorry, "sorrymethod": "dr"}); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, rs := range c.vs(web).Servers {
			got += rs.String()
		}
		if want := strings.Replace(sorry+":80", "none:80", "", 1); got != want {
			t.Errorf("policy %d: the packet path has %q, want %q", i, got, want)
		}
	}
	rs := c.vs(web).Servers[0]
	rs.Bind(true)
	c.must("-D " + web)
	if rs.Available() {
		t.Error("the sorry server of a service that is gone is available")
	}
	now := time.Unix(1e9, 0)
	for range 300 {
		now = now.Add(time.Minute)
		c.mu2(func() { c.emptyTrashLocked(now) })
	}
	if got := was - c.cfg.Servers.Free(); got != 1 {
		t.Errorf("%d numbers are used, of %d, while the last has a connection", got, used())
	}
	rs.Unbind(true)
	for range 5 {
		now = now.Add(time.Minute)
		c.mu2(func() { c.emptyTrashLocked(now) })
	}
	if got := c.cfg.Servers.Free(); got != was {
		t.Errorf("%d numbers are free, before %d", got, was)
	}
	if n := len(c.trash.of) + len(c.trash.nameless); n != 0 {
		t.Errorf("the trash remembers %d", n)
	}
	for want, p := range map[string]api.PolicySpec{"another address family": {"sorry": "2001:db8::1"}, "not an address of one host": {"sorry": "224.0.0.1"}} {
		c.must("-A " + web)
		if err := policy(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("policy %v: %v, want %q", p, err, want)
		}
		c.must("-D " + web)
	}
	for key, want := range map[string]string{"-u 192.0.2.100:53": "TCP", "-t 192.0.2.100:0": "one port"} {
		c.must("-A " + key + " -s rr -p 300")
		r, err := c.Change(t.Context(), &api.ChangeRequest{Ops: []api.Op{setPolicy(key, api.PolicySpec{"sorry": "builtin"})}, OnError: api.Atomic})
		if err != nil || r.Err() == nil || !strings.Contains(r.Err().Error(), want) {
			t.Errorf("a page for %s: %v", key, r)
		}
	}
}

// mu2 does something with the desired state locked.
func (f *fixture) mu2(do func()) {
	f.Director.mu.Lock()
	defer f.Director.mu.Unlock()
	do()
}

func TestTheBuiltInPageIsServed(t *testing.T) {
	for _, key := range []string{"-t 192.0.2.100:80", "-t [2001:db8::100]:80", "-f 7"} {
		c := newFixture(t, func(cfg *Config) { cfg.IsLocal = func(a netip.Addr) bool { return a.IsLoopback() } })
		defer c.sorry.Close()
		c.must("-A " + key + " -s rr -p 300")
		r, err := c.Change(t.Context(), &api.ChangeRequest{OnError: api.Atomic, Ops: []api.Op{
			setPolicy(key, api.PolicySpec{"sorry": "builtin", "sorrypage": "we are closed", "retryafter": "1m"})}})
		if err != nil || r.Err() != nil {
			t.Fatal(err, r)
		}
		list := c.vs(key).Servers
		if len(list) != 1 || list[0].Method() != service.Local || list[0].Asked() != service.Masq {
			t.Fatalf("the packet path has %v", list)
		}
		if c.vs(key).Persistent() {
			t.Errorf("%s: its clients are led to the director's ports of the same numbers", key)
		}
		resp, err := http.Get("http://" + list[0].Addr.String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 503 || string(body) != "we are closed" || resp.Header.Get("Retry-After") != "60" {
			t.Errorf("%s: %v, %q, %v", key, resp.Status, body, resp.Header)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

func TestProgramsAreTold(t *testing.T) {
	dir := t.TempDir()
	out, program := filepath.Join(dir, "out"), filepath.Join(dir, "tell")
	text := "#!/bin/sh\necho \"$@\" $UVS_STATE $UVS_SERVER $UVS_WEIGHT >>" + out + "\n"
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m")
		c.check(addCheck(web, tcpCheck()), setPolicy(web, api.PolicySpec{
			"notifydown": program + " server %h:%p", "notifyup": program + " server %h:%p", "quorumdown": []string{program, "service %s"},
			"quorumup": program + " service"}))
		wait := func(want ...string) {
			t.Helper()
			var got []string
			for range 2000 {
				b, _ := os.ReadFile(out)
				if got = strings.Split(strings.TrimSpace(string(b)), "\n"); len(got) >= len(want) {
					break
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			os.Remove(out)
		}
		c.set(true, "10.1.0.11:80")
		wait("server 10.1.0.11:80 down 10.1.0.11:80", "service tcp 10.9.0.100:80 down 0")
		c.set(false, "10.1.0.11:80")
		wait("server 10.1.0.11:80 up 10.1.0.11:80", "service up 1")
	})
}

func TestAServiceWithoutPolicyHasNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClinic(t)
		c.must("-A "+web, "-a "+web+" -r 10.1.0.11 -m")
		c.check(addCheck(web, tcpCheck()))
		c.set(true, "10.1.0.11:80")
		c.want("nobody is up", web, "")
		if list, err := c.Services(t.Context(), op("-D "+web).Service); err != nil || list[0].Quorum != nil {
			t.Errorf("%+v, %v", list[0].Quorum, err)
		}
	})
}
