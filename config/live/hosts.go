package live

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"uvs/config"
	"uvs/control/api"
)

const (
	lookupTime = 5 * time.Second
	lookups    = 16 // at once
	retryTime  = 10 * time.Second
)

// lookupHost asks the host's resolver.
func lookupHost(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// lookup is the addresses that a name had when it was resolved last.
func (l *Live) lookup(name string) ([]netip.Addr, error) { return l.hosts[name], nil }

// resolve asks for the addresses of a file's host names. One that fails keeps the addresses that it had; the errors are of those
// that had none.
func (l *Live) resolve(ctx context.Context, file *config.File) (failed []error) {
	var mu sync.Mutex
	found := map[string][]netip.Addr{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	names := file.HostNames()
	l.missing = false
	for _, name := range names {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			list, err := l.cfg.Lookup(ctx, name)
			list = plain(list)
			if err == nil && len(list) == 0 {
				err = errors.New("no address")
			}
			mu.Lock()
			defer mu.Unlock()
			switch had := l.hosts[name]; {
			case err == nil:
				found[name] = list
			case len(had) > 0:
				found[name] = had
				l.cfg.Log.Warn("host name keeps its addresses: it cannot be resolved", zap.String("host", name), zap.Error(err))
			default:
				failed = append(failed, fmt.Errorf("host name %s cannot be resolved: %w", name, err))
				l.missing = true
			}
			return nil
		})
	}
	_ = g.Wait() // they fail by themselves
	l.hosts = found
	return failed
}

// plain sorts addresses, each once, without those that no packet goes to.
func plain(list []netip.Addr) (out []netip.Addr) {
	for _, a := range list {
		if a = a.Unmap().WithZone(""); !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// leaver is a server whose host name has another address now, or a service likewise: it stays with the weight 0 until its last
// connection has ended.
type leaver struct {
	service config.ServiceState
	server  *config.ServerState // nil: the service with all its servers
}

// resolveAgain asks for the addresses of host names anew and applies what differs.
func (l *Live) resolveAgain(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.resolve(ctx, l.file) {
		l.cfg.Log.Warn("host name has no address yet", zap.Error(err))
	}
	state, err := l.file.State(l.lookup)
	if err == nil {
		l.noteLeaving(l.state, state)
		l.dropEmpty(ctx)
		out := &api.Reload{}
		if err = l.apply(ctx, l.file, state, &api.ReloadRequest{}, out); err == nil {
			l.logDifferences(slices.DeleteFunc(out.Differences, func(x api.Difference) bool { return x.Kind == api.Kept }))
		}
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Log.Error("host names were resolved, but nothing was changed", zap.Error(err))
	}
}

// noteLeaving notes what was in one state of a file and isn't in another.
func (l *Live) noteLeaving(before, after *config.State) {
	now := map[api.ServiceKey]*config.ServiceState{}
	for _, v := range after.Services {
		now[v.Key] = v
	}
	for _, v := range before.Services {
		w := now[v.Key]
		if w == nil {
			l.leaving = append(l.leaving, leaver{service: *v})
			continue
		}
		for i := range v.Servers {
			if s := &v.Servers[i]; !slices.ContainsFunc(w.Servers, func(x config.ServerState) bool { return x.Key == s.Key }) {
				l.leaving = append(l.leaving, leaver{*v, s})
			}
		}
	}
}

// leave adds to a state what is leaving.
func (l *Live) leave(state *config.State) *config.State {
	if len(l.leaving) == 0 {
		return state
	}
	out := *state
	out.Services = slices.Clone(state.Services)
	for i := range l.leaving {
		x := &l.leaving[i]
		at := slices.IndexFunc(out.Services, func(v *config.ServiceState) bool { return v.Key == x.service.Key })
		switch {
		case at < 0 && x.server == nil:
			v := x.service
			v.Servers = slices.Clone(v.Servers)
			for j := range v.Servers {
				v.Servers[j].Config.Weight = 0
			}
			out.Services = append(out.Services, &v)
		case at >= 0 && x.server != nil:
			v := *out.Services[at]
			if slices.ContainsFunc(v.Servers, func(s config.ServerState) bool { return s.Key == x.server.Key }) {
				continue // it is back
			}
			s := *x.server
			s.Config.Weight = 0
			v.Servers = append(slices.Clone(v.Servers), s)
			out.Services[at] = &v
		}
	}
	return &out
}

// dropEmpty forgets what was leaving and has no connection any more.
func (l *Live) dropEmpty(ctx context.Context) {
	if len(l.leaving) == 0 {
		return
	}
	services, err := l.cfg.Director.Services(ctx, nil)
	if err != nil {
		return
	}
	busy := map[api.ServiceKey]map[api.ServerKey]bool{}
	for i := range services {
		v := &services[i]
		for j := range v.Servers {
			if s := &v.Servers[j]; s.Active+s.Inactive+s.Persistent > 0 {
				if busy[v.ServiceKey] == nil {
					busy[v.ServiceKey] = map[api.ServerKey]bool{}
				}
				busy[v.ServiceKey][s.ServerKey] = true
			}
		}
	}
	known := map[api.ServiceKey]bool{}
	for i := range services {
		known[services[i].ServiceKey] = true
	}
	l.leaving = slices.DeleteFunc(l.leaving, func(x leaver) bool {
		of := busy[x.service.Key]
		switch {
		case !known[x.service.Key]:
			return true
		case x.server == nil:
			return len(of) == 0
		}
		return !of[x.server.Key]
	})
}
