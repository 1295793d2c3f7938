package sim

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"

	"uvs/bench/result"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// These tests hold the simulator against results that are known exactly. What they allow is the confidence interval of twenty
// runs, at 99.9 %; and that interval has to be narrow, or they would show nothing. Seeds are fixed: they pass or they fail.

const (
	theorySeeds = 20
	theorySure  = 0.999
)

// each runs a scenario of one scheduler with each seed, and returns a value of each run.
func each(t *testing.T, sc *Scenario, connections int, value func(*outcome) float64) []float64 {
	t.Helper()
	sc.Connections = connections / scale
	return ofSeeds(t, sc, theorySeeds, value)
}

// ofSeeds runs a scenario of one scheduler with so many seeds.
func ofSeeds(t *testing.T, sc *Scenario, n int, value func(*outcome) float64) []float64 {
	t.Helper()
	values := make([]float64, n)
	seeds, errs := make(chan int), make(chan error, n)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := range seeds {
				o, err := simulate(t.Context(), sc, sc.choices[0], uint64(seed+1))
				if err != nil {
					errs <- err
					continue
				}
				if scale == 1 && o.left > 0 {
					errs <- fmt.Errorf("seed %d: %d connections were never answered", seed, o.left)
				}
				values[seed] = value(o)
			}
		})
	}
	for seed := range n {
		seeds <- seed
	}
	close(seeds)
	workers.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	return values
}

// agrees says that the mean of the values may be want, and that they are precise enough for that to mean something: their
// interval is no wider to a side than so much of want.
func agrees(t *testing.T, what string, values []float64, want, precision float64) {
	t.Helper()
	v := result.EstimateAt(values, theorySure)
	if want < v.Low || want > v.High {
		t.Errorf("%s: %.5g, interval %.5g to %.5g; theory says %.5g", what, v.Value, v.Low, v.High, want)
	}
	if half := (v.High - v.Low) / 2; scale == 1 && half > precision*want {
		t.Errorf("%s: the interval %.5g to %.5g is too wide to show anything", what, v.Low, v.High)
	}
}

func meanResponse(o *outcome) float64 { return o.response.mean() }

// TestSharedProcessor is M/M/1-PS and M/G/1-PS: the mean response is demand / (1 - load), whatever the distribution of the
// demand (Kleinrock 1967), and that of a connection in proportion to its own demand.
func TestSharedProcessor(t *testing.T) {
	for _, c := range []struct {
		demand string
		load   float64
	}{
		{"{exponential: 10ms}", 0.3}, {"{exponential: 10ms}", 0.7}, {"{exponential: 10ms}", 0.85},
		{"{constant: 10ms}", 0.7}, {"{uniform: {from: 5ms, to: 15ms}}", 0.7}, {"{lognormal: {mean: 10ms, sigma: 1}}", 0.7},
		{"{bimodal: {short: 5ms, long: 105ms, share: 0.05}}", 0.7}, {"{pareto: {mean: 10ms, alpha: 3}}", 0.7},
	} {
		sc := parse(t, fmt.Sprintf("  schedulers: [rr]\n  servers: [{}]\n  arrivals: {poisson: {load: %g}}\n  work: [{demand: %s}]\n", c.load, c.demand))
		what := fmt.Sprintf("demand %s, load %g", c.demand, c.load)
		agrees(t, what, each(t, sc, 50_000, meanResponse), 0.010/(1-c.load), 0.05)
		agrees(t, what+", slowdown", each(t, sc, 20_000, func(o *outcome) float64 { return o.slowdown / float64(o.slowed) }), 1/(1-c.load), 0.1)
	}
}

// erlangC is the mean response of M/M/n with the mean demand 1 (Erlang 1917).
func erlangC(n int, load float64) float64 {
	offered := load * float64(n)
	term, sum := 1.0, 0.0
	for k := range n {
		sum += term
		term *= offered / float64(k+1)
	}
	wait := term / (1 - load) / (sum + term/(1-load)) // the probability that one waits
	return 1 + wait/(float64(n)*(1-load))
}

// TestManyProcessors is M/M/n: one queue for n processors, first come first served. Sharing has the same mean, because the
// number of connections goes up and down alike.
func TestManyProcessors(t *testing.T) {
	for _, queue := range []string{"fifo", "ps"} {
		for _, n := range []int{2, 8} {
			const load = 0.8
			sc := parse(t, fmt.Sprintf("  schedulers: [rr]\n  servers: [{processors: %d, queue: %s}]\n  arrivals: {poisson: {load: %g}}\n  work: [{demand: {exponential: 1s}}]\n", n, queue, load))
			agrees(t, fmt.Sprintf("%d processors, %s", n, queue), each(t, sc, 50_000, meanResponse), erlangC(n, load), 0.04)
		}
	}
}

// TestBetweenCentralQueueAndChance: whatever a scheduler does with n equal servers, one queue for all of them would do better
// (M/M/n with exponential demands), and one that balances is better than chance (M/M/1).
func TestBetweenCentralQueueAndChance(t *testing.T) {
	const n, load = 4, 0.8
	best, chance := erlangC(n, load), 1/(1-load)
	var order []float64
	for _, scheduler := range []string{"sh sh-port", "rr", "twos", "lc"} {
		sc := parse(t, fmt.Sprintf("  schedulers: [%s]\n  servers: [{count: %d}]\n  director: {linger: 0s}\n  arrivals: {poisson: {load: %g}}\n  work: [{demand: {exponential: 1s}}]\n", scheduler, n, load))
		v := result.EstimateAt(each(t, sc, 30_000, meanResponse), theorySure)
		if scheduler == "sh sh-port" {
			if v.Low > chance || v.High < chance {
				t.Errorf("chance: %.4g to %.4g, theory says %.4g", v.Low, v.High, chance)
			}
		} else if v.Low >= chance || v.High <= best || scale == 1 && (v.High >= chance || v.Low <= best) {
			t.Errorf("%s: %.4g to %.4g, not between %.4g and %.4g", scheduler, v.Low, v.High, best, chance)
		}
		order = append(order, v.Value)
	}
	for i := 1; i < len(order); i++ {
		if order[i] >= order[i-1] {
			t.Errorf("mean responses of chance, rr, twos, lc: %.4g, which don't fall", order)
		}
	}
}

// TestRoundRobinIsErlangArrivals: round-robin gives each of n servers every n-th arrival, so that it is E_n/M/1: the mean
// response is 1/(mu (1-s)), where s solves s = (n lambda / (n lambda + mu (1-s)))^n.
func TestRoundRobinIsErlangArrivals(t *testing.T) {
	const n, load = 4, 0.8
	s := 0.5
	for range 1000 {
		s = math.Pow(n*load/(n*load+1-s), n)
	}
	sc := parse(t, fmt.Sprintf("  schedulers: [rr]\n  servers: [{count: %d}]\n  arrivals: {poisson: {load: %g}}\n  work: [{demand: {exponential: 1s}}]\n", n, load))
	agrees(t, "rr", each(t, sc, 50_000, meanResponse), 1/(1-s), 0.03)
}

// TestLittlesLaw: the mean number inside is the rate times the mean response, whatever scheduler and arrivals.
func TestLittlesLaw(t *testing.T) {
	for _, c := range []struct{ scheduler, arrivals, demand string }{
		{"wlc", "{poisson: {load: 0.8}}", "{exponential: 10ms}"},
		{"rr", "{mmpp: {load: 0.5, states: [{rate: 1, for: 1s}, {rate: 4, for: 200ms}]}}", "{lognormal: {mean: 10ms, sigma: 1.5}}"},
		{"sed", "{closed: {clients: 30, think: {exponential: 50ms}}}", "{bimodal: {short: 1ms, long: 100ms, share: 0.1}}"},
		{"nq", "{diurnal: {load: 0.6, swing: 0.5, period: 10s}}", "{exponential: 10ms}"},
	} {
		sc := parse(t, fmt.Sprintf("  schedulers: [%s]\n  servers: [{count: 2}, {speed: 2, weight: 2, queue: fifo}]\n  arrivals: %s\n  work: [{demand: %s}]\n", c.scheduler, c.arrivals, c.demand))
		agrees(t, c.scheduler+" "+c.arrivals, each(t, sc, 30_000, func(o *outcome) float64 {
			return o.inside / (float64(o.answers) / o.span * o.response.mean())
		}), 1, 0.02)
	}
}

// TestClosedPopulation is the machine repairman: n clients that think, one processor; exact by mean value analysis (Reiser and
// Lavenberg 1980), which also holds for sharing with any distribution of the demand.
func TestClosedPopulation(t *testing.T) {
	const n, think, demand = 20, 1.0, 0.08
	var response, inside float64
	for k := 1.0; k <= n; k++ {
		response = demand * (1 + inside)
		inside = k * response / (think + response)
	}
	for _, d := range []string{"{exponential: 80ms}", "{bimodal: {short: 40ms, long: 440ms, share: 0.1}}"} {
		sc := parse(t, fmt.Sprintf("  schedulers: [rr]\n  servers: [{}]\n  arrivals: {closed: {clients: %d, think: {exponential: 1s}}}\n  work: [{demand: %s}]\n", n, d))
		agrees(t, d, each(t, sc, 30_000, meanResponse), response, 0.04)
	}
}

// TestVarianceOfCounts: of N connections round-robin gives each server N/n, give or take one; chance (a hash of clients that
// are each new) gives a binomial number, whose variance is N/n (1-1/n).
func TestVarianceOfCounts(t *testing.T) {
	const n = 4
	for _, scheduler := range []string{"rr", "sh sh-port"} {
		sc := parse(t, fmt.Sprintf("  schedulers: [%s]\n  warmup: 0\n  servers: [{count: %d}]\n  arrivals: {poisson: {load: 0.5}}\n  work: [{demand: {constant: 1ms}}]\n", scheduler, n))
		const total = 2000
		sc.Connections = total
		squares := ofSeeds(t, sc, 10*theorySeeds, func(o *outcome) float64 {
			var sum float64
			for _, s := range o.servers[:n-1] {
				d := float64(s.conns) - total/n
				sum += d * d / (n - 1)
			}
			return sum
		})
		if scheduler == "rr" {
			for _, v := range squares {
				if v > 1 {
					t.Errorf("rr: a server's count is off by %.2g", math.Sqrt(v))
				}
			}
			continue
		}
		v := result.EstimateAt(squares, theorySure)
		if want := float64(total) / n * (1 - 1.0/n); want < v.Low || want > v.High {
			t.Errorf("%s: the variance of a server's count is %.4g to %.4g; theory says %.4g", scheduler, v.Low, v.High, want)
		}
	}
}

// TestDisruption: when one of ten servers is removed, Maglev moves few of the others' clients, and as many as its tables say;
// plain hashing moves most.
func TestDisruption(t *testing.T) {
	for _, c := range []struct {
		scheduler   string
		least, most float64
	}{{"mh", 0.0001, 0.05}, {"sh", 0.5, 1}} {
		sc := parse(t, fmt.Sprintf(`
  schedulers: [%s]
  time: 10s
  servers: [{count: 10}]
  clients: {count: 5000}
  arrivals: {poisson: {rate: %d}}
  work: [{demand: {exponential: 1ms}}]
  changes: [{at: 5s, remove: rs4}]
`, c.scheduler, 4000/scale))
		got := each(t, sc, 0, func(o *outcome) float64 { return float64(o.moved) / float64(o.moved+o.unmoved) })
		want := tableDisruption(t, sc)
		if want < c.least || want > c.most {
			t.Errorf("%s: its tables move %.4g of the clients", c.scheduler, want)
		}
		// Each run has the same clients, so that chance is only in who comes back: what the tables say of these clients is exact
		// for each that does.
		agrees(t, c.scheduler, got, want, 0.1)
	}
}

// tableDisruption asks the scheduler itself, away from the simulation, for every client before and after the removal of the
// scenario's rs4, and returns the share of the others' clients that it moves.
func tableDisruption(t *testing.T, sc *Scenario) float64 {
	t.Helper()
	d, err := newDirector(sc, sc.choices[0], 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	pick := func() (all []*service.RealServer) {
		for client := range int32(sc.Clients.Count) {
			r := service.Request{Service: &d.vs, Flow: packet.Flow{Src: packet.AddrFrom4(address(client)), SrcPort: 1, Dst: vipAddr, DstPort: 80, Proto: packet.ProtoTCP}}
			all = append(all, d.scheduler.Pick(&r, d.list))
		}
		return all
	}
	before := pick()
	d.remove(3)
	after := pick()
	var moved, others float64
	for i := range before {
		if before[i].Available() {
			others++
			if before[i] != after[i] {
				moved++
			}
		}
	}
	return moved / others
}

// TestDeterminism: a seed gives the same run again, to the last bit, for every scheduler; another seed another one.
func TestDeterminism(t *testing.T) {
	for _, scheduler := range sched.Names() {
		sc := parse(t, fmt.Sprintf(`
  schedulers: [%s]
  connections: 2000
  servers: [{count: 3}, {speed: 2}]
  clients: {count: 100, zipf: 1}
  destinations: {count: 50, zipf: 1}
  cache: {of: destination, objects: 10}
  director: {count: 2, late_share: 0.1, late_by: 1s, missing_share: 0.05}
  arrivals: {poisson: {load: 0.6}}
  work: [{demand: {lognormal: {mean: 10ms, sigma: 1}}, latency: {exponential: 1ms}, open: {constant: 1s}}]
`, scheduler))
		print := func(seed uint64) string {
			o, err := simulate(t.Context(), sc, sc.choices[0], seed)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%+v", *o)
		}
		one, again, other := print(1), print(1), print(2)
		if one != again {
			t.Errorf("%s: the same seed, and not the same run", scheduler)
		}
		if one == other {
			t.Errorf("%s: another seed, and the same run", scheduler)
		}
	}
}
