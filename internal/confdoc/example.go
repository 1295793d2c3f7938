package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"time"

	"uvs/config"
)

// asComments are keys that cannot stand beside the others of the example, or need something else of the file.
var asComments = map[string]bool{
	"inner.addresses": true, "services.fwmark": true, "services.family": true, "services.flags": true, "services.tunnel": true,
	"services.persistence.engine": true, "services.groups": false, "services.servers.port": true, "services.servers.method": true,
	"services.servers.tunnel": true, "resolve": true, "checks.use": true, "policies.use": true, "sync": true, "services.ops": false,
	"marks.sport": true,
}

// needed are values of options that a kind of check cannot do without.
var needed = map[string]string{"exec.command": `/usr/local/bin/check %h %p`, "file.path": "/run/weights", "radius.secret": "testing123"}

// written are values that follow from the rest of the example.
var written = map[string]string{"services.groups": "farm", "services.checks": "web", "services.health": "careful", "services.servers.checks": "[]"}

// example is docs/uvs.yaml.
func example(doc *document) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# uvs.yaml with every key. Made from the definitions that uvsd reads it by: go generate ./config\n#\n")
	comment(&b, "", "Keys that are comments here don't go together with others of this file. What a key has here is its default, or an example. "+
		"The file is read strictly: uvsd --check FILE says all that is wrong with one. See uvs.yaml(5) and docs/configuration.md.")
	write(&b, doc, doc.root, "")
	return b.Bytes()
}

const width = 110

// comment writes a text as lines of a comment.
func comment(b *bytes.Buffer, indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent+"#" {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// note is the rest of what there is to say of a key: its words, its bounds, its default.
func note(e *entry) string {
	var parts []string
	if len(e.Enum) > 1 {
		parts = append(parts, "one of "+strings.Join(e.Enum, ", "))
	}
	if e.Min != "" && e.Max != "" {
		parts = append(parts, e.Min+" to "+e.Max)
	}
	switch {
	case e.Required:
		parts = append(parts, "required")
	case e.Default != "":
		parts = append(parts, "default "+e.Default)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

func write(b *bytes.Buffer, doc *document, s *section, indent string) {
	for i := range s.keys {
		e := &s.keys[i]
		if e.Inline {
			comment(b, indent, "The options of the kind: see the templates of each kind below.")
			continue
		}
		path := strings.TrimPrefix(s.path+"."+e.Name, ".")
		if indent == "" {
			b.WriteString("\n")
		}
		comment(b, indent, e.text+note(e))
		value, there := written[path]
		switch {
		case there:
			fmt.Fprintf(b, "%s%s: %s\n", indent, e.Name, value)
		case asComments[path] && e.sub != nil && path != "services.servers.tunnel":
			var sub bytes.Buffer
			fmt.Fprintf(&sub, "%s:\n", e.Name)
			inner := "  "
			if e.list {
				sub.WriteString("  -\n")
				inner = "    "
			}
			write(&sub, doc, e.sub, inner)
			for line := range strings.Lines(sub.String()) {
				b.WriteString(indent + "#" + line)
			}
		case asComments[path]:
			fmt.Fprintf(b, "%s#%s: %s\n", indent, e.Name, sample(e))
		case e.sub != nil && e.list:
			fmt.Fprintf(b, "%s%s:\n", indent, e.Name)
			comment(b, indent+"  ", e.sub.text)
			if path == "groups" {
				fmt.Fprintf(b, "%s  - name: farm\n%s    # Servers, as those of a service.\n%s    servers: [192.0.2.21, 192.0.2.22]\n", indent, indent, indent)
				continue
			}
			fmt.Fprintf(b, "%s  -\n", indent)
			write(b, doc, e.sub, indent+"    ")
			if path == "checks" {
				kinds(b, doc, indent+"  ")
			}
		case e.sub != nil:
			fmt.Fprintf(b, "%s%s:\n", indent, e.Name)
			write(b, doc, e.sub, indent+"  ")
		case e.Name == "settings":
			fmt.Fprintf(b, "%s%s:\n%s  %s\n", indent, e.Name, indent, e.Example)
		case e.Example == "" && e.Default == "" && !live(e):
			fmt.Fprintf(b, "%s#%s: %s\n", indent, e.Name, sample(e))
		default:
			fmt.Fprintf(b, "%s%s: %s\n", indent, e.Name, sample(e))
		}
	}
}

// live says that a key without an example stands in the file all the same.
func live(e *entry) bool { return e.Name == "kind" }

// kinds writes a template of each kind of check with its options.
func kinds(b *bytes.Buffer, doc *document, indent string) {
	for _, k := range doc.kinds {
		comment(b, indent, k.text)
		fmt.Fprintf(b, "%s-\n%s  template: any-%s\n%s  kind: %s\n", indent, indent, k.name, indent, k.name)
		for i := range k.options {
			o := &k.options[i]
			comment(b, indent+"  ", o.text)
			if value, ok := needed[k.name+"."+o.Name]; ok {
				fmt.Fprintf(b, "%s  %s: %s\n", indent, o.Name, value)
			} else {
				fmt.Fprintf(b, "%s  #%s: %s\n", indent, o.Name, sample(o))
			}
		}
	}
}

// sample is a value of a key.
func sample(e *entry) string {
	switch {
	case e.Example != "":
		return e.Example
	case e.Default != "":
		return e.Default
	case e.Name == "kind":
		return "http"
	case e.sub != nil:
		return "..."
	case len(e.Enum) > 0:
		return e.Enum[0]
	}
	t := e.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[config.Duration]() || t == reflect.TypeFor[time.Duration]():
		return "5s"
	case t.Kind() == reflect.Bool:
		return "true"
	case t.Kind() == reflect.Slice:
		return "[...]"
	case t.Kind() == reflect.String:
		return "..."
	}
	return "1"
}
