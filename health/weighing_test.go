package health

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func weighing(t testing.TB) *Weighing {
	t.Helper()
	w := new(Weighing)
	if err := w.prepareWeighing(); err != nil {
		t.Fatal(err)
	}
	return w
}

// Whatever servers ask for, at whatever times: the share is bounded, changes in limited steps, depends on what was asked alone and
// never accumulates (keepalived's misc_dynamic leaked upwards), and 0 holds at once.
func TestShareKeepsItsRules(t *testing.T) {
	w := weighing(t)
	w.Most = 200
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 4))
		now := time.Unix(1e9, 0)
		var d damped
		for n := range 2000 {
			was := d
			asked := math.Exp(3 * r.NormFloat64())
			switch r.IntN(20) {
			case 0:
				asked = 0
			case 1:
				asked = math.NaN()
			case 2:
				asked = math.Inf(1)
			case 3:
				asked = -1
			}
			now = now.Add(time.Duration(r.ExpFloat64() * float64(3*time.Second)))
			if r.IntN(50) == 0 {
				now = now.Add(-time.Minute) // a clock that was set
			}
			d = w.after(was, asked, now)
			switch {
			case !(asked > 0):
				if d.share != 0 {
					t.Fatalf("seed %d, %d: %v was asked for, share %v", seed, n, asked, d.share)
				}
			case d.share < 0.05 || d.share > 2 || d.mean < 0.05 || d.mean > 2:
				t.Fatalf("seed %d, %d: %+v after %v", seed, n, d, asked)
			case was.share != 0 && (d.share > was.share*1.2001 || d.share < was.share/1.2001):
				t.Fatalf("seed %d, %d: from %v to %v in one step", seed, n, was.share, d.share)
			case was.share != 0 && d.share != was.share && math.Abs(d.share-d.mean) > math.Abs(was.share-d.mean):
				t.Fatalf("seed %d, %d: from %v to %v, away from %v", seed, n, was.share, d.share, d.mean)
			}
			if again := w.after(was, asked, now); again != d {
				t.Fatalf("seed %d, %d: %+v once, %+v another time", seed, n, d, again)
			}
		}
	}
}

// What is asked for steadily is given, to within the dead band, without passing it; small changes of it change nothing.
func TestShareSettles(t *testing.T) {
	w := weighing(t)
	now := time.Unix(1e9, 0)
	d := w.after(damped{}, 1, now)
	if d.share != 1 {
		t.Fatalf("the first answer gives %v", d.share)
	}
	for range 120 {
		now = now.Add(time.Second)
		was := d.share
		if d = w.after(d, 0.3, now); d.share > was || d.share < 0.3*0.999 {
			t.Fatalf("from %v to %v on the way to 0.3", was, d.share)
		}
	}
	if d.share > 0.3*1.12 {
		t.Errorf("after two minutes of 30%% the share is %v", d.share)
	}
	changes := 0
	for n := range 1000 {
		now = now.Add(time.Second)
		was := d.share
		if d = w.after(d, 0.3+0.02*math.Sin(float64(n)), now); d.share != was {
			changes++ // it was at the edge of the dead band
		}
	}
	if changes > 1 {
		t.Errorf("a little unrest changes the share %d times", changes)
	}
	if d = w.after(w.after(d, 0, now), 0.8, now); d.share != 0.8 {
		t.Errorf("after a drain the share is %v, not what is asked for", d.share)
	}
}

// loop is a director and real servers whose load follows from the connections that they get, and their weights from the load.
type loop struct {
	name string
	// asks is the share that a server asks for, when it is busy to that part (arrivals by capacity) and has been lately.
	asks func(busy, lately float64) float64
	lag  time.Duration // of lately
}

// run feeds ten servers of different sizes for ten minutes with weights by w, nil for undamped ones, and returns by how
// much the shares went up and down in the last two minutes at most, and how far from even the servers are busy in the end.
func (l *loop) run(w *Weighing, seed uint64) (swing, uneven float64) {
	const servers, demand = 10, 0.7
	r := rand.New(rand.NewPCG(seed, 9))
	capacity, lately, state := make([]float64, servers), make([]float64, servers), make([]damped, servers)
	least, most, total := make([]float64, servers), make([]float64, servers), 0.0
	for i := range capacity {
		capacity[i] = 0.5 + r.Float64()
		total += capacity[i]
		state[i] = damped{share: 1, mean: 1}
		least[i] = math.Inf(1)
	}
	now := time.Unix(1e9, 0)
	const seconds = 600
	for second := range seconds {
		sum := 0.0
		for i := range state {
			sum += math.Max(1, math.Round(100*state[i].share)) // weights are whole numbers
		}
		now = now.Add(time.Second)
		lo, hi := math.Inf(1), 0.0
		for i := range state {
			arrivals := demand * total * math.Max(1, math.Round(100*state[i].share)) / sum
			busy := arrivals / capacity[i] * (1 + 0.05*r.NormFloat64())
			lately[i] += (busy - lately[i]) * (1 - math.Exp(-1/l.lag.Seconds()))
			lo, hi = math.Min(lo, busy), math.Max(hi, busy)
			asked := l.asks(busy, lately[i])
			if w == nil {
				state[i].share = min(max(asked, 0.05), 1)
			} else {
				state[i] = w.after(state[i], asked, now)
			}
			if second >= seconds-120 {
				least[i], most[i] = min(least[i], state[i].share), max(most[i], state[i].share)
			}
		}
		uneven = hi - lo
	}
	for i := range state {
		swing = max(swing, most[i]/least[i])
	}
	return swing, uneven
}

// Servers of different sizes whose weights follow their load find shares that stay, whichever way the load is measured, though
// each measure comes late. The undamped twin of the steepest measure, latency in a queue, swings.
func TestNoOscillation(t *testing.T) {
	queue := func(busy float64) float64 { return 1 / (1 - min(busy, 0.99)) } // of the time that an idle server takes
	even := loop{"equal weights", func(_, _ float64) float64 { return 1 }, time.Second}
	for _, l := range []loop{
		{"load average", func(_, lately float64) float64 { return 1 / (1 + lately/(1.05-min(lately, 1))) }, time.Minute},
		{"processors", func(_, lately float64) float64 { return 1 - min(lately, 1) }, 10 * time.Second},
		{"latency", func(busy, _ float64) float64 { return 1 / queue(busy) }, time.Second},
		{"latency, seen late", func(_, lately float64) float64 { return 1 / queue(lately) }, 5 * time.Second},
	} {
		for seed := range uint64(10) {
			swing, uneven := l.run(weighing(t), seed)
			wild, _ := l.run(nil, seed)
			_, before := even.run(nil, seed)
			if seed == 0 {
				t.Logf("%s: shares swing by a factor of %.2f, undamped %.2f; servers are busy to parts %.2f apart, with equal weights %.2f",
					l.name, swing, wild, uneven, before)
			}
			if swing > 1.5 {
				t.Errorf("%s, seed %d: shares swing by a factor of %.2f", l.name, seed, swing)
			}
			if l.name == "latency" && wild < 3 {
				t.Errorf("%s, seed %d: undamped, shares swing by %.2f alone: the loop is too tame to show anything", l.name, seed, wild)
			}
			if uneven > 0.75*before {
				t.Errorf("%s, seed %d: servers are busy to parts %.2f apart, with equal weights %.2f", l.name, seed, uneven, before)
			}
		}
	}
}
