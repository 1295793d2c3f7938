package control

import (
	"context"

	"go.uber.org/zap"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// Settings implements api.Backend.
func (d *Director) Settings(ctx context.Context, names []string) ([]api.Setting, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(names) == 0 {
		for _, c := range sysctl.All() {
			names = append(names, c.Name)
		}
	}
	list := make([]api.Setting, len(names))
	for i, name := range names {
		c, err := sysctl.Find(name)
		if err != nil {
			return nil, err
		}
		list[i] = c.Describe(&d.settings)
	}
	return list, ctx.Err()
}

// Set implements api.Backend.
func (d *Director) Set(ctx context.Context, settings []api.Setting) ([]api.Setting, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wanted := d.settings
	changed := make([]*sysctl.Setting, len(settings))
	for i := range settings {
		c, err := sysctl.Find(settings[i].Name)
		if err == nil {
			changed[i] = c
			err = c.Set(&wanted, settings[i].Value)
		}
		if err != nil {
			return nil, tried(err, "set %s to %q", settings[i].Name, settings[i].Value)
		}
	}
	d.applySettingsLocked(&wanted)
	list := make([]api.Setting, len(changed))
	for i, c := range changed {
		list[i] = c.Describe(&d.settings)
		d.cfg.Log.Debug("setting changed", zap.String("name", list[i].Name), zap.String("value", list[i].Value))
	}
	return list, nil
}

// applySettingsLocked puts settings into force: for the packet path, the connection table, the schedulers.
func (d *Director) applySettingsLocked(s *service.Settings) {
	if d.adoptSettingsLocked(s) {
		d.publishLocked(d.newTableLocked(d.table.Load().Services, nil))
	}
}

// adoptSettingsLocked is all of that but for the table, and says whether one is due.
func (d *Director) adoptSettingsLocked(s *service.Settings) bool {
	if d.settings == *s {
		return false
	}
	d.settings = *s
	d.defendLocked()
	d.tellConnectionsLocked()
	d.cfg.Sched.LBLCExpiration, d.cfg.Sched.LBLCRExpiration = s.LBLCExpiration, s.LBLCRExpiration
	for _, v := range d.order {
		d.cfg.Sched.Apply(v.sched)
	}
	d.revision++
	d.changedLocked()
	return true
}

// tellConnectionsLocked gives the connection table its part of the settings.
func (d *Director) tellConnectionsLocked() {
	s := &d.settings
	d.cfg.Connections.SetSettings(conntrack.Settings{
		ConnReuseMode: s.ConnReuseMode, ExpireNodestConn: s.ExpireNodestConn,
		ExpireQuiescentTemplate: s.ExpireQuiescentTemplate, SecureTCP: d.defence.secureTCP,
		KeepTemplateTimeout: s.KeepTemplateTimeout,
	})
}

// newTableLocked makes a table of services, which differ from those of the table in force as changed says, with everything
// else as it is desired.
func (d *Director) newTableLocked(services []*service.VirtualService, changed []service.Replacement) *service.Table {
	options := []service.Option{
		service.WithMarks(d.marks.compiled), service.WithSettings(&d.settings), service.WithLimiter(&d.limiter),
	}
	if t := d.table.Load(); t != nil {
		return t.Next(services, changed, d.revision, options...)
	}
	return service.NewTable(services, d.cfg.Servers, d.revision, options...)
}
