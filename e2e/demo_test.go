package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// demo builds the demo once.
func demo(t *testing.T) string {
	t.Helper()
	path := program("uvsdemo")
	if _, err := os.Stat(path); err != nil {
		must(t, goBuild(nil, "-o", path, "uvs/lab/demo"))
	}
	return path
}

// checkDemo compares the demo's output with what a newcomer is promised: all methods, or without TUN where its device cannot be
// had.
func checkDemo(t *testing.T, out string, tun bool) {
	t.Helper()
	want := []string{
		"== DR: direct routing", "== TUN: tunnelling", "== NAT: masquerading", "rs3           10.1.0.13:8080", "50.0 %",
		"rs3           [2001:db8:1::13]:8080", "-A -t [2001:db8:9::100]:80 -s wrr\n", "-a -t [2001:db8:9::100]:80 -r [2001:db8:9::13]:80 -g -w 3",
		"download", "upload", "4291e08003394371", "200 datagrams by UDP over IPv4 (rr), all echoed", "200 datagrams by UDP over IPv6 (rr), all echoed",
		"by IPv4, 0 failed", "by IPv6, 0 failed", "== Summary", "\n    DR       IPv4     ok", "\n    DR       IPv6     ok",
		"\n    NAT      IPv4     ok", "\n    NAT      IPv6     ok",
	}
	if tun {
		want = append(want, "uvsdecap --director 10.9.0.1,2001:db8:9::1 --vip 10.9.0.100,2001:db8:9::100", "-> 10.2.0.11:80                 Tunnel",
			"-> [2001:db8:2::11]:80          Tunnel", "\n    TUN      IPv4     ok", "\n    TUN      IPv6     ok")
	} else {
		want = append(want, "Not shown: ", "open /dev/net/tun: permission denied", "sudo make demo", "\n    TUN      -        not shown")
	}
	for _, want := range want {
		if !strings.Contains(out, want) {
			t.Errorf("the demo doesn't show %q:\n%s", want, out)
		}
	}
}

// demoTime is how long a demo may take on a busy machine: it gives up itself before.
const demoTime = 3 * time.Minute

func TestDemo(t *testing.T) {
	cmd := exec.CommandContext(within(t, demoTime), demo(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo: %v\n%s", err, out)
	}
	checkDemo(t, string(out), canTUN())
}

// canTUN says that we may have TUN devices.
func canTUN() bool {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// The demo needs no root where the machine allows user namespaces. For TUN it needs a device that distributions let everybody
// open, and others root alone.
func TestDemoWithoutRoot(t *testing.T) {
	if inUserNamespace() {
		cmd := exec.CommandContext(within(t, demoTime), demo(t))
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("the demo: %v\n%s", err, out)
		}
		checkDemo(t, string(out), canTUN())
		return
	}
	for _, mode := range []string{"0666", "0600"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(within(t, demoTime), "unshare", "--mount", "sh", "-ec", `
				mount -t tmpfs -o mode=0755 tmpfs "$1"
				mknod -m "$2" "$1/tun" c 10 200
				mount --bind "$1/tun" /dev/net/tun
				cd /
				exec setpriv --reuid 65534 --regid 65534 --clear-groups "$3"
			`, "sh", dir, mode, demo(t))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("the demo as nobody: %v\n%s", err, out)
			}
			checkDemo(t, string(out), mode == "0666")
		})
	}
}

// A demo that is left up can be played with by the commands it prints, until it is removed.
func TestDemoKeep(t *testing.T) {
	cmd := exec.CommandContext(within(t, demoTime), demo(t), "--keep")
	out, err := cmd.Output()
	defer func() {
		if out, err := exec.Command(demo(t), "--remove").CombinedOutput(); err != nil {
			t.Errorf("remove the demo: %v\n%s", err, out)
		}
		pid := cmd.Process.Pid
		left, _ := filepath.Glob(fmt.Sprintf("/run/netns/uvs-%d-*", pid))
		if _, err := os.Stat(fmt.Sprintf("/run/uvs-demo/%d", pid)); err == nil || len(left) > 0 {
			t.Errorf("removing the demo left %v and its directory: %v", left, err)
		}
	}()
	if err != nil {
		t.Fatalf("the demo: %v\n%s", err, out)
	}
	checkDemo(t, string(out), canTUN())
	// What another program has left up is removed by that one only.
	other := filepath.Join(built, "other")
	must(t, os.MkdirAll(other, 0o755))
	for _, name := range []string{"uvsdemo", "uvsd", "uvsadm", "uvsdecap"} {
		must(t, os.Link(program(name), filepath.Join(other, name)))
	}
	if out, err := exec.Command(filepath.Join(other, "uvsdemo"), "--remove").CombinedOutput(); err != nil {
		t.Errorf("remove another's demo: %v\n%s", err, out)
	}
	tried := 0
	for line := range strings.Lines(string(out)[strings.Index(string(out), "== Left up"):]) {
		line = strings.TrimSpace(line)
		want := ""
		switch {
		case strings.Contains(line, "curl -s "):
			want = "rs"
		case strings.HasSuffix(line, "-L -n --stats"), strings.HasSuffix(line, "-L -n -c"), strings.HasSuffix(line, " status"), strings.HasSuffix(line, " -w 9"):
		default:
			continue
		}
		got, err := exec.CommandContext(shortly(t), "sh", "-c", line).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %v\n%s", line, err, got)
		}
		tried++
	}
	want := 12 // six for each method
	if canTUN() {
		want = 18
	}
	if tried != want {
		t.Errorf("%d commands were found, want %d:\n%s", tried, want, out)
	}
}
