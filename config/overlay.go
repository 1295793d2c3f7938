package config

import (
	"fmt"
	"maps"
	"slices"

	"uvs/control/api"
)

// Overlay is what changes made at run time have made of a file's state: for all that differs what the file had, and what there
// is now. It is kept in the state directory, and put over the file when that is loaded again. Where the file itself says
// something else by then, the file is right.
type Overlay struct {
	// Services are those that differ.
	Services []ServiceOverlay `json:"services,omitempty"`
	// Marks is there if the lists of mark rules differ.
	Marks *Pair[[]api.MarkRule] `json:"marks,omitempty"`
	// Settings has those that differ by their names; an empty value is one that isn't given.
	Settings map[string]Pair[string] `json:"settings,omitempty"`
	// Timeouts and Daemons are there if they differ.
	Timeouts *Pair[api.Timeouts] `json:"timeouts,omitempty"`
	Daemons  *Pair[[]api.Daemon] `json:"daemons,omitempty"`
}

// Pair is what a file had, and what there is now.
type Pair[T any] struct {
	File T `json:"file"`
	Now  T `json:"now"`
}

// ServiceOverlay is a service that differs from the file's. File is nil for one that was made at run time, Now for one that was
// removed.
type ServiceOverlay struct {
	File *ServiceState `json:"file,omitempty"`
	Now  *ServiceState `json:"now,omitempty"`
}

// Empty says that nothing differs.
func (o *Overlay) Empty() bool {
	return len(o.Services) == 0 && o.Marks == nil && len(o.Settings) == 0 && o.Timeouts == nil && o.Daemons == nil
}

// NewOverlay is what have, which a director has, differs in from file, which its file says.
func NewOverlay(have, file *State) *Overlay {
	o := new(Overlay)
	had, filed := have.index(), file.index()
	for _, f := range file.Services {
		if h := had[f.Key]; h == nil || !sameService(h, f) {
			o.Services = append(o.Services, ServiceOverlay{File: f, Now: h})
		}
	}
	for _, h := range have.Services {
		if filed[h.Key] == nil {
			o.Services = append(o.Services, ServiceOverlay{Now: h})
		}
	}
	if plain := plainRules(file.Marks); !slices.Equal(have.Marks, plain) {
		o.Marks = &Pair[[]api.MarkRule]{plain, have.Marks}
	}
	d := differ{last: new(State)} // without keep it names every setting that is to be changed
	d.settings(have.Settings, file.Settings)
	for _, s := range d.Settings {
		if o.Settings == nil {
			o.Settings = map[string]Pair[string]{}
		}
		o.Settings[s.Name] = Pair[string]{file.Settings[s.Name], have.Settings[s.Name]}
	}
	d.Ops = nil
	d.timeouts(have.Timeouts, file.Timeouts)
	if len(d.Ops) > 0 {
		o.Timeouts = &Pair[api.Timeouts]{file.Timeouts, have.Timeouts}
	}
	d.Ops = nil
	d.daemons(have.Daemons, file.Daemons)
	if len(d.Ops) > 0 {
		o.Daemons = &Pair[[]api.Daemon]{file.Daemons, have.Daemons}
	}
	return o
}

func plainRules(rules []api.MarkRule) []api.MarkRule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].Src, out[i].Dst = out[i].Src.Masked(), out[i].Dst.Masked()
	}
	return out
}

// Over puts the overlay over what a file says. The differences are those of its parts that are dropped, since the file says
// something else than when they were made.
func (o *Overlay) Over(file *State) (*State, []api.Difference) {
	m := merger{}
	out := &State{Marks: file.Marks, Settings: maps.Clone(file.Settings), Timeouts: file.Timeouts, Daemons: file.Daemons}
	of := map[api.ServiceKey]*ServiceOverlay{}
	for i := range o.Services {
		of[o.Services[i].key()] = &o.Services[i]
	}
	filed := file.index()
	for _, f := range file.Services {
		if x := of[f.Key]; x == nil {
			out.Services = append(out.Services, f)
		} else if v := m.service(f, x); v != nil {
			out.Services = append(out.Services, v)
		}
	}
	for i := range o.Services {
		x := &o.Services[i]
		if filed[x.key()] != nil {
			continue
		}
		if x.File == nil && x.Now != nil {
			out.Services = append(out.Services, x.Now)
		} else if x.Now != nil {
			m.dropped(&x.File.Key, nil, x.File.Label, "the file has it no more: what was changed at run time goes with it")
		}
	}
	if x := o.Marks; x != nil {
		if now := plainRules(file.Marks); slices.Equal(now, x.File) {
			out.Marks = x.Now
		} else if !slices.Equal(now, x.Now) {
			m.dropped(nil, nil, "", "mark rules: the file's are others now, and those made at run time are dropped")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		x := o.Settings[name]
		if file.Settings[name] == x.Now {
			continue
		}
		if file.Settings[name] != x.File {
			m.dropped(nil, nil, "", fmt.Sprintf("setting %s: the file says another now", name))
			continue
		}
		if out.Settings == nil {
			out.Settings = map[string]string{}
		}
		out.Settings[name] = x.Now
	}
	if x := o.Timeouts; x != nil {
		if file.Timeouts == x.File {
			out.Timeouts = x.Now
		} else if complete(file).Timeouts != x.Now {
			m.dropped(nil, nil, "", "timeouts: the file says others now")
		}
	}
	if x := o.Daemons; x != nil {
		if slices.Equal(file.Daemons, x.File) {
			out.Daemons = x.Now
		} else if d := (differ{last: new(State)}); d.differ(x.Now, file.Daemons) {
			m.dropped(nil, nil, "", "sync daemons: the file says others now")
		}
	}
	return out, m.rows
}

func (x *ServiceOverlay) key() api.ServiceKey {
	if x.File != nil {
		return x.File.Key
	}
	if x.Now != nil {
		return x.Now.Key
	}
	return api.ServiceKey{}
}

// merger puts parts of an overlay over those of a file.
type merger struct{ rows []api.Difference }

func (m *merger) dropped(service *api.ServiceKey, server *api.ServerKey, label, text string) {
	m.rows = append(m.rows, api.Difference{Kind: api.Dropped, Service: service, Server: server, Label: label, Text: text})
}

// service merges one; nil if it was removed at run time.
func (m *merger) service(f *ServiceState, x *ServiceOverlay) *ServiceState {
	switch {
	case x.File == nil: // made at run time, and in the file by now
		if x.Now != nil && !sameService(x.Now, f) {
			m.dropped(&f.Key, nil, f.Label, "the file has it now: what was made at run time is dropped")
		}
		return f
	case x.Now == nil:
		if sameService(f, x.File) {
			return nil
		}
		m.dropped(&f.Key, nil, f.Label, "the file has changed it: it is back though it was removed at run time")
		return f
	}
	out := *f
	was := func(text string) { m.dropped(&f.Key, nil, f.Label, text+": the file says something else now") }
	if !sameConfig(&x.File.Config, &x.Now.Config) {
		if sameConfig(&f.Config, &x.File.Config) {
			out.Config = x.Now.Config
		} else if !sameConfig(&f.Config, &x.Now.Config) {
			was("settings made at run time are dropped")
		}
	}
	if x.File.Label != x.Now.Label && f.Label == x.File.Label {
		out.Label = x.Now.Label
	}
	if !sameObject(x.File.Policy, x.Now.Policy) {
		if sameObject(f.Policy, x.File.Policy) {
			out.Policy = x.Now.Policy
		} else if !sameObject(f.Policy, x.Now.Policy) {
			was("the health policy made at run time is dropped")
		}
	}
	if !sameChecks(x.File.Checks, x.Now.Checks) {
		if sameChecks(f.Checks, x.File.Checks) {
			out.Checks = x.Now.Checks
		} else if !sameChecks(f.Checks, x.Now.Checks) {
			was("checks made at run time are dropped")
		}
	}
	out.Servers = m.servers(f, x)
	return &out
}

func (m *merger) servers(f *ServiceState, x *ServiceOverlay) (list []ServerState) {
	for i := range f.Servers {
		s := &f.Servers[i]
		was, now := x.File.server(s.Key), x.Now.server(s.Key)
		switch {
		case was != nil && now != nil && sameServer(was, now):
		case was != nil && sameServer(s, was):
			if now != nil {
				list = append(list, *now)
			}
			continue
		case was == nil && now == nil, now != nil && sameServer(s, now):
		default:
			m.dropped(&f.Key, &s.Key, s.Label, "the file says something else now than when it was changed at run time")
		}
		list = append(list, *s)
	}
	for i := range x.Now.Servers {
		s := &x.Now.Servers[i]
		if x.File.server(s.Key) == nil && f.server(s.Key) == nil {
			list = append(list, *s)
		}
	}
	return list
}

// differ says that sync daemons would have to be started or stopped.
func (d *differ) differ(have, want []api.Daemon) bool {
	d.daemons(have, want)
	return len(d.Ops) > 0
}
