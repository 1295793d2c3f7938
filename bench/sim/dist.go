package sim

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Seconds is a span of time; in YAML it is written as Go does: 250ms, 1m30s.
type Seconds float64

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Seconds) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return errorAt(n, "%q is no span of time; they are written 250ms, 10s, 1m30s", n.Value)
	}
	if d < 0 {
		return errorAt(n, "%q is below 0", n.Value)
	}
	*s = Seconds(d.Seconds())
	return nil
}

// Dist is a distribution of times. Exactly one of its forms is given; the zero value is always 0.
type Dist struct {
	Constant    Seconds    `yaml:"constant"`    // always the same
	Uniform     *Uniform   `yaml:"uniform"`     // evenly between two
	Exponential Seconds    `yaml:"exponential"` // without memory, by its mean
	Lognormal   *Lognormal `yaml:"lognormal"`   // by its mean and the deviation of its logarithm
	Pareto      *Pareto    `yaml:"pareto"`      // heavy-tailed, by its mean and exponent
	Bimodal     *Bimodal   `yaml:"bimodal"`     // one of two lengths
	// Trace is a CSV file whose column "demand" has values in seconds; they are drawn at random.
	Trace string `yaml:"trace"`

	kind   distKind
	a, b   float64
	values []float64 // of the trace
	mean   float64
}

// Uniform is evenly distributed from From to To.
type Uniform struct {
	From Seconds `yaml:"from"`
	To   Seconds `yaml:"to"`
}

// Lognormal has that mean; Sigma is the standard deviation of the natural logarithm: 1 is moderate, 2 wild.
type Lognormal struct {
	Mean  Seconds `yaml:"mean"`
	Sigma float64 `yaml:"sigma"`
}

// Pareto has that mean. The tail beyond t falls as t^-Alpha: up to 2 the variance is infinite, and at 1 the mean. Max, if it
// isn't 0, cuts values off, so that the mean is a little less.
type Pareto struct {
	Mean  Seconds `yaml:"mean"`
	Alpha float64 `yaml:"alpha"`
	Max   Seconds `yaml:"max"`
}

// Bimodal is Long with the probability Share, else Short.
type Bimodal struct {
	Short Seconds `yaml:"short"`
	Long  Seconds `yaml:"long"`
	Share float64 `yaml:"share"`
}

type distKind uint8

const (
	constant distKind = iota
	uniform
	exponential
	lognormal
	pareto
	bimodal
	traced
)

// prepare checks the distribution and makes it ready to be drawn from. open reads the trace.
func (d *Dist) prepare(open func(name string) (*trace, error)) error {
	var forms []string
	form := func(given bool, name string, kind distKind) {
		if given {
			forms = append(forms, name)
			d.kind = kind
		}
	}
	form(d.Constant != 0, "constant", constant)
	form(d.Uniform != nil, "uniform", uniform)
	form(d.Exponential != 0, "exponential", exponential)
	form(d.Lognormal != nil, "lognormal", lognormal)
	form(d.Pareto != nil, "pareto", pareto)
	form(d.Bimodal != nil, "bimodal", bimodal)
	form(d.Trace != "", "trace", traced)
	if len(forms) > 1 {
		return fmt.Errorf("a distribution has one form, not %s", strings.Join(forms, " and "))
	}
	switch d.kind {
	case constant:
		d.a, d.mean = float64(d.Constant), float64(d.Constant)
	case uniform:
		d.a, d.b = float64(d.Uniform.From), float64(d.Uniform.To-d.Uniform.From)
		d.mean = d.a + d.b/2
		if d.b < 0 {
			return errors.New("uniform: from is above to")
		}
	case exponential:
		d.a, d.mean = float64(d.Exponential), float64(d.Exponential)
	case lognormal:
		d.mean, d.b = float64(d.Lognormal.Mean), d.Lognormal.Sigma
		d.a = math.Log(d.mean) - d.b*d.b/2
		if d.mean <= 0 || d.b < 0 {
			return errors.New("lognormal: the mean is above 0, sigma not below")
		}
	case pareto:
		p := d.Pareto
		if p.Alpha <= 1 || p.Mean <= 0 {
			return errors.New("pareto: the mean is above 0, and alpha above 1, where the mean is infinite")
		}
		d.b = -1 / p.Alpha
		d.a = float64(p.Mean) * (p.Alpha - 1) / p.Alpha // the least value
		d.mean = float64(p.Mean)
		if m := float64(p.Max); m != 0 {
			if m <= d.a {
				return fmt.Errorf("pareto: max is not above the least value, which is %.3gs", d.a)
			}
			// What is above max counts as max: the integral of the tail beyond it is lacking.
			d.mean -= d.a / (p.Alpha - 1) * math.Pow(m/d.a, 1-p.Alpha)
		}
	case bimodal:
		b := d.Bimodal
		if b.Share < 0 || b.Share > 1 {
			return errors.New("bimodal: share is from 0 to 1")
		}
		d.a, d.b = float64(b.Short), float64(b.Long)
		d.mean = d.a + (d.b-d.a)*b.Share
	case traced:
		t, err := open(d.Trace)
		if err != nil {
			return err
		}
		if t.demand == nil {
			return fmt.Errorf("%s has no column demand", d.Trace)
		}
		d.values = t.demand
		for _, v := range d.values {
			d.mean += v / float64(len(d.values))
		}
	}
	if d.mean < 0 || d.a < 0 && d.kind != lognormal {
		return errors.New("a time is not negative")
	}
	return nil
}

// zero says that it is always 0.
func (d *Dist) zero() bool { return d.kind == constant && d.a == 0 }

// Mean is the expected value, in seconds.
func (d *Dist) Mean() float64 { return d.mean }

// draw is a value in seconds.
func (d *Dist) draw(r *random) float64 {
	switch d.kind {
	case uniform:
		return d.a + d.b*r.unit()
	case exponential:
		return d.a * r.exponential()
	case lognormal:
		return math.Exp(d.a + d.b*r.normal())
	case pareto:
		v := d.a * math.Pow(r.unit(), d.b)
		if m := float64(d.Pareto.Max); m != 0 && v > m {
			v = m
		}
		return v
	case bimodal:
		if r.unit() <= d.Bimodal.Share {
			return d.b
		}
		return d.a
	case traced:
		return d.values[r.below(uint64(len(d.values)))]
	}
	return d.a
}
