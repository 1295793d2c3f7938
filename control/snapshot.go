package control

import (
	"context"
	"net/netip"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// Snapshot returns all that is configured, as of one moment.
func (d *Director) Snapshot(ctx context.Context) (*api.Snapshot, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t := d.cfg.Connections.Timeouts()
	out := &api.Snapshot{
		Revision: d.revision, Marks: append([]api.MarkRule(nil), d.marks.order...), Daemons: append([]api.Daemon(nil), d.daemons...),
		Services: make([]api.Service, 0, len(d.order)),
		Timeouts: api.Timeouts{TCP: uint32(t.TCP.Seconds()), TCPFin: uint32(t.TCPFin.Seconds()), UDP: uint32(t.UDP.Seconds())},
	}
	for _, c := range sysctl.All() {
		out.Settings = append(out.Settings, c.Describe(&d.settings))
	}
	for _, v := range d.order {
		row := api.Service{
			ServiceKey: apiKey(v.key), Label: v.label, Config: v.config.api(), Checks: specsOf(v.checks), Policy: v.policy.set,
			Servers: make([]api.Server, 0, len(v.servers)),
		}
		for _, s := range v.all() {
			config := s.config.api()
			if x := d.drainOfLocked(s); x != nil {
				config.Weight = int(x.weight)
			}
			a := s.rs.Addr
			row.Servers = append(row.Servers, api.Server{
				ServerKey: api.ServerKey{Address: a.Addr(), Port: a.Port()}, Label: s.label, Config: config, Checks: specsOf(s.checks),
			})
		}
		out.Services = append(out.Services, row)
	}
	return out, ctx.Err()
}

// drainOfLocked is the drain that took a server's weight, or nil if it has a weight.
func (d *Director) drainOfLocked(s *server) *drain {
	if x := d.drains[s.rs]; x != nil && s.config.weight == 0 {
		return x
	}
	return nil
}

// Apply makes a change of operations and settings, all or nothing, if nothing changed since a snapshot of that revision; with
// another revision it does nothing and returns false. A server that is being drained goes on being drained: it will get the
// weight that the change gives it.
func (d *Director) Apply(ctx context.Context, revision uint64, ops []api.Op, settings []api.Setting) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil || d.revision != revision {
		return false, err
	}
	wanted := d.settings
	for i := range settings {
		c, err := sysctl.Find(settings[i].Name)
		if err == nil {
			err = c.Set(&wanted, settings[i].Value)
		}
		if err != nil {
			return false, tried(err, "set %s to %q", settings[i].Name, settings[i].Value)
		}
	}
	ops, weights := d.keepDrainedLocked(ops)
	p := &plan{d: d, services: map[service.Key]*planned{}}
	for i := range ops {
		if err := p.add(&ops[i]); err != nil {
			return false, err
		}
	}
	for x, weight := range weights {
		x.weight = weight
	}
	due, before := d.adoptSettingsLocked(&wanted), d.table.Load()
	if len(p.effects) > 0 {
		d.applyLocked(p.effects)
	}
	if due && d.table.Load() == before { // else the change's table has the settings too
		d.publishLocked(d.newTableLocked(before.Services, nil))
	}
	return true, nil
}

// keepDrainedLocked leaves servers that are being drained the weight 0, and returns the weights that they shall get back.
func (d *Director) keepDrainedLocked(ops []api.Op) ([]api.Op, map[*drain]int32) {
	if len(d.drains) == 0 {
		return ops, nil
	}
	out, weights := append([]api.Op(nil), ops...), map[*drain]int32{}
	for i := range out {
		op := &out[i]
		if op.Kind != api.EditServer || op.ServerConfig.Weight == 0 {
			continue
		}
		v := d.services[keyOf(op.Service)]
		if v == nil {
			continue
		}
		s := v.servers[netip.AddrPortFrom(op.Server.Address, op.Server.Port)]
		if s == nil {
			continue
		}
		if x := d.drainOfLocked(s); x != nil {
			weights[x] = int32(op.ServerConfig.Weight)
			config := *op.ServerConfig
			config.Weight = 0
			op.ServerConfig = &config
		}
	}
	return out, weights
}

// changedLocked tells who wants to know that something that is configured has changed.
func (d *Director) changedLocked() {
	if d.cfg.Changed != nil {
		d.cfg.Changed()
	}
}

var errNoFile = refusal(api.Unsupported, "uvsd was started without a configuration file: --config names one")

// Reload implements api.Backend.
func (d *Director) Reload(ctx context.Context, r *api.ReloadRequest) (*api.Reload, error) {
	if d.cfg.Reload == nil {
		return nil, errNoFile
	}
	return d.cfg.Reload(ctx, r)
}

// Save implements api.Backend.
func (d *Director) Save(ctx context.Context, r *api.SaveRequest) (*api.Saved, error) {
	if d.cfg.Save == nil {
		return nil, errNoFile
	}
	return d.cfg.Save(ctx, r)
}
