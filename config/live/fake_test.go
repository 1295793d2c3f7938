package live

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// fake is a director as far as a file is concerned: it applies operations to lists, the slow and obvious way.
type fake struct {
	mu       sync.Mutex
	revision uint64
	services []api.Service
	marks    []api.MarkRule
	settings map[string]string
	timeouts api.Timeouts
	ops      []api.Op // all that were applied
	meddle   func()   // called once between a snapshot and a change
}

func newFake() *fake {
	f := &fake{settings: map[string]string{}, timeouts: api.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}}
	defaults := service.DefaultSettings()
	for _, s := range sysctl.All() {
		f.settings[s.Name] = s.Describe(&defaults).Value
	}
	return f
}

func (f *fake) Snapshot(context.Context) (*api.Snapshot, error) {
	f.mu.Lock()
	s := &api.Snapshot{Revision: f.revision, Marks: slices.Clone(f.marks), Timeouts: f.timeouts}
	for _, x := range sysctl.All() {
		s.Settings = append(s.Settings, api.Setting{Name: x.Name, Value: f.settings[x.Name]})
	}
	for _, v := range f.services {
		v.Servers = slices.Clone(v.Servers)
		s.Services = append(s.Services, v)
	}
	meddle := f.meddle
	f.meddle = nil
	f.mu.Unlock()
	if meddle != nil {
		meddle()
	}
	return s, nil
}

func (f *fake) Services(context.Context, *api.ServiceKey) ([]api.Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.services), nil
}

func (f *fake) Apply(_ context.Context, revision uint64, ops []api.Op, settings []api.Setting) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision != f.revision {
		return false, nil
	}
	for _, s := range settings {
		f.settings[s.Name] = s.Value
	}
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return false, err
		}
		if err := f.apply(&ops[i]); err != nil {
			return false, err
		}
	}
	f.ops = append(f.ops, ops...)
	f.revision++
	return true, nil
}

// do is a change at run time.
func (f *fake) do(op api.Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.apply(&op); err != nil {
		panic(err)
	}
	f.revision++
}

func (f *fake) apply(op *api.Op) error {
	at := -1
	if op.Service != nil {
		at = slices.IndexFunc(f.services, func(v api.Service) bool { return v.ServiceKey == *op.Service })
		if (at >= 0) == (op.Kind == api.AddService) {
			return fmt.Errorf("%s %v: there: %v", op.Kind, op.Service, at >= 0)
		}
	}
	var v *api.Service
	var s *api.Server
	if at >= 0 {
		v = &f.services[at]
		if op.Server != nil {
			i := slices.IndexFunc(v.Servers, func(s api.Server) bool { return s.ServerKey == *op.Server })
			if (i >= 0) == (op.Kind == api.AddServer) {
				return fmt.Errorf("%s %v of %v: there: %v", op.Kind, op.Server, op.Service, i >= 0)
			}
			if i >= 0 {
				s = &v.Servers[i]
			}
		}
	}
	switch op.Kind {
	case api.AddService:
		f.services = append(f.services, api.Service{ServiceKey: *op.Service, Config: *op.ServiceConfig})
	case api.EditService:
		v.Config = *op.ServiceConfig
	case api.DeleteService:
		f.services = slices.Delete(f.services, at, at+1)
	case api.AddServer:
		v.Servers = slices.Insert(slices.Clone(v.Servers), 0, api.Server{ServerKey: *op.Server, Config: *op.ServerConfig})
	case api.EditServer:
		s.Config = *op.ServerConfig
	case api.DeleteServer:
		v.Servers = slices.DeleteFunc(slices.Clone(v.Servers), func(s api.Server) bool { return s.ServerKey == *op.Server })
	case api.SetLabel:
		if s != nil {
			s.Label = *op.Label
		} else {
			v.Label = *op.Label
		}
	case api.SetPolicy:
		v.Policy = op.Policy
	case api.AddCheck, api.DeleteCheck:
		list := &v.Checks
		if s != nil {
			list = &s.Checks
		}
		id := op.CheckID
		if op.Kind == api.AddCheck {
			id = op.CheckSpec.ID()
		}
		i := slices.IndexFunc(*list, func(c api.CheckSpec) bool { return c.ID() == id })
		if (i >= 0) == (op.Kind == api.AddCheck) {
			return fmt.Errorf("%s %s of %v: there: %v", op.Kind, id, op.Service, i >= 0)
		}
		if op.Kind == api.AddCheck {
			*list = append(slices.Clone(*list), op.CheckSpec)
		} else {
			*list = slices.Delete(slices.Clone(*list), i, i+1)
		}
	case api.SetTimeouts:
		for _, x := range []struct{ to, from *uint32 }{{&f.timeouts.TCP, &op.Timeouts.TCP}, {&f.timeouts.TCPFin, &op.Timeouts.TCPFin}, {&f.timeouts.UDP, &op.Timeouts.UDP}} {
			if *x.from != 0 {
				*x.to = *x.from
			}
		}
	case api.AddMarkRule:
		f.marks = slices.Insert(slices.Clone(f.marks), op.Position-1, *op.MarkRule)
	case api.DeleteMarkRule:
		i := slices.Index(f.marks, *op.MarkRule)
		if i < 0 {
			return fmt.Errorf("no mark rule %v", op.MarkRule)
		}
		f.marks = slices.Delete(slices.Clone(f.marks), i, i+1)
	default:
		return fmt.Errorf("unexpected operation %s", op.Kind)
	}
	return nil
}
