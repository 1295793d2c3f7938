package importer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// limits bound what a file, and what it includes and repeats, can make the importer hold.
type limits struct {
	fileBytes int64 // of one file
	allBytes  int64 // of all files together
	files     int   // how many
	includes  int   // how deep files may include files
	depth     int   // how deep definitions may have definitions
	lines     int   // after includes, definitions and ~SEQ
	textBytes int   // of these lines together
	lineBytes int   // of one of them
	blocks    int   // how deep braces may be
}

// defaultLimits are far beyond what anybody wrote by hand or by program.
var defaultLimits = limits{fileBytes: 16 << 20, allBytes: 64 << 20, files: 10000, includes: 16, depth: 32, lines: 1 << 20, textBytes: 128 << 20,
	lineBytes: 64 << 10, blocks: 32}

// errTooMuch is wrapped by every error about a limit.
var errTooMuch = errors.New("more than the importer takes")

// files reads files within limits.
type files struct {
	limits
	read   int
	opened int64
}

// text returns a file's content. Directories, devices, pipes and whatever else is no regular file are refused; "-" is
// standard input if stdin isn't nil.
func (f *files) text(path string, stdin io.Reader) (string, error) {
	if f.read++; f.read > f.files {
		return "", fmt.Errorf("read %s: more than %d files: %w", path, f.files, errTooMuch)
	}
	room := min(f.fileBytes, f.allBytes-f.opened)
	var from io.Reader = stdin
	if path != "-" || stdin == nil {
		file, err := open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from = file
	}
	b, err := io.ReadAll(io.LimitReader(from, room+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > room {
		return "", fmt.Errorf("read %s: more than %d bytes: %w", path, room, errTooMuch)
	}
	f.opened += int64(len(b))
	return string(b), nil
}

// open opens a regular file, without waiting for the other end of what isn't one.
func open(path string) (*os.File, error) {
	info, err := os.Stat(path) // before it is opened: opening alone can move a tape
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() { // it may have been exchanged meanwhile
		file.Close()
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	return file, nil
}

// glob returns the files that a pattern of shell wildcards and braces means, seen from a directory, in the order of glob(3):
// brace by brace, sorted within.
func glob(dir, pattern string) ([]string, error) {
	alternatives, err := braces(pattern, 1000)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range alternatives {
		if !filepath.IsAbs(p) && dir != "" && dir != "." {
			p = filepath.Join(escapeGlob.Replace(dir), p)
		}
		if !strings.ContainsAny(p, `*?[\`) {
			if _, err := os.Lstat(p); err == nil {
				found = append(found, p)
			}
			continue
		}
		match, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pattern, err)
		}
		found = append(found, match...)
	}
	return found, nil
}

var escapeGlob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// braces expands {a,b} as csh does, nested ones too, to at most so many words.
func braces(s string, most int) ([]string, error) {
	from := strings.IndexByte(s, '{')
	if from < 0 || strings.HasPrefix(s[from:], "{}") {
		return []string{s}, nil
	}
	depth, start := 0, from+1
	var parts []string
	end := -1
	for i := from; i < len(s) && end < 0; i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				parts, end = append(parts, s[start:i]), i
			}
		case ',':
			if depth == 1 {
				parts, start = append(parts, s[start:i]), i+1
			}
		}
	}
	if end < 0 {
		return []string{s}, nil // no closing one: it stands for itself
	}
	var all []string
	for _, p := range parts {
		more, err := braces(s[:from]+p+s[end+1:], most-len(all))
		if err != nil {
			return nil, err
		}
		if all = append(all, more...); len(all) > most {
			return nil, fmt.Errorf("%s: braces: %w", s, errTooMuch)
		}
	}
	return all, nil
}
