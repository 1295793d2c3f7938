package ipvsadm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"uvs/control/api"
)

// surgeon is a Backend that finds what it is told to.
type surgeon struct {
	*kernel
	found *api.Diagnosis
	err   error
}

// Doctor implements api.Backend.
func (s *surgeon) Doctor(context.Context) (*api.Diagnosis, error) { return s.found, s.err }

func TestDoctorPrintsWhoHowAndWhatToDo(t *testing.T) {
	sick := &api.Diagnosis{
		Findings: []api.Finding{{
			Kind: api.FindingARP, What: "192.0.2.11 answers ARP for 192.0.2.100", Seen: "asked on eth0",
			Remedies: []api.Remedy{
				{On: "real server", System: "Linux", Do: []string{"sysctl -w arp_ignore=1", "ip addr replace"}},
				{On: "station", Do: []string{"give it up"}},
			},
		}},
		Unchecked: []string{"IPv6: no address to ask from"}, Addresses: 1, Servers: 2, Probes: 3, Milliseconds: 1250,
	}
	for _, tt := range []struct {
		name, args string
		found      *api.Diagnosis
		err        error
		exit       int
		out, errs  string
	}{
		{"sick", "", sick, nil, 1, `1. arp: 192.0.2.11 answers ARP for 192.0.2.100
   Seen: asked on eth0
   Mend, on the real server (Linux):
       sysctl -w arp_ignore=1
       ip addr replace
   Mend, on the station:
       give it up

Not checked: IPv6: no address to ask from
1 address asked for by ARP and neighbour discovery, 2 servers by 3 probes in 1.2 s: 1 finding
`, ""},
		{"sound", "", &api.Diagnosis{Milliseconds: 900}, nil, 0,
			"0 addresses asked for by ARP and neighbour discovery, 0 servers by 0 probes in 0.9 s: nothing wrong was found\n", ""},
		{"nobody there", "", nil, errors.New("cannot reach uvsd"), 2, "", "uvsadm doctor: cannot reach uvsd\n"},
		{"JSON of nobody", "--json", nil, errors.New("cannot reach uvsd"), 2, "", "uvsadm doctor: cannot reach uvsd\n"},
		{"wrong argument", "--verbose", nil, nil, 2, "", "uvsadm doctor: unexpected argument --verbose\n"},
	} {
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: &surgeon{newKernel(), tt.found, tt.err}, Stdout: &out, Stderr: &errs}
		exit := p.runWord(context.Background(), append([]string{"doctor"}, strings.Fields(tt.args)...))
		if exit != tt.exit || out.String() != tt.out || errs.String() != tt.errs {
			t.Errorf("%s: exit %d, printed\n%s\n%s\nwant %d,\n%s\n%s", tt.name, exit, out.String(), errs.String(), tt.exit, tt.out, tt.errs)
		}
	}
	var out bytes.Buffer
	p := Program{Name: "uvsadm", Backend: &surgeon{newKernel(), sick, nil}, Stdout: &out, Stderr: &out}
	if exit := p.runWord(context.Background(), []string{"doctor", "--json"}); exit != 1 || !strings.Contains(out.String(), `"kind": "arp"`) {
		t.Errorf("in JSON: exit %d, %s", exit, out.String())
	}
}
