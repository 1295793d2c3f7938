package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// described are the methods of each path in the document.
func described(t *testing.T) map[string][]string {
	t.Helper()
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ OperationID string }
	}
	if err := json.Unmarshal(OpenAPI, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("openapi.json: %v, version %q", err, doc.OpenAPI)
	}
	paths := map[string][]string{}
	for path, methods := range doc.Paths {
		for m := range methods {
			paths[path] = append(paths[path], strings.ToUpper(m))
		}
	}
	return paths
}

func TestEveryRouteIsDescribedAndNoOther(t *testing.T) {
	doc, routes := described(t), newHandler(&stub{}).routes
	for path, methods := range routes {
		for m := range methods {
			if !slices.Contains(doc[path], m) {
				t.Errorf("openapi.json says nothing of %s %s: write it into internal/openapi/operations.go and run go generate ./control/api", m, path)
			}
		}
	}
	for path, methods := range doc {
		for _, m := range methods {
			if routes[path][m] == nil {
				t.Errorf("openapi.json has %s %s, which nobody answers: take it out of internal/openapi/operations.go and run go generate ./control/api", m, path)
			}
		}
	}
}

func TestTheDocumentIsServed(t *testing.T) {
	c := serve(t, &stub{})
	if status, body := raw(t, c, "GET", "/v1/openapi", ""); status != 200 || body != string(OpenAPI) {
		t.Errorf("GET /v1/openapi: %d, %.80q", status, body)
	}
	if status, _ := raw(t, c, "GET", "/v1/openapi?what", ""); status != 400 {
		t.Errorf("GET /v1/openapi with parameters: %d", status)
	}
}
