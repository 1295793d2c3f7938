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
	sampled int64 // when the last look at the held connections was due
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
	due := (at - f.sampled) / sampleEvery
	for range min(due, mostSamples) {
		for _, g := range f.groups {
			g.Sample()
		}
	}
	f.sampled += due * sampleEvery
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
	f.stats.Opened++
	f.req.Flow, f.req.Now = e.flow, base+e.at
	var c followed
	for i, g := range f.groups {
		c.choices[i] = g.Open(&f.req, trial.NoSlot)
	}
	if len(f.conns) >= f.most || e.id == noID {
		f.stats.Unheld++
		f.close(&c)
		return
	}
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

// noID is the id of a connection that can't be followed.
const noID = ^uint64(0)
