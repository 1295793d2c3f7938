package ipvsadm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importing is the word import with an importer that says what it was asked for.
func importing(t *testing.T, found *Imported, args ...string) (exit int, out, complaint string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &Program{Name: "uvsadm", Stdin: strings.NewReader("rules"), Stdout: &stdout, Stderr: &stderr}
	p.Import = func(path, kind, configID string, stdin io.Reader) (*Imported, error) {
		if found == nil {
			return nil, errors.New("looks like nothing")
		}
		found.YAML = fmt.Appendf(nil, "# %s %s %s\n", path, kind, configID)
		return found, nil
	}
	return p.runWord(t.Context(), append([]string{"import"}, args...)), stdout.String(), stderr.String()
}

func TestImportSaysByItsStatusWhatWasLost(t *testing.T) {
	good := func() *Imported { return &Imported{Report: []byte("report\n"), JSON: []byte("{}\n")} }
	lost, wrong := good(), good()
	lost.Lost = 3
	wrong.Wrong = errors.New("uvs.yaml:3:1: no")
	for _, c := range []struct {
		name           string
		found          *Imported
		args           []string
		exit           int
		out, complaint string
	}{
		{"all", good(), []string{"a.conf"}, 0, "# a.conf  \n", "report\n"},
		{"options", good(), []string{"--kind", "lvs", "--config-id=low", "-", "--json"}, 0, "# - lvs low\n", "{}\n"},
		{"something lost", lost, []string{"a.conf"}, 1, "# a.conf  \n", "report\n"},
		{"not accepted", wrong, []string{"a.conf"}, 1, "# a.conf  \n", "report\nuvsd --check would say here:\nuvs.yaml:3:1: no\n"},
		{"no result", nil, []string{"a.conf"}, 2, "", "uvsadm import: looks like nothing\n"},
		{"no file", good(), nil, 2, "", "uvsadm import: a file is missing; - is standard input\n"},
		{"two files", good(), []string{"a", "b"}, 2, "", "uvsadm import: unexpected argument b\n"},
		{"an option that isn't", good(), []string{"--kinds=x", "a"}, 2, "", "uvsadm import: unexpected argument --kinds=x\n"},
		{"no value", good(), []string{"a", "-o"}, 2, "", "uvsadm import: -o: a value is missing\n"},
	} {
		exit, out, complaint := importing(t, c.found, c.args...)
		if exit != c.exit || out != c.out || complaint != c.complaint {
			t.Errorf("%s: status %d, %q, %q, want %d, %q, %q", c.name, exit, out, complaint, c.exit, c.out, c.complaint)
		}
	}
}

func TestImportTakesNoFilesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.yaml")
	if exit, out, complaint := importing(t, &Imported{}, "--output", path, "a.conf"); exit != 0 || out != "" {
		t.Fatalf("status %d, %q, %q", exit, out, complaint)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "# a.conf  \n" {
		t.Fatalf("%q, %v", text, err)
	}
	if exit, _, complaint := importing(t, &Imported{}, "-o", path, "b.conf"); exit != 2 || !strings.Contains(complaint, "exists") {
		t.Errorf("a second time: status %d, %q", exit, complaint)
	}
}

func TestRulesAreReadWhateverIsWrongWithSome(t *testing.T) {
	rules := ReadRules("# comment\n\n-A -t 10.0.0.1:80 -s rr\nipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2 -m\n-x\n-L -n\n-A -t 10.0.0.1:0\n", hosts{})
	var got []string
	for _, r := range rules {
		switch {
		case r.Err != nil:
			got = append(got, fmt.Sprintf("%d: %v", r.Line, r.Err))
		case r.Op == nil:
			got = append(got, fmt.Sprintf("%d: nothing", r.Line))
		default:
			got = append(got, fmt.Sprintf("%d: %s", r.Line, r.Op.Kind))
		}
	}
	want := "3: add-service|4: add-server|5: not a command of ipvsadm|6: nothing|7: Zero port specified for non-persistent service"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("read as %s, want %s", s, want)
	}
}
