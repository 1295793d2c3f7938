package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// source is the comments of structs and their fields, by "package.Type" and "package.Type.Field".
type source struct {
	types  map[string]string
	fields map[string]string
}

func readSource(dirs ...string) (*source, error) {
	s := &source{types: map[string]string{}, fields: map[string]string{}}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("no Go source in %s", dir)
		}
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				g, ok := n.(*ast.GenDecl)
				if !ok {
					return true
				}
				for _, spec := range g.Specs {
					if t, ok := spec.(*ast.TypeSpec); ok {
						s.read(f.Name.Name+"."+t.Name.Name, oneLine(g.Doc), t)
					}
				}
				return false
			})
		}
	}
	return s, nil
}

// read notes a type's comments. A field without a comment shares that of the field above.
func (s *source) read(name, doc string, t *ast.TypeSpec) {
	s.types[name] = doc
	st, ok := t.Type.(*ast.StructType)
	if !ok {
		return
	}
	last := ""
	for _, f := range st.Fields.List {
		text := strings.TrimSpace(oneLine(f.Doc) + " " + oneLine(f.Comment))
		if text == "" {
			text = last
		}
		last = text
		for _, n := range f.Names {
			s.fields[name+"."+n.Name] = text
		}
	}
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// plainText makes a comment about a key, "key is what it is", a sentence of its own.
func plainText(text, key string) string {
	for _, verb := range []string{" is ", " are ", " has "} {
		if rest, ok := strings.CutPrefix(text, key+verb); ok {
			text = rest
			break
		}
	}
	if text == "" {
		return ""
	}
	if !strings.HasPrefix(text, key) {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return strings.TrimSuffix(text, ".") + "."
}

// typeText makes a type's comment one about what it is in the file.
func typeText(s string) string {
	_, after, _ := strings.Cut(s, " ")
	for _, verb := range []string{"is ", "are "} {
		if x, ok := strings.CutPrefix(after, verb); ok {
			return strings.ToUpper(x[:1]) + x[1:]
		}
	}
	return s
}

// kindText is what a kind's comment says behind its name.
func kindText(s string) string {
	if _, rest, ok := strings.Cut(s, ": "); ok && strings.Contains(s[:len(s)-len(rest)], "the kind") {
		return strings.ToUpper(rest[:1]) + rest[1:]
	}
	return typeText(s)
}
