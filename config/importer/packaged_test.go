package importer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packaged are the files that a Debian package has below /usr/share/doc, which some machines leave out when they install
// packages: then they come from the package itself.
func packaged(t *testing.T, pkg, pattern string) (list []string) {
	t.Helper()
	find := func(root string) bool {
		list, _ = filepath.Glob(filepath.Join(root, "usr/share/doc", pkg, pattern))
		return len(list) > 0
	}
	if find("/") {
		return list
	}
	if out, err := exec.Command("../../scripts/deps.sh", pkg).CombinedOutput(); err != nil {
		t.Fatalf("%s is not installed and cannot be: %v\n%s", pkg, err, out)
	}
	if find("/") {
		return list
	}
	dir := t.TempDir()
	get := exec.Command("sh", "-c", `apt-get download -q "$1" && dpkg-deb -x ./*.deb .`, "sh", pkg)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", pkg, err, out)
	}
	if !find(dir) {
		t.Fatalf("the package %s has no %s", pkg, pattern)
	}
	return list
}

// What keepalived and ldirectord ship as examples is imported whole: every directive has its mapper, and uvsd accepts the
// result.
func TestShippedSamplesAreImported(t *testing.T) {
	shipped := append(packaged(t, "keepalived", "samples/keepalived.conf*"), packaged(t, "ldirectord", "examples/ldirectord.cf")...)
	// ldirectord's example is mostly comments, each a service that can be taken into use.
	example, err := os.ReadFile(shipped[len(shipped)-1])
	if err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(t.TempDir(), "ldirectord.cf")
	var b strings.Builder
	for line := range strings.Lines(string(example)) {
		if s := strings.TrimPrefix(line, "#"); strings.HasPrefix(s, "virtual") || strings.HasPrefix(s, "\t") {
			line = s
		}
		b.WriteString(line)
	}
	if err := os.WriteFile(whole, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	count := map[Grade]int{}
	for _, path := range append(shipped, whole) {
		r, err := Import(path, Options{ConfigID: "high", Names: fakeNames{}})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if want := map[bool]Kind{true: Keepalived, false: Ldirectord}[strings.Contains(path, "keepalived")]; r.Kind != want {
			t.Errorf("%s was taken for %s", path, r.Kind)
		}
		if err := r.check(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, i := range r.Report.Items {
			count[i.Grade]++
			if strings.Contains(i.Note, "not understood") || strings.HasPrefix(i.Note, "no keyword") {
				t.Errorf("%s:%d: %s: %s", filepath.Base(i.File), i.Line, i.Directive, i.Note)
			}
		}
		everyLine(t, path, r)
		if len(r.Report.Items) == 0 {
			t.Errorf("%s: nothing was found in it", path)
		}
	}
	if count[Exact] < 500 {
		t.Errorf("only %d directives were carried over exactly", count[Exact])
	}
	t.Logf("%d samples, %d directives carried over exactly, %d approximately, %d kept, %d needless, %d not", len(shipped)+1, count[Exact],
		count[Approximate], count[Kept], count[Needless], count[Missing])
}
