package control

import (
	"errors"
	"testing"

	"uvs/control/api"
)

func TestSyncDaemonsAreKeptAsTheKernelListsThem(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.InterfaceMTU = func(name string) int { return map[string]int{"vec1": 1500}[name] }
	})
	change := func(kind api.OpKind, d api.Daemon) error {
		t.Helper()
		reply, err := f.Change(t.Context(), &api.ChangeRequest{Ops: []api.Op{{Kind: kind, Daemon: &d}}, OnError: api.Atomic})
		if err != nil {
			t.Fatal(err)
		}
		return reply.Err()
	}
	for _, c := range []struct {
		name string
		kind api.OpKind
		d    api.Daemon
		want error
	}{
		{"no interface", api.StartDaemon, api.Daemon{Role: api.Master}, api.NoDevice},
		{"no such interface", api.StartDaemon, api.Daemon{Role: api.Master, Interface: "nosuch0"}, api.NoDevice},
		{"a backup", api.StartDaemon, api.Daemon{Role: api.Backup, Interface: "vec1", SyncID: 9, MaxLen: 1400, Group: "224.0.0.99", Port: 8849, TTL: 5}, nil},
		{"a master", api.StartDaemon, api.Daemon{Role: api.Master, Interface: "vec1", SyncID: 7}, nil},
		{"another master", api.StartDaemon, api.Daemon{Role: api.Master, Interface: "vec1"}, api.DaemonExists},
	} {
		if err := change(c.kind, c.d); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	list, err := f.Daemons(t.Context())
	want := []api.Daemon{
		{Role: api.Master, Interface: "vec1", SyncID: 7, MaxLen: 1472, Group: "224.0.0.81", Port: 8848, TTL: 1},
		{Role: api.Backup, Interface: "vec1", SyncID: 9, MaxLen: 1400, Group: "224.0.0.99", Port: 8849, TTL: 5},
	}
	if err != nil || len(list) != 2 || list[0] != want[0] || list[1] != want[1] {
		t.Errorf("Daemons() = %+v, %v, want %+v", list, err, want)
	}
	if err := change(api.StopDaemon, api.Daemon{Role: api.Master}); err != nil {
		t.Error(err)
	}
	if err := change(api.StopDaemon, api.Daemon{Role: api.Master}); !errors.Is(err, api.DaemonNotRunning) {
		t.Errorf("stopped twice: %v", err)
	}
	// A change that is refused as a whole leaves the daemons as they are.
	reply, err := f.Change(t.Context(), &api.ChangeRequest{OnError: api.Atomic, Ops: []api.Op{
		{Kind: api.StopDaemon, Daemon: &api.Daemon{Role: api.Backup}}, {Kind: api.StopDaemon, Daemon: &api.Daemon{Role: api.Backup}},
	}})
	if err != nil || !errors.Is(reply.Err(), api.DaemonNotRunning) {
		t.Errorf("%v, %v", reply.Err(), err)
	}
	if list, _ := f.Daemons(t.Context()); len(list) != 1 || list[0].Role != api.Backup {
		t.Errorf("Daemons() = %+v after a refused change", list)
	}
}

func TestSyncMessagesAreAsLongAsTheKernelAllows(t *testing.T) {
	for _, row := range []struct {
		d    api.Daemon
		mtu  int
		want uint16
	}{
		{api.Daemon{Role: api.Master}, 1500, 1472},
		{api.Daemon{Role: api.Master}, 9000, 1472},
		{api.Daemon{Role: api.Master, Group: "ff02::1"}, 1500, 1452},
		{api.Daemon{Role: api.Master, MaxLen: 1}, 1500, 1},
		{api.Daemon{Role: api.Master, MaxLen: 65535}, 1500, 65507},
		{api.Daemon{Role: api.Backup}, 576, 1472},
		{api.Daemon{Role: api.Backup}, 9000, 8972},
		{api.Daemon{Role: api.Backup}, 65536, 65507},
		{api.Daemon{Role: api.Backup, MaxLen: 9}, 1500, 1024},
		{api.Daemon{Role: api.Backup, MaxLen: 65535, Group: "ff02::1"}, 1500, 65487},
	} {
		if got := syncMaxLen(&row.d, row.mtu); got != row.want {
			t.Errorf("%+v with MTU %d: %d, want %d", row.d, row.mtu, got, row.want)
		}
	}
}
