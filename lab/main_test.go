package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The test binary is other programs too, as these variables say.
const (
	roleVariable   = "UVS_LAB_TEST_ROLE"   // one of roles instead of the tests
	alwaysVariable = "UVS_LAB_TEST_USERNS" // the tests in a user namespace even as root
)

var roles = map[string]func() int{
	"sleep":         func() int { time.Sleep(time.Minute); return 0 },
	"sleeping-sons": roleSleepingSons,
	"owner":         roleOwner,
	"interfaces":    roleInterfaces,
	"entrances":     roleEntrances,
}

// TestMain runs the tests in a user namespace where the user isn't root.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(roles[role]())
	}
	if err := Reexec(os.Getenv(alwaysVariable) != ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// asRole makes cmd the test binary in a role.
func asRole(cmd *exec.Cmd, role string) {
	cmd.Env = append(childEnviron(), roleVariable+"="+role)
}

// childEnviron is the environment for children that are this binary: without the second that the race detector
// otherwise sleeps at the end of each.
func childEnviron() []string {
	return append(os.Environ(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}

// inOwnRun reports whether the test runs in a user namespace, where /run is its own. Where it doesn't, it is run again
// in one by a child and judged there.
func inOwnRun(t *testing.T) bool {
	t.Helper()
	if inUserNamespace() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(childEnviron(), alwaysVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a user namespace: %v\n%s", err, out)
	}
	return false
}

// shortly is a context for what takes milliseconds, with room for a busy machine.
func shortly(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that takes milliseconds to come true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so after 10 s: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
