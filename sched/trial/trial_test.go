package trial

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

var key = service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("192.0.2.1:80")}

func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80)
}

func request(client uint32, port uint16, now int64) *service.Request {
	return &service.Request{Flow: packet.Flow{
		Src: packet.AddrFrom4(client), Dst: packet.AddrFrom4(0xc0000201), SrcPort: port, DstPort: 80, Proto: packet.ProtoTCP,
	}, Now: now}
}

func newGroup(t testing.TB, servers []Server, schedulers ...string) *Group {
	t.Helper()
	g := NewGroup(Config{Service: key})
	for _, s := range schedulers {
		if err := g.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.SetServers(servers); err != nil {
		t.Fatal(err)
	}
	return g
}

// twin is one scheduler on servers that are changed as control changes them, one by one.
type twin struct {
	sched service.Scheduler
	flags service.SchedFlags
	all   map[netip.AddrPort]*service.RealServer
	list  []*service.RealServer
}

func (w *twin) tell(kind service.ChangeKind, rs *service.RealServer, before []*service.RealServer) {
	w.sched.Changed(service.Change{Kind: kind, Server: rs, Before: before, After: w.list, Flags: w.flags})
	w.sched.Prepare(w.list)
	for _, rs := range w.list {
		rs.CommitWeight()
	}
}

func (w *twin) add(a netip.AddrPort, weight int32) {
	rs := w.all[a]
	if rs == nil {
		rs = service.NewRealServer(key, a, service.Route, weight)
		w.all[a] = rs
	}
	rs.Readmit(weight)
	rs.SetAvailable(true)
	before := w.list
	w.list = slices.Concat([]*service.RealServer{rs}, before)
	w.tell(service.ServerAdded, rs, before)
}

func (w *twin) remove(i int) {
	before := w.list
	w.list = slices.Concat(before[:i], before[i+1:])
	before[i].SetAvailable(false)
	w.tell(service.ServerRemoved, before[i], before)
}

func (w *twin) edit(i int, weight int32) {
	if w.list[i].Weight() == weight {
		return // the trial isn't told of an edit that changes nothing
	}
	w.list[i].StageWeight(weight)
	w.tell(service.ServerEdited, w.list[i], w.list)
}

func (w *twin) servers() (list []Server) {
	for _, rs := range w.list {
		list = append(list, Server{Addr: rs.Addr, Weight: rs.Weight()})
	}
	return list
}

// TestATrialDecidesAsTheSchedulerItself lets connections and servers come and go at random, and compares every choice.
func TestATrialDecidesAsTheSchedulerItself(t *testing.T) {
	for _, name := range sched.Names() {
		if name == "twos" || name == "rt" {
			continue // draw numbers of their own
		}
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(7, uint64(len(name))))
			s, err := sched.New(name, 0)
			if err != nil {
				t.Fatal(err)
			}
			w := &twin{sched: s, all: map[netip.AddrPort]*service.RealServer{}}
			s.Prepare(nil)
			g := newGroup(t, nil, name)
			type conn struct {
				choice Choice
				rs     *service.RealServer
				active bool
			}
			var conns []*conn
			for step := range 4000 {
				switch n := random.IntN(100); {
				case n < 2 && len(w.list) < 12:
					a := addr(1 + random.IntN(20))
					if !slices.ContainsFunc(w.list, func(rs *service.RealServer) bool { return rs.Addr == a }) {
						w.add(a, int32(random.IntN(4)))
					}
				case n < 3 && len(w.list) > 1:
					w.remove(random.IntN(len(w.list)))
				case n < 5 && len(w.list) > 0:
					w.edit(random.IntN(len(w.list)), int32(random.IntN(5)))
				case n < 60:
					r := request(random.Uint32N(500), uint16(random.Uint32()), int64(step)*int64(time.Millisecond))
					want := s.Pick(r, w.list)
					c := g.Open(r, NoSlot)
					got := netip.AddrPort{}
					if c[0] != NoSlot {
						got = g.servers[c[0]].Addr
					}
					if want == nil && c[0] != NoSlot || want != nil && got != want.Addr {
						t.Fatalf("step %d: chose %v, want %v", step, got, want)
					}
					if want != nil {
						want.Bind(false)
						conns = append(conns, &conn{choice: c, rs: want})
					}
				case n < 80 && len(conns) > 0:
					c := conns[random.IntN(len(conns))]
					c.active = !c.active
					c.rs.SetActive(c.active)
					g.SetActive(&c.choice, c.active)
				case len(conns) > 0:
					i := random.IntN(len(conns))
					conns[i].rs.Unbind(conns[i].active)
					g.Close(&conns[i].choice, conns[i].active)
					conns = slices.Delete(conns, i, i+1)
				}
				if err := g.SetServers(w.servers()); err != nil {
					t.Fatal(err)
				}
			}
			for i, f := range g.Figures()[0].Servers[:len(w.list)] {
				if rs := w.list[i]; f.Addr != rs.Addr || f.Active != rs.Active() || f.Inactive != rs.Inactive() {
					t.Errorf("server %d: %+v, want %v with %d and %d", i, f, rs, rs.Active(), rs.Inactive())
				}
			}
		})
	}
}

func TestWhatDiffersFromTheRealChoiceIsCounted(t *testing.T) {
	servers := []Server{{Addr: addr(2), Weight: 1}, {Addr: addr(1), Weight: 1}}
	g := newGroup(t, servers, Real, "rr", "sh", "fo")
	first := g.Slot(addr(1))
	for i := range 1000 {
		g.Open(request(uint32(i), 1, 0), first)
	}
	all := g.Figures()
	real, rr, fo := all[0], all[1], all[3]
	if real.Differs != 0 || real.Offered != 1000 || real.Servers[1].Conns != 1000 || math.Abs(real.New.MaxMean-2) > 1e-9 || math.Abs(real.New.Jain-0.5) > 1e-9 {
		t.Errorf("real: %+v", real)
	}
	if rr.Differs != 500 || rr.New != (Imbalance{1, 1, 0}) || rr.Servers[0].Fair != 500 {
		t.Errorf("rr: %+v", rr)
	}
	if fo.Differs != 1000 && fo.Differs != 0 || all[2].Differs < 350 || all[2].Differs > 650 {
		t.Errorf("fo differs in %d, sh in %d of 1000", fo.Differs, all[2].Differs)
	}
}

func TestUnequalWeightsArentImbalance(t *testing.T) {
	g := newGroup(t, []Server{{Addr: addr(2), Weight: 3}, {Addr: addr(1), Weight: 1}}, "wrr", "rr")
	for i := range 400 {
		g.Open(request(uint32(i), 1, 0), NoSlot)
	}
	g.Sample()
	all := g.Figures()
	if wrr := all[0]; wrr.New != (Imbalance{1, 1, 0}) || wrr.Held != (Imbalance{1, 1, 0}) || wrr.Samples != 1 {
		t.Errorf("wrr: %+v", wrr)
	}
	if rr := all[1]; math.Abs(rr.New.MaxMean-1.5) > 1e-9 || math.Abs(rr.New.CV-0.5) > 1e-9 || math.Abs(rr.New.Jain-0.8) > 1e-9 {
		t.Errorf("rr: %+v", rr.New)
	}
}

func TestAChangeMovesFewClientsOfMaglevs(t *testing.T) {
	var servers []Server
	for i := range 10 {
		servers = append(servers, Server{Addr: addr(i + 1), Weight: 1})
	}
	g := newGroup(t, servers, "mh", "dh", "rr")
	offer := func() {
		for i := range 2000 {
			r := request(uint32(i)*7919, 1, 0)
			c := g.Open(r, NoSlot)
			g.Close(&c, false)
		}
	}
	offer()
	offer()
	mh := g.Figures()[0]
	if mh.Moved != 0 || mh.Returning < 1500 || mh.AfterChange != 0 {
		t.Errorf("mh moved %d of %d returning clients though nothing changed", mh.Moved, mh.Returning)
	}
	if err := g.SetServers(servers[1:]); err != nil {
		t.Fatal(err)
	}
	offer()
	offer() // these don't come for the first time any more
	mh = g.Figures()[0]
	if share := float64(mh.MovedByChange) / float64(mh.AfterChange); mh.AfterChange < 1500 || mh.AfterChange > 2000 || share < 0.08 || share > 0.2 {
		t.Errorf("mh: one of ten servers went, and %d of %d clients were moved", mh.MovedByChange, mh.AfterChange)
	}
	if rr := g.Figures()[2]; float64(rr.Moved) < 0.5*float64(rr.Returning) {
		t.Errorf("rr moved only %d of %d", rr.Moved, rr.Returning)
	}
}

func TestMissesAndThresholds(t *testing.T) {
	g := newGroup(t, []Server{{Addr: addr(1), Weight: 1, Upper: 2}}, "wlc", Real)
	var all []Choice
	for i := range 5 {
		all = append(all, g.Open(request(uint32(i), 1, 0), 0))
	}
	if f := g.Figures()[0]; f.Misses != 3 || f.Offered != 5 || f.Differs != 3 || f.Servers[0].Peak != 2 {
		t.Errorf("with two connections the server is full: %+v", f)
	}
	for i := range all {
		g.Close(&all[i], false)
	}
	g.Open(request(9, 1, 0), 0)
	if f := g.Figures(); f[0].Misses != 3 || f[0].Servers[0].Inactive != 1 || f[1].Servers[0].Inactive != 1 {
		t.Errorf("it isn't full any more: %+v", f)
	}
}

func TestTrialsComeAndGo(t *testing.T) {
	g := newGroup(t, []Server{{Addr: addr(1), Weight: 1}, {Addr: addr(2), Weight: 1}}, "rr")
	c := g.Open(request(1, 1, 0), NoSlot)
	if err := g.Add("rr"); !errors.Is(err, ErrKnown) {
		t.Errorf("Add(rr) again: %v", err)
	}
	for _, bad := range []string{"", "none", "nosuch", "sh:flag-9", "rr:"} {
		if err := g.Add(bad); err == nil {
			t.Errorf("Add(%q) was taken", bad)
		}
	}
	for _, s := range []string{"wrr", "lc", "wlc", "sed", "nq", "sh:sh-port,sh-fallback", "dh"} {
		if err := g.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Add("mh"); !errors.Is(err, ErrFull) {
		t.Errorf("a ninth scheduler: %v", err)
	}
	if err := g.Add(Real); err != nil {
		t.Errorf("Real has a place of its own: %v", err)
	}
	if !slices.Contains(g.Names(), "sh:sh-fallback,sh-port") || len(g.Names()) != Max-1 {
		t.Errorf("Names() = %v", g.Names())
	}
	place, ok := g.Remove("rr")
	if !ok {
		t.Fatal("rr isn't there")
	}
	c.Forget(place)
	if err := g.Add("mh"); err != nil {
		t.Fatal(err)
	}
	g.Close(&c, false)
	for _, f := range g.Figures() {
		for _, s := range f.Servers {
			if s.Inactive != 0 {
				t.Errorf("%s: %+v after a connection of before it ended", f.Scheduler, s)
			}
		}
	}
	if _, ok := g.Remove("rr"); ok {
		t.Error("rr was removed twice")
	}
}

// TestServersWithoutEndTakeNoMemoryWithoutEnd has ever new servers replace others.
func TestServersWithoutEndTakeNoMemoryWithoutEnd(t *testing.T) {
	g := newGroup(t, nil, "wlc", "sh")
	for i := range 5000 {
		if err := g.SetServers([]Server{{Addr: addr(i + 1), Weight: 1}, {Addr: addr(i), Weight: 1}}); err != nil {
			t.Fatal(err)
		}
		c := g.Open(request(uint32(i), 1, 0), g.Slot(addr(i)))
		if c[0] == NoSlot || !g.servers[c[0]].listed {
			t.Fatalf("round %d: chose slot %d", i, c[0])
		}
		g.Close(&c, false)
	}
	if len(g.servers) > 100 || len(g.slots) > 100 {
		t.Errorf("%d slots and %d names of 2 servers", len(g.servers), len(g.slots))
	}
}

func TestFollowersGoWhereTheFirstWentWhileItIsThere(t *testing.T) {
	servers := []Server{{Addr: addr(1), Weight: 1}, {Addr: addr(2), Weight: 1}}
	g := newGroup(t, servers, "rr", Real)
	r := request(1, 1, 0)
	c := g.Open(r, 0)
	for range 9 {
		if again := g.Follow(r, 0, &c); again != c {
			t.Fatalf("followed to %v, want %v", again, c)
		}
	}
	if f := g.Figures()[0]; f.Offered != 10 || f.New.MaxMean != 2 {
		t.Errorf("%+v", f)
	}
	gone := c[0]
	if err := g.SetServers(slices.DeleteFunc(servers, func(s Server) bool { return g.Slot(s.Addr) == gone })); err != nil {
		t.Fatal(err)
	}
	if again := g.Follow(r, 0, &c); again[0] == gone || again[0] == NoSlot {
		t.Errorf("followed to slot %d, which is gone", again[0])
	}
}

func TestMeasure(t *testing.T) {
	for _, tt := range []struct {
		loads []float64
		want  Imbalance
	}{
		{nil, Imbalance{1, 1, 0}},
		{[]float64{0, 0}, Imbalance{1, 1, 0}},
		{[]float64{5, 5, 5}, Imbalance{1, 1, 0}},
		{[]float64{4, 0}, Imbalance{2, 0.5, 1}},
		{[]float64{1, 3}, Imbalance{1.5, 0.8, 0.5}},
	} {
		if got := Measure(tt.loads); got != tt.want {
			t.Errorf("Measure(%v) = %+v, want %+v", tt.loads, got, tt.want)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprintf("trials=%d", n), func(b *testing.B) {
			var servers []Server
			for i := range 10 {
				servers = append(servers, Server{Addr: addr(i), Weight: 1})
			}
			g := newGroup(b, servers, append([]string{Real}, []string{"wlc", "mh", "sed", "rr"}[:n]...)...)
			r, i := request(1, 1, 0), uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				i++
				r.Flow.Src = packet.AddrFrom4(i)
				c := g.Open(r, 0)
				g.SetActive(&c, true)
				g.Close(&c, true)
			}
		})
	}
}
