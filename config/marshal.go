package config

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Marshal writes a configuration as a file. What has its zero value is left out, so that defaults show as absent keys; a Comment
// stands above what it belongs to, each of its lines as a comment.
func Marshal(c *Config) ([]byte, error) {
	n, err := encode(reflect.ValueOf(c).Elem(), "")
	if err != nil {
		return nil, err
	}
	head := n.HeadComment
	n.HeadComment = ""
	var b bytes.Buffer
	if head != "" {
		b.WriteString(head + "\n\n")
	}
	return dump(&b, n)
}

// dump writes a node as the file has it.
func dump(b *bytes.Buffer, n *yaml.Node) ([]byte, error) {
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

// commentLines makes text a comment.
func commentLines(text string) string {
	if text == "" {
		return ""
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight("# "+strings.ReplaceAll(l, "\r", ""), " ")
	}
	return strings.Join(lines, "\n")
}

// encode returns the node of a value that isn't absent.
func encode(v reflect.Value, form string) (*yaml.Node, error) {
	if d, ok := durationOf(v); ok {
		return scalarNode(spanText(d)), nil
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && v.Kind() != reflect.Pointer {
		text, err := m.MarshalText()
		if err != nil {
			return nil, err
		}
		return scalarNode(string(text)), nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return encode(v.Elem(), form)
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		return n, encodeStruct(n, v)
	case reflect.Slice:
		return encodeSlice(v, form)
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			n.Content = append(n.Content, scalarNode(k.String()), scalarNode(v.MapIndex(k).String())) // settings: numbers
		}
		return n, nil
	case reflect.String:
		return stringNode(v.String()), nil
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16,
		reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}, nil
	}
	return nil, fmt.Errorf("write YAML: no way to write %v", v.Type())
}

func encodeSlice(v reflect.Value, form string) (*yaml.Node, error) {
	if _, ports := v.Interface().(Ports); (ports || form == "one") && v.Len() == 1 {
		if n, err := encode(v.Index(0), ""); err != nil || n.Kind == yaml.ScalarNode {
			return n, err
		}
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range v.Len() {
		item, err := encode(v.Index(i), "")
		if err != nil {
			return nil, err
		}
		if item.Kind == yaml.ScalarNode {
			n.Style = yaml.FlowStyle
		}
		n.Content = append(n.Content, item)
	}
	if n.Style == yaml.FlowStyle && (len(n.Content) > 12 || slices.ContainsFunc(n.Content, func(x *yaml.Node) bool { return x.Kind != yaml.ScalarNode || x.HeadComment != "" })) {
		n.Style = 0
	}
	return n, nil
}

// encodeStruct adds the fields of v to a mapping. A Comment becomes the mapping's.
func encodeStruct(n *yaml.Node, v reflect.Value) error {
	for _, f := range fieldsOf(v.Type()) {
		x := v.FieldByIndex(f.index)
		if x.IsZero() {
			continue
		}
		if f.inline {
			for x.Kind() == reflect.Interface || x.Kind() == reflect.Pointer {
				x = x.Elem()
			}
			if x.Kind() == reflect.Struct {
				if err := encodeStruct(n, x); err != nil {
					return err
				}
			}
			continue
		}
		value, err := encode(x, f.form)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, scalarNode(f.key), value)
	}
	if c := v.FieldByName("Comment"); c.IsValid() && c.Kind() == reflect.String {
		n.HeadComment = commentLines(c.String())
	}
	return nil
}

// scalarNode is a word that is one whatever it looks like to YAML, such as a port range or an address.
func scalarNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// stringNode is a string, quoted where YAML would take it for something else.
func stringNode(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}
