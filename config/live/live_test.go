package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"uvs/config"
	"uvs/control/api"
)

// world is a file, a director, and name servers.
type world struct {
	t     *testing.T
	name  string
	state string
	dir   *fake
	hosts map[string][]netip.Addr
	live  *Live
}

func newWorld(t *testing.T, text string) *world {
	w := &world{t: t, name: filepath.Join(t.TempDir(), "uvs.yaml"), state: t.TempDir(), dir: newFake(), hosts: map[string][]netip.Addr{}}
	w.write(text)
	return w
}

func (w *world) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.name, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// start begins as uvsd does.
func (w *world) start() {
	w.t.Helper()
	file, err := config.Load(w.name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.live = New(Config{Director: w.dir, File: file, StateDir: w.state, Log: zap.NewNop(), Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
		if list := w.hosts[name]; list != nil {
			return list, nil
		}
		return nil, errors.New("no such host")
	}})
	if err := w.live.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reload(r api.ReloadRequest) *api.Reload {
	w.t.Helper()
	x, err := w.live.Reload(w.t.Context(), &r)
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

// table is what the director has, in short.
func (w *world) table() string {
	var b strings.Builder
	for _, v := range w.dir.services {
		fmt.Fprintf(&b, "%v %s", v.ServiceKey, v.Config.Scheduler)
		for _, s := range slices.Backward(v.Servers) {
			fmt.Fprintf(&b, " %v=%d", s.ServerKey, s.Config.Weight)
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func (w *world) want(table string) {
	w.t.Helper()
	if got := w.table(); got != table {
		w.t.Errorf("the director has\n%s\nwant\n%s", got, table)
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var web = api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.1"), Port: 80}

const one = "services: [{address: 192.0.2.1, port: 80, servers: [10.0.0.1, 10.0.0.2]}]\n"

// random is a file with some of a few services and servers, differently each time.
func random(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 6 {
		if r.IntN(3) == 0 {
			continue
		}
		fmt.Fprintf(&b, "- {name: n%d, address: 192.0.2.%d, port: 80, scheduler: %s, checks: [%s], health: {quorum: %d}, servers: [",
			i*10+r.IntN(2), i+1, []string{"rr", "wlc", "mh"}[r.IntN(3)], []string{"", "tcp", "{kind: tcp, fall: 3}", "{kind: udp, id: x}, tcp"}[r.IntN(4)], 1+r.IntN(2))
		for j := range 4 {
			if r.IntN(2) == 0 {
				fmt.Fprintf(&b, "{address: 10.0.0.%d, weight: %d, upper: %d, name: s%d}, ", j+1, r.IntN(3), r.IntN(2), r.IntN(2))
			}
		}
		b.WriteString("]}\n")
	}
	if strings.HasSuffix(b.String(), "services:\n") {
		b.WriteString("  []\n")
	}
	b.WriteString("marks:\n")
	for _, i := range r.Perm(5)[:1+r.IntN(4)] {
		fmt.Fprintf(&b, "- {mark: %d, dst: 10.0.%d.0/24}\n", 1+i, i)
	}
	fmt.Fprintf(&b, "settings: {drop_entry: %d, am_droprate: %d}\ntimeouts: {udp: %ds}\n", r.IntN(4), r.IntN(3), 1+r.IntN(3))
	return b.String()
}

// Whatever a director has, a reload makes it have what the file says, and the next one finds nothing to do.
func TestAnyFileLeadsFromAnyOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t, "state: file\n")
	w.start()
	for i := range 300 {
		text := random(r)
		w.write(text + "state: file\n")
		x := w.reload(api.ReloadRequest{})
		if len(x.Errors) > 0 {
			t.Fatalf("%d: %v\n%s", i, x.Errors, text)
		}
		if again := w.reload(api.ReloadRequest{DryRun: true}); len(again.Differences) > 0 {
			t.Fatalf("%d: still differs: %v\n%s", i, again.Differences, text)
		}
	}
	removed := 0
	for _, op := range w.dir.ops {
		if op.Kind == api.DeleteServer {
			removed++
		}
	}
	if removed == 0 {
		t.Error("no server was removed in all that time")
	}
}

func TestReloadEditsInPlace(t *testing.T) {
	w := newWorld(t, one)
	w.start()
	w.dir.ops = nil
	w.write(strings.Replace(one, "10.0.0.2]", "{address: 10.0.0.2, weight: 3}], scheduler: rr", 1))
	w.reload(api.ReloadRequest{})
	w.want("tcp 192.0.2.1:80 rr 10.0.0.1:80=1 10.0.0.2:80=3")
	if len(w.dir.ops) != 2 || w.dir.ops[0].Kind != api.EditService || w.dir.ops[1].Kind != api.EditServer {
		t.Errorf("operations: %+v", w.dir.ops)
	}
}

func TestReloadBeginsAnewWhenSomethingComesBetween(t *testing.T) {
	w := newWorld(t, one)
	w.start()
	w.write(strings.Replace(one, "10.0.0.2]", "10.0.0.3]", 1))
	w.dir.meddle = func() {
		w.dir.do(api.Op{Kind: api.DeleteServer, Service: &web, Server: &api.ServerKey{Address: addrs("10.0.0.2")[0], Port: 80}})
	}
	if x := w.reload(api.ReloadRequest{}); len(x.Errors) > 0 || !x.Applied {
		t.Errorf("reload: %+v", x)
	}
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=1 10.0.0.3:80=1")
}

func TestAWrongFileChangesNothing(t *testing.T) {
	w := newWorld(t, one)
	w.start()
	before, revision := w.table(), w.dir.revision
	for _, text := range []string{"sevices: []", one + "state: x\n", "services: [{address: new.example, port: 80}]\n", "\x00"} {
		w.write(text)
		if x := w.reload(api.ReloadRequest{}); x.Applied || len(x.Errors) == 0 || w.table() != before || w.dir.revision != revision {
			t.Errorf("%q: %+v, the director has %s", text, x, w.table())
		}
	}
	if err := os.Remove(w.name); err != nil {
		t.Fatal(err)
	}
	if x := w.reload(api.ReloadRequest{}); x.Applied || len(x.Errors) == 0 {
		t.Errorf("without the file: %+v", x)
	}
}

func TestRunTimeChangesStayAndPruneTakesThem(t *testing.T) {
	w := newWorld(t, one)
	w.start()
	other := api.ServiceKey{Protocol: api.UDP, Address: web.Address, Port: 53}
	w.dir.do(api.Op{Kind: api.AddService, Service: &other, ServiceConfig: &api.ServiceConfig{Scheduler: "rr"}})
	w.dir.do(api.Op{Kind: api.AddServer, Service: &web, Server: &api.ServerKey{Address: addrs("10.0.0.9")[0], Port: 80}, ServerConfig: &api.ServerConfig{Method: api.Route, Weight: 1}})
	w.dir.do(api.Op{Kind: api.EditServer, Service: &web, Server: &api.ServerKey{Address: addrs("10.0.0.1")[0], Port: 80}, ServerConfig: &api.ServerConfig{Method: api.Route, Weight: 7}})
	x := w.reload(api.ReloadRequest{})
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=1 10.0.0.2:80=1 10.0.0.9:80=1; udp 192.0.2.1:53 rr")
	kinds := map[string]int{}
	for _, d := range x.Differences {
		kinds[d.Kind]++
	}
	if kinds[api.Kept] != 2 || kinds[api.Changed] != 1 {
		t.Errorf("differences: %+v", x.Differences)
	}
	w.reload(api.ReloadRequest{Prune: true})
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=1 10.0.0.2:80=1")
}

func TestPersistentStateOutlivesTheProcessAndGivesWayToTheFile(t *testing.T) {
	persistentOne := one + "state: persistent\n"
	w := newWorld(t, persistentOne)
	w.start()
	two := api.ServerKey{Address: addrs("10.0.0.2")[0], Port: 80}
	w.dir.do(api.Op{Kind: api.EditServer, Service: &web, Server: &two, ServerConfig: &api.ServerConfig{Method: api.Route, Weight: 5}})
	w.dir.do(api.Op{Kind: api.DeleteServer, Service: &web, Server: &api.ServerKey{Address: addrs("10.0.0.1")[0], Port: 80}})
	w.dir.do(api.Op{Kind: api.AddMarkRule, MarkRule: &api.MarkRule{Mark: 7}, Position: 1})
	w.reload(api.ReloadRequest{})
	want := "tcp 192.0.2.1:80 wlc 10.0.0.2:80=5"
	w.want(want)
	if err := w.live.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.dir = newFake() // another process
	w.start()
	w.want(want)
	if len(w.dir.marks) != 1 {
		t.Errorf("mark rules: %v", w.dir.marks)
	}
	w.write(strings.Replace(persistentOne, "10.0.0.2]", "{address: 10.0.0.2, weight: 2}]", 1))
	x := w.reload(api.ReloadRequest{})
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.2:80=2")
	if !slices.ContainsFunc(x.Differences, func(d api.Difference) bool { return d.Kind == api.Dropped && d.Server != nil && *d.Server == two }) {
		t.Errorf("nothing says that the file has the last word: %+v", x.Differences)
	}
	if err := os.WriteFile(filepath.Join(w.state, "runtime.json"), []byte(`{"version": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	file, _ := config.Load(w.name)
	if err := New(Config{Director: newFake(), File: file, StateDir: w.state, Log: zap.NewNop()}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a state file of another version: %v", err)
	}
}

func TestAServerWhoseNameMovesStaysUntilItIsEmpty(t *testing.T) {
	w := newWorld(t, "services: [{address: 192.0.2.1, port: 80, servers: [web.example]}]\nresolve: 5m\n")
	w.start()
	w.want("tcp 192.0.2.1:80 wlc") // there is no name server yet, but a director
	w.hosts["web.example"] = addrs("10.0.0.2", "10.0.0.1", "2001:db8::1", "10.0.0.1")
	w.live.resolveAgain(t.Context())
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=1 10.0.0.2:80=1")
	w.dir.services[0].Servers[1].Active = 3 // 10.0.0.1
	w.hosts["web.example"] = addrs("10.0.0.2", "10.0.0.3")
	w.live.resolveAgain(t.Context())
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=0 10.0.0.2:80=1 10.0.0.3:80=1")
	w.hosts["web.example"] = nil // the name server is gone: nothing changes
	w.live.resolveAgain(t.Context())
	if x := w.reload(api.ReloadRequest{}); len(x.Errors) > 0 || len(x.Differences) > 0 {
		t.Errorf("reload without a name server: %+v", x)
	}
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.1:80=0 10.0.0.2:80=1 10.0.0.3:80=1")
	for i := range w.dir.services[0].Servers {
		w.dir.services[0].Servers[i].Active = 0
	}
	w.live.resolveAgain(t.Context())
	w.want("tcp 192.0.2.1:80 wlc 10.0.0.2:80=1 10.0.0.3:80=1")
}
