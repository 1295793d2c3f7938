package importer

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// kaLine is a line of keepalived.conf that is left when comments, conditions, definitions, sequences and includes are done.
type kaLine struct {
	place
	text string
}

// kaExpander does what keepalived's parser does before it looks for keywords (keepalived.conf(5), ADVANCED CONFIGURATION).
type kaExpander struct {
	files *files
	id    string // what conditions are compared with: keepalived's -i
	defs  map[string]kaDefinition
	bytes int
	lines []kaLine
	// notes are directives that lead to no line of their own: conditions that don't hold, definitions, includes.
	notes []*directive
	// dir and file are those of the file at hand; depth counts includes.
	dir, file string
	depth     int
	seen      map[place]bool // lines already noted
}

// kaDefinition is a parameter's value: one line, or several.
type kaDefinition struct {
	lines []kaLine
	multi bool
}

// isPutIn is said of a definition, and of where several lines are put in.
const isPutIn = "definition, put in where it is used"

// kaIncludes are the keywords that include a file. Those with a letter more say what is an error.
var kaIncludes = []string{"include", "includer", "includem", "includew", "includeb", "includea"}

// expandFile reads a file and all that it includes.
func (e *kaExpander) expandFile(path string) error {
	text, err := e.files.text(path, nil)
	if err != nil {
		return err
	}
	return e.expand(path, text)
}

// expand takes the text of a file, and all that it includes.
func (e *kaExpander) expand(path, text string) error {
	dir, file := e.dir, e.file
	e.dir, e.file = filepath.Dir(path), path
	defer func() { e.dir, e.file = dir, file }()

	var def *kaDefinition // that goes on
	var name string
	number := 0
	for line := range strings.Lines(text) {
		number++
		at := place{path, number}
		s := strings.TrimSpace(uncomment(strings.ReplaceAll(line, "\x00", "")))
		if def != nil {
			more := strings.HasSuffix(s, `\`)
			if s = strings.TrimSpace(strings.TrimSuffix(s, `\`)); s != "" {
				def.lines = append(def.lines, kaLine{at, s})
			}
			if !more {
				e.defs[name], def = *def, nil
			}
			continue
		}
		if s == "" {
			continue
		}
		if word, rest, _ := strings.Cut(s, " "); slices.Contains(kaIncludes, strings.TrimSpace(word)) && strings.TrimSpace(rest) != "" {
			if err := e.include(at, word, unquote(strings.TrimSpace(rest))); err != nil {
				return err
			}
			continue
		}
		// A condition may stand before a definition of several lines.
		holds, cond := e.conditions(s)
		if n, value, is := definition(cond); is && strings.HasSuffix(value, `\`) {
			def, name = &kaDefinition{multi: true}, n
			if first := strings.TrimSpace(strings.TrimSuffix(value, `\`)); first != "" {
				def.lines = append(def.lines, kaLine{at, first})
			}
			if !holds {
				name = "" // a name that nobody can use: its lines are skipped
				e.elsewhere(at, s)
				continue
			}
			e.note(at, "$"+n, nil, Exact, isPutIn)
			continue
		}
		if err := e.line(at, s, 0); err != nil {
			return err
		}
	}
	if def != nil {
		e.defs[name] = *def
	}
	return nil
}

// elsewhere notes a line whose condition doesn't hold.
func (e *kaExpander) elsewhere(at place, s string) {
	e.note(at, s, nil, Needless, "stands there for another machine than "+strconv.Quote(e.id)+" (--config-id)")
}

// conditions takes @id and @^id away from the beginning of a line, and says whether all of them hold.
func (e *kaExpander) conditions(s string) (holds bool, rest string) {
	holds = true
	for strings.HasPrefix(s, "@") {
		word, rest, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
		id, not := strings.CutPrefix(word[1:], "^")
		if (id == e.id) == not {
			holds = false
		}
		s = strings.TrimSpace(rest)
	}
	return holds, s
}

// definition takes $NAME=value apart.
func definition(s string) (name, value string, is bool) {
	if !strings.HasPrefix(s, "$") {
		return "", "", false
	}
	name, value, is = strings.Cut(s[1:], "=")
	return name, strings.TrimSpace(value), is && isName(name)
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

// line processes one line until nothing of it is to be expanded, and keeps what is left.
func (e *kaExpander) line(at place, s string, depth int) error {
	if depth > e.files.depth {
		return fmt.Errorf("%s:%d: definitions in definitions: %w", at.file, at.line, errTooMuch)
	}
	for range 1000 {
		holds, rest := e.conditions(s)
		if !holds {
			e.elsewhere(at, s)
			return nil
		}
		s = rest
		switch {
		case s == "":
			return nil
		case strings.HasPrefix(s, "~SEQ"), strings.HasPrefix(s, "~LST"):
			return e.repeat(at, s, depth)
		}
		if name, value, is := definition(s); is {
			e.defs[name] = kaDefinition{lines: []kaLine{{at, value}}}
			e.note(at, "$"+name, nil, Exact, isPutIn)
			return nil
		}
		next, after, changed := e.substitute(at, s)
		if after != nil { // the rest of the line is the first of several
			if err := e.line(at, next, depth+1); err != nil {
				return err
			}
			for _, l := range after {
				if err := e.line(l.place, l.text, depth+1); err != nil {
					return err
				}
			}
			return nil
		}
		if !changed {
			return e.keep(at, s)
		}
		if s = strings.TrimSpace(next); len(s) > e.files.lineBytes {
			break
		}
	}
	return fmt.Errorf("%s:%d: a line whose definitions never end: %w", at.file, at.line, errTooMuch)
}

func (e *kaExpander) keep(at place, s string) error {
	if e.bytes += len(s); len(e.lines) >= e.files.lines || e.bytes > e.files.textBytes {
		return fmt.Errorf("%s:%d: more than %d lines, or %d bytes: %w", at.file, at.line, e.files.lines, e.files.textBytes, errTooMuch)
	}
	e.lines = append(e.lines, kaLine{at, s})
	return nil
}

// substitute replaces the first parameter of a line that has a value. When that has several lines, after are those behind
// the first; s then ends with the first.
func (e *kaExpander) substitute(at place, s string) (next string, after []kaLine, changed bool) {
	for i := 0; i < len(s); i++ {
		if s[i] != '$' {
			continue
		}
		name, params, end := parameter(s, i)
		if end == 0 {
			continue
		}
		if value, is := e.predefined(at, name, params); is {
			return s[:i] + value + s[end:], nil, true
		}
		def, known := e.defs[name]
		switch {
		case !known || params != "":
			continue // stands for itself
		case def.multi && end < len(s):
			continue // several lines only at the end of one
		case def.multi && len(def.lines) == 0:
			return s[:i], nil, true
		case def.multi && i == 0:
			e.note(at, "$"+name, nil, Exact, isPutIn)
			// A line of nothing but the parameter: each of its lines keeps its own place.
			return "", def.lines, true
		case def.multi:
			return s[:i] + def.lines[0].text, append([]kaLine{}, def.lines[1:]...), true
		}
		return s[:i] + def.lines[0].text + s[end:], nil, true
	}
	return s, nil, false
}

// parameter reads $NAME or ${NAME} or ${NAME 1 2} at i. end is 0 if none stands there.
func parameter(s string, i int) (name, params string, end int) {
	start := i + 1
	inBraces := strings.HasPrefix(s[start:], "{")
	if inBraces {
		start++
	}
	end = start
	for end < len(s) && isName("_"+s[start:end+1]) {
		end++
	}
	name = s[start:end]
	if !isName(name) {
		return "", "", 0
	}
	if !inBraces {
		if end < len(s) && !strings.ContainsRune(" \t,)", rune(s[end])) {
			return "", "", 0
		}
		return name, "", end
	}
	length := strings.IndexByte(s[end:], '}')
	if length < 0 {
		return "", "", 0
	}
	params = s[end : end+length]
	if strings.Trim(params, " 0123456789") != "" {
		return "", "", 0
	}
	return name, strings.TrimSpace(params), end + length + 1
}

// predefined is the value of a definition that keepalived has by itself.
func (e *kaExpander) predefined(at place, name, params string) (string, bool) {
	switch name {
	case "_PWD":
		dir, err := filepath.Abs(e.dir)
		return dir, err == nil
	case "_INSTANCE":
		return e.id, true
	case "_HASH":
		return "#", true
	case "_BANG":
		return "!", true
	case "_RANDOM":
		low, _, _ := strings.Cut(params, " ")
		if low == "" {
			low = "0"
		}
		e.note(at, "${_RANDOM}", nil, Approximate, "not another number each time, but the lowest")
		return low, true
	}
	return "", false
}

// note keeps a directive that leads to no line, once for each line of a file.
func (e *kaExpander) note(at place, name string, args []string, g Grade, why string) {
	key := place{at.file + "\x00" + name, at.line}
	if e.seen[key] {
		return
	}
	if e.seen == nil {
		e.seen = map[place]bool{}
	}
	e.seen[key] = true
	d := &directive{place: at, name: name, args: args}
	d.set(g, why)
	e.notes = append(e.notes, d)
}

// include reads the files that a pattern means.
func (e *kaExpander) include(at place, keyword, pattern string) error {
	if e.depth >= e.files.includes {
		return fmt.Errorf("%s:%d: includes in includes: %w", at.file, at.line, errTooMuch)
	}
	found, err := glob(e.dir, pattern)
	if err == nil && len(found) == 0 {
		e.note(at, keyword, []string{pattern}, Missing, "there is no such file")
		return nil
	}
	if err != nil {
		e.note(at, keyword, []string{pattern}, Missing, err.Error())
		return nil
	}
	e.depth++
	defer func() { e.depth-- }()
	e.note(at, keyword, []string{pattern}, Exact, "the files are part of the result")
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			e.note(at, keyword+" "+path, nil, Needless, "the file is executable, and keepalived reads none that are")
			continue
		}
		if err := e.expandFile(path); tooMuch(err) {
			return err
		} else if err != nil { // of this file: those that it includes note their own
			e.note(at, keyword+" "+path, nil, Missing, err.Error())
		}
	}
	return nil
}

// repeat processes the rest of a line for each value of a sequence or list.
func (e *kaExpander) repeat(at place, s string, depth int) error {
	open, end := strings.IndexByte(s, '('), 0
	if open > 0 {
		end = strings.IndexByte(s, ')')
	}
	if end <= open {
		e.note(at, s, nil, Missing, "no complete ~SEQ or ~LST")
		return nil
	}
	inside, err := e.inner(at, s[open+1:end])
	var names []string
	var values [][]string
	if err == nil {
		if strings.HasPrefix(s, "~LST") {
			names, values, err = list(inside)
		} else {
			names, values, err = sequence(inside, strings.HasPrefix(s, "~SEQx"), e.files.lines)
		}
	}
	if err != nil {
		if tooMuch(err) {
			return fmt.Errorf("%s:%d: %w", at.file, at.line, err)
		}
		e.note(at, s[:end+1], nil, Missing, err.Error())
		return nil
	}
	e.note(at, s[:end+1], nil, Exact, "written out")
	before := maps.Clone(e.defs)
	for _, v := range values {
		for i, name := range names {
			e.defs[name] = kaDefinition{lines: []kaLine{{at, v[i]}}}
		}
		if err := e.line(at, strings.TrimSpace(s[end+1:]), depth+1); err != nil {
			return err
		}
	}
	for _, name := range names {
		if old, had := before[name]; had {
			e.defs[name] = old
		} else {
			delete(e.defs, name)
		}
	}
	return nil
}

// inner replaces the parameters among the arguments of a sequence.
func (e *kaExpander) inner(at place, s string) (string, error) {
	for range 1000 {
		next, after, changed := e.substitute(at, s)
		if !changed || after != nil {
			return s, nil
		}
		if s = next; len(s) > e.files.lineBytes {
			break
		}
	}
	return "", fmt.Errorf("definitions without end: %w", errTooMuch)
}
