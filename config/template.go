package config

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"uvs/health"
)

// part is a struct that takes keys of a mapping.
type part struct {
	v      reflect.Value
	fields []field
}

// inline returns the structs that the keys of n go to: v itself and, of a check, the options of its kind. If n uses a template,
// they have its values already.
func (d *decoder) inline(n *yaml.Node, v reflect.Value, fields []field) []part {
	parts := []part{{v, fields}}
	switch x := v.Addr().Interface().(type) {
	case *Check:
		template := d.template(n, d.checks, "check")
		kind := lookup(n, "kind")
		if inherited := lookup(template, "kind"); kind == nil {
			kind = inherited
		} else if inherited != nil && inherited.Value != kind.Value {
			d.fail(kind, "a check of kind %s cannot use the template %q, which is of kind %s", cut(kind.Value), lookup(n, "use").Value, cut(inherited.Value))
		}
		if kind != nil && kind.Kind == yaml.ScalarNode {
			if x.Options = health.New(kind.Value); x.Options != nil {
				o := reflect.ValueOf(x.Options).Elem()
				parts = append(parts, part{o, fieldsOf(o.Type())})
			} else if template == nil || kind != lookup(template, "kind") {
				d.fail(kind, "there is no kind of check %q%s", cut(kind.Value), d.orKinds(kind.Value))
			}
		}
		d.inherit(template, parts, "a check")
		x.Name, x.Use = "", ""
	case *Health:
		d.inherit(d.template(n, d.health, "health policy"), parts, "a health policy")
		x.Name, x.Use = "", ""
	}
	return parts
}

// orKinds is the end of a message about a kind that there is not.
func (d *decoder) orKinds(word string) string {
	kinds := health.Kinds()
	if hint := didYouMean(word, kinds, nil); hint != "" {
		return hint
	}
	return "; there are " + strings.Join(kinds, ", ")
}

// template is what n uses, or nil.
func (d *decoder) template(n *yaml.Node, known map[string]*yaml.Node, what string) *yaml.Node {
	use := lookup(n, "use")
	if use == nil || use.Kind != yaml.ScalarNode || isNull(use) {
		return nil
	}
	t := known[use.Value]
	name := lookup(n, "name")
	if what == "check" {
		name = lookup(n, "template")
	}
	switch {
	case name != nil && known[name.Value] == n:
		d.fail(use, "a template of a %s cannot use another", what)
		return nil
	case t == nil:
		d.fail(use, "there is no %s with the name %q%s", what, cut(use.Value), didYouMean(use.Value, slices.Sorted(maps.Keys(known)), nil))
	}
	return t
}

// inherit decodes a template's values, about which errors were said where it stands.
func (d *decoder) inherit(template *yaml.Node, parts []part, what string) {
	if template == nil {
		return
	}
	was := d.quiet
	d.quiet = true
	d.pairs(template, what, func(key, value *yaml.Node) { d.assign(key, value, parts) })
	d.quiet = was
}

// assign decodes a value into the field of the key, and says whether there is one.
func (d *decoder) assign(key, value *yaml.Node, parts []part) bool {
	for _, p := range parts {
		for i := range p.fields {
			if f := &p.fields[i]; !f.inline && f.key == key.Value {
				to := p.v.FieldByIndex(f.index)
				d.value(value, to, f, f.key)
				if f.name != "Name" && f.key != "use" || p.v != parts[0].v {
					switch x := parts[0].v.Addr().Interface().(type) {
					case *Check:
						d.give(&x.given, f.key, value, to)
					case *Health:
						d.give(&x.given, f.key, value, to)
					}
				}
				return true
			}
		}
	}
	return false
}

// shortKey is the key that a word alone stands for: of a check a template's name or else a kind.
func (d *decoder) shortKey(n *yaml.Node, v reflect.Value) string {
	if _, ok := v.Addr().Interface().(*Check); ok && d.checks[n.Value] == nil && (health.New(n.Value) != nil || len(d.checks) == 0) {
		return "kind"
	}
	return "use"
}

// shortServer reads a server that is an address alone, or with a port.
func (d *decoder) shortServer(n *yaml.Node, s *Server, what string) {
	text, ok := d.text(n, what)
	if !ok {
		return
	}
	d.pos[&s.Address] = n
	s.Address = text
	if ap, err := netip.ParseAddrPort(text); err == nil && ap.Port() != 0 {
		s.Address, s.Port = ap.Addr().String(), int(ap.Port())
		d.pos[&s.Port] = n
		return
	}
	host, port, ok := strings.Cut(text, ":")
	if !ok || strings.Contains(port, ":") && !strings.HasPrefix(text, "[") {
		return
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || p == 0 {
		d.fail(n, "server %q: the port is from 1 to 65535", cut(text))
		return
	}
	s.Address, s.Port = host, int(p)
	d.pos[&s.Port] = n
}

// give notes what a file has for a key of package health's.
func (d *decoder) give(to *map[string]json.RawMessage, key string, n *yaml.Node, v reflect.Value) {
	if *to == nil {
		*to = map[string]json.RawMessage{}
	}
	if t, ok := durationOf(v); ok { // in a form that is read there, too
		n = scalarAt(n, time.Duration(t).String())
	}
	if given, err := nodeJSON(n, d.depth); err == nil {
		(*to)[key] = given
	}
}
