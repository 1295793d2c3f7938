// Command openapi writes control/api/openapi.json, which describes the API and is served by it: the paths from operations.go,
// the types from control/api's own, with their comments. Its test says when it has to be run again: go generate ./control/api
package main

import (
	"fmt"
	"os"
)

func main() {
	doc, err := document(".")
	if err == nil {
		err = os.WriteFile("openapi.json", doc, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}
