package importer

import (
	"fmt"
	"strings"
)

// readLdirectord takes ldirectord.cf apart: "key = value" lines, those of a virtual service indented below it. Arguments are
// one each, the value without its quotes; raw is the value as it stands there.
func readLdirectord(file, text string, lim *limits) (tree []*directive, err error) {
	var virtual *directive
	number := 0
	for line := range strings.Lines(text) {
		number++
		if number > lim.lines {
			return nil, fmt.Errorf("%s:%d: lines: %w", file, number, errTooMuch)
		}
		line = strings.TrimRight(strings.ReplaceAll(line, "\x00", ""), " \t\r\n")
		s := strings.TrimLeft(line, " \t")
		if s == "" || s[0] == '#' {
			continue
		}
		indented := line[0] == '\t' || strings.HasPrefix(line, "    ") || strings.HasPrefix(strings.TrimLeft(line, " "), "\t")
		inVirtual := indented && virtual != nil
		if inVirtual {
			s, _, _ = strings.Cut(s, "#") // as ldirectord does, be it in quotes or not
		}
		key, value, is := strings.Cut(s, "=")
		d := &directive{place: place{file, number}, name: strings.TrimSpace(key), raw: strings.TrimSpace(value)}
		if is {
			d.args = []string{inQuotes(d.raw)}
		}
		switch {
		case inVirtual:
			virtual.block = append(virtual.block, d)
			continue
		case len(line) > len(s):
			d.missing("indented, but below no virtual service")
		case !is && d.name != "supervised":
			d.missing("no \"key = value\"")
		}
		tree = append(tree, d)
		virtual = nil
		if is && (d.name == "virtual" || d.name == "virtual6") {
			virtual = d
			d.isBlock = true
		}
	}
	return tree, nil
}

// inQuotes is what stands between the first and the last quote, or all of it if there are none.
func inQuotes(s string) string {
	first, last := strings.IndexByte(s, '"'), strings.LastIndexByte(s, '"')
	if first == 0 && last > first {
		return s[1:last]
	}
	return s
}
