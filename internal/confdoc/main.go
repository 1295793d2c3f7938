// Command confdoc writes what documents uvs.yaml, all from the definitions that the decoder has: the reference example
// docs/uvs.yaml, the tables of docs/configuration.md, the JSON Schema docs/uvs.schema.json, and the manual page uvs.yaml(5). Its
// test says when it has to be run again: go generate ./config
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	files, err := generate("..")
	for name, text := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join("..", name), text, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "confdoc:", err)
		os.Exit(1)
	}
}

// generate makes the files, by their names below the module's root, which is where the source is read for its comments.
func generate(root string) (map[string][]byte, error) {
	src, err := readSource(filepath.Join(root, "config"), filepath.Join(root, "health"))
	if err != nil {
		return nil, err
	}
	d := &describer{src: src}
	tree := d.tree()
	if len(d.missing) > 0 {
		return nil, fmt.Errorf("fields without a comment: %v", d.missing)
	}
	schema, err := schemaOf(tree)
	if err != nil {
		return nil, err
	}
	page, err := page(tree)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"docs/uvs.yaml": example(tree), "docs/configuration.md": page, "docs/uvs.schema.json": schema, "man/uvs.yaml.5": manual(tree),
	}, nil
}
