package main

import (
	"reflect"
	"regexp"
	"strings"

	"uvs/config"
	"uvs/health"
)

// section is a struct of the file with its keys.
type section struct {
	path, title, text string
	keys              []entry
}

// entry is a key with its documentation.
type entry struct {
	config.Key
	text string
	sub  *section // of a value with keys
	list bool     // of such
}

// kind is a kind of check with its options.
type kind struct {
	name, text string
	options    []entry
}

// document is all of the file.
type document struct {
	root     *section
	sections []*section // each once, in the order of reading
	kinds    []kind
}

type describer struct {
	src     *source
	doc     document
	known   map[reflect.Type]*section
	missing []string
}

// titles are what the sections are called, by their types.
var titles = map[reflect.Type]string{
	reflect.TypeFor[config.Config]():       "The file",
	reflect.TypeFor[config.Interface]():    "Interfaces",
	reflect.TypeFor[config.InnerTraffic](): "Inner traffic",
	reflect.TypeFor[config.PacketPath]():   "Packets",
	reflect.TypeFor[config.Service]():      "Services",
	reflect.TypeFor[config.Persistence]():  "Persistence",
	reflect.TypeFor[config.Tunnel]():       "Tunnels",
	reflect.TypeFor[config.Server]():       "Servers",
	reflect.TypeFor[config.ServerGroup]():  "Groups",
	reflect.TypeFor[config.Check]():        "Checks",
	reflect.TypeFor[config.Health]():       "Health policies",
	reflect.TypeFor[config.MarkRule]():     "Mark rules",
	reflect.TypeFor[config.Timeouts]():     "Timeouts",
	reflect.TypeFor[config.Limits]():       "Limits",
	reflect.TypeFor[config.SyncDaemon]():   "Sync daemons",
	reflect.TypeFor[config.Log]():          "Log",
}

func (d *describer) tree() *document {
	d.known = map[reflect.Type]*section{}
	for t, path := range map[reflect.Type]string{reflect.TypeFor[config.Check](): "checks", reflect.TypeFor[config.Health](): "policies"} {
		d.known[t] = &section{path: path} // their first uses, in services, are not where they are best explained
	}
	d.doc.root = d.section(reflect.TypeFor[config.Config](), "")
	for _, name := range health.Kinds() {
		t := reflect.TypeOf(health.New(name)).Elem()
		d.doc.kinds = append(d.doc.kinds, kind{name, kindText(d.src.types[typeName(t)]), d.entries(t, "")})
	}
	return &d.doc
}

func typeName(t reflect.Type) string { return strings.TrimPrefix(t.String(), "*") }

func (d *describer) section(t reflect.Type, path string) *section {
	s := d.known[t]
	if s != nil && s.title != "" {
		return s
	}
	if s == nil {
		s = &section{path: path}
		d.known[t] = s
	}
	s.title, s.text = titles[t], typeText(d.src.types[typeName(t)])
	path = s.path
	d.doc.sections = append(d.doc.sections, s)
	s.keys = d.entries(t, path)
	return s
}

func (d *describer) entries(t reflect.Type, path string) (list []entry) {
	for _, k := range config.Keys(t) {
		e := entry{Key: k, text: d.src.fields[typeName(k.Owner)+"."+k.Field]}
		if strings.HasPrefix(typeName(k.Owner), "health.") { // whose comments name the field in Go
			for _, other := range config.Keys(k.Owner) {
				e.text = regexp.MustCompile(`\b`+other.Field+`\b`).ReplaceAllString(e.text, other.Name)
			}
			e.text = plainText(e.text, k.Name)
		}
		if e.text == "" {
			d.missing = append(d.missing, typeName(k.Owner)+"."+k.Field)
		}
		of := k.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			e.list = e.list || of.Kind() == reflect.Slice
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && titles[of] != "" {
			e.sub = d.section(of, strings.TrimPrefix(path+"."+k.Name, "."))
		}
		list = append(list, e)
	}
	return list
}
