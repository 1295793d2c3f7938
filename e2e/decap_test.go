package e2e

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// startDecapsulator runs uvsdecap on a real server and waits until the tunnel's end is there. At the end of the test it
// must stop in order.
func startDecapsulator(t testing.TB, rs *lab.Host, directors, vips []netip.Addr) {
	t.Helper()
	var args []string
	for _, d := range directors {
		args = append(args, "--director", d.String())
	}
	for _, vip := range vips {
		args = append(args, "--vip", vip.String())
	}
	log := new(logBuffer)
	cmd := rs.Command(t.Context(), program("uvsdecap"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return os.ErrProcessDone } // it is asked to stop below, after the test's context ended
	cmd.WaitDelay = 0
	must(t, cmd.Start())
	t.Cleanup(func() {
		stuck := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer stuck.Stop()
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("uvsdecap on %s after SIGINT: %v", rs, err)
		}
		if t.Failed() {
			t.Logf("log of uvsdecap %s on %s:\n%s", strings.Join(args, " "), rs, log)
		}
	})
	eventually(t, "uvsdecap decapsulates", func() (bool, any) {
		return strings.Contains(log.String(), `"msg":"decapsulating"`), log
	})
}
