package importer

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the results that the tests compare with")

// Each sample leads to the file and the report that lie beside it; go test -update writes them, for a reviewer to read.
func TestSamplesAreImportedAsBefore(t *testing.T) {
	for _, path := range samples(t) {
		r := imported(t, path)
		var report bytes.Buffer
		if _, err := r.Report.WriteTo(&report); err != nil {
			t.Fatal(err)
		}
		for ext, got := range map[string][]byte{".yaml": r.YAML(), ".report": report.Bytes()} {
			if *update {
				if err := os.WriteFile(path+ext, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path + ext)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s%s is no longer what is made of it: %s", path, ext, difference(string(got), string(want)))
			}
		}
	}
}

// difference is the first line that differs.
func difference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "\n  now:    " + a[i] + "\n  before: " + b[i]
		}
	}
	return "one is longer"
}
