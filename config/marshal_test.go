package config

import (
	"testing"
	"time"

	"uvs/control/api"
)

func TestMarshalWritesWhatAPersonWould(t *testing.T) {
	weight := 0
	got, err := Marshal(&Config{
		Comment:    "Written from keepalived.conf.\nRead it over.",
		Interfaces: []Interface{{Name: "eth0"}, {Name: "eth1", Gateways: []string{"10.0.0.1/24"}}},
		Services: []Service{{
			Comment: "keepalived.conf:12", Name: "web", Address: []string{"192.0.2.100"}, Port: Ports{{80, 80}, {8000, 8010}}, Scheduler: "wrr",
			Persistence: &Persistence{Timeout: Duration(5 * time.Minute), Netmask: api.Netmask4([4]byte{255, 255, 255, 0})},
			Servers:     []Server{{Comment: "line 20", Address: "10.0.0.11", Port: 8080, Weight: &weight, Method: "nat"}},
			Checks:      []Check{{Use: "web"}},
		}},
		Checks:   []Check{{Name: "web", CheckSettings: CheckSettings{Kind: "tcp", Interval: Duration(90 * time.Second)}}},
		Settings: map[string]string{"expire_nodest_conn": "1"},
		Watch:    true,
	})
	want := `# Written from keepalived.conf.
# Read it over.

interfaces:
  - name: eth0
  - name: eth1
    gateways: 10.0.0.1/24
services:
  # keepalived.conf:12
  - name: web
    address: 192.0.2.100
    port: [80, 8000-8010]
    scheduler: wrr
    persistence:
      timeout: 5m
      netmask: 255.255.255.0
    servers:
      # line 20
      - address: 10.0.0.11
        port: 8080
        weight: 0
        method: nat
    checks:
      - use: web
checks:
  - template: web
    kind: tcp
    interval: 1m30s
settings:
  expire_nodest_conn: 1
watch: true
`
	if err != nil || string(got) != want {
		t.Errorf("Marshal() = %v\n%s", err, got)
	}
}
