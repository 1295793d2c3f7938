package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"uvs/control/api"
)

// object is a JSON object.
type object = map[string]any

// document is the whole description. dir is where the source of control/api lies, for its comments.
func document(dir string) ([]byte, error) {
	src, err := readSource(dir)
	if err != nil {
		return nil, err
	}
	s := &schemas{src: src, done: object{}}
	paths := object{}
	for i := range operations {
		o := &operations[i]
		item, _ := paths[o.path].(object)
		if item == nil {
			item = object{}
			paths[o.path] = item
		}
		item[strings.ToLower(o.method)] = s.operation(o)
	}
	s.done["ErrorReply"] = object{
		"type": "object", "description": "What a refused request is answered with.", "required": []string{"error"},
		"additionalProperties": false, "properties": object{"error": s.of(api.Error{})},
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "uvsd", "version": "1",
			"description": "The way into uvsd, the director of the Userspace Virtual Server: HTTP and JSON on a Unix socket, " +
				api.DefaultSocket + " by default. Requests are read strictly: unknown and repeated fields are refused.",
		},
		"servers":    []object{{"url": "http://uvsd", "description": "the Unix socket; the host's name means nothing"}},
		"paths":      paths,
		"components": object{"schemas": s.done, "parameters": parameters, "responses": object{"Refused": refused}},
	}
	if len(s.missing) > 0 {
		slices.Sort(s.missing)
		return nil, fmt.Errorf("fields of control/api without a comment that names them: %s", strings.Join(s.missing, ", "))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err = enc.Encode(doc)
	return b.Bytes(), err
}

// refused is the answer to what is refused.
var refused = object{
	"description": "Refused, or failed; nothing was changed. The code says why.",
	"content":     object{"application/json": object{"schema": ref("schemas", "ErrorReply")}},
}

func ref(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }

// operation describes a path's method.
func (s *schemas) operation(o *operation) object {
	kind := "application/json"
	if o.stream {
		kind = "application/x-ndjson"
	}
	answer := func(text string) object {
		return object{"description": text, "content": object{kind: s.content(o.reply)}}
	}
	responses := object{"200": answer(o.returns), "default": ref("responses", "Refused")}
	if o.conflict != "" {
		responses["409"] = answer(o.conflict)
	}
	out := object{"operationId": o.id, "summary": o.summary, "responses": responses}
	if o.request != nil {
		out["requestBody"] = object{"required": true, "content": object{"application/json": s.content(o.request)}}
	}
	var list []object
	for _, p := range o.parameters {
		list = append(list, ref("parameters", p))
	}
	if list != nil {
		out["parameters"] = list
	}
	return out
}

// content is a value of a type of the API, as the schema of the type with the value as its example.
func (s *schemas) content(v any) object {
	if v == nil {
		return object{"schema": object{"type": "object"}}
	}
	return object{"schema": s.of(v), "example": v}
}
