package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"uvs/bench/result"
)

// Each quick structure beside a slow one that is obviously right.

func TestCalendarIsAScanForTheLeast(t *testing.T) {
	for n := 1; n <= 9; n++ {
		c, at := newCalendar(n), make([]float64, n)
		for i := range at {
			at[i] = never
		}
		r := rand.New(rand.NewPCG(uint64(n), 1))
		for range 500 {
			i, when := r.IntN(n), float64(r.IntN(20))
			if when == 0 {
				when = never
			}
			c.set(i, when)
			at[i] = when
			want := slices.Min(at)
			source, got := c.next()
			if got != want || want != never && source != slices.Index(at, want) {
				t.Fatalf("of %v the next is %d at %v", at, source, got)
			}
		}
	}
}

func TestTimersComeInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var timers timers
	var all []timer
	for n := range 2000 {
		if r.IntN(3) > 0 || len(all) == 0 {
			at := float64(r.IntN(50)) // many at once, which come in the order in which they were set
			timers.push(at, closed, int32(n))
			all = append(all, timer{at: at, what: int32(n)})
			continue
		}
		first := 0
		for i := range all {
			if all[i].at < all[first].at {
				first = i
			}
		}
		if next := timers.next(); next != all[first].at {
			t.Fatalf("the next timer is at %v, want %v", next, all[first].at)
		}
		if got := timers.pop(); got.what != all[first].what {
			t.Fatalf("timer %d at %v comes, want %d at %v", got.what, got.at, all[first].what, all[first].at)
		}
		all = slices.Delete(all, first, first+1)
	}
}

func TestQueueIsAList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	var q queue[int]
	var list []int
	for n := range 5000 {
		if r.IntN(5) > 1 && len(list) < 100 || len(list) == 0 {
			q.push(n)
			list = append(list, n)
		} else if got := q.pop(); got != list[0] {
			t.Fatalf("%d comes out, want %d", got, list[0])
		} else {
			list = list[1:]
		}
		if q.size != len(list) || len(list) > 0 && *q.first() != list[0] {
			t.Fatalf("%d in the queue, want %d", q.size, len(list))
		}
	}
}

func TestLRUIsAListByUse(t *testing.T) {
	const room, objects = 5, 12
	r := rand.New(rand.NewPCG(1, 4))
	c := newLRU(room, objects)
	var list []int32 // the last used first
	for range 5000 {
		if r.IntN(200) == 0 {
			c.clear()
			list = nil
		}
		o := int32(r.IntN(objects))
		i := slices.Index(list, o)
		if hit := c.use(o); hit != (i >= 0) {
			t.Fatalf("object %d of %v: hit %v", o, list, hit)
		}
		if i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		list = slices.Insert(list, 0, o)
		list = list[:min(len(list), room)]
	}
}

// TestMachineSharesAsByHand follows every connection's remaining work.
func TestMachineSharesAsByHand(t *testing.T) {
	type held struct {
		conn int32
		left float64
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		m := machine{speed: 0.5 + r.Float64(), processors: float64(1 + r.IntN(3)), workers: 1 + r.IntN(6), backlog: unlimited, up: true}
		demands := map[int32]float64{}
		var running []held
		var waiting []int32
		now, arrival, n := 0.0, 0.0, int32(0)
		for range 500 {
			rate := m.speed * min(1, m.processors/float64(max(len(running), 1)))
			end, which := never, -1
			for i, x := range running {
				if t := now + x.left/rate; t < end {
					end, which = t, i
				}
			}
			if got := m.nextDone(); math.Abs(got-end) > 1e-9 && !(got == never && end == never) {
				t.Fatalf("seed %d: the next is done at %v, want %v", seed, got, end)
			}
			next := min(end, arrival)
			for i := range running {
				running[i].left -= (next - now) * rate
			}
			now = next
			m.advance(now)
			if end < arrival {
				if got := m.finish(); got != running[which].conn {
					t.Fatalf("seed %d: connection %d is done, want %d", seed, got, running[which].conn)
				}
				running = slices.Delete(running, which, which+1)
				if len(waiting) > 0 {
					c := m.waiting.pop()
					if c != waiting[0] {
						t.Fatalf("seed %d: connection %d is next, want %d", seed, c, waiting[0])
					}
					waiting = waiting[1:]
					m.start(c, demands[c])
					running = append(running, held{c, demands[c]})
				}
			} else {
				demands[n] = r.ExpFloat64()
				if !m.admit(n, demands[n]) {
					t.Fatal("refused without a limit")
				}
				if len(running) < m.workers {
					running = append(running, held{n, demands[n]})
				} else {
					waiting = append(waiting, n)
				}
				n++
				arrival = now + r.ExpFloat64()
			}
			if m.conns != len(running)+len(waiting) {
				t.Fatalf("seed %d: %d inside, want %d", seed, m.conns, len(running)+len(waiting))
			}
		}
	}
}

func TestHistogramsQuantilesAreThoseOfTheValues(t *testing.T) {
	r := newRandom(1, 1)
	h := newHistogram()
	var values []float64
	for range 20_000 {
		v := math.Exp(3 * r.normal())
		h.add(v)
		values = append(values, v)
	}
	slices.Sort(values)
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 0.999, 1} {
		want := values[int(math.Ceil(q*float64(len(values))))-1]
		if got := h.quantile(q); math.Abs(got-want) > 0.008*want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.most != values[len(values)-1] {
		t.Errorf("the most is %v", h.most)
	}
	x, y := h.tail()
	for i := range x {
		above := len(values) - sortedBelow(values, x[i])
		if math.Abs(y[i]-float64(above)/float64(len(values))) > 1e-12 {
			t.Fatalf("a share %v above %v, want %d of %d", y[i], x[i], above, len(values))
		}
	}
	for _, v := range []float64{0, 1e-12, 1e12} { // beyond the buckets
		h.add(v)
	}
	if h.quantile(0) > 1e-7 || h.quantile(1) < 1e7 {
		t.Errorf("the extremes are %v and %v", h.quantile(0), h.quantile(1))
	}
}

// sortedBelow is how many values are below x.
func sortedBelow(values []float64, x float64) int {
	n, _ := slices.BinarySearch(values, x)
	return n
}

// TestDistributionsHaveTheirMeans, and arrivals their rates, to within the confidence interval of batches.
func TestDistributionsHaveTheirMeans(t *testing.T) {
	for _, text := range []string{
		"{constant: 10ms}", "{uniform: {from: 5ms, to: 25ms}}", "{exponential: 10ms}", "{lognormal: {mean: 10ms, sigma: 1}}",
		"{pareto: {mean: 10ms, alpha: 3}}", "{pareto: {mean: 10ms, alpha: 1.5, max: 100ms}}", "{bimodal: {short: 1ms, long: 1s, share: 0.1}}",
	} {
		sc := parse(t, "  schedulers: [rr]\n  servers: [{}]\n  arrivals: {poisson: {rate: 1}}\n  work: [{demand: "+text+"}]\n")
		d := &sc.Work[0].Demand
		r := newRandom(1, 1)
		var means []float64
		for range 40 {
			var sum float64
			for range 5000 {
				sum += d.draw(&r)
			}
			means = append(means, sum/5000)
		}
		if v := result.EstimateAt(means, theorySure); d.Mean() < v.Low*(1-1e-12) || d.Mean() > v.High*(1+1e-12) {
			t.Errorf("%s: the mean is %.5g to %.5g, want %.5g", text, v.Low, v.High, d.Mean())
		}
	}
	for _, text := range []string{
		"{poisson: {rate: 50}}", "{mmpp: {rate: 50, states: [{rate: 1, for: 1s}, {rate: 5, for: 300ms}]}}",
		"{mmpp: {rate: 50, states: [{rate: 0, for: 100ms}, {rate: 1, for: 100ms}]}}", "{diurnal: {rate: 50, swing: 1, period: 10s}}",
	} {
		sc := parse(t, "  schedulers: [rr]\n  servers: [{}]\n  arrivals: "+text+"\n  work: [{demand: {constant: 1ms}}]\n")
		var counts []float64
		for seed := range uint64(40) {
			const span = 200.0 // whole periods
			n := 0.0
			for a := newArrivals(sc, seed+1); a.at < span; a.next() {
				n++
			}
			counts = append(counts, n/span)
		}
		if v := result.EstimateAt(counts, theorySure); v.Low > 50 || v.High < 50 {
			t.Errorf("%s: %.5g to %.5g arrivals a second, want 50", text, v.Low, v.High)
		}
	}
}

// TestZipfHasItsShares draws from a population and compares the most popular ones' shares.
func TestZipfHasItsShares(t *testing.T) {
	const n, draws = 50, 200_000
	for _, s := range []float64{0, 0.9, 2} {
		z, r := newZipf(n, s), newRandom(1, 1)
		var sum float64
		for i := range n {
			sum += math.Pow(float64(i+1), -s)
		}
		counts := make([]float64, n)
		for range draws {
			counts[z.draw(&r)]++
		}
		for i, c := range counts {
			p := math.Pow(float64(i+1), -s) / sum
			if d := math.Abs(c - draws*p); d > 4.5*math.Sqrt(draws*p*(1-p))+1 {
				t.Errorf("exponent %v: number %d came %v times, want about %v", s, i+1, c, draws*p)
			}
		}
	}
}
