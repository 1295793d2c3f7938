// Package studies holds the studies that come with uvsbench: questions to the simulator, each a YAML file.
package studies

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

// Files are the studies.
//
//go:embed *.yaml
var Files embed.FS

// Names lists the studies, without ".yaml".
func Names() []string {
	names, _ := fs.Glob(Files, "*.yaml") // the pattern is right
	for i, n := range names {
		names[i] = strings.TrimSuffix(path.Base(n), ".yaml")
	}
	return names
}

// Read returns a study's text; the error wraps fs.ErrNotExist if there is none of that name.
func Read(name string) ([]byte, error) { return Files.ReadFile(name + ".yaml") }
