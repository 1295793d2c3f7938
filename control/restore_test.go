package control

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// rules makes a restore of so many services with so many servers each, all servers with one weight.
func rules(services, servers, weight int, scheduler string) []api.Op {
	ops := []api.Op{{Kind: api.Flush}}
	for i := range services {
		k := &api.ServiceKey{
			Protocol: api.TCP, Address: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), Port: 80,
		}
		ops = append(ops, api.Op{Kind: api.AddService, Service: k, ServiceConfig: &api.ServiceConfig{Scheduler: scheduler}})
		for j := range servers {
			ops = append(ops, api.Op{
				Kind: api.AddServer, Service: k,
				Server:       &api.ServerKey{Address: netip.AddrFrom4([4]byte{10, 1, byte(j >> 8), byte(j)}), Port: 80},
				ServerConfig: &api.ServerConfig{Method: api.Masq, Weight: weight},
			})
		}
	}
	return ops
}

func restore(t testing.TB, f *fixture, services, servers int) {
	apply(t, f, rules(services, servers, 1, "wlc"))
}

func apply(t testing.TB, f *fixture, ops []api.Op) {
	t.Helper()
	reply, err := f.Change(t.Context(), &api.ChangeRequest{Ops: ops, OnError: api.Continue})
	if err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
}

// linear runs work on small and on times as much, and fails the test if the second takes the square of that or nearly so. It
// compares processor time of this thread, which other programs' load doesn't stretch, and tries again before it complains.
// Under the race detector, which has a price of its own for much memory, it only does the work.
func linear(t *testing.T, what string, times int, small, large func()) {
	t.Helper()
	if raceEnabled {
		large()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	least := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for range 4 {
		for i, work := range []func(){small, large} {
			before := threadTime(t)
			work()
			least[i] = min(least[i], threadTime(t)-before)
		}
		if fair := least[0] * time.Duration(times); least[1] < 5*fair+200*time.Millisecond {
			return
		}
	}
	t.Errorf("%s: %d times the work takes %v instead of %v", what, times, least[1], least[0])
}

// threadTime is the processor time that the calling thread has had.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	const thisThread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thisThread, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestTenThousandRulesAreOnePublication(t *testing.T) {
	for _, c := range []struct {
		scheduler         string
		services, servers int
	}{{"wlc", 10000, 0}, {"wrr", 2500, 3}, {"sh", 2500, 3}, {"rr", 100, 99}, {"wrr", 1, 10000}} {
		run := func(services, servers int) func() {
			return func() {
				f := newFixture(t)
				before := len(f.published)
				apply(t, f, rules(services, servers, 3, c.scheduler))
				apply(t, f, rules(services, servers, 5, c.scheduler)) // everything goes and comes back
				if n := len(f.published) - before; n != 2 {
					t.Errorf("%+v: %d publications, want 2", c, n)
				}
				if n := len(f.Table().Services); n != services {
					t.Errorf("%+v: %d services", c, n)
				}
			}
		}
		const times = 10
		small := run(c.services/times, c.servers)
		if c.services == 1 {
			small = run(1, c.servers/times)
		}
		linear(t, fmt.Sprintf("restores of %+v", c), times, small, run(c.services, c.servers))
	}
}

// Ten thousand edits and removals in one service are not allowed to take the square of that either.
func TestTenThousandChangesToOneService(t *testing.T) {
	const times, all = 10, 10000
	for _, scheduler := range []string{"rr", "wrr"} {
		run := func(n int) func() {
			return func() {
				f := newFixture(t)
				list := rules(1, n, 3, scheduler)
				apply(t, f, list)
				for _, kind := range []api.OpKind{api.EditServer, api.DeleteServer} {
					var ops []api.Op
					for _, o := range list[2:] {
						o.Kind = kind
						if kind == api.DeleteServer {
							o.ServerConfig = nil
						}
						ops = append(ops, o)
					}
					apply(t, f, ops)
				}
				if n := len(f.vs("-t 10.9.0.0:80").Servers); n != 0 {
					t.Errorf("%d servers are left", n)
				}
			}
		}
		linear(t, scheduler, times, run(all/times), run(all))
	}
}

// TestConcurrentRestoresNeverMix has writers that each set everything to a shape and weight of their own, and readers
// that must never see two of them in one table, nor a published table change.
func TestConcurrentRestoresNeverMix(t *testing.T) {
	f := newFixture(t)
	apply(t, f, rules(10, 1, 1, "wlc"))
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			type kept struct {
				table *service.Table
				text  string
			}
			var tables []kept
			for {
				select {
				case <-stop:
					for _, k := range tables {
						if text := describe(k.table); text != k.text {
							t.Errorf("a published table changed from %s to %s", k.text, text)
						}
					}
					return
				default:
				}
				table := f.Table()
				n := len(table.Services[0].Servers)
				for _, vs := range table.Services {
					if len(vs.Servers) != n || len(table.Services) != 10*n {
						t.Errorf("%d services, one with %d servers, another with %d", len(table.Services), n, len(vs.Servers))
						return
					}
					for _, rs := range vs.Servers {
						if table.Servers.At(rs.Index) == nil {
							t.Errorf("%v has no number", rs)
						}
					}
				}
				if len(tables) < 50 {
					tables = append(tables, kept{table, describe(table)})
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for range 20 {
				apply(t, f, rules(10*(w+1), w+1, w+1, "rr"))
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// describe puts into words what of a table must not change.
func describe(t *service.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: ", t.Generation)
	for _, vs := range t.Services {
		fmt.Fprintf(&b, "%v %p %d %v; ", vs.Key, vs, vs.Index, vs.Servers)
		if t.Service(vs.Key) != vs {
			b.WriteString("not found; ")
		}
	}
	return b.String()
}

func TestServerListKeepsWhatItGaveOut(t *testing.T) {
	var l serverList
	var want []*service.RealServer
	type kept struct{ given, copied []*service.RealServer }
	var all []kept
	for i := range 200 {
		rs := service.NewRealServer(service.Key{}, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 80), service.Route, 1)
		l.prepend(rs)
		want = slices.Insert(want, 0, rs)
		if i%7 == 3 {
			gone := want[i%len(want)]
			l.remove(gone)
			want = slices.Delete(want, i%len(want), i%len(want)+1)
		}
		if !slices.Equal(l.all(), want) {
			t.Fatalf("step %d: %v, want %v", i, l.all(), want)
		}
		all = append(all, kept{l.all(), slices.Clone(l.all())})
	}
	for i, k := range all {
		if !slices.Equal(k.given, k.copied) {
			t.Errorf("the list of step %d was changed later", i)
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct{ services, servers int }{{10000, 0}, {2500, 3}, {1, 9999}} {
		b.Run(fmt.Sprintf("%dx%d", c.services, c.servers), func(b *testing.B) {
			f := newFixture(b)
			ops := rules(c.services, c.servers, 1, "wrr")
			b.ReportAllocs()
			for b.Loop() {
				apply(b, f, ops)
				f.published = nil
			}
		})
	}
}

// BenchmarkOneChange is an edit of one server in a large configuration.
func BenchmarkOneChange(b *testing.B) {
	f := newFixture(b)
	restore(b, f, 2500, 3)
	ops := ops("-e -t 10.9.0.7:80 -r 10.1.0.1:80 -m -w 5")
	b.ReportAllocs()
	for b.Loop() {
		apply(b, f, ops)
		f.published = nil
	}
}
