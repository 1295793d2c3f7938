package nexthop

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// bench is a Resolver without a kernel: routes and neighbours as given.
func filled(routes, neighbours int) (r *Resolver, routed, onLink []packet.Addr) {
	r = new(Resolver)
	r.cfg.MaxAddresses = maxAddresses
	r.asked.init()
	r.state.init(nil, 2)
	r.attached = []LinkState{{Index: 1, MTU: 1500, Up: true}, {Index: 2, MTU: 1500, Up: true}}
	r.position = map[int]int{1: 0, 2: 1}
	v := &view{exact: newExact(0), main: new(bart.Table[*route]), fallback: new(bart.Table[*route])}
	r.view.Store(v)
	r.compiled = make(map[compiledKey]*route)
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	mac := packet.MAC{2, 1}
	for i := range routes {
		bits := 16 + rnd.IntN(9)
		a := packet.AddrFrom4(0x20000000 + rnd.Uint32()>>2)
		p := netip.PrefixFrom(a.Netip(), bits).Masked()
		gateway := packet.AddrFrom4(0xc0000200 + uint32(i%16))
		rt := r.compile(&kernelRoute{prefix: p, kind: 1, hops: []kernelHop{{index: 1, gateway: gateway, weight: 1}}})
		v.main.Insert(p, rt)
		routed = append(routed, a)
	}
	for _, n := range r.neigh {
		r.set(n, Ready, mac, now)
	}
	net := netip.MustParsePrefix("10.0.0.0/16")
	v.main.Insert(net, r.compile(&kernelRoute{prefix: net, kind: 1, hops: []kernelHop{{index: 2, weight: 1}}}))
	for i := range neighbours {
		a := packet.AddrFrom4(0x0a000001 + uint32(i))
		n := r.newNeighbour(neighbourKey{1, a})
		r.set(n, Ready, mac, now)
		r.learn(n, now)
		onLink = append(onLink, a)
	}
	rnd.Shuffle(len(routed), func(i, j int) { routed[i], routed[j] = routed[j], routed[i] })
	rnd.Shuffle(len(onLink), func(i, j int) { onLink[i], onLink[j] = onLink[j], onLink[i] })
	return r, routed, onLink
}

func TestLookupDoesNotAllocate(t *testing.T) {
	r, routed, onLink := filled(10_000, 1000)
	unknown := packet.AddrFrom4(0x0a00f001)
	i := 0
	for name, f := range map[string]func(){
		"routed":  func() { r.Lookup(routed[i%len(routed)]) },
		"on link": func() { r.Lookup(onLink[i%len(onLink)]) },
		"unknown": func() { r.Lookup(unknown) },
		"Resolve": func() {
			if i%100 == 0 {
				r.asked.take()
			}
			r.Resolve(routed[i%len(routed)])
		},
	} {
		if n := testing.AllocsPerRun(1000, func() { i++; f() }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	for _, a := range onLink {
		if hop, status := r.Lookup(a); status != Ready || hop.Gateway != a {
			t.Fatalf("Lookup(%v) = %+v, %v, want a hop to itself", a, hop, status)
		}
	}
	for _, a := range routed {
		if _, status := r.Lookup(a); status != Ready {
			t.Fatalf("Lookup(%v): %v, want %v", a, status, Ready)
		}
	}
}

// cpuTime is what the thread has used so far.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func BenchmarkLookup(b *testing.B) {
	r, routed, onLink := filled(10_000, 1000)
	for _, c := range []struct {
		name  string
		addrs []packet.Addr
	}{{"Routed", routed}, {"OneClient", routed[:1]}, {"OnLink", onLink}} {
		b.Run(fmt.Sprintf("%s-%d", c.name, len(c.addrs)), func(b *testing.B) {
			b.ReportAllocs()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			i, before := 0, cpuTime()
			for b.Loop() {
				if _, status := r.Lookup(c.addrs[i]); status != Ready {
					b.Fatal(status)
				}
				if i++; i == len(c.addrs) {
					i = 0
				}
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") // what counts on a busy machine
		})
	}
}

func TestExactHoldsWhatAMapHolds(t *testing.T) {
	x, twin := newExact(0), make(map[packet.Addr]*target)
	rnd := rand.New(rand.NewPCG(3, 4))
	some := []*target{refusedTarget, localTarget, foreignTarget}
	for range 20_000 {
		a := packet.AddrFrom4(rnd.Uint32N(3000))
		if rnd.IntN(2) == 0 {
			a = packet.AddrFrom16(&[16]byte{0x20, 1, 0xd, 0xb8, 15: byte(rnd.IntN(200))})
		}
		e := x.find(a)
		if rnd.IntN(3) == 0 {
			delete(twin, a)
			if e != nil {
				e.target.Store(nil)
			}
			continue
		}
		to := some[rnd.IntN(len(some))]
		twin[a] = to
		if e != nil {
			e.target.Store(to)
			continue
		}
		if x.full() {
			x = x.grown()
		}
		e = &entry{dst: a}
		e.target.Store(to)
		x.add(e)
	}
	n := 0
	for e := range x.all {
		n++
		if e.target.Load() != twin[e.dst] {
			t.Fatalf("%v has another target than in the map", e.dst)
		}
	}
	for a, to := range twin {
		if e := x.find(a); e == nil || e.target.Load() != to {
			t.Fatalf("%v is not found", a)
		}
	}
	if n != len(twin) {
		t.Errorf("%d entries, want %d", n, len(twin))
	}
}
