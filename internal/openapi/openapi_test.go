package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"uvs/control/api"
)

const sourceDir = "../../control/api"

// What is committed is what control/api's types and comments and the table of operations make.
func TestTheDocumentIsUpToDate(t *testing.T) {
	doc, err := document(sourceDir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(doc, api.OpenAPI) {
		t.Error("control/api/openapi.json is not what control/api and internal/openapi/operations.go say: run go generate ./control/api")
	}
}

// checker holds values against the schemas of the document.
type checker struct {
	t       *testing.T
	schemas map[string]object
	used    map[string]bool
}

func newChecker(t *testing.T) (*checker, object) {
	t.Helper()
	var doc object
	if err := json.Unmarshal(api.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	c := &checker{t: t, schemas: map[string]object{}, used: map[string]bool{}}
	for name, s := range doc["components"].(object)["schemas"].(object) {
		c.schemas[name] = s.(object)
	}
	return c, doc
}

// check says what is wrong with a value at a place.
func (c *checker) check(where string, schema object, v any) error {
	if r, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(r, "#/components/schemas/")
		s, ok := c.schemas[name]
		if !ok {
			return fmt.Errorf("%s: no schema %s", where, name)
		}
		c.used[name] = true
		return c.check(where, s, v)
	}
	if values, ok := schema["enum"].([]any); ok && !slices.Contains(values, v) {
		return fmt.Errorf("%s: %v is none of %v", where, v, values)
	}
	switch schema["type"] {
	case "object":
		return c.checkObject(where, schema, v)
	case "array":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s: %v is no array", where, v)
		}
		for i, item := range list {
			if err := c.check(fmt.Sprintf("%s[%d]", where, i), schema["items"].(object), item); err != nil {
				return err
			}
		}
	case "string":
		s, ok := v.(string)
		if pattern, has := schema["pattern"].(string); !ok || has && !regexp.MustCompile(pattern).MatchString(s) {
			return fmt.Errorf("%s: %v is no such string", where, v)
		}
	case "integer":
		n, ok := v.(float64)
		if !ok || n != float64(int64(n)) {
			return fmt.Errorf("%s: %v is no integer", where, v)
		}
		if low, has := schema["minimum"].(float64); has && n < low {
			return fmt.Errorf("%s: %v is below %v", where, v, low)
		}
		if high, has := schema["maximum"].(float64); has && n > high {
			return fmt.Errorf("%s: %v is above %v", where, v, high)
		}
	case "number":
		if _, ok := v.(float64); !ok {
			return fmt.Errorf("%s: %v is no number", where, v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return fmt.Errorf("%s: %v is no boolean", where, v)
		}
	default:
		return fmt.Errorf("%s: type %v", where, schema["type"])
	}
	return nil
}

func (c *checker) checkObject(where string, schema object, v any) error {
	fields, ok := v.(object)
	if !ok {
		return fmt.Errorf("%s: %v is no object", where, v)
	}
	properties, _ := schema["properties"].(object)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := fields[name.(string)]; !ok {
			return fmt.Errorf("%s: %s is missing", where, name)
		}
	}
	for name, value := range fields {
		p, ok := properties[name].(object)
		if !ok && schema["additionalProperties"] == false {
			return fmt.Errorf("%s: no property %s", where, name)
		}
		if ok {
			if err := c.check(where+"."+name, p, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Every example is valid by its schema, every reference leads somewhere, every schema is used and every property described.
func TestExamplesValidateAndEverythingIsDescribed(t *testing.T) {
	c, doc := newChecker(t)
	examples := 0
	var walk func(where string, v any)
	walk = func(where string, v any) {
		switch v := v.(type) {
		case []any:
			for i, item := range v {
				walk(fmt.Sprintf("%s[%d]", where, i), item)
			}
		case object:
			if r, ok := v["$ref"].(string); ok {
				parts := strings.Split(strings.TrimPrefix(r, "#/"), "/")
				var at any = doc
				for _, p := range parts {
					at = at.(object)[p]
				}
				if at == nil {
					t.Errorf("%s: %s leads nowhere", where, r)
				}
				if parts[1] == "schemas" {
					c.used[parts[2]] = true
				}
			}
			if example, ok := v["example"]; ok {
				examples++
				if err := c.check(where, v["schema"].(object), example); err != nil {
					t.Errorf("the example is not valid: %v", err)
				}
			}
			for name, item := range v {
				if name != "example" {
					walk(where+"/"+name, item)
				}
			}
		}
	}
	walk("", doc)
	if examples < 15 {
		t.Errorf("only %d examples", examples)
	}
	for name, s := range c.schemas {
		if !c.used[name] {
			t.Errorf("nothing uses the schema %s", name)
		}
		if s["description"] == "" {
			t.Errorf("the type %s has no comment", name)
		}
		for field, p := range s["properties"].(object) {
			if text, _ := p.(object)["description"].(string); text == "" && p.(object)["$ref"] == nil {
				t.Errorf("%s.%s is not described", name, field)
			}
		}
	}
	for _, wrong := range []struct{ schema, value string }{ // the checker finds what is wrong
		{"ServiceKey", `{"protocol":"icmp"}`}, {"ServiceKey", `{"port":65536}`}, {"ServiceKey", `{"what":1}`}, {"ServerKey", `{"address":"10.0.0.1"}`},
		{"ChangeRequest", `{"ops":{}}`}, {"Worker", `{"id":1.5,"cpu":0,"packets":{}}`}, {"Interface", `{"name":1}`},
	} {
		var v any
		if err := json.Unmarshal([]byte(wrong.value), &v); err != nil {
			t.Fatal(err)
		}
		if c.check("", c.schemas[wrong.schema], v) == nil {
			t.Errorf("%s passes as a %s", wrong.value, wrong.schema)
		}
	}
}

// answering is a backend that answers every question with the operation's example, and notes what it was asked.
type answering struct {
	api.Backend
	asked any
}

var errNotAsked = errors.New("not in this test")

func (a *answering) Change(_ context.Context, r *api.ChangeRequest) (*api.ChangeReply, error) {
	a.asked = r
	return &api.ChangeReply{Results: make([]api.OpResult, len(r.Ops))}, nil
}

func (a *answering) Set(_ context.Context, s []api.Setting) ([]api.Setting, error) {
	a.asked = &api.SettingsRequest{Settings: s}
	return s, nil
}

func (a *answering) Explain(_ context.Context, r *api.ExplainRequest) (*api.Explanation, error) {
	a.asked = r
	return nil, errNotAsked
}

func (a *answering) Shadow(_ context.Context, r *api.ShadowRequest) (*api.ShadowsReply, error) {
	a.asked = r
	return &shadows, nil
}

func (a *answering) Reload(_ context.Context, r *api.ReloadRequest) (*api.Reload, error) {
	a.asked = r
	return &reloaded, nil
}

func (a *answering) Save(_ context.Context, r *api.SaveRequest) (*api.Saved, error) {
	a.asked = r
	return &api.Saved{Differences: []api.Difference{}}, nil
}

func (a *answering) Drain(_ context.Context, r *api.DrainRequest) ([]api.Drain, error) {
	a.asked = r
	return drains.Drains, nil
}

func (a *answering) Undrain(_ context.Context, r *api.UndrainRequest) ([]api.Drain, error) {
	a.asked = r
	return drains.Drains, nil
}

func (a *answering) TestChecks(_ context.Context, r *api.CheckTestRequest) ([]api.CheckTest, error) {
	a.asked = r
	return nil, nil
}

// The handler takes each request that the document gives as an example, and understands what it says.
func TestTheHandlerTakesTheExamples(t *testing.T) {
	for i := range operations {
		o := &operations[i]
		if o.request == nil {
			continue
		}
		body, err := json.Marshal(o.request)
		if err != nil {
			t.Fatal(err)
		}
		a := &answering{}
		w := httptest.NewRecorder()
		api.NewHandler(a).ServeHTTP(w, httptest.NewRequest(o.method, o.path, bytes.NewReader(body)))
		if w.Code == http.StatusBadRequest || w.Code == http.StatusNotFound {
			t.Errorf("%s %s with the example: %d %s", o.method, o.path, w.Code, w.Body)
		}
		if !reflect.DeepEqual(a.asked, o.request) {
			t.Errorf("%s %s: the example came as %+v, want %+v (does answering know the method of the backend?)", o.method, o.path, a.asked, o.request)
		}
	}
}
