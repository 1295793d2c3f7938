package live

import (
	"context"

	"uvs/config"
	"uvs/config/atomicfile"
	"uvs/control/api"
)

// Save implements api.Backend's.
func (l *Live) Save(ctx context.Context, r *api.SaveRequest) (*api.Saved, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, err := l.cfg.Director.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	file, err := config.Load(l.name)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "save: the file must be sound before it can be edited: %v", err)
	}
	text, differences, err := file.Edit(config.Running(now), l.lookup)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "save: %v", err)
	}
	out := &api.Saved{File: l.name, Text: string(text), Differences: differences}
	if out.Differences == nil {
		out.Differences = []api.Difference{}
	}
	if r.Write {
		if err := atomicfile.Write(out.File, text, 0o640); err != nil {
			return nil, api.Errorf(api.Invalid, "save: %v", err)
		}
		out.Written = true
		if file, err = config.Parse(out.File, text); err != nil {
			return nil, err
		}
		state, err := file.State(l.lookup)
		if err != nil {
			return nil, err
		}
		l.file, l.state, l.last = file, state, l.leave(state)
		l.file.Slim()
		l.Changed()
		l.seen = stampOf(out.File) // it says what there is: no reload is due
	}
	return out, nil
}
