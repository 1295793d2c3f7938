package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"uvs/health"
)

// Spec is the check as package health has it: prepared, defaults filled in. Its error begins with the option that is wrong.
func (c *Check) Spec() (*health.Spec, error) {
	if c.spec != nil {
		return c.spec, nil
	}
	data, err := givenJSON(c.given, &c.CheckSettings, c.Options)
	if err != nil {
		return nil, err
	}
	return health.Decode(data)
}

// Spec is the policy as package health has it: checked, defaults filled in. Its error begins with the option that is wrong.
func (h *Health) Spec() (*health.Policy, error) {
	if h.policy != nil {
		return h.policy, nil
	}
	data, err := givenJSON(h.given, &h.Policy)
	if err != nil {
		return nil, err
	}
	return health.DecodePolicy(data)
}

// givenJSON is an object of what a file has or, of what comes from no file, of the fields that aren't zero.
func givenJSON(given map[string]json.RawMessage, structs ...any) ([]byte, error) {
	if given != nil {
		return json.Marshal(given)
	}
	var n yaml.Node
	for _, x := range structs {
		v := reflect.ValueOf(x)
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() == reflect.Struct {
			if err := encodeStruct(&n, v); err != nil {
				return nil, err
			}
		}
	}
	n.Kind = yaml.MappingNode
	return nodeJSON(&n, 0)
}

// culprit is the node of the key that an error of package health begins with.
func culprit(at *yaml.Node, err error) *yaml.Node {
	name, _, _ := strings.Cut(err.Error(), ":")
	name, _, _ = strings.Cut(name, "=")
	if n := lookup(at, name); n != nil {
		return n
	}
	return at
}

// nodeJSON is a node in JSON, each scalar as the text that it is written as.
func nodeJSON(n *yaml.Node, depth int) (json.RawMessage, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	var b bytes.Buffer
	switch n.Kind {
	case yaml.SequenceNode:
		for i, x := range n.Content {
			v, err := nodeJSON(x, depth+1)
			if err != nil {
				return nil, err
			}
			b.WriteString(map[bool]string{true: "[", false: ","}[i == 0])
			b.Write(v)
		}
		if len(n.Content) == 0 {
			b.WriteByte('[')
		}
		b.WriteByte(']')
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, err := json.Marshal(n.Content[i].Value)
			if err != nil {
				return nil, err
			}
			v, err := nodeJSON(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(k)
			b.WriteByte(':')
			b.Write(v)
		}
		b.WriteByte('}')
	default:
		return json.Marshal(n.Value)
	}
	return b.Bytes(), nil
}

// validateChecks finds what is wrong with checks that stand together, and prepares them.
func (d *decoder) validateChecks(list []Check, templates bool) {
	ids := map[string]bool{}
	for i := range list {
		c := &list[i]
		at := d.at(c)
		switch {
		case templates && c.Name == "":
			d.fail(at, "a check in checks of the file has no template, which is its name")
		case !templates && c.Name != "":
			d.fail(d.at(&c.Name), "template names one in checks of the file; did you mean \"use\" or \"id\"?")
		}
		if c.Options == nil {
			if d.checks[c.Use] == nil && c.Kind == "" && c.Use == "" {
				d.fail(at, "a check has no kind; there are %s", strings.Join(health.Kinds(), ", "))
			}
			continue
		}
		if d.broken(at) {
			continue
		}
		spec, err := c.Spec()
		if err != nil {
			d.fail(culprit(at, err), "check: %v", err)
			continue
		}
		c.spec = spec
		if !templates && ids[spec.ID] {
			d.fail(at, "two checks here have the id %q; give one another id", spec.ID)
		}
		ids[spec.ID] = true
	}
}

// broken says that an error was found within a node already.
func (d *decoder) broken(n *yaml.Node) bool {
	last := n
	for len(last.Content) > 0 {
		last = last.Content[len(last.Content)-1]
	}
	for _, e := range d.errs {
		if e.Line >= n.Line && e.Line <= last.Line && (e.Line > n.Line || e.Column >= n.Column) {
			return true
		}
	}
	return false
}
