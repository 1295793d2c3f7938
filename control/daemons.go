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
	// syncHeaders is how much of a packet goes for IPv4 and UDP, syncHeaders6 for IPv6 and UDP.
	syncHeaders, syncHeaders6 = 28, 48
	// syncMTU is what a master's messages fit whatever its interface's MTU, and the least that a backup is ready for.
	syncMTU = 1500
	// backupLeast is the shortest limit that a backup takes.
	backupLeast = 1024
	maxDatagram = 65535
)

// syncMaxLen is the limit of a daemon's messages, with an interface of that MTU: what was asked for within its bounds, and
// what fits by default.
func syncMaxLen(d *api.Daemon, mtu int) uint16 {
	headers := syncHeaders
	if a, err := netip.ParseAddr(d.Group); err == nil && a.Is6() {
		headers = syncHeaders6
	}
	least, fits := 1, syncMTU
	if d.Role == api.Backup {
		least, fits = backupLeast, min(max(mtu, syncMTU), maxDatagram)
	}
	if d.MaxLen == 0 {
		return uint16(fits - headers)
	}
	return uint16(min(max(int(d.MaxLen), least), maxDatagram-headers))
}

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
	if mtu == 0 {
		return out, refusal(api.NoDevice, "no interface %q to send by", d.Interface)
	}
	out.MaxLen = syncMaxLen(d, mtu)
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
