package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"uvs/dataplane/guard"
	"uvs/packet"
	"uvs/service"
)

// localServers are the real servers that are the host itself, by what their answers show. One that was removed stays as long
// as connections hold it: their answers must not go astray.
type localServers struct {
	lead   func([]guard.Server) // makes their answers come back, and no others'
	remade chan struct{}        // the device was made, perhaps anew

	mu      sync.Mutex // guards what follows, and is held while lead runs
	servers map[guard.Server]map[*service.RealServer]struct{}
}

// localReview is how often it is looked whether removed servers still have connections.
const localReview = 30 * time.Second

func newLocalServers(lead func([]guard.Server)) *localServers {
	return &localServers{
		lead: lead, remade: make(chan struct{}, 1), servers: make(map[guard.Server]map[*service.RealServer]struct{}),
	}
}

// add sees to it that what the local servers of services answer comes back to uvsd.
func (l *localServers) add(services []*service.VirtualService) {
	l.mu.Lock()
	defer l.mu.Unlock()
	added := false
	for _, vs := range services {
		for _, rs := range vs.Servers {
			if rs.Method() != service.Local {
				continue
			}
			for _, s := range localServer(vs, rs) {
				if l.servers[s] == nil {
					l.servers[s] = make(map[*service.RealServer]struct{})
					added = true
				}
				l.servers[s][rs] = struct{}{}
			}
		}
	}
	if added {
		l.leadLocked()
	}
}

// localServer is a real server as its answers show it. A fwmark service's may be of either protocol.
func localServer(vs *service.VirtualService, rs *service.RealServer) []guard.Server {
	if vs.Mark == 0 {
		return []guard.Server{{Addr: rs.Addr, Proto: uint8(vs.Proto)}}
	}
	return []guard.Server{{Addr: rs.Addr, Proto: packet.ProtoTCP}, {Addr: rs.Addr, Proto: packet.ProtoUDP}}
}

func (l *localServers) leadLocked() { l.lead(slices.Collect(maps.Keys(l.servers))) }

// again tells run that the device was made: the route into an old one went with it.
func (l *localServers) again() {
	select {
	case l.remade <- struct{}{}:
	default:
	}
}

// run forgets servers that are gone, from time to time, until ctx ends.
func (l *localServers) run(ctx context.Context) error {
	tick := time.NewTicker(localReview)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.remade:
			l.mu.Lock()
			l.leadLocked()
			l.mu.Unlock()
		case <-tick.C:
			l.forget()
		}
	}
}

func (l *localServers) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	forgot := false
	for s, servers := range l.servers {
		maps.DeleteFunc(servers, func(rs *service.RealServer, _ struct{}) bool { return !rs.Available() && rs.Refs() == 0 })
		if len(servers) == 0 {
			delete(l.servers, s)
			forgot = true
		}
	}
	if forgot {
		l.leadLocked()
	}
}
