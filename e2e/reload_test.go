package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// yamlRig is a rig whose director reads a configuration file.
type yamlRig struct {
	*rig
	file, state string
}

// newYAMLRig raises DR with a file that has the web and the echo service, and more of them beside.
func newYAMLRig(t testing.TB, more string) *yamlRig {
	t.Helper()
	dir := t.TempDir()
	y := &yamlRig{file: filepath.Join(dir, "uvs.yaml"), state: filepath.Join(dir, "state")}
	y.rig = newRig(t, rigConfig{Bare: true, Args: []string{"--config", y.file, "--state-dir", y.state}, Before: func(r *rig) {
		must(t, os.WriteFile(y.file, []byte(y.text(r, more)), 0o644))
	}})
	return y
}

// text is the file: comments, names, the two services that the clients use, and more.
func (y *yamlRig) text(r *rig, more string) string {
	return fmt.Sprintf(`# The lab's director.
services:
  # what the clients ask
  - name: web
    address: %[1]v
    port: 80
    scheduler: rr
    servers:
      - {name: one, address: %[2]v}
      - {name: two, address: %[3]v} # the newer
  - address: %[1]v
    port: 53
    protocol: udp
    scheduler: rr
    servers: [%[2]v, %[3]v]
`, r.VIP(), r.addr(r.RealServers[0]), r.addr(r.RealServers[1])) + more
}

// write writes the file anew.
func (y *yamlRig) write(text string) {
	y.t.Helper()
	must(y.t, os.WriteFile(y.file, []byte(text), 0o644))
}

// fail runs uvsadm, which must end with that status, and returns all that it printed.
func (y *yamlRig) fail(exit int, args ...string) string {
	y.t.Helper()
	cmd := exec.Command(program("uvsadm"), append([]string{"--socket", y.socket}, args...)...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exit {
		y.t.Errorf("uvsadm %s ends with %d, want %d:\n%s", strings.Join(args, " "), got, exit, out)
	}
	return string(out)
}

// others are services beside the clients', each with two servers.
func others(r *rig, n, from int, scheduler string, weight int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  - {address: %v, port: %d, scheduler: %s, servers: [{address: %v, weight: %d}, %v]}\n",
			r.VIP(), 10000+from+i, scheduler, r.addr(r.RealServers[0]), weight, r.addr(r.RealServers[1]))
	}
	return b.String()
}

// A file is loaded at the start and again while connections go on: half of 300 other services change, and no packet of the
// untouched ones is lost, nor does their scheduler lose its place.
func TestReloadDisturbsNothingThatTheFileLeavesAlone(t *testing.T) {
	y := newYAMLRig(t, "")
	y.write(y.text(y.rig, others(y.rig, 300, 0, "wlc", 1)))
	y.adm("reload")
	if list := y.adm("list"); !strings.Contains(list, "(web)") || !strings.Contains(list, "(one)") || strings.Contains(y.adm("-L", "-n"), "(web)") {
		t.Errorf("names are not listed, or in ipvsadm's own listing:\n%.500s", list)
	}
	if out := y.adm("diff"); !strings.Contains(out, "nothing differs") {
		t.Errorf("diff after a reload:\n%s", out)
	}

	long := y.hold(y.Clients[0])
	y.count(1) // an odd number: the next of rr is known
	before, err := y.hold(y.Clients[0]), error(nil)
	drops := y.status().Packets.Dropped
	half := others(y.rig, 150, 0, "sed", 3) + others(y.rig, 100, 150, "wlc", 1) + others(y.rig, 50, 1000, "rr", 1)
	y.write(y.text(y.rig, half))
	if out := y.fail(1, "diff"); !strings.Contains(out, "weight 1 -> 3") || !strings.Contains(out, "+ tcp") || !strings.Contains(out, "- tcp") || strings.Contains(out, "(web)") {
		t.Errorf("diff:\n%.600s", out)
	}
	after := y.hold(y.Clients[0])
	if after.server == before.server {
		t.Fatalf("rr gave %s twice", before.server)
	}
	y.during(func() {
		for i := range 3 { // to and fro
			must(t, y.cmd.Process.Signal(syscall.SIGHUP))
			loads := i + 2 // one was uvsadm's
			eventually(t, "the file is loaded again", func() (bool, any) {
				n := strings.Count(y.log.String(), "configuration file reloaded")
				return n >= loads, n
			})
			y.write(y.text(y.rig, map[bool]string{true: half, false: others(y.rig, 300, 0, "wlc", 1)}[i%2 == 1]))
		}
	})
	if _, err = long.ask(y.rig); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	if now := y.status(); now.Packets.Dropped != drops || len(now.Drops) > 0 {
		t.Errorf("%d frames were dropped, %d before: %v", now.Packets.Dropped, drops, now.Drops)
	}
	y.write(y.text(y.rig, half))
	y.adm("reload")
	one := y.hold(y.Clients[0])
	y.write(strings.Replace(y.text(y.rig, half), "port: 10000, scheduler: sed", "port: 10000, scheduler: nq", 1))
	y.adm("reload")
	if two := y.hold(y.Clients[0]); two.server == one.server {
		t.Errorf("rr lost its place: %s came twice", one.server)
	}
}

// A file that is wrong changes nothing and says why; what run time made stays, is kept over a crash, gives way, or is written.
func TestFileAndRunTimeChangesGoTogether(t *testing.T) {
	y := newYAMLRig(t, "state: persistent\n")
	sound := y.text(y.rig, "state: persistent\n")
	table := y.adm("-S", "-n")
	y.write(strings.Replace(sound, "scheduler: rr", "shceduler: rr", 1))
	if out := y.fail(2, "reload"); !strings.Contains(out, ":7:5: a service has no key \"shceduler\"; did you mean \"scheduler\"?") {
		t.Errorf("reload of a wrong file:\n%s", out)
	}
	out, err := exec.Command(program("uvsd"), "--check", y.file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "did you mean") {
		t.Errorf("uvsd --check: %v\n%s", err, out)
	}
	must(t, y.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "the log has the mistake", func() (bool, any) {
		return strings.Contains(y.log.String(), "configuration file not loaded"), y.log.last()
	})
	if now := y.adm("-S", "-n"); now != table {
		t.Errorf("a wrong file changed the table to\n%s", now)
	}
	y.write(sound)
	if out, err := exec.Command(program("uvsd"), "--check", y.file).CombinedOutput(); err != nil {
		t.Errorf("uvsd --check: %v\n%s", err, out)
	}

	other := netip.AddrPortFrom(y.VIP(), 8080).String()
	y.adm("-A", "-t", other, "-s", "sh")
	y.adm("-e", "-t", y.webService(), "-r", y.webServer(1), "-g", "-w", "7")
	y.adm("reload")
	runtime := y.adm("-S", "-n")
	if !strings.Contains(runtime, "-A -t "+other) || !strings.Contains(runtime, "-w 7") {
		t.Errorf("a reload took what run time made:\n%s", runtime)
	}
	eventually(t, "the changes are kept", func() (bool, any) {
		data, err := os.ReadFile(filepath.Join(y.state, "runtime.json"))
		return err == nil && strings.Contains(string(data), `"weight": 7`) && strings.Contains(string(data), "8080"), string(data)
	})
	y.count(1)
	y.kill()
	y.start()
	if again := y.adm("-S", "-n"); again != runtime {
		t.Errorf("after a crash the table is\n%swas\n%s", again, runtime)
	}
	saved := y.adm("save", "--yaml")
	for _, want := range []string{"# what the clients ask", "weight: 7", "port: 8080", "scheduler: sh", "# the newer"} {
		if !strings.Contains(saved, want) {
			t.Errorf("save --yaml lacks %q:\n%s", want, saved)
		}
	}
	// The file has the last word on what it changes.
	y.write(strings.Replace(sound, "{name: one,", "{name: one, weight: 2,", 1))
	if out := y.adm("reload"); !strings.Contains(out, "! ") || !strings.Contains(y.adm("-S", "-n"), "-w 2") {
		t.Errorf("reload:\n%s", out)
	}
	y.adm("reload", "--prune")
	if left := y.adm("-S", "-n"); strings.Contains(left, other) {
		t.Errorf("reload --prune leaves\n%s", left)
	}
	// Checks and policies come from the file, too; a check that another replaces is another.
	checked := strings.Replace(sound, "    servers:\n", "    checks: quick\n    health: {quorum: 2}\n    servers:\n", 1) +
		"checks: [{template: quick, kind: tcp, via: direct, interval: 100ms}]\n"
	y.write(checked)
	y.adm("reload")
	eventually(t, "the file's check says that the servers are up", func() (bool, any) {
		out := y.adm("health", "-t", y.webService())
		return strings.Count(out, "tcp") >= 2 && strings.Contains(out, "(one)") && !strings.Contains(out, "none yet"), out
	})
	if out := y.adm("diff"); !strings.Contains(out, "nothing differs") {
		t.Errorf("diff with checks:\n%s", out)
	}
	y.write(strings.Replace(checked, "interval: 100ms", "interval: 150ms", 1))
	if out := y.adm("reload"); !strings.Contains(out, "health checks") || strings.Contains(out, "policy") {
		t.Errorf("reload with another interval:\n%s", out)
	}
	// A file that is watched is loaded by itself.
	y.write(sound + "watch: true\n")
	y.adm("reload")
	y.write(strings.Replace(sound, "{name: two,", "{name: two, weight: 9,", 1) + "watch: true\n")
	eventually(t, "the changed file is loaded", func() (bool, any) {
		table := y.adm("-S", "-n")
		return strings.Contains(table, "-w 9"), table
	})
	y.adm("-E", "-t", y.webService(), "-s", "wrr")
	y.adm("save", "--yaml", "--write")
	if data, err := os.ReadFile(y.file); err != nil || !strings.Contains(string(data), "scheduler: wrr") || !strings.Contains(y.adm("diff"), "nothing differs") {
		t.Errorf("save --yaml --write: %v\n%s", err, data)
	}
	if got := y.count(4); got["rs1"]+got["rs2"] != 4 {
		t.Errorf("4 requests went to %v", got)
	}
}
