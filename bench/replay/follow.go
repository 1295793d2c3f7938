package replay

import (
	"fmt"
	"slices"
	"time"

	"uvs/conntrack"
	"uvs/packet"
	"uvs/sched/trial"
	"uvs/service"
)

// event is something that happened to a connection of the recording.
type event struct {
	kind conntrack.EventKind
	id   uint64
	at   int64 // nanoseconds since the first
	flow packet.Flow
}

// follower offers what happens to the schedulers.
type follower struct {
	groups  []*trial.Group
	conns   map[uint64]followed
	most    int // connections followed at a time
	changes []Change
	servers []trial.Server
	looked  int64 // when the last look at the held connections was due
	thinned int64
	stats   *Stats
	req     service.Request    // scratch
	write   func(*event) error // for the anonymised trace; may be nil
}

const (
	perGroup  = trial.Max - 1
	maxGroups = 3
	// MostSchedulers is how many are compared at once.
	MostSchedulers = maxGroups * perGroup
)

func newFollower(cfg *Config, stats *Stats) (*follower, error) {
	f := &follower{conns: map[uint64]followed{}, most: cfg.Flows, changes: cfg.Changes, stats: stats, servers: slices.Clone(cfg.Servers)}
	slices.Reverse(f.servers) // the one added last is the first
	if len(cfg.Schedulers) > MostSchedulers {
		return nil, fmt.Errorf("%d schedulers, at most %d can be compared at once", len(cfg.Schedulers), MostSchedulers)
	}
	for names := range slices.Chunk(cfg.Schedulers, perGroup) {
		g := trial.NewGroup(trial.Config{Clients: cfg.Clients})
		f.groups = append(f.groups, g)
		for _, name := range names {
			if err := g.Add(name); err != nil {
				return nil, fmt.Errorf("scheduler %s: %w", name, err)
			}
		}
		if err := g.SetServers(f.servers); err != nil {
			return nil, err
		}
	}
	return f, nil
}

type followed struct {
	choices [maxGroups]trial.Choice
	active  bool
	client  uint16 // what thinning goes by
}

const (
	thinEvery = int64(10 * time.Second) // of the recording: what was thinned out takes a while to end
	mostShift = 16
)

// sampled says that a client's connections are offered.
func (f *follower) sampled(a packet.Addr) bool { return f.client(a)&(f.stats.OneIn()-1) == 0 }

// client spreads clients over numbers.
func (f *follower) client(a packet.Addr) uint16 {
	hi, lo := a.Words()
	return uint16((hi ^ lo*0x9e3779b97f4a7c15) >> 40)
}

// full is told that there is no room for a connection: only half of the clients' are offered from now on, and the others'
// are let go. That leaves the figures right, which a choice by age or chance wouldn't: a client keeps all its connections.
func (f *follower) full(at int64) {
	f.stats.Unheld++
	if f.stats.Shift == mostShift-1 || f.stats.Shift > 0 && at < f.thinned+thinEvery {
		return
	}
	f.stats.Shift++
	f.thinned = at
	for id, c := range f.conns {
		if c.client&(f.stats.OneIn()-1) != 0 {
			f.close(&c)
			delete(f.conns, id)
		}
	}
}

// base is the time of the first packet on the schedulers' clock, where 0 would be boot.
const base = int64(time.Hour)

// sampleEvery is the time of the recording between two looks at the held connections.
const sampleEvery = int64(time.Second)

// mostSamples is how many looks are made up for where nothing happened for long.
const mostSamples = 600

// until brings configuration and samples up to a time.
func (f *follower) until(at int64) error {
	for len(f.changes) > 0 && int64(f.changes[0].At) <= at {
		c := &f.changes[0]
		f.sample(int64(c.At))
		f.servers = c.apply(f.servers)
		for _, g := range f.groups {
			if err := g.SetServers(f.servers); err != nil {
				return err
			}
		}
		f.changes = f.changes[1:]
	}
	f.sample(at)
	return nil
}

func (f *follower) sample(at int64) {
	due := (at - f.looked) / sampleEvery
	for range min(due, mostSamples) {
		for _, g := range f.groups {
			g.Sample()
		}
	}
	f.looked += due * sampleEvery
}

// take takes an event in. at never goes back.
func (f *follower) take(e *event) error {
	if err := f.until(e.at); err != nil {
		return err
	}
	if f.write != nil {
		if err := f.write(e); err != nil {
			return err
		}
	}
	if e.kind == conntrack.Opened {
		f.open(e)
		return nil
	}
	c, ok := f.conns[e.id]
	switch {
	case !ok:
	case e.kind == conntrack.Closed:
		f.close(&c)
		delete(f.conns, e.id)
	case c.active != (e.kind == conntrack.Activated):
		c.active = !c.active
		for i, g := range f.groups {
			g.SetActive(&c.choices[i], c.active)
		}
		f.conns[e.id] = c
	}
	return nil
}

func (f *follower) open(e *event) {
	if !f.sampled(e.flow.Src) {
		f.stats.Thinned++
		return
	}
	if len(f.conns) >= f.most {
		f.full(e.at)
		return
	}
	f.stats.Opened++
	f.req.Flow, f.req.Now = e.flow, base+e.at
	var c followed
	for i, g := range f.groups {
		c.choices[i] = g.Open(&f.req, trial.NoSlot)
	}
	c.client = f.client(e.flow.Src)
	if old, ok := f.conns[e.id]; ok { // a trace may say so
		f.close(&old)
	}
	f.conns[e.id] = c
	f.stats.MostHeld = max(f.stats.MostHeld, len(f.conns))
}

func (f *follower) close(c *followed) {
	for i, g := range f.groups {
		g.Close(&c.choices[i], c.active)
	}
}
