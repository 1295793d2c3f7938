package health

import (
	"os"
	"strings"
	"testing"
)

// docs/checks.md has a line for every kind, and each can be said so.
func TestDocumentedChecksAreSound(t *testing.T) {
	text, err := os.ReadFile("../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(line, "    uvsadm check add ")
		if !ok {
			continue
		}
		words, err := splitShell(command)
		if err != nil || len(words) < 3 {
			t.Fatalf("%q: %v", line, err)
		}
		shown[words[2]] = true
		data, err := WordsJSON(words[2], words[3:])
		if err == nil {
			_, err = Decode(data)
		}
		if err != nil && !strings.Contains(err.Error(), "no such file") { // of a certificate
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, kind := range Kinds() {
		if !shown[kind] {
			t.Errorf("docs/checks.md shows no check of kind %s", kind)
		}
	}
}

// splitShell splits a command line at blanks outside of single quotation marks.
func splitShell(line string) (words []string, err error) {
	line = strings.ReplaceAll(line, `\`, `\\`)
	inside := false
	var b strings.Builder
	for _, r := range line {
		switch {
		case r == '\'':
			inside = !inside
			continue
		case inside && (r == ' ' || r == '"'):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return splitWords(b.String())
}
