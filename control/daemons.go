package control

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"uvs/control/api"
)

// Defaults of a sync daemon (ip_vs_sync.c).
const (
	syncGroup = "224.0.0.81"
	syncPort  = 8848
	syncTTL   = 1
	// syncHeaders is how much of the interface's MTU goes for IPv4 and UDP, syncHeaders6 for IPv6 and UDP.
	syncHeaders, syncHeaders6 = 28, 48
	// syncLeast and syncOf: a message of one byte is taken for one of this length, as recorded of the kernel.
	syncLeast, syncOf = 1, 1024
)

// plannedDaemons are the sync daemons as a plan leaves them, once it touched them.
type plannedDaemons struct {
	touched bool
	list    []api.Daemon
}

// daemonsOf is the plan's view of the sync daemons.
func (p *plan) daemonsOf() *plannedDaemons {
	if !p.daemons.touched {
		p.daemons = plannedDaemons{true, slices.Clone(p.d.daemons)}
	}
	return &p.daemons
}

// startDaemon judges the start of a sync daemon, and returns it with the defaults filled in.
func (p *plan) startDaemon(d *api.Daemon) (api.Daemon, error) {
	now, out := p.daemonsOf(), *d
	if slices.ContainsFunc(now.list, func(o api.Daemon) bool { return o.Role == d.Role }) {
		return out, refusal(api.DaemonExists, "it runs already")
	}
	mtu := 0
	if p.d.cfg.InterfaceMTU != nil {
		mtu = p.d.cfg.InterfaceMTU(d.Interface)
	}
	headers := syncHeaders
	if a, err := netip.ParseAddr(d.Group); err == nil && a.Is6() {
		headers = syncHeaders6
	}
	if mtu <= headers {
		return out, refusal(api.NoDevice, "no interface %q to send by", d.Interface)
	}
	switch out.MaxLen {
	case 0:
		out.MaxLen = uint16(min(mtu-headers, 0xffff))
	case syncLeast:
		out.MaxLen = syncOf
	}
	out.Group, out.Port, out.TTL = cmp.Or(out.Group, syncGroup), cmp.Or(out.Port, syncPort), cmp.Or(out.TTL, syncTTL)
	now.list = append(now.list, out)
	return out, nil
}

// stopDaemon judges the end of a sync daemon.
func (p *plan) stopDaemon(role string) error {
	now := p.daemonsOf()
	i := slices.IndexFunc(now.list, func(o api.Daemon) bool { return o.Role == role })
	if i < 0 {
		return refusal(api.DaemonNotRunning, "none is running")
	}
	now.list = slices.Delete(now.list, i, i+1)
	return nil
}

// applyDaemonLocked puts the start or end of a sync daemon into force: the master is listed first.
func (d *Director) applyDaemonLocked(kind api.OpKind, x *api.Daemon) {
	d.daemons = slices.DeleteFunc(d.daemons, func(o api.Daemon) bool { return o.Role == x.Role })
	if kind == api.StartDaemon {
		d.daemons = append(d.daemons, *x)
		slices.SortFunc(d.daemons, func(a, b api.Daemon) int { return cmp.Compare(b.Role, a.Role) })
		d.cfg.Log.Warn("the sync daemon is kept and listed, but this version synchronises no connections")
	}
}

// Daemons implements api.Backend.
func (d *Director) Daemons(ctx context.Context) ([]api.Daemon, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.daemons), ctx.Err()
}
