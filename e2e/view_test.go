package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uvs/lab"
)

// A view is a mount namespace with a file system of its own for a host of the lab: what is written to /usr, /etc, /var and /run
// there is gone with the test, and the machine's own files are never touched. So Debian's programs run unmodified, by the paths
// that they have built in, and packages come and go.
type view struct {
	t    testing.TB
	ns   *lab.Namespace
	root string // the view's /, as this process sees it
	pid  int    // of a process that is in it
}

// viewScript makes the view in the directory $1 and stays in it. A directory of the machine is read through an overlay, whose
// upper side is memory; one that is a link leads into one of those.
const viewScript = `set -e
mount -t tmpfs none "$1"
for d in /usr /etc /var /sbin /bin; do
	if [ ! -L $d ]; then
		mkdir -p "$1$d" "$1/work$d"
		mount -t overlay overlay -o "lowerdir=$d,upperdir=$1$d,workdir=$1/work$d" $d
	fi
done
mount -t tmpfs none /run
mkdir -p /run/lock /run/uvs
if [ -n "$2" ]; then mount --bind "$2" /run/uvs; fi
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # packages start and stop nothing
chmod +x /usr/sbin/policy-rc.d
echo ready
exec sleep infinity
`

// newView makes one in a network namespace. Of sockets, if not empty, it is the directory where uvsd has its socket: it is
// /run/uvs there.
func newView(t testing.TB, ns *lab.Namespace, sockets string) *view {
	t.Helper()
	cmd := ns.Command(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", viewScript, "sh", t.TempDir(), sockets)
	var errs logBuffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("no file system of its own: %q, %v, %s", line, err, &errs)
	}
	pid := cmd.Process.Pid
	return &view{t: t, ns: ns, root: fmt.Sprintf("/proc/%d/root", pid), pid: pid}
}

// command prepares a program to run in the view.
func (v *view) command(name string, args ...string) *lab.Cmd {
	cmd := v.ns.Command(v.t.Context(), "nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", v.pid), "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs a program in the view and returns what it prints.
func (v *view) try(name string, args ...string) (string, error) {
	out, err := v.command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// run runs a program that must succeed.
func (v *view) run(name string, args ...string) string {
	v.t.Helper()
	out, err := v.try(name, args...)
	must(v.t, err)
	return out
}

// write writes a file of the view, whose directory need not be there, with {NAME}s replaced.
func (v *view) write(path, text string, replace ...string) {
	v.t.Helper()
	must(v.t, os.MkdirAll(filepath.Dir(v.root+path), 0o755))
	must(v.t, os.WriteFile(v.root+path, []byte(strings.NewReplacer(replace...).Replace(text)), 0o644))
}

// read is a file of the view, empty if there is none.
func (v *view) read(path string) string {
	v.t.Helper()
	b, err := os.ReadFile(v.root + path)
	if err != nil && !os.IsNotExist(err) {
		v.t.Fatal(err)
	}
	return string(b)
}

// make calls a target of the project's Makefile in the view, with the binaries under test.
func (v *view) make(target string) string {
	v.t.Helper()
	project, err := filepath.Abs("..")
	must(v.t, err)
	return v.run("make", "-s", "-C", project, target, "BIN="+built)
}
