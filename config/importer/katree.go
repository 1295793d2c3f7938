package importer

import (
	"fmt"
	"slices"
	"strings"
)

// kaEscaped are the keywords whose arguments are taken apart with backslashes as escapes.
var kaEscaped = []string{"regex", "misc_path", "notify_up", "notify_down", "quorum_up", "quorum_down", "script", "notify",
	"notify_master", "notify_backup", "notify_fault", "notify_stop", "notify_deleted", "startup_script", "shutdown_script", "helo_name"}

// readKeepalived reads keepalived.conf and what it includes. The directives that are only about the reading come apart.
func readKeepalived(path, text, id string, f *files) (tree, notes []*directive, err error) {
	e := &kaExpander{files: f, id: id, defs: map[string]kaDefinition{}}
	if err := e.expand(path, text); err != nil {
		return nil, nil, err
	}
	tree, lost, err := kaTree(e.lines, f.blocks)
	return tree, append(e.notes, lost...), err
}

// kaTree makes statements of lines and blocks of braces. lost are braces that don't match.
func kaTree(lines []kaLine, deepest int) (tree, lost []*directive, err error) {
	root := &directive{}
	open := []*directive{root}
	var last *directive // the statement that a { belongs to
	for _, l := range lines {
		words := split(l.text)
		var current *directive
		for i, w := range words {
			top := open[len(open)-1]
			switch {
			case w.brace("{"):
				if current == nil {
					current = last
				}
				if current == nil || current.isBlock {
					current = &directive{place: l.place, name: "{"}
					top.block = append(top.block, current)
				}
				if len(open) > deepest {
					return nil, nil, fmt.Errorf("%s:%d: blocks in blocks: %w", l.file, l.line, errTooMuch)
				}
				current.isBlock = true
				open = append(open, current)
				current, last = nil, nil
			case w.brace("}"):
				current, last = nil, nil
				if len(open) == 1 {
					d := &directive{place: l.place, name: "}"}
					d.missing("no block is open here")
					lost = append(lost, d)
					continue
				}
				open = open[:len(open)-1]
			case current == nil:
				current = &directive{place: l.place, name: w.text, raw: strings.TrimSpace(l.text[w.end:])}
				top.block = append(top.block, current)
				last = current
				if slices.Contains(kaEscaped, w.text) {
					if rest, isBlock := strings.CutSuffix(current.raw, "{"); !isBlock || strings.TrimSpace(rest) != "" {
						current.args = escaped(current.raw)
						if i+1 < len(words) { // all of the line
							goto next
						}
					}
				}
			default:
				current.args = append(current.args, w.text)
			}
		}
	next:
	}
	for _, d := range open[1:] {
		lost = append(lost, &directive{place: d.place, name: d.name, args: d.args, grade: Missing, notes: []string{"its } is missing"}})
	}
	return root.block, lost, nil
}

// word is what stands between blanks.
type kaWord struct {
	text   string
	quoted bool
	end    int // where it ends in the line
}

// brace reports whether the word is a brace that opens or closes a block.
func (w kaWord) brace(b string) bool { return !w.quoted && w.text == b }

// split takes a line apart at blanks outside of quotes. A brace at the end of a line is a word, however near it stands.
func split(s string) (words []kaWord) {
	for i := 0; i < len(s); {
		if isBlank(s[i]) {
			i++
			continue
		}
		var w kaWord
		var b strings.Builder
		for i < len(s) && !isBlank(s[i]) {
			if q := s[i]; q == '"' || q == '\'' {
				w.quoted = true
				length := strings.IndexByte(s[i+1:], q)
				if length < 0 {
					length = len(s) - i - 1
				}
				b.WriteString(s[i+1 : i+1+length])
				i = min(i+length+2, len(s))
				continue
			}
			b.WriteByte(s[i])
			i++
		}
		w.text, w.end = b.String(), i
		if glued, is := strings.CutSuffix(w.text, "{"); is && glued != "" && !w.quoted && i == len(s) && !strings.Contains(glued, "{") {
			words = append(words, kaWord{text: glued, end: i - 1}, kaWord{text: "{", end: i})
			continue
		}
		words = append(words, w)
	}
	return words
}

func isBlank(c byte) bool {
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f'
}

// escaped takes a line apart at blanks outside of quotes, with the escapes of the shell's $'...'.
func escaped(s string) (words []string) {
	var b strings.Builder
	var quote byte
	in := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			in = true
			text, used := escape(s[i+1:])
			b.WriteString(text)
			i += used
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case isBlank(c):
			if in {
				words = append(words, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}

// escape reads what follows a backslash: \a \b \E \f \n \r \t \v, \nnn octal, \xXX, \cC; another character is itself.
func escape(s string) (text string, used int) {
	if i := strings.IndexByte("abEfnrtv", s[0]); i >= 0 {
		return "\a\b\x1b\f\n\r\t\v"[i : i+1], 1
	}
	number := func(digits string, base, most int) (string, int) {
		v, n := 0, 0
		for n < most && n < len(s) {
			at := strings.IndexByte(digits, s[n]|0x20)
			if at < 0 || s[n] < '0' {
				break
			}
			v, n = v*base+at, n+1
		}
		return string([]byte{byte(v)}), n
	}
	switch {
	case s[0] >= '0' && s[0] <= '7':
		return number("01234567", 8, 3)
	case s[0] == 'x' && len(s) > 1:
		rest := s
		s = s[1:]
		text, used = number("0123456789abcdef", 16, 2)
		if used == 0 {
			return rest[:1], 1
		}
		return text, used + 1
	case s[0] == 'c' && len(s) > 1:
		return string([]byte{s[1] & 0x1f}), 2
	}
	return s[:1], 1
}

// uncomment cuts a line at # or ! outside of quotes.
func uncomment(s string) string {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote != 0:
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
		case c == '"':
			quote = c
		case c == '#' || c == '!':
			return s[:i]
		}
	}
	return s
}

// unquote takes the quotes off a word.
func unquote(s string) string {
	if w := split(s); len(w) == 1 {
		return w[0].text
	}
	return s
}
