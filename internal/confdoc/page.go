package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"reflect"
	"strings"
	"time"

	"uvs/config"
)

//go:embed intro.md
var intro string

// page is docs/configuration.md: the text of intro.md, and a table for each section.
func page(doc *document) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(intro)
	b.WriteString("\n## All keys\n\nMade from the definitions that uvsd reads the file by (`go generate ./config`).\n")
	for _, s := range doc.sections {
		if s.title == "" {
			return nil, fmt.Errorf("a section has no title: %s", s.path)
		}
		fmt.Fprintf(&b, "\n### %s\n\n", s.title)
		if s.path != "" {
			fmt.Fprintf(&b, "`%s`: %s\n\n", s.path, markdown(s.text))
		}
		table(&b, s.keys)
	}
	b.WriteString("\n### Kinds of checks\n\nTheir options stand beside the keys of a check.\n")
	for _, k := range doc.kinds {
		fmt.Fprintf(&b, "\n#### %s\n\n%s\n", k.name, markdown(k.text))
		if len(k.options) > 0 {
			b.WriteString("\n")
			table(&b, k.options)
		}
	}
	return b.Bytes(), nil
}

func table(b *bytes.Buffer, keys []entry) {
	b.WriteString("| key | value | default | what |\n| --- | --- | --- | --- |\n")
	for i := range keys {
		e := &keys[i]
		if e.Inline {
			continue
		}
		initial := ""
		switch {
		case e.Required:
			initial = "required"
		case e.Default != "":
			initial = "`" + e.Default + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", e.Name, markdown(valueText(e)), initial, markdown(e.text))
	}
}

// markdown escapes what tables and HTML would take for theirs.
func markdown(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(s)
}

// valueText says what a key's value is.
func valueText(e *entry) string {
	what := scalarText(e)
	switch {
	case e.sub != nil && e.list:
		what = "list of " + strings.ToLower(e.sub.title)
	case e.sub != nil:
		what = "keys: " + strings.ToLower(e.sub.title)
	case e.Name == "settings":
		what = "names with values"
	case isList(e) && e.One:
		what += ", or a list"
	case isList(e):
		what = "list: " + what
	}
	if e.Shorthand != "" {
		what += ", or " + e.Shorthand + " alone"
	}
	if e.Min != "" && e.Max != "" {
		what += ", " + e.Min + " to " + e.Max
	}
	return what
}

func isList(e *entry) bool {
	t := e.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Slice
}

var kindTexts = map[string]string{
	"address": "address", "gateway": "address/prefix", "multicast": "address", "network": "network or address", "label": "name",
	"hosts": "address, range or host name", "host": "address, range or host name", "scheduler": "scheduler", "flag": "flag", "group": "group",
}

func scalarText(e *entry) string {
	if len(e.Enum) > 0 {
		return strings.Join(e.Enum, ", ")
	}
	if s := kindTexts[e.Kind]; s != "" {
		return s
	}
	t := e.Type
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[config.Duration]() || t == reflect.TypeFor[time.Duration]():
		return "time"
	case t == reflect.TypeFor[config.Port](), t.Name() == "PortRange":
		return "port or range"
	case t.Name() == "Netmask":
		return "netmask"
	case t.Kind() == reflect.Bool:
		return "true, false"
	case t.Kind() == reflect.Float64:
		return "number"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "number"
	}
	return "text"
}
