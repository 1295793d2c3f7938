package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uvs/lab"
)

// sbin is what a view has of ipvsadm in its /sbin, and dpkg's diversions of it, a line each.
func (v *view) sbin() string {
	v.t.Helper()
	var s strings.Builder
	files, err := filepath.Glob(v.root + "/usr/sbin/ipvsadm*")
	must(v.t, err)
	for _, f := range files {
		if link, err := os.Readlink(f); err == nil {
			fmt.Fprintf(&s, "%s -> %s\n", filepath.Base(f), link)
			continue
		}
		b, err := os.ReadFile(f)
		must(v.t, err)
		fmt.Fprintf(&s, "%s %x\n", filepath.Base(f), sha256.Sum256(b))
	}
	for line := range strings.Lines(v.run("dpkg-divert", "--list")) {
		if strings.Contains(line, "ipvsadm") {
			s.WriteString(line)
		}
	}
	return s.String()
}

// pack builds and installs another version of the package ipvsadm, whose programs say what it is and are in the directory dir.
func (v *view) pack(dir, version string) {
	v.t.Helper()
	tree := filepath.Join("/var/tmp", version)
	v.write(tree+"/DEBIAN/control", "Package: ipvsadm\nVersion: {V}\nArchitecture: all\nMaintainer: nobody <nobody@example.test>\nDescription: stand-in\n", "{V}", version)
	for _, name := range []string{"ipvsadm", "ipvsadm-save", "ipvsadm-restore"} {
		v.write(tree+dir+"/"+name, "#!/bin/sh\necho {V}\n", "{V}", version)
		must(v.t, os.Chmod(v.root+tree+dir+"/"+name, 0o755))
	}
	v.run("dpkg-deb", "--build", tree, tree+".deb")
	v.run("dpkg", "--force-depends", "--force-confold", "-i", tree+".deb")
}

// TestIpvsadmsNameIsTakenAndGivenBack installs uvsadm under ipvsadm's names and takes it away again: over Debian's package,
// without it, and with packages of it that come while uvsadm has the names, whichever way they spell the directory.
func TestIpvsadmsNameIsTakenAndGivenBack(t *testing.T) {
	needs(t, "ipvsadm", "ipvsadm")
	l, err := lab.New(lab.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	ns, err := l.Namespace("host")
	must(t, err)
	v := newView(t, ns, "")
	machine := newView(t, ns, "").sbin() // as it is without any of this

	taken := func(when string) {
		t.Helper()
		for _, name := range []string{"/sbin/ipvsadm", "/sbin/ipvsadm-save", "/sbin/ipvsadm-restore", "/usr/sbin/ipvsadm"} {
			if link, _ := os.Readlink(v.root + name); link != "/usr/local/sbin/uvsadm" {
				t.Errorf("%s: %s leads to %q", when, name, link)
			}
		}
		if out := v.run("/sbin/ipvsadm", "-v"); !strings.HasPrefix(out, "ipvsadm v1.31 ") {
			t.Errorf("%s: ipvsadm -v says %s", when, out)
		}
	}
	v.make("install-ipvsadm")
	taken("over Debian's")
	once := v.sbin()
	v.make("install-ipvsadm")
	if twice := v.sbin(); twice != once {
		t.Errorf("installed twice:\n%swant as once:\n%s", twice, once)
	}
	for range 2 { // it does no harm where there is nothing to remove
		v.make("uninstall-ipvsadm")
		if after := v.sbin(); after != machine {
			t.Errorf("removed:\n%swant what was there before:\n%s", after, machine)
		}
	}

	v.run("dpkg", "--force-depends", "--remove", "ipvsadm")
	v.make("install-ipvsadm")
	taken("without Debian's")
	for i, dir := range []string{"/sbin", "/usr/sbin"} {
		version := fmt.Sprintf("9:%d", i+1)
		v.pack(dir, version)
		taken("under a package in " + dir)
		v.make("install-ipvsadm")
		taken("once more, under a package in " + dir)
		v.make("uninstall-ipvsadm")
		if out := v.run("/sbin/ipvsadm", "-v"); out != version+"\n" {
			t.Errorf("%s is back, says: %s", version, out)
		}
		v.make("install-ipvsadm")
		taken("over a package in " + dir)
	}
	v.run("dpkg", "--force-depends", "--remove", "ipvsadm")
	taken("the package removed")
	v.make("uninstall-ipvsadm")
	if left := v.sbin(); left != "" {
		t.Errorf("without a package, and uvsadm gone, there is left:\n%s", left)
	}
	if now := newView(t, ns, "").sbin(); now != machine {
		t.Errorf("the machine itself has\n%swant\n%s", now, machine)
	}
}
