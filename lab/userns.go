package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// reexecMark tells a program that Reexec started it.
const reexecMark = "UVS_LAB_USERNS"

// Reexec gives a program that is not root the rights a lab needs, by running it again in user, network and mount
// namespaces of its own, in which it is root. It is called first in main or TestMain. Where the program has the
// rights, because it is root or because it is that second run, Reexec returns nil; root too is made to run again if
// always is set. Otherwise it does not return but ends the process with the second run's status, or returns an error
// that says what the machine does not allow.
//
// In the second run /run is an empty tmpfs, the only interface is lo, which is up, and the machine's own network is
// out of reach.
func Reexec(always bool) error {
	if os.Getenv(reexecMark) != "" {
		os.Unsetenv(reexecMark) // not for our own children
		return settleIn()
	}
	if os.Geteuid() == 0 && !always {
		return nil
	}
	return runAgain()
}

// runAgain runs the program in new namespaces and exits with its status.
func runAgain() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), reexecMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // for Pdeathsig, which goes by the thread; this goroutine stays here to the end
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		runtime.UnlockOSThread()
		return fmt.Errorf("the lab needs root or user namespaces, which this machine refuses (see sysctl "+
			"user.max_user_namespaces, kernel.unprivileged_userns_clone): %w", err)
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run again in a user namespace: %w", err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		os.Exit(128 + int(status.Signal())) // as a shell says it
	}
	os.Exit(status.ExitStatus())
	return nil
}

// settleIn arranges the new namespaces.
func settleIn() error {
	// Whether a user namespace comes with its capabilities shows first here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("the user namespace has no rights (see sysctl kernel.apparmor_restrict_unprivileged_userns): "+
			"make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// inUserNamespace reports whether the process is in another user namespace than the machine's first.
func inUserNamespace() bool {
	uidMap, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(uidMap)), " ") != "0 0 4294967295"
}
