package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"uvs/config"
	"uvs/config/atomicfile"
	"uvs/control/api"
)

// watchTime is how often the file is looked at, with watch: true.
const watchTime = time.Second

// stamp tells whether a file is another than before.
type stamp struct {
	size  int64
	time  time.Time
	there bool
}

func stampOf(name string) stamp {
	info, err := os.Stat(name)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime(), true}
}

// Run reloads on a signal, and with watch when the file has changed; resolves host names again; keeps what run time changed.
// It ends with ctx. Start has been called.
func (l *Live) Run(ctx context.Context, hup <-chan os.Signal) error {
	watch := time.NewTicker(watchTime)
	defer watch.Stop()
	var before stamp
	resolved := time.Now()
	for {
		select {
		case <-ctx.Done():
			return l.keep(context.WithoutCancel(ctx))
		case <-hup:
			if _, err := l.Reload(ctx, &api.ReloadRequest{}); err != nil && ctx.Err() == nil {
				l.cfg.Log.Error("configuration file not loaded", zap.Error(err))
			}
		case <-l.changed:
			begin := time.Now()
			if err := l.keep(ctx); err != nil && ctx.Err() == nil {
				l.cfg.Log.Error("what was changed at run time could not be kept", zap.Error(err))
			}
			rest(ctx, keepPause*time.Since(begin))
		case <-watch.C:
			now := stampOf(l.name)
			l.mu.Lock()
			due := l.file.Config.Watch && now.there && now != l.seen && now == before // nobody is writing it
			every := time.Duration(l.file.Config.Resolve)
			if l.missing || len(l.leaving) > 0 {
				every = retryTime
			}
			l.mu.Unlock()
			before = now
			if due {
				l.cfg.Log.Info("configuration file has changed", zap.String("file", l.name))
				if _, err := l.Reload(ctx, &api.ReloadRequest{}); err != nil && ctx.Err() == nil {
					l.cfg.Log.Error("configuration file not loaded", zap.Error(err))
				}
			}
			if every > 0 && time.Since(resolved) >= every {
				l.resolveAgain(ctx)
				resolved = time.Now()
			}
		}
	}
}

// keepPause is how many times as long as it took to keep a change the next one waits, so that many small changes of a large
// director leave the processor to the packet path.
const keepPause = 5

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(d, time.Second)):
	}
}

// kept is the state file.
type kept struct {
	// Version is that of the form. A file of another is refused.
	Version int `json:"version"`
	// File is the configuration file that the overlay belongs to.
	File    string          `json:"file"`
	Overlay *config.Overlay `json:"overlay"`
}

const keptVersion = 1

func (l *Live) keptName() string { return filepath.Join(l.cfg.StateDir, "runtime.json") }

// loadOverlay reads what the last process kept. With another mode than persistent there is nothing to keep.
func (l *Live) loadOverlay() error {
	if l.file.Config.State != persistent {
		return nil
	}
	if err := os.MkdirAll(l.cfg.StateDir, 0o750); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := atomicfile.Clean(l.cfg.StateDir); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	data, err := os.ReadFile(l.keptName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state kept at run time: %w", err)
	}
	k := kept{Overlay: new(config.Overlay)}
	if err := json.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("%s: %w; remove it to begin with the configuration file alone", l.keptName(), err)
	}
	if k.Version != keptVersion || k.Overlay == nil {
		return fmt.Errorf("%s has the form of another version, %d; remove it to begin with the configuration file alone", l.keptName(), k.Version)
	}
	l.overlay, l.saved = k.Overlay, data
	return nil
}

// keep writes what run time changed to the state directory, if it is to be kept and is other than what is there.
func (l *Live) keep(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file.Config.State != persistent || l.last == nil {
		return nil
	}
	now, err := l.cfg.Director.Snapshot(ctx)
	if err != nil {
		return err
	}
	overlay := config.NewOverlay(config.Running(now), l.last)
	data, err := json.MarshalIndent(kept{keptVersion, l.name, overlay}, "", " ")
	if err != nil || string(data) == string(l.saved) {
		return err
	}
	if err := os.MkdirAll(l.cfg.StateDir, 0o750); err != nil {
		return err
	}
	if err := atomicfile.Write(l.keptName(), data, 0o600); err != nil {
		return err
	}
	l.saved = data
	return nil
}
