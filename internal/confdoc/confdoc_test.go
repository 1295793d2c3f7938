package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"uvs/config"
	"uvs/health"
)

const root = "../.."

func TestWhatDocumentsTheFileIsUpToDate(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): go generate ./config", name, err)
		}
	}
}

// The example has every key, passes, and so do its comments' values where they are whole.
func TestTheExampleHasEveryKeyAndIsSound(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	text := files["docs/uvs.yaml"]
	f, err := config.Parse("uvs.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.State(nil); err != nil || len(s.Services) != 1 || len(s.Services[0].Servers) != 3 || len(s.Services[0].Checks) != 1 {
		t.Errorf("the example asks for %+v, %v", s, err)
	}
	src, err := readSource(filepath.Join(root, "config"), filepath.Join(root, "health"))
	if err != nil {
		t.Fatal(err)
	}
	doc := (&describer{src: src}).tree()
	for _, s := range doc.sections {
		for i := range s.keys {
			if name := s.keys[i].Name; name != "" && !regexp.MustCompile(`(?m)^ *#?[ #]*(- )?`+name+`:`).Match(text) {
				t.Errorf("the example lacks %s.%s", s.path, name)
			}
		}
	}
	for _, k := range health.Kinds() {
		if !strings.Contains(string(text), "\n      kind: "+k+"\n") && !strings.Contains(string(text), "kind: "+k+"\n") {
			t.Errorf("the example lacks the kind of check %s", k)
		}
	}
}

// A check's options stand beside the file's own keys, and must not be called like them.
func TestNoOptionOfACheckIsCalledLikeAKeyOfAll(t *testing.T) {
	src, err := readSource(filepath.Join(root, "config"), filepath.Join(root, "health"))
	if err != nil {
		t.Fatal(err)
	}
	doc := (&describer{src: src}).tree()
	common := map[string]bool{}
	for _, s := range doc.sections {
		if s.path == "checks" {
			for i := range s.keys {
				common[s.keys[i].Name] = true
			}
		}
	}
	if !common["template"] || !common["kind"] {
		t.Fatalf("a check's keys are %v", common)
	}
	for _, k := range doc.kinds {
		for i := range k.options {
			if common[k.options[i].Name] {
				t.Errorf("the kind %s has an option %s, which every check has", k.name, k.options[i].Name)
			}
		}
	}
}
