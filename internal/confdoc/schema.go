package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"

	"uvs/config"
	"uvs/health"
)

type object = map[string]any

// schemaOf is docs/uvs.schema.json, for editors. It says less than the decoder: what goes together is known to that alone.
func schemaOf(doc *document) ([]byte, error) {
	defs := object{}
	for _, s := range doc.sections[1:] {
		def := keysSchema(s.keys)
		if s.title == titles[reflect.TypeFor[config.Check]()] {
			properties := def["properties"].(object)
			for _, k := range doc.kinds {
				for i := range k.options {
					o := &k.options[i]
					if old, ok := properties[o.Name].(object); ok {
						if text := old["description"].(string); len(text) < 500 {
							old["description"] = text + " " + k.name + ": " + o.text
						}
						continue
					}
					one := valueSchema(o)
					one["description"] = k.name + ": " + o.text
					properties[o.Name] = one
				}
			}
			properties["kind"].(object)["enum"] = health.Kinds()
		}
		def["description"] = s.text
		defs[s.title] = def
	}
	root := keysSchema(doc.root.keys)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "uvs.yaml"
	root["description"] = doc.root.text
	root["$defs"] = defs
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(root)
	return b.Bytes(), err
}

func keysSchema(keys []entry) object {
	properties, required := object{}, []string{}
	for i := range keys {
		e := &keys[i]
		if e.Inline {
			continue
		}
		one := valueSchema(e)
		one["description"] = e.text
		if e.Default != "" {
			one["default"] = plainValue(e.Default)
		}
		properties[e.Name] = one
		if e.Required {
			required = append(required, e.Name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// plainValue is a number or truth value where a text is one.
func plainValue(s string) any {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	if s == "true" || s == "false" {
		return s == "true"
	}
	return s
}

func valueSchema(e *entry) object {
	var one object
	if e.sub != nil {
		one = object{"$ref": "#/$defs/" + e.sub.title}
		if e.Shorthand != "" {
			one = object{"anyOf": []object{one, {"type": "string"}}}
		}
	} else {
		one = scalarSchema(e)
	}
	if !isList(e) {
		return one
	}
	list := object{"type": "array", "items": one}
	if e.One || scalarText(e) == "port or range" {
		return object{"anyOf": []object{list, one}}
	}
	return list
}

func scalarSchema(e *entry) object {
	if len(e.Enum) > 0 {
		return object{"enum": e.Enum}
	}
	switch scalarText(e) {
	case "time":
		return object{"type": "string", "pattern": "^([0-9]+d)?([0-9]+(\\.[0-9]+)?(h|m|s|ms|us|ns))*$"}
	case "port or range":
		return object{"anyOf": []object{{"type": "integer", "minimum": 0, "maximum": 65535}, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}}}
	case "true, false":
		return object{"type": "boolean"}
	case "netmask":
		return object{"type": []string{"string", "integer"}}
	case "number":
		out := object{"type": "number"}
		if t := e.Type.Kind(); t != reflect.Float64 {
			out["type"] = "integer"
		}
		for key, text := range map[string]string{"minimum": e.Min, "maximum": e.Max} {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				out[key] = n
			}
		}
		return out
	}
	if e.Name == "settings" {
		return object{"type": "object", "additionalProperties": object{"type": []string{"integer", "string", "boolean"}}}
	}
	return object{"type": []string{"string", "number"}}
}
