// Package manual is for tests that hold a program's manual page against the program.
package manual

import (
	"os"
	"regexp"
	"testing"
)

// HasEveryFlag checks that a page, written in mdoc, has every flag of a program's usage and no other. usage is what package flag
// prints.
func HasEveryFlag(t *testing.T, program, file, usage string) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(usage, -1) {
		flags[m[1]] = true
		if !regexp.MustCompile(`(?m)^\.It .*\bFl -` + m[1] + `( |$)`).Match(page) {
			t.Errorf("--%s is not in %s: write an item (.It Fl -%s) there", m[1], file, m[1])
		}
	}
	if len(flags) < 5 {
		t.Fatalf("the usage was not understood:\n%s", usage)
	}
	for _, m := range regexp.MustCompile(`\bFl -([a-z-]+)`).FindAllStringSubmatch(string(page), -1) {
		if !flags[m[1]] {
			t.Errorf("%s has --%s, which %s has not", file, m[1], program)
		}
	}
}
