package importer

import (
	"fmt"
	"strings"
)

// readPiranha takes lvs.cf apart: "key = value" lines, and blocks "virtual NAME {", "failover NAME {" and, in them,
// "server NAME {". raw is what stands behind the equals sign.
func readPiranha(file, text string, lim *limits) (tree []*directive, err error) {
	root := &directive{}
	open := []*directive{root}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if number > lim.lines {
			return nil, fmt.Errorf("%s:%d: lines: %w", file, number, errTooMuch)
		}
		s := strings.TrimSpace(strings.ReplaceAll(line, "\x00", ""))
		if s == "" || s[0] == '#' {
			continue
		}
		top := open[len(open)-1]
		at := place{file, number}
		if s == "}" {
			if len(open) == 1 {
				d := &directive{place: at, name: "}"}
				d.missing("no block is open here")
				root.block = append(root.block, d)
				continue
			}
			open = open[:len(open)-1]
			continue
		}
		if head, is := strings.CutSuffix(s, "{"); is && !strings.Contains(head, "=") {
			words := strings.Fields(head)
			d := &directive{place: at, name: "{", isBlock: true}
			if len(words) > 0 {
				d.name, d.args = words[0], []string{inQuotes(strings.Join(words[1:], " "))}
			}
			top.block = append(top.block, d)
			if open = append(open, d); len(open) > lim.blocks {
				return nil, fmt.Errorf("%s:%d: blocks in blocks: %w", file, number, errTooMuch)
			}
			continue
		}
		key, value, is := strings.Cut(s, "=")
		d := &directive{place: at, name: strings.TrimSpace(key), raw: strings.TrimSpace(value)}
		if is {
			d.args = piranhaWords(d.raw)
		} else {
			d.missing("no \"key = value\"")
		}
		top.block = append(top.block, d)
	}
	for _, d := range open[1:] {
		d.missing("its } is missing")
	}
	return root.block, nil
}

// piranhaWords takes a value apart at blanks; quotes of either kind hold one together, and a backslash takes the next
// character with it, itself included.
func piranhaWords(s string) (words []string) {
	for i := 0; i < len(s); {
		if isBlank(s[i]) {
			i++
			continue
		}
		start := i
		if q := s[i]; q == '"' || q == '\'' {
			for i++; i < len(s) && s[i] != q; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
			}
			words = append(words, s[start+1:min(i, len(s))])
			i++
			continue
		}
		for i < len(s) && !isBlank(s[i]) {
			i++
		}
		words = append(words, s[start:i])
	}
	return words
}
