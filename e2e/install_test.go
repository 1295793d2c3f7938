package e2e

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// make install puts programs, manual pages and completion where systems look for them, and make uninstall takes all away.
func TestInstallAndUninstall(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		args = append([]string{"-s", "-C", "..", "BIN=" + built, "DESTDIR=" + dir, "PREFIX=/usr"}, args...)
		if out, err := exec.Command("make", args...).CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	files := func() (names []string) {
		t.Helper()
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, strings.TrimPrefix(path, dir))
			}
			return err
		}))
		return names
	}
	run("install")
	run("install") // over itself
	want := []string{
		"/usr/sbin/uvs-agent", "/usr/sbin/uvsadm", "/usr/sbin/uvsd", "/usr/sbin/uvsdecap", "/usr/share/bash-completion/completions/uvsadm",
		"/usr/share/fish/vendor_completions.d/uvsadm.fish", "/usr/share/man/man5/uvs.yaml.5", "/usr/share/man/man8/uvs-agent.8", "/usr/share/man/man8/uvsadm.8", "/usr/share/man/man8/uvsd.8",
		"/usr/share/man/man8/uvsdecap.8", "/usr/share/zsh/site-functions/_uvsadm",
	}
	if got := files(); !slices.Equal(got, want) {
		t.Errorf("installed\n%q, want\n%q", got, want)
	}
	out, err := exec.Command(filepath.Join(dir, "usr/sbin/uvsadm"), "completion", "bash").Output()
	if err != nil || !strings.Contains(string(out), "complete -F _uvsadm uvsadm") {
		t.Errorf("the installed uvsadm: %v", err)
	}
	run("uninstall")
	if got := files(); len(got) > 0 {
		t.Errorf("make uninstall leaves %q", got)
	}
}
