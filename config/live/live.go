// Package live keeps a director in line with its configuration file: loads and reloads it, resolves its host names, watches it,
// keeps what run time changed, and writes it back.
package live

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"uvs/config"
	"uvs/control/api"
)

// Director is what a file is applied to; *control.Director is one.
type Director interface {
	Snapshot(ctx context.Context) (*api.Snapshot, error)
	Apply(ctx context.Context, revision uint64, ops []api.Op, settings []api.Setting) (applied bool, err error)
	Services(ctx context.Context, key *api.ServiceKey) ([]api.Service, error)
}

// Config is what a Live is made of.
type Config struct {
	// Director gets what the file says. Required.
	Director Director
	// File is the file as it was loaded when the process began; reloads read its name again. Required.
	File *config.File
	// StateDir is the directory of what outlives the process, with `state: persistent`.
	StateDir string
	// Lookup returns the addresses of a host name. nil: the host's resolver.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// LogLevel is told the file's log level at each load. nil: nobody is.
	LogLevel func(level string)
	// Log gets one line for each difference that is applied. Required.
	Log *zap.Logger
}

// Live is a director's file. Its methods may be called by many goroutines.
type Live struct {
	cfg     Config
	name    string        // of the file
	began   config.Config // what of the file a restart alone changes
	changed chan struct{} // has an element if the director's configuration may have changed

	mu      sync.Mutex // guards what follows; serialises loads
	file    *config.File
	state   *config.State // what file asks for
	last    *config.State // what was applied of that: with what is leaving
	overlay *config.Overlay
	hosts   map[string][]netip.Addr
	missing bool // a host name has no address yet
	leaving []leaver
	seen    stamp  // the file when it was read
	saved   []byte // what the state file has
}

// New makes a Live; nothing is applied until Start.
func New(cfg Config) *Live {
	l := &Live{cfg: cfg, name: cfg.File.Name, changed: make(chan struct{}, 1), file: cfg.File, hosts: map[string][]netip.Addr{}, overlay: new(config.Overlay)}
	if l.cfg.Lookup == nil {
		l.cfg.Lookup = lookupHost
	}
	l.cfg.File = nil // l.file is it, until the next
	l.seen = stampOf(l.name)
	l.began.Interfaces, l.began.ProbeAddresses, l.began.InnerTraffic = cfg.File.Config.Interfaces, cfg.File.Config.ProbeAddresses, cfg.File.Config.InnerTraffic
	l.began.PacketPath, l.began.Limits = cfg.File.Config.PacketPath, cfg.File.Config.Limits
	return l
}

// Start applies the file, and what run time had changed before the last process ended. A host name that has no address is
// left out, and tried again later: a director that doesn't start for a name server is worse than one without a server.
func (l *Live) Start(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.loadOverlay(); err != nil {
		return err
	}
	for _, err := range l.resolve(ctx, l.file) {
		l.cfg.Log.Warn("host name has no address yet", zap.Error(err))
	}
	state, err := l.file.State(l.lookup)
	if err != nil {
		return err
	}
	out := &api.Reload{}
	if err := l.apply(ctx, l.file, state, &api.ReloadRequest{}, out); err != nil {
		return err
	}
	l.cfg.Log.Info("configuration file loaded", zap.String("file", l.file.Name), zap.Int("services", len(state.Services)))
	return nil
}

// Changed says that the director's configuration may have changed. It doesn't block.
func (l *Live) Changed() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Reload implements api.Backend's.
func (l *Live) Reload(ctx context.Context, r *api.ReloadRequest) (*api.Reload, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	begin := time.Now()
	out := &api.Reload{File: l.name, Differences: []api.Difference{}, Restart: []string{}, Errors: []api.FileError{}}
	seen := stampOf(out.File)
	file, err := config.Load(out.File)
	if err == nil {
		l.failures(out, l.resolve(ctx, file))
	}
	var state *config.State
	if err == nil && len(out.Errors) == 0 {
		state, err = file.State(l.lookup)
	}
	if err == nil && len(out.Errors) == 0 {
		out.Restart = append(out.Restart, config.RestartNeeded(&l.began, &file.Config)...)
		err = l.apply(ctx, file, state, r, out)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	l.failures(out, []error{err})
	l.report(out, time.Since(begin))
	if !r.DryRun {
		l.seen = seen // also of a bad file: it is looked at again when it changes
	}
	return out, nil
}

// failures adds errors to a reply, each of a file's by itself.
func (l *Live) failures(out *api.Reload, errs []error) {
	for _, err := range errs {
		var list config.Errors
		switch {
		case err == nil:
		case errors.As(err, &list):
			for _, e := range list {
				out.Errors = append(out.Errors, api.FileError{File: e.File, Line: e.Line, Column: e.Column, Text: e.What})
			}
		default:
			out.Errors = append(out.Errors, api.FileError{Text: err.Error()})
		}
	}
}

// attempts is how often a change is made anew because something else came between.
const attempts = 20

// apply brings the director to what a file asks for, by one change.
func (l *Live) apply(ctx context.Context, file *config.File, state *config.State, r *api.ReloadRequest, out *api.Reload) error {
	mode := file.Config.State
	for range attempts {
		now, err := l.cfg.Director.Snapshot(ctx)
		if err != nil {
			return err
		}
		have := config.Running(now)
		want, dropped := state, []api.Difference(nil)
		if mode == persistent && !r.Prune {
			overlay := l.overlay
			if l.last != nil { // it runs: what run time made is there
				overlay = config.NewOverlay(have, l.last)
			}
			want, dropped = overlay.Over(state)
		}
		keep := mode != persistent && mode != "file" && !r.Prune
		change := config.Diff(have, l.leave(want), l.last, keep)
		out.Differences = append(dropped, change.Differences...)
		if out.Differences == nil {
			out.Differences = []api.Difference{}
		}
		if r.DryRun {
			return nil
		}
		applied := true
		if !change.Empty() {
			if applied, err = l.cfg.Director.Apply(ctx, now.Revision, change.Ops, change.Settings); err != nil {
				return fmt.Errorf("nothing was changed: %w", err)
			}
		}
		if applied {
			out.Applied = true
			l.file, l.state, l.last = file, state, l.leave(state)
			l.file.Slim()
			if l.cfg.LogLevel != nil {
				l.cfg.LogLevel(file.Config.Log.Level)
			}
			l.Changed()
			return nil
		}
	}
	return errors.New("nothing was changed: the director was changed by others all the time")
}

const persistent = "persistent"

// maxLines is how many differences the log has one by one.
const maxLines = 100

// report logs a reload.
func (l *Live) report(out *api.Reload, took time.Duration) {
	for i, e := range out.Errors {
		if i == maxLines {
			l.cfg.Log.Error("and more", zap.Int("errors", len(out.Errors)-i))
			break
		}
		l.cfg.Log.Error("configuration file: "+e.Text, zap.String("file", e.File), zap.Int("line", e.Line), zap.Int("column", e.Column))
	}
	if len(out.Errors) > 0 {
		l.cfg.Log.Error("configuration file not loaded, nothing was changed", zap.String("file", out.File))
	}
	if !out.Applied {
		return
	}
	l.logDifferences(out.Differences)
	for _, text := range out.Restart {
		l.cfg.Log.Warn("configuration file: needs a restart of uvsd", zap.String("what", text))
	}
	l.cfg.Log.Info("configuration file reloaded", zap.String("file", out.File), zap.Int("differences", len(out.Differences)), zap.Duration("took", took))
}

func (l *Live) logDifferences(list []api.Difference) {
	for i := range list {
		if i == maxLines {
			l.cfg.Log.Info("and more", zap.Int("differences", len(list)-i))
			break
		}
		x := &list[i]
		fields := []zap.Field{zap.String("kind", x.Kind)}
		if x.Service != nil {
			fields = append(fields, zap.Stringer("service", x.Service))
		}
		if x.Server != nil {
			fields = append(fields, zap.Stringer("server", x.Server))
		}
		if x.Label != "" {
			fields = append(fields, zap.String("name", x.Label))
		}
		if x.Text != "" {
			fields = append(fields, zap.String("what", x.Text))
		}
		l.cfg.Log.Info("configuration", fields...)
	}
}
