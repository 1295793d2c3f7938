package control

import (
	"context"
	"slices"

	"uvs/control/api"
	"uvs/service"
)

// markRules are the mark rules of the desired state.
type markRules struct {
	order    []api.MarkRule
	marks    map[api.MarkRule]uint32 // by conditions: the rule with mark 0
	compiled *service.Marks
}

// conditions is what tells a rule from others.
func conditions(r api.MarkRule) api.MarkRule {
	r.Mark = 0
	return r
}

// plainRule gives a checked rule the one form that its conditions have: networks without host bits, every port said by
// no port at all.
func plainRule(r *api.MarkRule) api.MarkRule {
	plain := *r
	plain.Src, plain.Dst = r.Src.Masked(), r.Dst.Masked()
	for _, p := range []*api.PortRange{&plain.SrcPorts, &plain.DstPorts} {
		if *p == (api.PortRange{First: 0, Last: 65535}) {
			*p = api.PortRange{}
		}
	}
	return plain
}

// insert puts a rule at a position counted from 1, or at the end.
func (m *markRules) insert(r api.MarkRule, position int) {
	if m.marks == nil {
		m.marks = map[api.MarkRule]uint32{}
	}
	at := len(m.order)
	if position > 0 {
		at = min(position-1, at)
	}
	m.order = slices.Insert(m.order, at, r)
	m.marks[conditions(r)] = r.Mark
}

func (m *markRules) delete(r api.MarkRule) {
	if at := slices.Index(m.order, r); at >= 0 {
		m.order = slices.Delete(m.order, at, at+1)
		delete(m.marks, conditions(r))
	}
}

// compile makes the classifier. interfaces are the names of the ports.
func (m *markRules) compile(interfaces []string) {
	rules := make([]service.MarkRule, len(m.order))
	for i := range m.order {
		r := &m.order[i]
		rules[i] = service.MarkRule{
			Mark: r.Mark, Interface: service.AnyInterface, Src: r.Src, Dst: r.Dst, Proto: protocols[r.Protocol],
			SrcPorts: service.PortRange(r.SrcPorts), DstPorts: service.PortRange(r.DstPorts),
		}
		if r.Interface != "" {
			rules[i].Interface = slices.Index(interfaces, r.Interface)
		}
	}
	compiled, err := service.NewMarks(rules)
	if err != nil {
		panic("control: " + err.Error()) // the plan has checked them
	}
	m.compiled = compiled
}

// plannedMarks is how a plan leaves the mark rules.
type plannedMarks struct {
	touched map[api.MarkRule]uint32 // by conditions; 0 is a rule that is gone
	added   int                     // more than there were
}

// mark is the mark that a rule with these conditions gives, or 0.
func (p *plan) mark(conditions api.MarkRule) uint32 {
	if mark, touched := p.marks.touched[conditions]; touched {
		return mark
	}
	return p.d.marks.marks[conditions]
}

// markRule judges the addition or removal of a rule.
func (p *plan) markRule(e *effect, op *api.Op) error {
	e.rule = plainRule(op.MarkRule)
	e.position = op.Position
	key := conditions(e.rule)
	known := p.mark(key)
	if p.marks.touched == nil {
		p.marks.touched = map[api.MarkRule]uint32{}
	}
	if op.Kind == api.DeleteMarkRule {
		if known != e.rule.Mark {
			return refusal(api.MarkNotFound, "no such rule")
		}
		p.marks.touched[key] = 0
		p.marks.added--
		return nil
	}
	rules := len(p.d.marks.order) + p.marks.added
	switch {
	case known != 0:
		return refusal(api.MarkExists, "a rule with these conditions gives mark %d already", known)
	case e.rule.Interface != "" && !slices.Contains(p.d.cfg.Interfaces, e.rule.Interface):
		return refusal(api.NoDevice, "uvsd is not attached to %s", e.rule.Interface)
	case rules >= service.MaxMarkRules:
		return refusal(api.NoMemory, "no more rules than %d", service.MaxMarkRules)
	case e.position > rules+1:
		return refusal(api.OutOfRange, "position %d, there are %d rules", e.position, rules)
	}
	p.marks.touched[key] = e.rule.Mark
	p.marks.added++
	return nil
}

// Marks implements api.Backend.
func (d *Director) Marks(ctx context.Context) ([]api.MarkRule, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.marks.order), ctx.Err()
}
