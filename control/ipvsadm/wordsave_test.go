package ipvsadm

import (
	"strings"
	"testing"
)

func TestSaveFullKeepsWhatTheOriginalLoses(t *testing.T) {
	uvsadm := served(t)
	for _, line := range []string{
		"-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.1.0.1 -m -x 20 -y 10", "-a -t 10.0.0.1:80 -r 10.1.0.2 -m -x 30", "-a -t 10.0.0.1:80 -r 10.1.0.3 -m",
		"--start-daemon backup --mcast-interface lo --mcast-group ff02::1", "--start-daemon master --mcast-interface vec1 --syncid 7 --mcast-ttl 3",
	} {
		if out, errs, exit := uvsadm(strings.Fields(line)...); out != "" || errs != "" || exit != 0 {
			t.Fatalf("%s: %q, %q, exit %d", line, out, errs, exit)
		}
	}
	full := `-A -t 10.0.0.1:80 -s wlc
-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1 -x 20 -y 10
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -m -w 1 -x 30
-a -t 10.0.0.1:80 -r 10.1.0.3:80 -m -w 1
--start-daemon master --mcast-interface vec1 --syncid 7 --sync-maxlen 1472 --mcast-group 224.0.0.81 --mcast-port 8848 --mcast-ttl 3
--start-daemon backup --mcast-interface lo --syncid 0 --sync-maxlen 65487 --mcast-group ff02::1 --mcast-port 8848 --mcast-ttl 1
`
	if out, errs, exit := uvsadm("save", "--full"); out != full || errs != "" || exit != 0 {
		t.Errorf("save --full: %q, exit %d\n%swant\n%s", errs, exit, out, full)
	}
	lossy, _, _ := uvsadm("-S", "-n")
	if out, _, _ := uvsadm("save"); out != lossy || strings.Contains(out, "-x") || strings.Contains(out, "daemon") {
		t.Errorf("save prints\n%s-S -n prints\n%s", out, lossy)
	}
	another := newMachine()
	if _, errs, exit := another.run([]string{"-R"}, full); exit != 0 || errs != "" {
		t.Errorf("-R of it: %q, exit %d", errs, exit)
	}
	services, _ := another.Services(t.Context(), nil)
	daemons, _ := another.Daemons(t.Context())
	if len(services) != 1 || services[0].Servers[1].Config.Upper+services[0].Servers[2].Config.Upper != 50 || len(daemons) != 2 {
		t.Errorf("-R of it makes %+v, %+v", services, daemons)
	}
	if _, errs, exit := uvsadm("save", "--fill"); exit == 0 || errs == "" {
		t.Errorf("save --fill: %q, exit %d", errs, exit)
	}
}
