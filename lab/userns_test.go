package lab

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// As root this test runs itself again as nobody; there TestMain has called Reexec, and the lab must work.
func TestUnprivilegedUserRunsTheLab(t *testing.T) {
	if !inUserNamespace() {
		runAsNobody(t, "^"+t.Name()+"$")
		return
	}
	topo := DR(t, Config{IPv6: true})
	serve(t, topo)
	carries(t, topo, topo.RealServers[0].Addr(), "rs1")
	carries(t, topo, topo.RealServers[1].Addr6(), "rs2")
	dir, err := os.MkdirTemp("/run", "own")
	if err != nil {
		t.Errorf("/run is not our own: %v", err)
	}
	os.Remove(dir)
}

// runAsNobody runs tests of this binary as uid 65534.
func runAsNobody(t *testing.T, pattern string) {
	t.Helper()
	// go test puts the binary where only its owner gets at it.
	dir, err := os.MkdirTemp("", "uvs-lab")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "lab.test")
	must(t, copyFile(binary, "/proc/self/exe", 0o755))
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run="+pattern)
	cmd.Dir = dir
	cmd.Env = childEnviron()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}

func TestReexecPassesTheStatusOn(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-no-such-flag")
	cmd.Env = append(childEnviron(), alwaysVariable+"=1")
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("status of a second run that fails = %d, %v; want 2, as without it", code, err)
	}
}
