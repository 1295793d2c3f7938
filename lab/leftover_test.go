package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleOwner raises a named lab with a sleeping process inside and prints the prefix of its names and that one's pid.
// With "keep" as argument it keeps it and exits; else it sleeps, to be killed.
func roleOwner() int {
	keep := len(os.Args) > 1 && os.Args[1] == "keep"
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	topo, err := NewDR(Config{Named: true, Keep: keep, RealServers: 1})
	if err != nil {
		return fail(err)
	}
	son := topo.Clients[0].Command(context.Background(), os.Args[0])
	asRole(son.Cmd, "sleep")
	if err := son.Start(); err != nil {
		return fail(err)
	}
	fmt.Println(topo.id, son.Process.Pid)
	if !keep {
		time.Sleep(time.Minute)
	}
	if err := topo.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// startOwner starts one and returns what it printed. It is still running, or about to exit if it keeps.
func startOwner(t *testing.T, args ...string) (owner *exec.Cmd, id string, son int) {
	t.Helper()
	owner = exec.CommandContext(t.Context(), os.Args[0], args...)
	asRole(owner, "owner")
	owner.Stderr = os.Stderr
	stdout, err := owner.StdoutPipe()
	must(t, err)
	must(t, owner.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	id, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
	son, err = strconv.Atoi(pid)
	must(t, err)
	return owner, id, son
}

// names are the namespaces under /run/netns that belong to a lab, and its lock file.
func names(t *testing.T, id string) []string {
	t.Helper()
	spaces, err := filepath.Glob(filepath.Join(netnsDir, id+"-*"))
	must(t, err)
	state, err := filepath.Glob(filepath.Join(stateDir, id))
	must(t, err)
	return append(spaces, state...)
}

func TestLeftoversOfACrashAreRemovedByTheNextLab(t *testing.T) {
	if !inOwnRun(t) {
		return
	}
	owner, id, son := startOwner(t)
	const all = 5 // switch, client1, director1, rs1, and the lock file
	if got := names(t, id); len(got) != all {
		t.Fatalf("a running lab has %v", got)
	}
	newLab(t, Options{Named: true})
	if got := names(t, id); len(got) != all || !alive(son) {
		t.Fatalf("another lab left of a running one %v, process alive %v", got, alive(son))
	}
	must(t, owner.Process.Signal(syscall.SIGKILL))
	owner.Wait()
	if got := names(t, id); len(got) != all {
		t.Fatalf("after the crash there is %v; nothing to clean up", got)
	}
	newLab(t, Options{Named: true})
	if got := names(t, id); len(got) != 0 {
		t.Errorf("after the next lab there still is %v", got)
	}
	eventually(t, "the process inside is dead", func() bool { return !alive(son) })
}

func TestKeptLabStaysUntilRemoveKept(t *testing.T) {
	if !inOwnRun(t) {
		return
	}
	owner, id, son := startOwner(t, "keep")
	must(t, owner.Wait())
	newLab(t, Options{Named: true})
	if got := names(t, id); len(got) != 5 || !alive(son) {
		t.Fatalf("of a kept lab there is %v, process alive %v", got, alive(son))
	}
	if got := seenThrough(t, "nsenter --net="+filepath.Join(netnsDir, id+"-client1")); !strings.Contains(got, "eth0") {
		t.Errorf("client1 of a kept lab has\n%s", got)
	}
	must(t, RemoveKept(owner.Process.Pid+1))
	must(t, RemoveKept(owner.Process.Pid/10))
	if got := names(t, id); len(got) != 5 || !alive(son) {
		t.Fatalf("removing other processes' labs left %v, process alive %v", got, alive(son))
	}
	must(t, RemoveKept(owner.Process.Pid))
	if got := names(t, id); len(got) != 0 {
		t.Errorf("after RemoveKept there still is %v", got)
	}
	eventually(t, "the process inside is dead", func() bool { return !alive(son) })
}

func TestNamedLabLeavesNothing(t *testing.T) {
	topo, err := NewDR(Config{Named: true})
	must(t, err)
	if got := names(t, topo.id); len(got) != 6 {
		t.Errorf("a named lab has %v", got)
	}
	second, err := NewDR(Config{Named: true}) // of the same name
	must(t, err)
	must(t, second.Close())
	must(t, topo.Close())
	if got := append(names(t, topo.id), names(t, second.id)...); len(got) != 0 {
		t.Errorf("after Close there still is %v", got)
	}
	if _, err := New(Options{Named: true, Name: "a/../b"}); err == nil {
		t.Error("New accepted a path as name")
	}
	if _, err := NewDR(Config{Keep: true, DirectorLink: Tap}); err == nil {
		t.Error("NewDR kept a lab with taps, which live in this process")
	}
	if got := names(t, fmt.Sprintf("uvs-%d-dr", os.Getpid())); len(got) != 0 {
		t.Errorf("after a failed NewDR there still is %v", got)
	}
	if _, err := os.Stat(topo.Switch.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat %s: %v", topo.Switch.Path(), err)
	}
}
