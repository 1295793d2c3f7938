package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDebiansInitScript has Debian's init script of ipvsadm save the rules, stop, start and load them, as at shutdown and boot,
// and Debian's own ipvsadm-save and ipvsadm-restore, which uvs's replace, do the same.
func TestDebiansInitScript(t *testing.T) {
	needs(t, "ipvsadm", "ipvsadm")
	r := newRig(t, rigConfig{Scheduler: "wrr"})
	v := newView(t, r.Directors[0].Namespace, filepath.Dir(r.socket))
	v.make("install-ipvsadm")
	r.restore("-A -f 7 -s sh -b sh-port -p 300", "-a -f 7 -r 10.9.0.12 -i -w 4",
		"-A -t 192.0.2.1:443 -s mh -p 60 -M 255.255.255.0", "-a -t 192.0.2.1:443 -r 10.9.0.11:443 -g -w 0")
	rules := r.adm("-S", "-n")
	script := func(action string) string {
		t.Helper()
		return v.run("/etc/init.d/ipvsadm", action)
	}
	restored := func(when string) {
		t.Helper()
		if now := r.adm("-S", "-n"); now != rules {
			t.Errorf("%s the rules are\n%swant\n%s", when, now, rules)
		}
		if got := r.count(4); got["rs1"] != 2 || got["rs2"] != 2 {
			t.Errorf("%s, answered by %v", when, got)
		}
	}
	v.write("/etc/default/ipvsadm", "AUTO=true\nDAEMON=both\nIFACE=eth0\nSYNCID=7\n")

	script("save")
	if saved := v.read("/etc/ipvsadm.rules"); saved != "# ipvsadm.rules\n"+rules {
		t.Errorf("it saved\n%swant\n%s", saved, rules)
	}
	r.adm("-C")
	script("start")
	restored("after start")
	daemons := ""
	for _, role := range []string{"master", "backup"} {
		daemons += role + " sync daemon (mcast=eth0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
	}
	if got := v.run("/sbin/ipvsadm", "-L", "--daemon"); got != daemons {
		t.Errorf("after start, sync daemons:\n%swant\n%s", got, daemons)
	}
	script("stop")
	if left := r.adm("-S", "-n") + r.adm("-L", "--daemon"); left != "" {
		t.Errorf("after stop there is left\n%s", left)
	}
	for _, action := range []string{"start", "restart", "force-reload", "load"} {
		script(action)
		restored("after " + action)
	}
	if got, want := script("status"), r.adm("-L", "-n"); got != want {
		t.Errorf("its status is\n%swant\n%s", got, want)
	}
	if got := script("rate"); !strings.Contains(got, fmt.Sprintf("TCP  %v:80 ", r.VIP())) {
		t.Errorf("its rates are\n%s", got)
	}

	for _, name := range []string{"/sbin/ipvsadm-%s.distrib", "/sbin/ipvsadm-%s"} { // Debian's and uvs's
		save, restore := fmt.Sprintf(name, "save"), fmt.Sprintf(name, "restore")
		if saved := v.run(save, "-n"); saved != rules {
			t.Errorf("%s prints\n%swant\n%s", save, saved, rules)
		}
		cmd := v.command(restore)
		cmd.Stdin = strings.NewReader("# saved once\n" + rules)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v, %s", restore, err, out)
		}
		restored("after " + restore)
	}
}
