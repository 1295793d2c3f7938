package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/control/api"
	"uvs/lab"
)

// health is what uvsadm health says in JSON, by real server, of the web service.
func (r *rig) health() map[string]api.ServerHealth {
	r.t.Helper()
	var reply api.HealthReply
	must(r.t, json.Unmarshal([]byte(r.adm("health", "-t", r.webService(), "--json")), &reply))
	servers := map[string]api.ServerHealth{}
	for _, h := range reply.Servers {
		servers[h.Server.String()] = h
	}
	return servers
}

// awaitState waits until a real server of the web service is in a state.
func (r *rig) awaitState(number int, state string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("rs%d is %s", number, state), func() (bool, any) {
		h := r.health()[r.webServer(number)]
		return h.State == state, h
	})
}

// knocker opens a connection to a service every few milliseconds and notes those that fail.
type knocker struct {
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex
	failed []time.Time // when they began
	tried  int
}

// knock begins; end ends it.
func knock(from *lab.Host, addr string) *knocker {
	k := &knocker{stop: make(chan struct{})}
	k.done.Go(func() {
		for every := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-k.stop:
				return
			case <-every.C:
			}
			k.done.Go(func() {
				began := time.Now()
				conn, err := from.Dial("tcp", addr)
				if err == nil {
					conn.Close()
				}
				k.mu.Lock()
				defer k.mu.Unlock()
				k.tried++
				if err != nil {
					k.failed = append(k.failed, began)
				}
			})
		}
	})
	return k
}

// end returns how many connections were tried and failed, and how long after a moment the last of these began.
func (k *knocker) end(since time.Time) (tried, failed int, last time.Duration) {
	close(k.stop)
	k.done.Wait()
	for _, t := range k.failed {
		last = max(last, t.Sub(since))
	}
	return k.tried, len(k.failed), last
}

// Servers that fail get no more clients, whatever the forwarding method; those that recover do, and what was configured stays.
func TestHealthChecksKeepClientsFromDeadServers(t *testing.T) {
	modes(t, func(t *testing.T, cfg rigConfig) {
		cfg.NoInsideAddress = true // behind NAT only uvsd has a way to the real servers, not its host
		r := newRig(t, cfg)
		rules := r.adm("-S", "-n")
		r.adm("check", "add", "-t", r.webService(), "http", "path=/", "interval=1s", "timeout=500ms", "via=direct")
		r.adm("check", "add", "-u", r.udpService(), "udp", "request=who", "expect=rs", "interval=200ms", "via=direct")
		out := r.adm("check", "test", "-t", r.webService(), "-r", r.webServer(1))
		if !strings.Contains(out, `> GET / HTTP/1.1\r\n`) || !strings.Contains(out, `< HTTP/1.1 200 OK\r\n`) || !strings.Contains(out, `< rs1\n`) {
			t.Errorf("check test doesn't show the exchange:\n%s", out)
		}
		r.awaitState(1, api.StateUp)
		r.awaitState(2, api.StateUp)

		clients := knock(r.Clients[0], r.webService())
		time.Sleep(50 * time.Millisecond)
		must(t, r.web[0].Close())
		died := time.Now()
		r.awaitState(1, api.StateDown)
		if got := r.count(6); got["rs2"] != 6 {
			t.Errorf("with rs1 dead 6 requests went to %v", got)
		}
		tried, failed, last := clients.end(died)
		t.Logf("%d of %d connections failed, the last %v after rs1 had died (interval 1 s, fall 2)", failed, tried, last.Round(time.Millisecond))
		if list := r.list("-t", r.webService()); len(list) != 1 {
			t.Errorf("with rs1 dead -L has %v", list)
		}
		if got := sortedLines(r.adm("-S", "-n")); got != sortedLines(rules) {
			t.Errorf("with rs1 dead -S has\n%swas\n%s", got, rules)
		}
		if out, err := r.tryAdm("", "check", "test", "-t", r.webService()); err == nil || !strings.Contains(out, "connection refused\n") {
			t.Errorf("check test: %v:\n%s", err, out)
		}

		// Quiesced instead, which a change of the policy brings about at once.
		r.adm("check", "policy", "-t", r.webService(), "reaction=quiesce")
		if list := r.list("-t", r.webService()); list[r.webServer(1)].weight != "0" || list[r.webServer(2)].weight != "1" {
			t.Errorf("with rs1 dead and quiesced -L has %v", list)
		}
		addrs := []netip.Addr{r.RealServers[0].Addr()}
		if r.direct {
			addrs = append(addrs, r.VIP())
		}
		var at []netip.AddrPort
		for _, a := range addrs {
			at = append(at, netip.AddrPortFrom(a, r.webPort()))
		}
		_, err := lab.ServeHTTP(r.RealServers[0].Namespace, "rs1", at...)
		must(t, err)
		r.awaitState(1, api.StateUp)
		if got := r.count(6); got["rs1"] != 3 {
			t.Errorf("with rs1 back 6 requests went to %v", got)
		}
		changes := r.health()[r.webServer(1)].Checks[0].Changes
		if len(changes) != 3 || !strings.Contains(changes[1].Why, "connection refused") {
			t.Errorf("rs1's history is %+v", changes)
		}
		if log := r.log.String(); strings.Count(log, "real server is down") != 1 || strings.Count(log, "real server is up") != 1 {
			t.Error("the log doesn't have one line for each change")
		}

		// A UDP flow is with another server as soon as its own is known to be dead.
		flow := r.udpTo("rs2")
		must(t, r.udp[1].Close())
		eventually(t, "the flow of the dead server is answered by the other", func() (bool, any) {
			got, err := askUDP(flow)
			return got == "rs1", fmt.Sprint(got, err)
		})
	})
}

// askUDP asks a UDP echo server once, and returns its name.
func askUDP(conn net.Conn) (string, error) {
	if _, err := conn.Write([]byte("who")); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return "", err
	}
	n, err := conn.Read(b)
	name, _, _ := strings.Cut(string(b[:n]), ":")
	return name, err
}

func sortedLines(s string) string { return strings.Join(slices.Sorted(strings.Lines(s)), "") }
