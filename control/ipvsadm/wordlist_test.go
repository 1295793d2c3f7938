package ipvsadm

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"uvs/control/api"
)

// stocked is a kernel with something to list.
func stocked(t *testing.T) *kernel {
	t.Helper()
	k := newKernel()
	p := Program{Name: "uvsadm", Backend: k, Names: hosts{}, Stdin: strings.NewReader(`-A -t 10.9.0.100:80 -s rr
-a -t 10.9.0.100:80 -r 10.1.0.11:80 -g -w 3
-A -u 10.9.0.100:53 -s wlc
-A -f 7 -6 -s sh
--start-daemon master --mcast-interface vec1
`), Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)}
	if exit := p.Run(t.Context(), []string{"-R"}); exit != 0 {
		t.Fatal(p.Stderr)
	}
	k.conns = []api.Connection{{
		Protocol: api.TCP, Client: netip.MustParseAddrPort("192.0.2.1:1024"), Virtual: netip.MustParseAddrPort("10.9.0.100:80"),
		Server: netip.MustParseAddrPort("10.1.0.11:80"), State: "ESTABLISHED", ExpiresSeconds: 800,
	}}
	return k
}

// Every word that lists prints with --json exactly a type of the API: no field more, and what it says comes back.
func TestEveryWordThatListsHasJSONInTheShapeOfTheAPI(t *testing.T) {
	for _, tt := range []struct {
		line  string
		shape any
		want  string // is in it
	}{
		{"status --json", new(api.Status), `"workers"`},
		{"version --json", new(api.Version), `"0.1.0"`},
		{"list --json", new(api.ServicesReply), `"10.1.0.11"`},
		{"list -t 10.9.0.100:80 --json", new(api.ServicesReply), `"weight": 3`},
		{"list -f 7 -6 --json", new(api.ServicesReply), `"fwmark": 7`},
		{"connections --json", new(api.Connection), `"ESTABLISHED"`},
		{"timeouts --json", new(api.Timeouts), `"tcpFinSeconds": 120`},
		{"daemons --json", new(api.DaemonsReply), `"vec1"`},
		{"shadow report -t 10.9.0.100:80 --json", new(api.ShadowsReply), `"mh:mh-port"`},
		{"mark list --json", new(api.MarksReply), `"rules": []`},
		{"sysctl -a --json", new(api.SettingsReply), `"settings"`},
		{"drain --json", new(api.DrainsReply), `"drains": []`},
	} {
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: stocked(t), Names: hosts{}, Stdout: &out, Stderr: &errs}
		if exit := p.runWord(t.Context(), strings.Fields(tt.line)); exit != 0 {
			t.Errorf("%s: exit %d: %s", tt.line, exit, &errs)
			continue
		}
		d := json.NewDecoder(strings.NewReader(out.String()))
		d.DisallowUnknownFields()
		if err := d.Decode(tt.shape); err != nil || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: %v:\n%s", tt.line, err, &out)
		}
		again, _ := json.Marshal(tt.shape)
		var a, b any
		if json.Unmarshal(again, &a) != nil || json.Unmarshal(out.Bytes(), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s: as the API's type it is\n%s\nbut it printed\n%s", tt.line, again, &out)
		}
	}
}

func TestListsOfOneService(t *testing.T) {
	run := func(line string) (string, int) {
		var out bytes.Buffer
		p := Program{Name: "uvsadm", Backend: stocked(t), Names: hosts{}, Stdout: &out, Stderr: &out}
		exit := p.runWord(t.Context(), strings.Fields(line))
		return out.String(), exit
	}
	for line, want := range map[string]string{
		"list -t 10.9.0.100:80": "TCP  10.9.0.100:80 rr", "list --udp-service=10.9.0.100:53": "UDP  10.9.0.100:53 wlc",
		"connections -t 10.9.0.100:80": "ESTABLISHED", "timeouts": "Timeout (tcp tcpfin udp): 900 120 300", "daemons": "master sync daemon",
	} {
		if out, exit := run(line); exit != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d:\n%s", line, exit, out)
		}
	}
	for _, line := range []string{
		"list -t", "list -t nowhere", "list -t 10.9.0.100:80 -u 10.9.0.100:53", "list -6", "list all", "list --json --json", "timeouts -t 10.9.0.100:80",
		"connections --by 5m", "daemons --json=yes", "list -f 0",
	} {
		if out, exit := run(line); exit != 2 || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: exit %d:\n%s", line, exit, out)
		}
	}
}
