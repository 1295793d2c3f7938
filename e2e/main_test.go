package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// built is the directory of the programs under test.
var built string

func TestMain(m *testing.M) {
	if err := lab.Reexec(false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

// programsAt names the environment variable with a directory where the programs are already, for test processes beside each
// other: scripts/e2e.sh builds them once.
const programsAt = "UVS_E2E_PROGRAMS"

func run(m *testing.M) int {
	if built = os.Getenv(programsAt); built != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "uvs-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // a test runs uvsd as another user
	}
	if err == nil {
		built = dir
		err = goBuild(nil, "uvs/cmd/uvsd", "uvs/cmd/uvsadm", "uvs/cmd/uvsdecap", "uvs/cmd/uvs-agent")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// goBuild builds programs into the directory built.
func goBuild(env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", built + "/"}, args...)...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

// raceDetecting is uvsd built with the race detector; it ends with a report and status 66 at the first race.
var raceDetecting = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "uvsd-race")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, goBuild([]string{"CGO_ENABLED=1"}, "-race", "-o", path, "uvs/cmd/uvsd")
})

// needs has a Debian package installed if a program of it is not there.
func needs(t testing.TB, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if out, err := exec.Command("../scripts/deps.sh", debian).CombinedOutput(); err != nil {
		t.Fatalf("%s is not installed and cannot be: %v\n%s", program, err, out)
	}
}

// program is the path of a program of ours.
func program(name string) string { return filepath.Join(built, name) }

// shortly is a context for what takes a moment, with room for a busy machine.
func shortly(t testing.TB) context.Context { return within(t, 20*time.Second) }

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// patience is how long a test waits for what should come soon: machines are slow at times.
const patience = 40 * time.Second

// eventually waits for a condition that takes a moment to come true. is returns what it sees, for the failure.
func eventually(t testing.TB, what string, is func() (ok bool, seen any)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ok, seen := is()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still not so after %v: %s; it is %v", patience, what, seen)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
