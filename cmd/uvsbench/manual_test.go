package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManualHasEveryOption compares what words say of themselves with the manual page, which refers to --help for micro and scale.
func TestManualHasEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../man/uvsbench.1")
	if err != nil {
		t.Fatal(err)
	}
	option := regexp.MustCompile(`(?m)^  -([a-z-]+)`)
	for _, word := range []string{"sim", "replay", "load", "wire", "report"} {
		options := option.FindAllStringSubmatch(help(t, word), -1)
		if len(options) < 3 {
			t.Fatalf("%s --help lists %d options", word, len(options))
		}
		for _, o := range options {
			if !strings.Contains(string(page), "Fl -"+o[1]+" ") && !strings.Contains(string(page), "Fl -"+o[1]+"\n") {
				t.Errorf("man/uvsbench.1 lacks %s --%s", word, o[1])
			}
		}
	}
	for _, word := range []string{"sim", "replay", "load", "wire", "micro", "scale", "report"} {
		if !strings.Contains(string(page), ".It Cm "+word+"\n") {
			t.Errorf("man/uvsbench.1 lacks the word %s", word)
		}
		if !strings.Contains(usage, "uvsbench "+word+" ") {
			t.Errorf("uvsbench help lacks the word %s", word)
		}
	}
}

// help is what a word says with --help.
func help(t *testing.T, word string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string)
	go func() {
		b, _ := io.ReadAll(r) // until w is closed
		said <- string(b)
	}()
	stderr := os.Stderr
	os.Stderr = w
	err = run(t.Context(), []string{word, "--help"}, io.Discard)
	os.Stderr = stderr
	w.Close()
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("%s --help: %v", word, err)
	}
	return <-said
}
