package ipvsadm

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// whereTo says what somebody has to do who added a word or an option.
const whereTo = "a word has its syntax in control/ipvsadm/syntax.go (completion is made from it), its line in words.txt and its entry in man/uvsadm.8"

// sources are the files that the words are written in, as Go.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("word*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	return files
}

// texts are the string literals in a piece of Go.
func texts(n ast.Node) (list []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, _ := strconv.Unquote(l.Value)
			list = append(list, s)
		}
		return true
	})
	return list
}

// dispatched are the words that run.word knows: the cases of its switches.
func dispatched(t *testing.T) (words []string) {
	t.Helper()
	for _, d := range sources(t)["word.go"].Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "word" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CaseClause); ok {
				for _, e := range c.List {
					words = append(words, texts(e)...)
				}
			}
			return true
		})
	}
	if len(words) < 10 {
		t.Fatalf("run.word was not understood: %q", words)
	}
	return words
}

func TestEveryWordHasItsSyntax(t *testing.T) {
	words := dispatched(t)
	var known []string
	for _, s := range topWords() {
		known = append(known, s.name)
		if !slices.Contains(words, s.name) {
			t.Errorf("%s has a syntax, but run.word doesn't know it", s.name)
		}
	}
	for _, w := range words {
		if !slices.Contains(known, w) {
			t.Errorf("the word %s has no syntax: %s", w, whereTo)
		}
		if !regexp.MustCompile(`(?m)^  @ ` + w + `\b`).MatchString(wordsText) {
			t.Errorf("the word %s is not in words.txt: %s", w, whereTo)
		}
	}
	for _, s := range wordSyntaxes {
		if s.help == "" || strings.ContainsAny(s.help, ":\n") {
			t.Errorf("%s: %q is no help in one line without colons", s.name, s.help)
		}
	}
}

var anOption = regexp.MustCompile(`^--?[a-zA-Z0-9][-a-z0-9]*$`)

// What looks like an option in a word's file is one of its own, and the other way round.
func TestEveryOptionHasItsSyntax(t *testing.T) {
	var known []string
	for _, s := range wordSyntaxes {
		known = append(known, namesOf(s.options)...)
	}
	var used []string
	for name, f := range sources(t) {
		for _, s := range texts(f) {
			if !anOption.MatchString(s) || name == "wordcompletion.go" {
				continue
			}
			used = append(used, s)
			if !slices.Contains(known, s) && s != "-h" && s != "--help" { // those are the letters', in word.go
				t.Errorf("%s: the option %s has no syntax: %s", name, s, whereTo)
			}
		}
	}
	for _, s := range wordSyntaxes {
		for _, n := range namesOf(s.options) {
			if !slices.Contains(used, n) {
				t.Errorf("%s: the option %s is in its syntax but nowhere in word*.go", s.name, n)
			}
		}
	}
}

// manual is man/uvsadm.8 in pieces: the text of each list item by its words, "drain" or "mark add".
func manual(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../man/uvsadm.8")
	if err != nil {
		t.Fatal(err)
	}
	items := map[string]string{}
	start := regexp.MustCompile(`^\.It Xo\n\.Cm ([a-z ]+)\n`)
	for _, piece := range regexp.MustCompile(`(?m)^\.(It|El|Sh)\b`).Split(string(page), -1) {
		if m := start.FindStringSubmatch(".It" + piece); m != nil {
			items[m[1]] += piece
		}
	}
	return items
}

// inManual says that a text in mdoc has an option: -t as Fl t or behind another as | t, --by as Fl -by.
func inManual(text, option string) bool {
	return regexp.MustCompile(`(\bFl|\|) ` + regexp.QuoteMeta(strings.TrimPrefix(option, "-")) + `($|[ \n])`).MatchString(text)
}

func TestTheManualKnowsEveryWordAndOption(t *testing.T) {
	items := manual(t)
	for _, s := range wordSyntaxes {
		text, ok := items[s.name]
		if !ok {
			if len(verbs(&s)) == 0 {
				t.Errorf("man/uvsadm.8 has no item `.It Xo .Cm %s`: %s", s.name, whereTo)
			}
			continue
		}
		delete(items, s.name)
		for _, n := range namesOf(s.options) {
			if !inManual(text, n) {
				t.Errorf("man/uvsadm.8: the item of %s says nothing of %s (.Fl %s): %s", s.name, n, n[1:], whereTo)
			}
		}
		for _, m := range regexp.MustCompile(`\bFl (\S+)`).FindAllStringSubmatch(text, -1) {
			if o := "-" + m[1]; !slices.Contains(namesOf(s.options), o) && !isLetter(o) {
				t.Errorf("man/uvsadm.8: %s has no option %s", s.name, o)
			}
		}
	}
	for name := range items {
		t.Errorf("man/uvsadm.8 has an item for %s, which is no word", name)
	}
	page, _ := os.ReadFile("../../man/uvsadm.8")
	for _, n := range namesOf(append(letterSyntax().options, socketOption)) {
		if !inManual(string(page), n) {
			t.Errorf("man/uvsadm.8 says nothing of ipvsadm's option %s (.Fl %s)", n, n[1:])
		}
	}
}

func isLetter(option string) bool { return slices.Contains(namesOf(letterSyntax().options), option) }
