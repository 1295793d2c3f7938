package ipvsadm

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"uvs/control/api"
)

// explainer is a backend with one answer.
type explainer struct {
	*kernel
	asked  *api.ExplainRequest
	answer *api.Explanation
}

// Explain implements api.Backend.
func (e *explainer) Explain(_ context.Context, r *api.ExplainRequest) (*api.Explanation, error) {
	e.asked = r
	return e.answer, nil
}

func TestExplainPrintsEveryStepOfTheDecision(t *testing.T) {
	server, load, per := netip.MustParseAddrPort("10.0.0.12:80"), int64(770), int64(2)
	b := &explainer{kernel: newKernel(), answer: &api.Explanation{
		Service:   &api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
		Scheduler: "wlc", PersistenceSeconds: 300, Owned: true, Known: "none", Scheduled: true,
		Servers: []api.ExplainedServer{
			{ServerKey: api.ServerKey{Address: server.Addr(), Port: 80}, Weight: 2, Active: 3, Inactive: 2, State: "eligible", Load: &load, Per: &per, Picked: true},
			{ServerKey: api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80}, State: "quiesced"},
		},
		Server: &server, Method: api.Route, NextHop: &api.ExplainedHop{Status: "ready", Interface: "eth0", MAC: "02:00:00:00:00:0c"},
		MTU: 1500, Fits: true, Verdict: "forwarded-dr", Meaning: "sent to 10.0.0.12:80 by direct routing",
	}}
	var out, errs bytes.Buffer
	p := Program{Name: "uvsadm", Backend: b, Stdout: &out, Stderr: &errs}
	if exit := p.runWord(context.Background(), strings.Fields("explain -t 192.0.2.100:80 --from 198.51.100.7")); exit != 0 {
		t.Fatalf("exit %d: %s", exit, errs.String())
	}
	if b.asked.Client.String() != "198.51.100.7:40000" || b.asked.Virtual.String() != "192.0.2.100:80" || b.asked.Protocol != api.TCP {
		t.Errorf("asked for %+v", b.asked)
	}
	want := `Packet       tcp 198.51.100.7:40000 to 192.0.2.100:80
Service      tcp 192.0.2.100:80, scheduler wlc, persistent 300
Connection   none
Template     none: the client is new
Scheduler    wlc sees, the latest added first:
      Real server   Weight  Active  Inactive  State     Load/Per     
  ->  10.0.0.12:80  2       3       2         eligible  770/2 = 385  picked
      10.0.0.11:80  0       0       0         quiesced  -            
Next hop     02:00:00:00:00:0c by eth0
MTU          1500, it fits
Verdict      forwarded-dr: sent to 10.0.0.12:80 by direct routing
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

func TestExplainRefusesWhatIsNoPacket(t *testing.T) {
	for _, line := range []string{
		"", "-t 192.0.2.100:80", "--from 198.51.100.7", "-t 192.0.2.100 --from 198.51.100.7", "-t 192.0.2.100:80 --from 2001:db8::1",
		"-t 192.0.2.100:80 --from 198.51.100.7 --flags X", "-u 192.0.2.100:53 --from 198.51.100.7 --flags S", "-t 192.0.2.100:80 --from 198.51.100.7 --length 70000",
		"-t 192.0.2.100:80 --from 198.51.100.7 --mark x", "-t 192.0.2.100:80 --from", "-t 192.0.2.100:80 --from 198.51.100.7 more",
		"-t [::ffff:192.0.2.100]:80 --from 198.51.100.7",
	} {
		b := &explainer{kernel: newKernel()}
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: b, Stdout: &out, Stderr: &errs}
		if exit := p.runWord(context.Background(), append([]string{"explain"}, strings.Fields(line)...)); exit == 0 || errs.Len() == 0 || b.asked != nil {
			t.Errorf("explain %s: exit %d, %q, asked %v", line, exit, errs.String(), b.asked)
		}
	}
}
