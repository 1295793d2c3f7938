package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleInterfaces prints the interfaces it sees.
func roleInterfaces() int {
	ifs, err := net.Interfaces()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, i := range ifs {
		fmt.Println(i.Name, i.HardwareAddr)
	}
	return 0
}

// roleSleepingSons raises a lab with a sleeping process in it, prints that one's pid and sleeps.
func roleSleepingSons() int {
	topo, err := NewDR(Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	son := topo.Clients[0].Command(context.Background(), os.Args[0])
	asRole(son.Cmd, "sleep")
	if err := son.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(son.Process.Pid)
	time.Sleep(time.Minute)
	return 0
}

// alive reports whether a process runs; one that only waits to be reaped doesn't.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestCommandStartsInside(t *testing.T) {
	topo := DR(t, Config{})
	client := topo.Clients[0]
	cmd := client.Command(shortly(t), os.Args[0])
	asRole(cmd.Cmd, "interfaces")
	out, err := cmd.Output()
	if want := "eth0 " + client.Legs[0].MAC.String(); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("interfaces inside client1: %q, %v; want %q among them", out, err, want)
	}
	if cmd.Wait() != nil {
		t.Errorf("second Wait() = %v, want what the first said", cmd.Wait())
	}
	out, err = client.Command(shortly(t), os.Args[0], "-test.run=^NoSuchTest$", "-no-such-flag").CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || !strings.Contains(string(out), "no-such-flag") {
		t.Errorf("CombinedOutput of a failing program = %q, %v", out, err)
	}
}

func TestCloseKillsChildrenAndTheirChildren(t *testing.T) {
	topo, err := NewDR(Config{})
	must(t, err)
	// A shell that leaves a process behind and goes on sleeping itself.
	cmd := topo.Clients[0].Command(t.Context(), "sh", "-c", `sleep 60 & echo $!; sleep 61`)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	grandson, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	if !alive(grandson) || !alive(cmd.Process.Pid) {
		t.Fatal("the processes do not run")
	}
	must(t, topo.Close())
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", cmd.Process.Pid)); err == nil {
		t.Error("the child is there after Close, alive or not waited for")
	}
	eventually(t, "the grandchild is dead", func() bool { return !alive(grandson) })
	if err := cmd.Wait(); err == nil {
		t.Error("Wait() of a killed child = nil")
	}
}

func TestChildrenDieWithACrashedOwner(t *testing.T) {
	owner := exec.CommandContext(t.Context(), os.Args[0])
	asRole(owner, "sleeping-sons")
	owner.Stderr = os.Stderr
	stdout, err := owner.StdoutPipe()
	must(t, err)
	must(t, owner.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	son, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	if !alive(son) {
		t.Fatal("the child does not run")
	}
	must(t, owner.Process.Signal(syscall.SIGKILL))
	owner.Wait()
	eventually(t, "the child is dead", func() bool { return !alive(son) })
}
