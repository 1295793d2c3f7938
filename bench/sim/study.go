package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Study is a set of scenarios with what they are to show.
type Study struct {
	Title string `yaml:"title"`
	About string `yaml:"about"`
	// Base is what scenarios have that don't say otherwise.
	Base Scenario
	// Scenarios are in the order of the report.
	Scenarios []Scenario
}

// maxStudy bounds a study's text; a trace is a file of its own. most bounds its numbers.
const (
	maxStudy = 1 << 20
	most     = 1e12
)

// ReadStudy reads a study from a YAML file. Errors have the line and column. Traces are relative to the file.
func ReadStudy(name string) (*Study, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s, err := ParseStudy(b, filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// ParseStudy reads a study; dir is where its traces are.
func ParseStudy(b []byte, dir string) (*Study, error) {
	if len(b) > maxStudy {
		return nil, fmt.Errorf("a study has at most %d bytes", maxStudy)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return nil, err
	}
	if len(root.Content) != 1 {
		return nil, errors.New("line 1: an empty study")
	}
	var text struct {
		Title     string      `yaml:"title"`
		About     string      `yaml:"about"`
		Base      yaml.Node   `yaml:"base"`
		Scenarios []yaml.Node `yaml:"scenarios"`
	}
	top := root.Content[0]
	if err := strict(top, reflect.TypeOf(text)); err != nil {
		return nil, err
	}
	if err := top.Decode(&text); err != nil {
		return nil, err
	}
	s := &Study{Title: text.Title, About: text.About}
	if !text.Base.IsZero() {
		if err := decode(&text.Base, &s.Base); err != nil {
			return nil, err
		}
	}
	if len(text.Scenarios) == 0 {
		return nil, errorAt(top, "a study without scenarios")
	}
	open := opener(dir)
	for i := range text.Scenarios {
		n := &text.Scenarios[i]
		x := s.Base
		if err := decode(n, &x); err != nil {
			return nil, err
		}
		if x.Name == "" {
			return nil, errorAt(n, "a scenario without a name")
		}
		if slices.ContainsFunc(s.Scenarios, func(o Scenario) bool { return o.Name == x.Name }) {
			return nil, errorAt(n, "a second scenario %q", x.Name)
		}
		if err := x.prepare(open); err != nil {
			return nil, errorAt(n, "scenario %s: %w", x.Name, err)
		}
		if err := x.prepareSweep(); err != nil {
			return nil, errorAt(n, "scenario %s: sweep: %w", x.Name, err)
		}
		s.Scenarios = append(s.Scenarios, x)
	}
	return s, nil
}

// decode decodes a node over what v holds. What the node says replaces lists and forms of one thing whole.
func decode(n *yaml.Node, v *Scenario) error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if err := strict(n, reflect.TypeOf(*v)); err != nil {
		return err
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value { // of which the base may have another form
		case "arrivals":
			v.Arrivals = Arrivals{}
		case "servers":
			v.Servers = nil
		case "work":
			v.Work = nil
		case "changes":
			v.Changes = nil
		case "schedulers":
			v.Schedulers = nil
		case "director":
			v.Director = Director{}
		case "sweep":
			v.Sweep = nil
		case "published":
			v.Published = nil
		}
	}
	return n.Decode(v)
}

// errorAt is an error with the place of a node.
func errorAt(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d, column %d: %w", n.Line, n.Column, fmt.Errorf(format, args...))
}

// strict finds keys that a type doesn't have, values of another kind, and keys given twice. The library does that for the top of
// a document alone, and not for nodes.
func strict(n *yaml.Node, t reflect.Type) error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[yaml.Node]():
		return nil
	case t == reflect.TypeFor[Seconds]():
		return new(Seconds).UnmarshalYAML(n)
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return errorAt(n, "a list is expected")
		}
		for _, c := range n.Content {
			if err := strict(c, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return errorAt(n, "settings of the form name: value are expected")
		}
		fields := fieldsOf(t)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			field, ok := fields[key.Value]
			if !ok {
				var names []string
				for name := range fields {
					names = append(names, name)
				}
				slices.Sort(names)
				return errorAt(key, "no setting %q here; there are %s", key.Value, strings.Join(names, " "))
			}
			for j := 0; j < i; j += 2 {
				if n.Content[j].Value == key.Value {
					return errorAt(key, "%q for the second time", key.Value)
				}
			}
			if err := strict(n.Content[i+1], field); err != nil {
				return err
			}
		}
	default:
		if n.Kind != yaml.ScalarNode {
			return errorAt(n, "a single value is expected")
		}
		v := reflect.New(t)
		if err := n.Decode(v.Interface()); err != nil {
			return errorAt(n, "%q is no %s", n.Value, kindName(t))
		}
		switch v = v.Elem(); {
		case v.CanInt() && v.Int() < 0, v.CanFloat() && !(v.Float() >= 0):
			return errorAt(n, "%q is below 0", n.Value)
		case v.CanFloat() && v.Float() > most:
			return errorAt(n, "%q is beyond all measure", n.Value)
		}
	}
	return nil
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "whole number"
}

// fieldsOf are a struct's types by their names in YAML.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			for n, t := range fieldsOf(f.Type) {
				fields[n] = t
			}
		case name != "":
			fields[name] = f.Type
		}
	}
	return fields
}

// point is a scenario at one value of its sweep.
type point struct {
	*Scenario
	x *float64
}

func (s *Scenario) prepareSweep() error {
	_, err := s.points()
	return err
}

// points are the scenario for each value of its sweep, or itself.
func (s *Scenario) points() ([]point, error) {
	if s.Sweep == nil {
		return []point{{s, nil}}, nil
	}
	if len(s.Sweep.Values) == 0 {
		return nil, errors.New("it has no values")
	}
	var all []point
	for _, v := range s.Sweep.Values {
		x := *s
		a := &x.Arrivals
		if closed := a.Closed; closed != nil {
			copied := *closed
			a.Closed = &copied
		}
		setOpen := func(set func(o *Open)) error {
			switch {
			case a.Poisson != nil:
				o := *a.Poisson
				set(&o)
				a.Poisson = &o
			case a.MMPP != nil:
				o := *a.MMPP
				set(&o.Open)
				a.MMPP = &o
			case a.Diurnal != nil:
				o := *a.Diurnal
				set(&o.Open)
				a.Diurnal = &o
			default:
				return errors.New("arrivals have no rate to sweep over")
			}
			return nil
		}
		var err error
		switch s.Sweep.Over {
		case "clients":
			if a.Closed == nil {
				return nil, errors.New("arrivals are not closed: there are no clients to sweep over")
			}
			a.Closed.Clients = int(v)
		case "load":
			err = setOpen(func(o *Open) { o.Load, o.Rate = v, 0 })
		case "rate":
			err = setOpen(func(o *Open) { o.Rate = v })
		case "directors":
			x.Director.Count = int(v)
		case "late":
			x.Director.LateShare = v
		case "missing":
			x.Director.MissingShare = v
		default:
			err = fmt.Errorf("over is clients, load, rate, directors, late or missing, not %q", s.Sweep.Over)
		}
		if err == nil && (a.Closed != nil && (a.Closed.Clients < 1 || a.Closed.Clients > mostClients) || a.open() != nil && !(x.rate() > 0 && x.rate() < never)) {
			err = fmt.Errorf("nothing comes at %v, or too many", v)
		}
		if err == nil {
			err = x.prepareDirector(nil)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, point{&x, &v})
	}
	return all, nil
}
