package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"uvs/lab"
)

func TestSchedulersShareByTheirRules(t *testing.T) {
	for _, c := range []struct {
		scheduler string
		weights   []int
		requests  int
		want      lab.Tally
	}{
		{"rr", []int{1, 1, 1}, 30, lab.Tally{"rs1": 10, "rs2": 10, "rs3": 10}},
		{"rr", []int{5, 0, 1}, 30, lab.Tally{"rs1": 15, "rs3": 15}},
		{"wrr", []int{1, 2, 3}, 60, lab.Tally{"rs1": 10, "rs2": 20, "rs3": 30}},
		{"wrr", []int{10, 0, 5}, 60, lab.Tally{"rs1": 40, "rs3": 20}},
		{"fo", []int{1, 3, 2}, 10, lab.Tally{"rs2": 10}},
	} {
		t.Run(fmt.Sprintf("%s%v", c.scheduler, c.weights), func(t *testing.T) {
			modes(t, func(t *testing.T, cfg rigConfig) {
				cfg.RealServers, cfg.Scheduler = 3, c.scheduler
				r := newRig(t, cfg)
				r.weigh(c.weights)
				if got := r.count(c.requests); got.String() != c.want.String() {
					t.Errorf("%d requests went to %v, want %v", c.requests, got, c.want)
				}
			})
		})
	}
}

// weigh gives rs1, rs2... these weights in the web service.
func (r *rig) weigh(weights []int) {
	r.t.Helper()
	for i, w := range weights {
		r.adm("-e", "-t", r.webService(), "-r", r.webServer(i+1), r.method(), "-w", strconv.Itoa(w))
	}
}

// held is a persistent HTTP connection to one real server.
type held struct {
	client *http.Client
	server string
}

// hold opens a connection to the web service and leaves it open.
func (r *rig) hold(from *lab.Host) *held {
	r.t.Helper()
	h := &held{client: from.HTTPClient()}
	h.client.Transport.(*http.Transport).DisableKeepAlives = false
	r.t.Cleanup(h.close)
	server, err := h.ask(r)
	must(r.t, err)
	h.server = server
	return h
}

// ask makes a request on the connection.
func (h *held) ask(r *rig) (string, error) {
	server, _, err := lab.AskHTTP(shortly(r.t), h.client, r.url()+"/")
	if err == nil && h.server != "" && server != h.server {
		err = fmt.Errorf("a connection to %s is answered by %s: it broke, and another was made", h.server, server)
	}
	return server, err
}

func (h *held) close() { h.client.CloseIdleConnections() }

// holdMany opens connections one after the other and returns who got how many.
func (r *rig) holdMany(n int) (all []*held, tally lab.Tally) {
	r.t.Helper()
	tally = lab.Tally{}
	for range n {
		h := r.hold(r.Clients[0])
		all = append(all, h)
		tally[h.server]++
	}
	return all, tally
}

func TestLeastConnectionSchedulersSeeLiveConnections(t *testing.T) {
	for _, c := range []struct {
		scheduler string
		weights   []int
		held      int
		want      lab.Tally
	}{
		{"wlc", []int{1, 3}, 40, lab.Tally{"rs1": 10, "rs2": 30}},
		{"lc", []int{1, 3}, 20, lab.Tally{"rs1": 10, "rs2": 10}},
		{"sed", []int{1, 3}, 39, lab.Tally{"rs1": 9, "rs2": 30}},
	} {
		t.Run(c.scheduler, func(t *testing.T) {
			modes(t, func(t *testing.T, cfg rigConfig) {
				cfg.Scheduler = c.scheduler
				r := newRig(t, cfg)
				r.weigh(c.weights)
				_, got := r.holdMany(c.held)
				for name, n := range c.want {
					if d := got[name] - n; d < -1 || d > 1 {
						t.Errorf("%d held connections went to %v, want about %v", c.held, got, c.want)
					}
				}
				for i := range c.weights {
					active := r.list("-t", r.webService())[r.webServer(i+1)].active
					if want := strconv.Itoa(got[fmt.Sprintf("rs%d", i+1)]); active != want {
						t.Errorf("rs%d is listed with %s active connections, it has %s", i+1, active, want)
					}
				}
			})
		})
	}
}

func TestSourceHashKeepsAClientAtItsServer(t *testing.T) {
	r := newRig(t, rigConfig{Config: lab.Config{Clients: 8, RealServers: 3}, Scheduler: "sh"})
	all := lab.Tally{}
	for _, c := range r.Clients {
		tally, err := lab.CountHTTP(shortly(t), c.HTTPClient(), r.url()+"/", 5)
		must(t, err)
		if len(tally) != 1 {
			t.Errorf("%s was sent to %v", c, tally)
		}
		for name := range tally {
			all[name]++
		}
	}
	if len(all) < 2 {
		t.Errorf("8 clients were all sent to %v", all)
	}
}

func TestPersistenceKeepsAClientAtItsServer(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.Clients = 2
		r := newRig(t, cfg)
		r.adm("-E", "-t", r.webService(), "-s", "rr", "-p", "60")
		servers := lab.Tally{}
		for _, c := range r.Clients {
			tally, err := lab.CountHTTP(shortly(t), c.HTTPClient(), r.url()+"/", 6)
			must(t, err)
			if len(tally) != 1 {
				t.Errorf("%s was sent to %v", c, tally)
			}
			for name := range tally {
				servers[name]++
			}
		}
		if len(servers) != 2 {
			t.Errorf("two clients in turn (rr) were sent to %v", servers)
		}
		if out := r.adm("-L", "-n", "-t", r.webService()); !strings.Contains(out, "persistent 60") {
			t.Errorf("the listing doesn't say persistent:\n%s", out)
		}
	})
}

func TestListingCountsConnections(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		all, _ := r.holdMany(6)
		want := map[string]server{
			r.webServer(1): {r.forwardName(), "1", "3", "0"},
			r.webServer(2): {r.forwardName(), "1", "3", "0"},
		}
		r.expectList(want)
		r.checkConnections("ESTABLISHED", 6)
		for _, h := range all[:2] {
			h.close()
		}
		for _, s := range []int{1, 2} {
			want[r.webServer(s)] = server{r.forwardName(), "1", "2", "1"}
		}
		r.expectList(want)
		r.checkConnections("ESTABLISHED", 4)
	})
}

// forwardName is how uvsadm -L calls the method.
func (r *rig) forwardName() string {
	if r.direct {
		return "Route"
	}
	return "Masq"
}

// expectList waits until the web service's real servers are listed so: counts lag behind what a client sees by the last
// segments of a handshake.
func (r *rig) expectList(want map[string]server) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("uvsadm -L -n lists %v", want), func() (bool, any) {
		got := r.list("-t", r.webService())
		return fmt.Sprint(got) == fmt.Sprint(want), got
	})
}

// checkConnections compares the lines of uvsadm -L -n -c in a state with what they must be.
func (r *rig) checkConnections(state string, n int) {
	r.t.Helper()
	found := 0
	for line := range strings.Lines(r.adm("-L", "-n", "-c")) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != "TCP" || f[2] != state {
			continue
		}
		found++
		client, _, err := net.SplitHostPort(f[3])
		if err != nil || client != r.addr(r.Clients[0]).String() || f[4] != r.webService() || f[5] != r.webServer(1) && f[5] != r.webServer(2) {
			r.t.Errorf("connection listed as %q", line)
		}
	}
	if found != n {
		r.t.Errorf("%d connections are listed as %s, want %d", found, state, n)
	}
}
