package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds of a file, so that none, whatever is in it, takes the memory or the time of a running director.
const (
	// MaxSize is how long a file may be, in bytes.
	MaxSize  = 16 << 20
	maxNodes = 8 << 20 // with every alias counted as what it stands for; less in a short file
	maxDepth = 32
	// maxErrors is how many errors are gathered; with that many somebody has given the wrong file.
	maxErrors = 1000
)

// decoder turns nodes into the model's values.
type decoder struct {
	file  string
	errs  Errors
	nodes int
	most  int // nodes
	depth int
	quiet bool // a template is being read once more, where it is used
	// pos has the node of each value that was decoded, by a pointer to it.
	pos map[any]*yaml.Node
	// templates of checks and health policies by name.
	checks, health map[string]*yaml.Node
	settings       map[string]*yaml.Node // keys of settings
}

// fail notes an error at a node.
func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	if d.quiet || len(d.errs) >= maxErrors {
		return
	}
	d.errs = append(d.errs, &Error{File: d.file, Line: n.Line, Column: n.Column, What: fmt.Sprintf(format, args...)})
}

// parse reads the YAML. It returns nil, and has an error noted, if there is none.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		d.errs = append(d.errs, &Error{File: d.file, What: fmt.Sprintf("the file is longer than %d MiB", MaxSize>>20)})
		return nil
	}
	if bytes.IndexByte(data, 0) >= 0 {
		d.errs = append(d.errs, &Error{File: d.file, What: "the file has zero bytes: it is no text"})
		return nil
	}
	d.most = min(maxNodes, 100_000+4*len(data))
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		d.errs = append(d.errs, d.syntaxError(err, data))
		return nil
	}
	if err := dec.Decode(&more); err == nil {
		d.fail(&more, "a second document begins here; a file is one")
		return nil
	} else if err.Error() != "EOF" {
		d.errs = append(d.errs, d.syntaxError(err, data))
		return nil
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// value decodes a node into v, which can be set. f has the bounds and words of the field; what names it in messages.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f *field, what string) {
	n, ok := d.enter(n)
	if !ok {
		return
	}
	defer func() { d.depth-- }()
	if v.CanAddr() {
		d.pos[v.Addr().Interface()] = n
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			d.fail(n, "%s has no value; leave the key out, or give it one", what)
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), f, what)
		return
	}
	if isDuration(v.Type()) {
		d.duration(n, v, f, what)
		return
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok && strings.HasPrefix(v.Type().PkgPath(), "uvs/health") {
		d.object(n, u, what)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if text, ok := d.text(n, what); ok {
			if err := u.UnmarshalText([]byte(text)); err != nil {
				d.fail(n, "%s: %v", what, err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, what)
	case reflect.Slice:
		d.list(n, v, f, what)
	case reflect.Map:
		d.settingsMap(n, v, what)
	case reflect.String:
		if text, ok := d.text(n, what); ok {
			d.word(n, text, f, what)
			v.SetString(text)
		}
	case reflect.Bool:
		d.boolean(n, v, what)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.integer(n, v, f, what)
	case reflect.Float32, reflect.Float64:
		d.float(n, v, what)
	default:
		d.fail(n, "%s cannot be set in a file", what)
	}
}

// object decodes a value that reads itself from JSON.
func (d *decoder) object(n *yaml.Node, u json.Unmarshaler, what string) {
	if isNull(n) {
		d.fail(n, "%s has no value; leave the key out, or give it one", what)
		return
	}
	data, err := nodeJSON(n, d.depth)
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		d.fail(n, "%s: %v", what, err)
	}
}

// enter resolves an alias and counts the node, so that aliases of aliases end.
func (d *decoder) enter(n *yaml.Node) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.nodes++
	d.depth++
	if d.nodes > d.most || d.depth > maxDepth {
		d.depth--
		if d.nodes <= d.most+1 {
			d.fail(n, "the file is nested too deeply, or its aliases stand for too much")
		}
		return n, false
	}
	return n, true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// text returns a scalar as it is written.
func (d *decoder) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind == yaml.MappingNode:
		d.fail(n, "%s is a single value, not keys with values", what)
	case n.Kind == yaml.SequenceNode:
		d.fail(n, "%s is a single value, not a list", what)
	case isNull(n):
		d.fail(n, "%s has no value; leave the key out, or give it one", what)
	case n.ShortTag() == "!!binary" || !strings.HasPrefix(n.ShortTag(), "!!"):
		d.fail(n, "%s has the tag %s, which means nothing here", what, n.ShortTag())
	default:
		return n.Value, true
	}
	return "", false
}

// word checks a string against the words it may be.
func (d *decoder) word(n *yaml.Node, text string, f *field, what string) {
	if text == "" {
		d.fail(n, "%s is empty; leave the key out, or give it a value", what)
	}
	if f == nil || f.enum == nil || slices.Contains(f.enum, text) || text == "" {
		return
	}
	d.fail(n, "%s is %s, not %q%s", what, alternatives(f.enum), text, didYouMean(text, f.enum, wordsElsewhere))
}

func (d *decoder) boolean(n *yaml.Node, v reflect.Value, what string) {
	text, ok := d.text(n, what)
	if !ok {
		return
	}
	if n.ShortTag() == "!!bool" {
		v.SetBool(strings.EqualFold(text, "true"))
		return
	}
	hint := ""
	switch strings.ToLower(text) {
	case "yes", "on", "1", "y", "true":
		hint = "; write true"
	case "no", "off", "0", "n", "false":
		hint = "; write false"
	}
	d.fail(n, "%s is true or false, not %q%s", what, text, hint)
}

func (d *decoder) integer(n *yaml.Node, v reflect.Value, f *field, what string) {
	text, ok := d.text(n, what)
	if !ok {
		return
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && isDigits(text) {
		d.fail(n, "%s is a number; write it without quotes: %s", what, text)
		return
	}
	if f == nil {
		f = new(field)
	}
	low, high := f.bounds(v.Type())
	digits := strings.TrimPrefix(text, "-")
	if !isDigits(digits) || len(digits) > 1 && digits[0] == '0' {
		d.fail(n, "%s is a whole number, not %q", what, text)
		return
	}
	x, err := strconv.ParseInt(text, 10, 64)
	if err != nil || x < low || x > high {
		d.fail(n, "%s is from %d to %d, not %s", what, low, high, text)
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(x))
	} else {
		v.SetInt(x)
	}
}

func (d *decoder) float(n *yaml.Node, v reflect.Value, what string) {
	text, ok := d.text(n, what)
	if !ok {
		return
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || x != x || x-x != 0 {
		d.fail(n, "%s is a number, not %q", what, text)
		return
	}
	v.SetFloat(x)
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, f *field, what string) {
	text, ok := d.text(n, what)
	if !ok {
		return
	}
	x, err := ParseDuration(text)
	if err != nil {
		d.fail(n, "%s: %v", what, err)
		return
	}
	if f != nil && (f.min != "" || f.max != "") {
		if low, high := f.bounds(v.Type()); int64(x) < low || int64(x) > high {
			d.fail(n, "%s is from %s to %s, not %s", what, spanText(Duration(low)), spanText(Duration(high)), text)
			return
		}
	}
	v.SetInt(int64(x))
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, f *field, what string) {
	items := n.Content
	_, ports := v.Interface().(Ports)
	switch {
	case isNull(n):
		return // its items have become comments
	case n.Kind == yaml.SequenceNode:
	case ports, f != nil && f.form == "one":
		items = []*yaml.Node{n}
	default:
		d.fail(n, "%s is a list: write %s", what, listForm(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	item := what
	if name := nounOf(v.Type().Elem()); name != "" {
		item = name
	}
	for i, x := range items {
		d.value(x, v.Index(i), f, item)
	}
}

// listForm shows a single value as a list.
func listForm(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && len(n.Value) < 60 {
		return "[" + n.Value + "]"
	}
	return "- before it"
}

// settingsMap decodes names with values, which are checked where it is known which settings there are.
func (d *decoder) settingsMap(n *yaml.Node, v reflect.Value, what string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s is names with values", what)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, what, func(key, value *yaml.Node) {
		value, ok := d.enter(value)
		if !ok {
			return
		}
		defer func() { d.depth-- }()
		text, ok := d.text(value, key.Value)
		if !ok {
			return
		}
		if value.ShortTag() == "!!bool" {
			text = map[bool]string{true: "1", false: "0"}[strings.EqualFold(text, "true")]
		}
		d.settings[key.Value] = key
		v.SetMapIndex(reflect.ValueOf(key.Value), reflect.ValueOf(text))
	})
}

// pairs goes through the keys of a mapping, each once, those merged in by << behind its own.
func (d *decoder) pairs(n *yaml.Node, what string, yield func(key, value *yaml.Node)) {
	seen := map[string]*yaml.Node{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.fail(key, "a key of %s is a word", what)
			continue
		}
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if first := seen[key.Value]; first != nil {
			d.fail(key, "the key %q is there twice; the first is in line %d", key.Value, first.Line)
			continue
		}
		seen[key.Value] = key
		yield(key, value)
	}
	for _, m := range merged {
		d.merge(m, what, seen, yield)
	}
}

// merge adds the keys of what << names: a mapping, or a list of such.
func (d *decoder) merge(m *yaml.Node, what string, seen map[string]*yaml.Node, yield func(key, value *yaml.Node)) {
	from, ok := d.enter(m)
	if !ok {
		return
	}
	defer func() { d.depth-- }()
	switch from.Kind {
	case yaml.SequenceNode:
		for _, x := range from.Content {
			if x.Kind == yaml.SequenceNode || x.Kind == yaml.AliasNode && x.Alias.Kind == yaml.SequenceNode {
				d.fail(x, "<< takes a list of aliases, and not of lists")
				return
			}
			d.merge(x, what, seen, yield)
		}
	case yaml.MappingNode:
		d.pairs(from, what, func(key, value *yaml.Node) {
			if seen[key.Value] == nil {
				seen[key.Value] = key
				yield(key, value)
			}
		})
	default:
		d.fail(from, "<< takes an alias of keys with values")
	}
}

// structure decodes keys with values, or the single value that stands for one of them.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, what string) {
	t := v.Type()
	fields := fieldsOf(t)
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		short, ok := v.Addr().Interface().(interface{ shorthand() string })
		if !ok {
			d.fail(n, "%s is keys with values, not %q", what, cut(n.Value))
			return
		}
		d.shorthand(n, v, short.shorthand(), what)
		return
	}
	switch {
	case isNull(n) && !slices.ContainsFunc(fields, func(f field) bool { return f.required }):
		return // its keys have become comments
	case isNull(n):
		d.fail(n, "%s is empty", what)
		return
	case n.Kind != yaml.MappingNode:
		d.fail(n, "%s is keys with values, not a list", what)
		return
	}
	given := d.keys(n, v, fields, what)
	for i := range fields {
		if f := &fields[i]; f.required && !given[f.key] {
			d.fail(n, "%s has no %s", what, f.key)
		}
	}
}

// keys decodes the values of a mapping into the fields of v, and returns which keys there were.
func (d *decoder) keys(n *yaml.Node, v reflect.Value, fields []field, what string) map[string]bool {
	given := map[string]bool{}
	into := d.inline(n, v, fields)
	d.pairs(n, what, func(key, value *yaml.Node) {
		given[key.Value] = true
		if d.assign(key, value, into) {
			return
		}
		var known []string
		for _, part := range into {
			for i := range part.fields {
				if f := &part.fields[i]; !f.inline {
					known = append(known, f.key)
				}
			}
		}
		d.fail(key, "%s has no key %q%s", what, cut(key.Value), didYouMean(key.Value, known, keysElsewhere))
	})
	return given
}

// shorthand decodes the single value that stands for a struct with one key.
func (d *decoder) shorthand(n *yaml.Node, v reflect.Value, key, what string) {
	fields := fieldsOf(v.Type())
	i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
	switch x := v.Addr().Interface().(type) {
	case *Server:
		d.shortServer(n, x, what)
		return
	case *Check, *Health:
		d.keys(&yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{scalarAt(n, d.shortKey(n, v)), n}}, v, fields, what)
		return
	}
	d.value(n, v.FieldByIndex(fields[i].index), &fields[i], what)
}

func scalarAt(n *yaml.Node, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: n.Line, Column: n.Column}
}
