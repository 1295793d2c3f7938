package ipvsadm

import (
	"strings"
	"testing"
)

func TestSaveFullKeepsTheThresholds(t *testing.T) {
	uvsadm := served(t)
	for _, line := range []string{
		"-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.1.0.1 -m -x 20 -y 10", "-a -t 10.0.0.1:80 -r 10.1.0.2 -m -x 30", "-a -t 10.0.0.1:80 -r 10.1.0.3 -m",
	} {
		if out, errs, exit := uvsadm(strings.Fields(line)...); out != "" || errs != "" || exit != 0 {
			t.Fatalf("%s: %q, %q, exit %d", line, out, errs, exit)
		}
	}
	full := `-A -t 10.0.0.1:80 -s wlc
-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1 -x 20 -y 10
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -m -w 1 -x 30
-a -t 10.0.0.1:80 -r 10.1.0.3:80 -m -w 1
`
	if out, errs, exit := uvsadm("save", "--full"); out != full || errs != "" || exit != 0 {
		t.Errorf("save --full: %q, exit %d\n%swant\n%s", errs, exit, out, full)
	}
	lossy, _, _ := uvsadm("-S", "-n")
	if out, _, _ := uvsadm("save"); out != lossy || strings.Contains(out, "-x") {
		t.Errorf("save prints\n%s-S -n prints\n%s", out, lossy)
	}
	if _, errs, exit := uvsadm("save", "--fill"); exit == 0 || errs == "" {
		t.Errorf("save --fill: %q, exit %d", errs, exit)
	}
}
