package main

import (
	"bytes"
	"os"
	"regexp"
	"testing"
)

// The manual page has every flag, and no other.
func TestTheManualKnowsEveryFlag(t *testing.T) {
	var usage bytes.Buffer
	_, _ = parseOptions([]string{"--help"}, &usage)
	page, err := os.ReadFile("../../man/uvs-agent.8")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(usage.String(), -1) {
		flags[m[1]] = true
		if !regexp.MustCompile(`(?m)^\.It .*\bFl -` + m[1] + `( |$)`).Match(page) {
			t.Errorf("--%s is not in man/uvs-agent.8: write an item (.It Fl -%s) there", m[1], m[1])
		}
	}
	if len(flags) < 5 {
		t.Fatalf("the usage was not understood:\n%s", &usage)
	}
	for _, m := range regexp.MustCompile(`\bFl -([a-z-]+)`).FindAllStringSubmatch(string(page), -1) {
		if !flags[m[1]] {
			t.Errorf("man/uvs-agent.8 has --%s, which uvs-agent has not", m[1])
		}
	}
}
