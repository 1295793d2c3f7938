package config

import (
	"slices"
	"strings"
	"testing"

	"uvs/control/api"
)

const editable = `# The farm of example.org.
interfaces: [eth0]

services:
  # The shop: ask Anna before you change it.
  - name: shop
    address: 192.0.2.100
    port: 80
    scheduler: wrr # not wlc
    servers:
      - 192.0.2.11
      # twice as strong
      - {address: 192.0.2.12, weight: 2}
      - 192.0.2.13 # old
  # All the rest.
  - address: 192.0.2.101
    port: [80, 443]
    servers: [192.0.2.11]
marks:
  # office
  - {mark: 7, src: 198.51.100.0/24}
settings:
  expire_nodest_conn: 1 # since the outage
`

// stateOf is what a file asks for, as a director has it.
func stateOf(t *testing.T, text string) *State {
	t.Helper()
	f, err := Parse("uvs.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.State(nil)
	if err != nil {
		t.Fatal(err)
	}
	return complete(s)
}

func TestEditKeepsCommentsAndWhatDoesNotDiffer(t *testing.T) {
	f, err := Parse("uvs.yaml", []byte(editable))
	if err != nil {
		t.Fatal(err)
	}
	now := stateOf(t, editable)
	shop := now.Services[0]
	shop.Servers[1].Config.Weight = 5
	shop.Servers[0].Config.Weight = 3
	shop.Servers = append(slices.Delete(slices.Clone(shop.Servers), 2, 3), ServerState{Key: api.ServerKey{Address: shop.Servers[0].Key.Address.Next().Next().Next(), Port: 80},
		Label: "new", Config: api.ServerConfig{Method: api.Route, Weight: 1}, Checks: []api.CheckSpec{{"kind": "tcp", "fall": "3"}}})
	shop.Config.PersistenceSeconds = 300
	now.Services = append(now.Services, &ServiceState{Key: api.ServiceKey{FWMark: 7, Family: api.IPv6}, Config: api.ServiceConfig{Scheduler: "rr"}})
	now.Settings["net.ipv4.vs.drop_entry"] = "1"
	now.Timeouts.UDP = 60
	text, differences, err := f.Edit(now, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `# The farm of example.org.
interfaces: [eth0]
services:
  # The shop: ask Anna before you change it.
  - name: shop
    address: 192.0.2.100
    port: 80
    scheduler: wrr # not wlc
    servers:
      - address: 192.0.2.11
        weight: 3
      # twice as strong
      - {address: 192.0.2.12, weight: 5}
      - name: new
        address: 192.0.2.14
        checks:
          - kind: tcp
            fall: 3
    persistence:
      timeout: 5m
  # All the rest.
  - address: 192.0.2.101
    port: [80, 443]
    servers: [192.0.2.11]
  - fwmark: 7
    family: ipv6
    scheduler: rr
marks:
  # office
  - {mark: 7, src: 198.51.100.0/24}
settings:
  expire_nodest_conn: 1 # since the outage
  drop_entry: 1
timeouts:
  udp: 1m
`
	if string(text) != want {
		t.Errorf("Edit() = \n%s", text)
	}
	if len(differences) != 8 {
		t.Errorf("Edit reports %d differences: %v", len(differences), differences)
	}
}

func TestEditSplitsAnEntryThatStandsForServicesNoLongerAlike(t *testing.T) {
	f, err := Parse("uvs.yaml", []byte(editable))
	if err != nil {
		t.Fatal(err)
	}
	now := stateOf(t, editable)
	now.Services[2].Config.Scheduler = "sh"
	text, _, err := f.Edit(now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "    port: 443\n    scheduler: sh\n") || !strings.Contains(string(text), "# All the rest.") {
		t.Errorf("Edit() = \n%s", text)
	}
}

func TestEditLeavesAFileThatSaysItAllUntouched(t *testing.T) {
	f, err := Parse("uvs.yaml", []byte(editable))
	if err != nil {
		t.Fatal(err)
	}
	text, differences, err := f.Edit(stateOf(t, editable), nil)
	if err != nil || string(text) != editable || len(differences) > 0 {
		t.Errorf("Edit() = %v, %v\n%s", err, differences, text)
	}
}
