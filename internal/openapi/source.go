package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// source is what control/api's source says that its types don't: comments, and the constants of a type.
type source struct {
	types     map[string]string   // comment by type
	fields    map[string]string   // comment by "Type.Field"
	own       map[string]bool     // of fields whose comment is theirs alone, and not of the one above as well
	constants map[string][]string // values by type
}

func readSource(dir string) (*source, error) {
	s := &source{types: map[string]string{}, fields: map[string]string{}, own: map[string]bool{}, constants: map[string][]string{}}
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
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					s.read(g, spec)
				}
			}
		}
	}
	return s, nil
}

func (s *source) read(g *ast.GenDecl, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		doc := oneLine(g.Doc)
		if spec.Doc != nil {
			doc = oneLine(spec.Doc)
		}
		s.types[spec.Name.Name] = doc
		if st, ok := spec.Type.(*ast.StructType); ok {
			s.readFields(spec.Name.Name, doc, st)
		}
	case *ast.ValueSpec:
		t, ok := spec.Type.(*ast.Ident)
		if !ok || g.Tok != token.CONST {
			return
		}
		for _, v := range spec.Values {
			if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, _ := strconv.Unquote(l.Value)
				s.constants[t.Name] = append(s.constants[t.Name], text)
			}
		}
	}
}

// readFields notes the comments of fields. One without a comment shares that of the field above, or at the top the type's,
// which has to name it then.
func (s *source) readFields(name, doc string, st *ast.StructType) {
	last := doc
	for _, f := range st.Fields.List {
		text, own := oneLine(f.Doc), true
		if f.Comment != nil {
			text = strings.TrimSpace(text + " " + oneLine(f.Comment))
		}
		if text == "" {
			text, own = last, false
		} else if f.Doc != nil {
			last = text
		}
		for _, n := range f.Names {
			s.fields[name+"."+n.Name], s.own[name+"."+n.Name] = text, own
		}
	}
}

// oneLine is the text of a comment without line breaks.
func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
