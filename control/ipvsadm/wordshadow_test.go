package ipvsadm

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"uvs/control/api"
)

// shadowExample is a report in which schedulers did as well as the real one.
func shadowExample(key api.ServiceKey, schedulers []string) *api.ShadowsReply {
	s := api.Shadow{Service: key, Scheduler: "wlc", Since: time.Unix(1e9, 0).UTC(), Seconds: 61}
	for i, name := range append([]string{"wlc"}, schedulers...) {
		s.Trials = append(s.Trials, api.ShadowTrial{
			Scheduler: name, Real: i == 0, Offered: 1000, Misses: uint64(i), Differs: uint64(500 * i), Returning: 200, Moved: 100,
			New: api.ShadowImbalance{MaxMean: 1.25, Jain: 0.96, CV: 0.2}, Held: api.ShadowImbalance{MaxMean: 1, Jain: 1}, Samples: 60,
			Servers: []api.ShadowServer{
				{Address: netip.MustParseAddrPort("10.1.0.12:80"), Weight: 2, Conns: 600, Peak: 9},
				{Address: netip.MustParseAddrPort("10.1.0.11:80"), Removed: true, Conns: 400, Peak: 7},
			},
		})
	}
	return &api.ShadowsReply{Shadows: []api.Shadow{s}, OneIn: 4, Missed: 1}
}

func TestShadow(t *testing.T) {
	web := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("10.9.0.100"), Port: 80}
	mark6 := api.ServiceKey{FWMark: 7, Family: api.IPv6}
	for _, tt := range []struct {
		line string
		want *api.ShadowRequest // nil: nothing is asked for
		says string             // in what it prints, or complains about
		exit int
	}{
		{"shadow add -t 10.9.0.100:80 rr mh:mh-port", &api.ShadowRequest{Service: web, Add: []string{"rr", "mh:mh-port"}}, "", 0},
		{"shadow add rr --tcp-service=10.9.0.100:80 --json", &api.ShadowRequest{Service: web, Add: []string{"rr"}}, `"oneIn": 4`, 0},
		{"shadow del -f 7 -6 rr", &api.ShadowRequest{Service: mark6, Remove: []string{"rr"}}, "", 0},
		{"shadow del -t 10.9.0.100:80", &api.ShadowRequest{Service: web, End: true}, "", 0},
		{"shadow", nil, "No scheduler is on trial.", 0},
		{"shadow report", nil, "No scheduler is on trial.", 0},
		{"shadow report --json", nil, `"shadows": []`, 0},
		{"shadow -t 10.9.0.100:80", nil, "tcp 10.9.0.100:80, wlc for 1m1s\n", 0},
		{"shadow report -t 10.9.0.100:80", nil, "  mh:mh-port   1000    50.0%          1     1.250  0.960  0.200     1.000  1.000  0.000    50.0%       -\n", 0},
		{"shadow report -t 10.9.0.100:80", nil, "10.1.0.11:80  removed  400 (7)     400 (7)\n", 0},
		{"shadow report -t 10.9.0.100:80", nil, "those of one client in 4 are offered.\n\n1 connection came too fast", 0},
		{"shadow add -t 10.9.0.100:80", nil, "which schedulers?", 2},
		{"shadow add rr", nil, "of which service?", 2},
		{"shadow del", nil, "of which service?", 2},
		{"shadow report rr", nil, "unexpected argument rr", 2},
		{"shadow add -t", nil, "a value is missing", 2},
		{"shadow add -t x rr", nil, "-t x", 2},
		{"shadow add -t 10.9.0.100:80 -u 10.9.0.100:80 rr", nil, "one service at a time", 2},
		{"shadow add -t 10.9.0.100:80 -6 rr", nil, "-6 goes with -f", 2},
		{"shadow add --what 1 rr", nil, "no such option", 2},
		{"shadow frob", nil, "no such word: frob", 2},
		{"shadow add -t 10.9.0.100:80" + strings.Repeat(" rr", 17), nil, "17 schedulers", 2},
	} {
		k := newKernel()
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: k, Names: hosts{}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
		exit := p.runWord(t.Context(), strings.Fields(tt.line))
		if (exit == 0) != (tt.exit == 0) || !strings.Contains(out.String()+errs.String(), tt.says) {
			t.Errorf("%s: exit %d\n%s%s\nwant %q", tt.line, exit, &out, &errs, tt.says)
		}
		if !reflect.DeepEqual(k.shadowed, tt.want) {
			t.Errorf("%s: asked for %+v, want %+v", tt.line, k.shadowed, tt.want)
		}
	}
}
