package ipvsadm

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/control/api"
	"uvs/health"
)

// nurse is a backend that takes checks and tells of one server.
type nurse struct {
	*kernel
	ops      []api.Op
	services []api.Service
	health   []api.ServerHealth
	tests    []api.CheckTest
	asked    []api.CheckTestRequest
}

// Change implements api.Backend.
func (n *nurse) Change(_ context.Context, r *api.ChangeRequest) (*api.ChangeReply, error) {
	n.ops = r.Ops
	return &api.ChangeReply{Results: make([]api.OpResult, len(r.Ops))}, nil
}

// Services implements api.Backend.
func (n *nurse) Services(context.Context, *api.ServiceKey) ([]api.Service, error) {
	return n.services, nil
}

// Health implements api.Backend.
func (n *nurse) Health(context.Context, *api.ServiceKey) ([]api.ServerHealth, error) {
	return n.health, nil
}

// TestChecks implements api.Backend.
func (n *nurse) TestChecks(_ context.Context, r *api.CheckTestRequest) ([]api.CheckTest, error) {
	n.asked = append(n.asked, *r)
	if r.ID != "" && r.ID != "front" {
		return nil, api.Errorf(api.CheckNotFound, "no such check")
	}
	return n.tests, nil
}

func (n *nurse) run(t *testing.T, line ...string) (out, errs string, exit int) {
	t.Helper()
	var o, e bytes.Buffer
	p := Program{Name: "uvsadm", Backend: n, Stdout: &o, Stderr: &e}
	exit = p.runWord(t.Context(), line)
	return o.String(), e.String(), exit
}

func TestCheckWords(t *testing.T) {
	n := &nurse{kernel: newKernel()}
	for line, want := range map[string]string{
		"check add -t 192.0.2.100:80 http path=/ok status=200 status=204 rise=1": `[{"op":"add-check","service":{"protocol":"tcp","address":"192.0.2.100","port":80},"check":{"kind":"http","path":"/ok","rise":"1","status":["200","204"]}}]`,
		"check add -f 7 -6 -r 2001:db8::11 tcp":                                  `[{"op":"add-check","service":{"fwmark":7,"family":"ipv6"},"server":{"address":"2001:db8::11","port":0},"check":{"kind":"tcp"}}]`,
		"check add -u=192.0.2.100:53 --real-server=10.0.0.11 udp request=a=b":    `[{"op":"add-check","service":{"protocol":"udp","address":"192.0.2.100","port":53},"server":{"address":"10.0.0.11","port":53},"check":{"kind":"udp","request":"a=b"}}]`,
		"check del -t 192.0.2.100:80 -r 10.0.0.11:8080 front":                    `[{"op":"delete-check","service":{"protocol":"tcp","address":"192.0.2.100","port":80},"server":{"address":"10.0.0.11","port":8080},"checkID":"front"}]`,
		"check policy -t 192.0.2.100:80 group=shop reaction=":                    `[{"op":"set-policy","service":{"protocol":"tcp","address":"192.0.2.100","port":80},"policy":{"group":"shop","quorum":"2"}}]`,
	} {
		n.services = []api.Service{{Policy: api.PolicySpec{"reaction": "quiesce", "quorum": "2"}}}
		_, errs, exit := n.run(t, strings.Fields(line)...)
		if b, _ := json.Marshal(n.ops); exit != 0 || string(b) != want {
			t.Errorf("%s: exit %d, %s\n%s\nwant\n%s", line, exit, errs, b, want)
		}
	}
	for _, line := range []string{
		"check", "check what -t 192.0.2.100:80", "check add tcp", "check add -t 192.0.2.100:80", "check add -t 192.0.2.100:80 interval=1s",
		"check add -t 192.0.2.100:80 tcp rise", "check add -t 192.0.2.100:80 tcp kind=udp", "check add -t 192.0.2.100:80 -r rs1 tcp",
		"check add -r 10.0.0.11 -t", "check add -t 192.0.2.100:80 -t 192.0.2.100:81 tcp", "check add -t 192.0.2.100:80 --rise 2 tcp",
		"check del -t 192.0.2.100:80", "check list tcp", "check policy -t 192.0.2.100:80 -r 10.0.0.11", "check policy -t 192.0.2.100:80 quiesce",
		"health now",
	} {
		n.ops = nil
		if _, errs, exit := n.run(t, strings.Fields(line)...); exit == 0 || errs == "" || n.ops != nil {
			t.Errorf("%s: exit %d, %q, %v", line, exit, errs, n.ops)
		}
	}
}

func TestCheckListIsWhatCheckAddTakes(t *testing.T) {
	web := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	rs := api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80}
	n := &nurse{kernel: newKernel(), services: []api.Service{{
		ServiceKey: web, Policy: api.PolicySpec{"group": "shop"},
		Checks:  []api.CheckSpec{{"kind": "http", "id": "front", "path": "/a b", "status": []any{"200", "204"}}},
		Servers: []api.Server{{ServerKey: rs, Checks: []api.CheckSpec{{"kind": "tcp", "port": 8080.0}}}},
	}}}
	out, _, _ := n.run(t, "check", "list")
	want := `Service             Real server   ID      Check
tcp 192.0.2.100:80  all           front   http path='/a b' status=200 status=204
tcp 192.0.2.100:80                policy  group=shop
tcp 192.0.2.100:80  10.0.0.11:80  tcp     tcp port=8080
`
	if out != want {
		t.Errorf("printed\n%s\nwant\n%s", out, want)
	}
	out, _, _ = n.run(t, "check", "list", "--json")
	var reply struct{ Checks []setChecks }
	if err := json.Unmarshal([]byte(out), &reply); err != nil || len(reply.Checks) != 2 || reply.Checks[1].Server == nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestCheckTestShowsEveryByte(t *testing.T) {
	rs := api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80}
	n := &nurse{kernel: newKernel(), tests: []api.CheckTest{{
		Server: rs, ID: "http", Address: netip.MustParseAddrPort("192.0.2.100:80"), ThroughVIP: true,
		Outcome: api.ProbeOutcome{Milliseconds: 1.25, Text: "status 500\x1b[2J"},
		Exchange: []api.ExchangePiece{
			{Sent: true, Milliseconds: 0.3, Data: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
			{Milliseconds: 1.2, Data: []byte("HTTP/1.1 500 \xff\x00\x1b[2J\\\u202e\r\nno end")},
		},
	}}}
	out, errs, exit := n.run(t, "check", "test", "-t", "192.0.2.100:80", "http", "path=/")
	want := `10.0.0.11:80  http, asked at the virtual address 192.0.2.100:80
      0.3 ms > GET / HTTP/1.1\r\n
             > Host: x\r\n
             > \r\n
      1.2 ms < HTTP/1.1 500 \xff\x00\x1b[2J\\\u202e\r\n
             < no end
      1.2 ms failed: status 500?[2J
`
	if out != want || exit != 1 || errs != "1 of 1 check failed\n" {
		t.Errorf("exit %d, %q, printed\n%s\nwant\n%s", exit, errs, out, want)
	}
	n.asked = nil
	n.run(t, "check", "test", "-t", "192.0.2.100:80", "front")
	n.run(t, "check", "test", "-t", "192.0.2.100:80", "tcp")
	if len(n.asked) != 3 || n.asked[0].ID != "front" || n.asked[1].ID != "tcp" || n.asked[2].Spec["kind"] != "tcp" {
		t.Errorf("asked for %+v", n.asked)
	}
}

func TestHealthIsPrinted(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	web := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	server := func(last byte) api.ServerKey {
		return api.ServerKey{Address: netip.AddrFrom4([4]byte{10, 0, 0, last}), Port: 80}
	}
	list := []api.ServerHealth{
		{Service: web, Server: server(11), State: api.StateUp, Serving: true, ConfiguredWeight: 4, Weight: 2,
			Factors: []api.WeightFactor{{By: "agent", Factor: 0.5}}, Checks: []api.CheckHealth{{ID: "http", State: api.StateUp,
				Last:    &api.ProbeOutcome{Time: now.Add(-400 * time.Millisecond), Milliseconds: 1.24, OK: true, Text: "200 OK"},
				Changes: []api.StateChange{{Time: now.Add(-3 * time.Hour), To: api.StateUp, Why: "200 OK"}}}}},
		{Service: web, Server: server(12), State: api.StateDown, ConfiguredWeight: 1, Why: "http: refused", Checks: []api.CheckHealth{
			{ID: "http", State: api.StateDown, Last: &api.ProbeOutcome{Time: now, Milliseconds: 0.1, Text: "refused"}, Suspected: "resets",
				Changes: []api.StateChange{{Time: now.Add(-90 * time.Second), To: api.StateDown, Why: "refused"}}},
			{ID: "tcp", State: api.Unknown}}},
		{Service: web, Server: server(13), State: api.StateUp, ConfiguredWeight: 1, Why: "of the same group", Checks: []api.CheckHealth{{ID: "tcp"}}},
		{Service: web, Server: server(14), State: api.Unknown, Serving: true, ConfiguredWeight: 1, Weight: 1},
	}
	var out bytes.Buffer
	n := &nurse{kernel: newKernel(), health: list}
	p := Program{Name: "uvsadm", Backend: n, Stdout: &out}
	p.with(t.Context(), func(r *run) error { return r.health(list, true, now) })
	lines := strings.Split(out.String(), "\n")
	for i, fields := range [][]string{
		strings.Fields("Service Real server State Weight Check Last result Ago Changed"),
		{"tcp", "192.0.2.100:80", "10.0.0.11:80", "up", "2", "of", "4", "(agent", "0.5)", "http", "ok:", "200", "OK", "(1.2", "ms)", "0.4s", "3h0m"},
		{"tcp", "192.0.2.100:80", "10.0.0.12:80", "down", "0", "of", "1", "http", "failed:", "refused", "(0.1", "ms);", "suspect:", "resets", "0.0s", "1m30s"},
		{"tcp", "none", "yet", "-", "never"},
		{"tcp", "192.0.2.100:80", "10.0.0.13:80", "up,", "out", "0", "of", "1", "tcp", "none", "yet", "-", "never"},
		{"tcp", "192.0.2.100:80", "10.0.0.14:80", "unchecked", "1", "-", "-", "-", "-"},
	} {
		if got := strings.Fields(lines[i]); !slices.Equal(got, fields) {
			t.Errorf("line %d is %q, want %q", i, got, fields)
		}
	}
	if !strings.Contains(out.String(), "http   down    refused") {
		t.Errorf("no history in\n%s", out.String())
	}
	text, _, _ := n.run(t, "health", "--json", "-t", "192.0.2.100:80")
	var reply api.HealthReply
	if err := json.Unmarshal([]byte(text), &reply); err != nil || len(reply.Servers) != 4 {
		t.Errorf("%v: %s", err, text)
	}
}

// A service that is down as a whole is told of below the servers, and its sorry server is in -L.
func TestServicesThatAreDown(t *testing.T) {
	web := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	sorry := api.Server{ServerKey: api.ServerKey{Address: netip.MustParseAddr("127.0.0.1"), Port: 4711}, Config: api.ServerConfig{Method: api.Masq, Weight: 1}, Inactive: 3}
	for _, c := range []struct {
		quorum       *api.QuorumState
		health, list string // the end of what is printed
	}{
		{nil, "Changed\n", "TCP  192.0.2.100:80 rr\n"},
		{&api.QuorumState{Up: true, Weight: 5}, "Changed\n", "TCP  192.0.2.100:80 rr\n"},
		{&api.QuorumState{Weight: 1}, "\ntcp 192.0.2.100:80 is down: servers with a weight of 1 in all are up; no sorry server\n", "TCP  192.0.2.100:80 rr\n"},
		{&api.QuorumState{Sorry: &sorry}, "is down: servers with a weight of 0 in all are up; the sorry server 127.0.0.1:4711 has its new connections, and 3 of them now\n",
			"  -> 127.0.0.1:4711               Masq    1      0          3         \n"},
	} {
		n := &nurse{kernel: newKernel(), services: []api.Service{{ServiceKey: web, Config: api.ServiceConfig{Scheduler: "rr"}, Quorum: c.quorum}}}
		if out, _, _ := n.run(t, "health"); !strings.HasSuffix(out, c.health) {
			t.Errorf("%+v: health prints\n%s", c.quorum, out)
		}
		if out, _, _ := n.run(t, "-L", "-n"); !strings.HasSuffix(out, c.list) {
			t.Errorf("%+v: -L prints\n%s", c.quorum, out)
		}
		if out, _, _ := n.run(t, "-S", "-n"); strings.Contains(out, "4711") {
			t.Errorf("-S saves the sorry server:\n%s", out)
		}
	}
}

// A removed server isn't in -L, as it isn't in the service; -S has what was set.
func TestListingsOfServersThatHealthKeepsOut(t *testing.T) {
	zero, two := 0, 2
	web := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	server := func(last byte) api.Server {
		return api.Server{ServerKey: api.ServerKey{Address: netip.AddrFrom4([4]byte{10, 0, 0, last}), Port: 80}, Config: api.ServerConfig{Method: api.Route, Weight: 4}}
	}
	up, down, quiesced := server(11), server(12), server(13)
	up.EffectiveWeight, down.EffectiveWeight, down.Removed, quiesced.EffectiveWeight = &two, &zero, true, &zero
	n := &nurse{kernel: newKernel(), services: []api.Service{{ServiceKey: web, Config: api.ServiceConfig{Scheduler: "rr"}, Servers: []api.Server{up, quiesced, down}}}}
	out, _, _ := n.run(t, "-L", "-n")
	if !strings.HasSuffix(out, `
  -> 10.0.0.11:80                 Route   2      0          0         
  -> 10.0.0.13:80                 Route   0      0          0         
`) {
		t.Errorf("-L -n:\n%s", out)
	}
	out, _, _ = n.run(t, "-S", "-n")
	if want := `-A -t 192.0.2.100:80 -s rr
-a -t 192.0.2.100:80 -r 10.0.0.11:80 -g -w 4
-a -t 192.0.2.100:80 -r 10.0.0.12:80 -g -w 4
-a -t 192.0.2.100:80 -r 10.0.0.13:80 -g -w 4
`; out != want {
		t.Errorf("-S -n:\n%s\nwant\n%s", out, want)
	}
}

func TestCompletionKnowsTheKindsOfChecks(t *testing.T) {
	if want := health.Kinds(); !slices.Equal(checkKinds, want) {
		t.Errorf("checkKinds in syntax.go is %q, want %q", checkKinds, want)
	}
}
