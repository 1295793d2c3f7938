package importer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fuzz imports whatever there is, as text of a file that includes none: it must end soon, hold little, know what became of
// each directive, and give a file that can be written.
func fuzz(f *testing.F, kind Kind) {
	samples, err := filepath.Glob("testdata/" + string(kind) + "*")
	if err != nil || len(samples) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	for _, s := range samples {
		if text, err := os.ReadFile(s); err == nil && filepath.Ext(s) != ".yaml" && filepath.Ext(s) != ".report" {
			f.Add(string(text))
			for part := range strings.SplitSeq(string(text), "\n\n") {
				f.Add(part)
			}
		}
	}
	small := lim
	small.includes = 0
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			return
		}
		r, err := importText("fuzzed", text, Options{Kind: kind, ConfigID: "low", Names: fakeNames{}, limits: &small}, &files{limits: small})
		if err != nil {
			if !tooMuch(err) {
				t.Fatal(err)
			}
			return
		}
		for i := range r.Report.Items {
			if g := r.Report.Items[i].Grade; g < Needless || g > Missing {
				t.Fatalf("%+v has no grade", r.Report.Items[i])
			}
		}
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzKeepalived(f *testing.F) { fuzz(f, Keepalived) }
func FuzzLdirectord(f *testing.F) { fuzz(f, Ldirectord) }
func FuzzPiranha(f *testing.F)    { fuzz(f, Piranha) }
func FuzzIpvsadm(f *testing.F)    { fuzz(f, Ipvsadm) }
