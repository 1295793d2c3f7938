package api

import (
	_ "embed"
	"net/http"
)

//go:generate go run ../../internal/openapi

// OpenAPI is the OpenAPI 3.1 document that describes the API, in JSON: what GET /v1/openapi answers with. It is made from
// this package's types and their comments by go generate.
//
//go:embed openapi.json
var OpenAPI []byte

func (h *handler) openAPI(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(OpenAPI) // a client that went away gets no answer
	return nil
}
