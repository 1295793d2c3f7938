package sim

import "math"

// arrivals makes the times at which connections come, but for closed populations.
type arrivals struct {
	sc   *Scenario
	r    random
	at   float64 // the next one
	rate float64 // in the present state
	// of an MMPP:
	rates []float64
	state int
	until float64
	// of a trace:
	n int
}

func newArrivals(sc *Scenario, seed uint64) *arrivals {
	a := &arrivals{sc: sc, r: newRandom(seed, 1), rate: sc.rate()}
	switch {
	case sc.Arrivals.MMPP != nil:
		var sum, time float64
		for _, st := range sc.Arrivals.MMPP.States {
			sum += st.Rate * float64(st.For)
			time += float64(st.For)
		}
		for _, st := range sc.Arrivals.MMPP.States {
			a.rates = append(a.rates, st.Rate*a.rate*time/sum)
		}
		a.state = -1
		a.change()
	case sc.Arrivals.Closed != nil:
		a.at = never
		return a
	case sc.Arrivals.Trace != "":
		a.at = sc.trace.time[0]
		return a
	}
	a.next()
	return a
}

// change puts an MMPP into its next state.
func (a *arrivals) change() {
	states := a.sc.Arrivals.MMPP.States
	a.state = (a.state + 1) % len(states)
	a.rate = a.rates[a.state]
	a.until += a.r.exponential() * float64(states[a.state].For)
}

// next finds the arrival after this one.
func (a *arrivals) next() {
	switch {
	case a.rates != nil:
		for {
			// Without memory, what is left when the state changes begins anew.
			next := a.at + a.r.exponential()/a.rate
			if next <= a.until {
				a.at = next
				return
			}
			a.at = a.until
			a.change()
		}
	case a.sc.Arrivals.Diurnal != nil:
		// Thinning (Lewis and Shedler 1979): arrivals at the highest rate, of which a share is kept.
		d := a.sc.Arrivals.Diurnal
		for {
			a.at += a.r.exponential() / (a.rate * (1 + d.Swing))
			if a.r.unit()*(1+d.Swing) <= 1+d.Swing*math.Sin(2*math.Pi*a.at/float64(d.Period)) {
				return
			}
		}
	case a.sc.trace != nil && a.sc.Arrivals.Trace != "":
		a.n++
		if a.n == len(a.sc.trace.time) {
			a.at = never
			return
		}
		a.at = a.sc.trace.time[a.n]
	default:
		a.at += a.r.exponential() / a.rate
	}
}
