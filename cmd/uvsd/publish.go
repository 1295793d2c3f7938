package main

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	unwanted func(*service.Table) guard.Desired            // what the host's stack has to be kept off for a table
	more     func([]*service.VirtualService) guard.Desired // and for services alone
	followed func(*service.Table)                          // called when the guard has followed a table
	log      *zap.Logger

	changed chan struct{} // has an element if the guard has more than the table asks for, or may have

	mu      sync.Mutex          // guards what follows, and is held while guard and packet path change
	guarded guard.Desired       // what the guard was last told
	vips    map[netip.Addr]bool // of guarded
	servers map[guard.Server]bool
	seen    uint64 // generation of the last table
}

// publish makes t the packet path's table.
func (p *publisher) publish(t *service.Table) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var want guard.Desired
	if services, few := since(t, p.seen); few {
		want = p.more(services) // the others of t are guarded
	} else {
		want = p.unwanted(t)
	}
	p.seen = t.Generation
	if p.add(&want) {
		p.tell(p.guarded)
	}
	p.plane.Publish(t)
	select {
	case p.changed <- struct{}{}:
	default: // run has yet to look anyway
	}
}

// since returns the services of t that the table of generation seen hadn't, or not so. few says that they aren't simply all.
func since(t *service.Table, seen uint64) (services []*service.VirtualService, few bool) {
	if t.Before != 0 && t.Before == seen {
		return t.Changed, true
	}
	return t.Services, false
}

// followPause is how many times as long as it took to follow a table the next one waits: with many services changed many
// times a second the processor is left to the packet path.
const followPause = 10

// run takes from the guard what the table no longer asks for, until ctx ends.
func (p *publisher) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.changed:
		}
		begin := time.Now()
		p.followed(p.follow())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPause * time.Since(begin)):
		}
	}
}

func (p *publisher) follow() *service.Table {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.plane.Table()
	p.guarded, p.vips, p.servers = guard.Desired{}, nil, nil
	want := p.unwanted(t)
	p.add(&want)
	p.tell(p.guarded)
	return t
}

// add makes guarded what it is and want beside, and says whether that is more.
func (p *publisher) add(want *guard.Desired) (more bool) {
	if p.vips == nil {
		p.vips, p.servers = make(map[netip.Addr]bool), make(map[guard.Server]bool)
	}
	had := len(p.guarded.VIPs) + len(p.guarded.NATServers) + len(p.guarded.Gateways)
	shield := want.FromVIPs && !p.guarded.FromVIPs
	p.guarded.FromVIPs = p.guarded.FromVIPs || want.FromVIPs
	for _, a := range want.VIPs {
		if !p.vips[a] {
			p.vips[a] = true
			p.guarded.VIPs = append(p.guarded.VIPs, a)
		}
	}
	for _, s := range want.NATServers {
		if !p.servers[s] {
			p.servers[s] = true
			p.guarded.NATServers = append(p.guarded.NATServers, s)
		}
	}
	for _, g := range want.Gateways {
		if !slices.Contains(p.guarded.Gateways, g) {
			p.guarded.Gateways = append(p.guarded.Gateways, g)
		}
	}
	return len(p.guarded.VIPs)+len(p.guarded.NATServers)+len(p.guarded.Gateways) > had || shield
}

// tell gives the guard its orders. The packet path goes on without it: service beside a talkative host is better than none.
func (p *publisher) tell(want guard.Desired) {
	if err := p.guard.Update(want); err != nil {
		p.log.Error("the host's stack may interfere with virtual services", zap.Error(err))
	}
}
