package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// action is what a Change does.
type action uint8

const (
	fails action = iota
	returns
	slows
	adds
	removes
	weighs
)

// prepare fills in defaults, checks everything, and computes what runs need. open reads traces.
func (s *Scenario) prepare(open func(name string) (*trace, error)) error {
	s.defaults()
	s.choices = nil
	for _, text := range s.Schedulers {
		c, err := parseChoice(text)
		if err != nil {
			return err
		}
		s.choices = append(s.choices, c)
	}
	for _, step := range []struct {
		what string
		do   func(open func(name string) (*trace, error)) error
	}{
		{"servers", s.prepareServers}, {"work", s.prepareWork}, {"arrivals", s.prepareArrivals},
		{"clients, destinations, cache", s.prepareLocality}, {"director", s.prepareDirector}, {"changes", s.prepareChanges},
	} {
		if err := step.do(open); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	if len(s.choices) == 0 {
		return errors.New("schedulers: there is none to compare")
	}
	return nil
}

// What a study may have at most; more would be a slip of the pen, and a wait without end.
const (
	mostServers = 10_000
	mostClients = 1 << 20 // of a closed population
)

// orDefault gives v a value if it has none.
func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (s *Scenario) defaults() {
	orDefault(&s.Title, s.Name)
	orDefault(&s.Main, "p99")
	orDefault(&s.Seeds, 10)
	if s.Time == 0 {
		orDefault(&s.Connections, 100_000)
	}
	if s.Warmup == nil {
		w := 0.1
		s.Warmup = &w
	}
	d := &s.Director
	orDefault(&d.Count, 1)
	orDefault(&d.Spread, "client")
	orDefault(&d.Established, 15*60)
	orDefault(&d.GiveUp, 5)
	orDefault(&d.RoundTrip, 1e-3)
	orDefault(&d.Accept, 50e-6)
	if d.Linger == nil {
		l := Seconds(120)
		d.Linger = &l
	}
	if d.Detect == nil {
		t := Seconds(3)
		d.Detect = &t
	}
	if s.Cache.Of != "" {
		orDefault(&s.Cache.Hit, 0.1)
	}
}

func (s *Scenario) prepareServers(func(string) (*trace, error)) error {
	s.list, s.capacity = nil, 0
	for _, x := range s.Servers {
		orDefault(&x.Count, 1)
		orDefault(&x.Speed, 1)
		orDefault(&x.Processors, 1)
		orDefault(&x.Queue, "ps")
		orDefault(&x.Backlog, unlimited)
		if x.Weight == nil {
			one := int32(1)
			x.Weight = &one
		}
		if x.Workers == 0 {
			x.Workers = unlimited
			if x.Queue == "fifo" {
				x.Workers = max(int(x.Processors), 1)
			}
		}
		switch {
		case x.Queue != "ps" && x.Queue != "fifo":
			return fmt.Errorf("queue is ps or fifo, not %q", x.Queue)
		case x.Speed < 0 || x.Processors < 0 || *x.Weight < 0 || x.Workers < 0 || x.Backlog < 0 || x.Count < 0:
			return errors.New("a number is negative")
		case x.Count > mostServers-len(s.list):
			return fmt.Errorf("more than %d", mostServers)
		}
		for range x.Count {
			one := x
			if one.Name == "" {
				one.Name = fmt.Sprintf("rs%d", len(s.list)+1)
			} else if x.Count > 1 {
				one.Name = fmt.Sprintf("%s%d", x.Name, len(s.list)+1)
			}
			if s.server(one.Name) >= 0 {
				return fmt.Errorf("two have the name %s", one.Name)
			}
			s.list = append(s.list, one)
			if !one.Absent {
				s.capacity += one.Speed * one.Processors
			}
		}
	}
	if s.capacity == 0 {
		return errors.New("there is none to serve anything")
	}
	return nil
}

func (s *Scenario) server(name string) int {
	return slices.IndexFunc(s.list, func(x Server) bool { return x.Name == name })
}

func (s *Scenario) prepareWork(open func(string) (*trace, error)) error {
	if len(s.Work) == 0 {
		return errors.New("there is none")
	}
	s.Work = slices.Clone(s.Work)
	var shares float64
	s.mean = 0
	for i := range s.Work {
		k := &s.Work[i]
		orDefault(&k.Name, fmt.Sprint(i+1))
		orDefault(&k.Share, 1)
		if k.Share < 0 {
			return errors.New("a share is negative")
		}
		for what, d := range map[string]*Dist{"demand": &k.Demand, "latency": &k.Latency, "open": &k.Open} {
			if err := d.prepare(open); err != nil {
				return fmt.Errorf("%s of %s: %w", what, k.Name, err)
			}
		}
		shares += k.Share
		s.mean += k.Share * k.Demand.Mean()
	}
	s.mean /= shares
	return nil
}

func (s *Scenario) prepareArrivals(open func(string) (*trace, error)) (err error) {
	a := &s.Arrivals
	var forms []string
	for _, f := range []struct {
		given bool
		name  string
	}{{a.Poisson != nil, "poisson"}, {a.MMPP != nil, "mmpp"}, {a.Diurnal != nil, "diurnal"}, {a.Closed != nil, "closed"}, {a.Trace != "", "trace"}} {
		if f.given {
			forms = append(forms, f.name)
		}
	}
	if len(forms) != 1 {
		return fmt.Errorf("one of poisson, mmpp, diurnal, closed and trace is given, not %d (%s)", len(forms), strings.Join(forms, ", "))
	}
	switch {
	case a.MMPP != nil:
		if len(a.MMPP.States) < 2 {
			return errors.New("mmpp: fewer than two states")
		}
		sum := 0.0
		for _, st := range a.MMPP.States {
			if sum += st.Rate; st.For <= 0 {
				return errors.New("mmpp: a state lasts longer than 0")
			}
		}
		if sum == 0 {
			return errors.New("mmpp: no state has a rate above 0")
		}
	case a.Diurnal != nil:
		if a.Diurnal.Swing < 0 || a.Diurnal.Swing > 1 || a.Diurnal.Period <= 0 {
			return errors.New("diurnal: swing is from 0 to 1, period above 0")
		}
	case a.Closed != nil:
		if a.Closed.Clients > mostClients {
			return fmt.Errorf("closed: more than %d clients", mostClients)
		}
		if a.Closed.Clients < 1 && (s.Sweep == nil || s.Sweep.Over != "clients") {
			return errors.New("closed: fewer than one client")
		}
		if err := a.Closed.Think.prepare(open); err != nil {
			return fmt.Errorf("closed: think: %w", err)
		}
		takes := a.Closed.Think.Mean()
		for _, k := range s.Work {
			takes += k.Demand.Mean() + k.Latency.Mean()
		}
		if takes == 0 {
			return errors.New("closed: a transaction takes no time, so that they would never end")
		}
	case a.Trace != "":
		if s.trace, err = open(a.Trace); err != nil {
			return err
		}
		if s.trace.time == nil {
			return fmt.Errorf("%s has no column time", a.Trace)
		}
	}
	if o := a.open(); o != nil && !(s.rate() > 0 && s.rate() < never) && (s.Sweep == nil || s.Sweep.Over != "load" && s.Sweep.Over != "rate") {
		return errors.New("the rate is not above 0: give rate, or load and work that takes time")
	}
	return nil
}

// open is the rate of an open form, nil of others.
func (a *Arrivals) open() *Open {
	switch {
	case a.Poisson != nil:
		return a.Poisson
	case a.MMPP != nil:
		return &a.MMPP.Open
	case a.Diurnal != nil:
		return &a.Diurnal.Open
	}
	return nil
}

// rate is how many connections come in a second in the mean, about.
func (s *Scenario) rate() float64 {
	if o := s.Arrivals.open(); o != nil {
		if o.Rate != 0 {
			return o.Rate
		}
		return o.Load * s.capacity / s.mean
	}
	if t := s.trace; t != nil && len(t.time) > 1 {
		return float64(len(t.time)-1) / (t.time[len(t.time)-1] - t.time[0])
	}
	if c := s.Arrivals.Closed; c != nil {
		// No more than the servers can do, nor than the clients ask for; what they wait for each other counts for little.
		each := c.Think.Mean() + s.mean
		for _, k := range s.Work {
			each += k.Latency.Mean() / float64(len(s.Work))
		}
		return min(s.capacity/s.mean, float64(c.Clients)/each)
	}
	return 0
}

func (s *Scenario) prepareLocality(func(string) (*trace, error)) error {
	for _, p := range []Population{s.Clients, s.Destinations} {
		if p.Count < 0 || p.Count > 1<<24 || p.Zipf < 0 {
			return errors.New("a population has up to 16777216 members, its exponent is not negative")
		}
	}
	c := &s.Cache
	population := s.Destinations.Count
	switch c.Of {
	case "":
		return nil
	case "client":
		population = s.Clients.Count
	case "destination":
	default:
		return fmt.Errorf("the cache is of client or destination, not %q", c.Of)
	}
	switch {
	case population == 0 && s.trace == nil:
		return fmt.Errorf("the cache is of %ss, and there is no population of them", c.Of)
	case c.Objects <= 0:
		return errors.New("the cache has no objects")
	case c.Hit < 0 || c.Hit > 1:
		return errors.New("the cache's hit is a share from 0 to 1")
	}
	return nil
}

func (s *Scenario) prepareDirector(func(string) (*trace, error)) error {
	d := &s.Director
	switch {
	case d.Spread != "client" && d.Spread != "turn":
		return fmt.Errorf("spread is client or turn, not %q", d.Spread)
	case d.LateShare < 0 || d.MissingShare < 0 || d.LateShare+d.MissingShare > 1:
		return errors.New("late_share and missing_share are shares, together up to 1")
	case d.Count < 1 || d.Count*len(s.list) > 1<<20:
		return fmt.Errorf("%d directors with %d servers", d.Count, len(s.list))
	}
	return nil
}

func (s *Scenario) prepareChanges(func(string) (*trace, error)) error {
	s.Changes = slices.Clone(s.Changes)
	for i := range s.Changes {
		c := &s.Changes[i]
		var given []string
		for a, name := range []string{fails: c.Fail, returns: c.Return, slows: c.Slow, adds: c.Add, removes: c.Remove, weighs: c.Weigh} {
			if name != "" {
				given = append(given, name)
				c.action = action(a)
			}
		}
		if len(given) != 1 {
			return fmt.Errorf("change %d: one of fail, return, slow, add, remove and weigh is given, not %d", i+1, len(given))
		}
		if c.server = s.server(given[0]); c.server < 0 {
			return fmt.Errorf("change %d: no server %q", i+1, given[0])
		}
		if c.At < 0 || c.Speed < 0 || c.Weight < 0 {
			return fmt.Errorf("change %d: a number is negative", i+1)
		}
		if i > 0 && c.At < s.Changes[i-1].At {
			return fmt.Errorf("change %d is before the one above it", i+1)
		}
	}
	if len(s.Changes) > 0 && s.Time == 0 {
		return errors.New("with changes, a run's time is given, not its connections")
	}
	return nil
}
