package control

import (
	"net/netip"
	"slices"
	"testing"

	"uvs/control/api"
)

func TestApplyLeavesADrainedServerDrainedAndGivesItItsWeightLater(t *testing.T) {
	d := newDrains(t)
	key := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("10.9.0.100"), Port: 80}
	server := api.ServerKey{Address: rip, Port: 80}
	if _, err := d.Drain(t.Context(), &api.DrainRequest{Address: rip, Service: &key}); err != nil {
		t.Fatal(err)
	}
	before := d.weights()
	s, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(s.Services, func(v api.Service) bool { return v.ServiceKey == key })
	rs := s.Services[at].Servers[slices.IndexFunc(s.Services[at].Servers, func(x api.Server) bool { return x.ServerKey == server })]
	if rs.Config.Weight != 3 {
		t.Errorf("the snapshot has weight %d of a drained server, want the one that it will get back", rs.Config.Weight)
	}
	name := "web1"
	rs.Config.Weight = 9
	ops := []api.Op{
		{Kind: api.EditServer, Service: &key, Server: &server, ServerConfig: &rs.Config},
		{Kind: api.SetLabel, Service: &key, Server: &server, Label: &name},
	}
	if ok, err := d.Apply(t.Context(), s.Revision, ops, []api.Setting{{Name: "vs.drop_entry", Value: "1"}}); !ok || err != nil {
		t.Fatalf("Apply = %v, %v", ok, err)
	}
	if w := d.weights(); !slices.Equal(w, before) {
		t.Errorf("weights %v, while it is drained %v", w, before)
	}
	if ok, err := d.Apply(t.Context(), s.Revision, ops, nil); ok || err != nil {
		t.Errorf("Apply after another change = %v, %v", ok, err)
	}
	rows, err := d.Undrain(t.Context(), &api.UndrainRequest{Address: rip, Service: &key})
	if err != nil || len(rows) != 1 || rows[0].Weight != 9 || rows[0].ServerLabel != "web1" {
		t.Errorf("Undrain = %+v, %v", rows, err)
	}
	if d.settings.DropEntry != 1 || d.Table().Settings.DropEntry != 1 {
		t.Error("the setting isn't in force")
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	d := newDrains(t)
	s, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := d.Table()
	key := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("10.9.0.123"), Port: 80}
	add := api.Op{Kind: api.AddService, Service: &key, ServiceConfig: &api.ServiceConfig{Scheduler: "rr"}}
	for name, ops := range map[string][]api.Op{"a service twice": {add, add}, "no such scheduler": {{Kind: api.AddService, Service: &key, ServiceConfig: &api.ServiceConfig{Scheduler: "x"}}}} {
		if ok, err := d.Apply(t.Context(), s.Revision, ops, []api.Setting{{Name: "vs.drop_entry", Value: "1"}}); ok || err == nil {
			t.Errorf("%s: Apply = %v, %v", name, ok, err)
		}
	}
	if ok, err := d.Apply(t.Context(), s.Revision, []api.Op{add}, []api.Setting{{Name: "vs.drop_entry", Value: "9"}}); ok || err == nil {
		t.Errorf("a setting out of range: Apply = %v, %v", ok, err)
	}
	if d.Table() != table || d.settings.DropEntry != 0 {
		t.Error("something was changed")
	}
	if ok, err := d.Apply(t.Context(), s.Revision, []api.Op{add}, []api.Setting{{Name: "vs.drop_entry", Value: "1"}}); !ok || err != nil {
		t.Errorf("Apply = %v, %v", ok, err)
	}
	if now := d.Table(); now.Before != table.Generation {
		t.Errorf("services and settings came by two swaps: table %d follows %d, before was %d", now.Generation, now.Before, table.Generation)
	}
}
