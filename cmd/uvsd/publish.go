package main

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"

	"uvs/dataplane/guard"
	"uvs/service"
)

// publisher brings a table to the packet path and the host's guard in line with it. The guard stands before the packet path
// takes the first packet for a new address, and goes after the last one for an old: in between the host's stack would
// answer as well.
type publisher struct {
	guard interface{ Update(guard.Desired) error }
	plane interface {
		Publish(*service.Table)
		Table() *service.Table
	}
	unwanted func(*service.Table) guard.Desired // what the host's stack has to be kept off for a table
	followed func(*service.Table)               // called when the guard has followed a table
	log      *zap.Logger

	changed chan struct{} // has an element if the guard has more than the table asks for, or may have

	mu      sync.Mutex    // guards guarded, and is held while guard and packet path change
	guarded guard.Desired // what the guard was last told
}

// publish makes t the packet path's table.
func (p *publisher) publish(t *service.Table) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := union(p.guarded, p.unwanted(t)); !same(want, p.guarded) {
		p.tell(want)
	}
	p.plane.Publish(t)
	select {
	case p.changed <- struct{}{}:
	default: // run has yet to look anyway
	}
}

// run takes from the guard what the table no longer asks for, until ctx ends.
func (p *publisher) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.changed:
			p.followed(p.follow())
		}
	}
}

func (p *publisher) follow() *service.Table {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.plane.Table()
	p.tell(p.unwanted(t))
	return t
}

// tell gives the guard its orders. The packet path goes on without it: service beside a talkative host is better than none.
func (p *publisher) tell(want guard.Desired) {
	p.guarded = want
	if err := p.guard.Update(want); err != nil {
		p.log.Error("the host's stack may interfere with virtual services", zap.Error(err))
	}
}

// union is everything that is in a or b.
func union(a, b guard.Desired) guard.Desired {
	return guard.Desired{
		VIPs:       join(a.VIPs, b.VIPs),
		NATServers: join(a.NATServers, b.NATServers),
		Gateways:   join(a.Gateways, b.Gateways),
	}
}

// join is a and what b has beside.
func join[T comparable](a, b []T) []T {
	seen := make(map[T]bool, len(a))
	for _, v := range a {
		seen[v] = true
	}
	all := slices.Clip(a)
	for _, v := range b {
		if !seen[v] {
			seen[v] = true
			all = append(all, v)
		}
	}
	return all
}

// same says that all has no more than some, every part of which it has.
func same(all, some guard.Desired) bool {
	return len(all.VIPs) == len(some.VIPs) && len(all.NATServers) == len(some.NATServers) && len(all.Gateways) == len(some.Gateways)
}
