package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// File is a file that has been read and found to be sound by itself; what hangs on the network or the host, such as whether
// host names resolve, is Resolve's.
type File struct {
	// Name is the file's, as errors give it.
	Name string
	// Config is what it says. Checks and health policies that use a template have the template's values where they have none of
	// their own.
	Config Config

	data []byte
	root *yaml.Node
	dec  *decoder
}

// Load reads a file.
func Load(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, Errors{{File: name, What: "this is a directory"}}
	case info.Size() > MaxSize:
		return nil, Errors{{File: name, What: fmt.Sprintf("the file is longer than %d MiB", MaxSize>>20)}}
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(name, data)
}

// Parse reads what a file has. The error is Errors, with all that is wrong.
func Parse(name string, data []byte) (*File, error) {
	d := &decoder{file: name, pos: map[any]*yaml.Node{}, checks: map[string]*yaml.Node{}, health: map[string]*yaml.Node{}, settings: map[string]*yaml.Node{}}
	f := &File{Name: name, data: data, dec: d}
	f.root = d.parse(data)
	if f.root != nil && !isNull(f.root) {
		d.templates(f.root)
		d.value(f.root, reflect.ValueOf(&f.Config).Elem(), nil, "the file")
		if d.nodes <= d.most { // else it is cut off
			d.validate(&f.Config)
		}
	}
	if len(d.errs) == 0 {
		return f, nil
	}
	return nil, sorted(d.errs)
}

// sorted puts errors in the order of lines. Of several at one place the first that was found says it all.
func sorted(errs Errors) Errors {
	slices.SortStableFunc(errs, func(a, b *Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return slices.CompactFunc(errs, func(a, b *Error) bool { return a.Line == b.Line && a.Column == b.Column && a.Line != 0 })
}

// syntaxError is what the YAML library says.
func (d *decoder) syntaxError(err error, data []byte) *Error {
	e := &Error{File: d.file, What: "this is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	var at *yaml.LoadError
	if errors.As(err, &at) {
		e.Line, e.Column, e.What = at.Mark.Line, max(at.Mark.Column, 1), "this is not YAML: "+at.Message
		if at.ContextMsg != "" {
			e.What += " " + at.ContextMsg
		}
	}
	if lines := strings.Split(string(data), "\n"); e.Line > 0 && e.Line <= len(lines) && strings.HasPrefix(lines[e.Line-1], "\t") {
		e.What = "this is not YAML: a tab indents the line; indent by spaces"
	}
	return e
}

// templates finds the templates of checks and health policies, which may stand behind their uses.
func (d *decoder) templates(root *yaml.Node) {
	for _, x := range []struct {
		key, name string
		to        map[string]*yaml.Node
	}{{"checks", "template", d.checks}, {"policies", "name", d.health}} {
		to, list := x.to, lookup(root, x.key)
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		for _, n := range list.Content {
			if n.Kind == yaml.AliasNode {
				n = n.Alias
			}
			if name := lookup(n, x.name); name != nil && name.Kind == yaml.ScalarNode && to[name.Value] == nil {
				to[name.Value] = n
			}
		}
	}
}

// lookup is the value of a key, or nil.
func lookup(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			value := n.Content[i+1]
			if value.Kind == yaml.AliasNode {
				value = value.Alias
			}
			return value
		}
	}
	return nil
}
