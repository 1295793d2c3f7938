package bench

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseWrk(t *testing.T) {
	const report = `Running 1s test @ http://10.9.0.100:80/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.52ms    1.02ms  14.05ms   80.00%
    Req/Sec    41.48k     4.10k   46.87k    70.00%
  41406 requests in 1.01s, 5.92MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:  40996.05
Transfer/sec:      5.86MB
`
	requests, rate, failed, err := parseWrk([]byte(report))
	if err != nil || requests != 41406 || rate != 40996.05 || failed != 10 {
		t.Errorf("parseWrk = %v, %v, %v, %v", requests, rate, failed, err)
	}
	if _, _, _, err := parseWrk([]byte("unable to connect to 10.9.0.100:80 Connection refused\n")); err == nil {
		t.Error("parseWrk takes a failure for a report")
	}
}

func TestParseIperf(t *testing.T) {
	bytes, rate, err := parseIperf([]byte(`{"end":{"sum_sent":{"bytes":9,"bits_per_second":9},"sum_received":{"bytes":2.5e9,"bits_per_second":2e10}}}`))
	if err != nil || bytes != 2.5e9 || rate != 2e10 {
		t.Errorf("parseIperf = %v, %v, %v", bytes, rate, err)
	}
	for _, out := range []string{`{"error":"unable to connect"}`, `{}`, `iperf3: error`} {
		if _, _, err := parseIperf([]byte(out)); err == nil {
			t.Errorf("parseIperf takes %q for a report", out)
		}
	}
}

func TestParseStat(t *testing.T) {
	pid, parent, name, ok := parseStat("4711 (tmux: ser) ver)) S 1 4711 4711 0 -1")
	if !ok || pid != 4711 || parent != 1 || name != "tmux: ser) ver)" {
		t.Errorf("parseStat = %d, %d, %q, %v", pid, parent, name, ok)
	}
	for _, s := range []string{"", "12", "12 (x)", "x (y) S 1", "12 )x( S 1"} {
		if _, _, _, ok := parseStat(s); ok {
			t.Errorf("parseStat(%q) finds something", s)
		}
	}
}

func TestFamilyHasOneself(t *testing.T) {
	pids, err := family(os.Getppid())
	if err != nil || !slices.Contains(pids, os.Getpid()) || !slices.Contains(pids, os.Getppid()) {
		t.Errorf("family of my parent = %v, %v; I am %d", pids, err, os.Getpid())
	}
}

// A process's clock counts what its threads did, one's own thread's that alone.
func TestClocksCountWork(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	thread, err := cpuOfThread(unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	var after time.Duration
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if after, err = cpuOf(os.Getpid()); err != nil || after-before > 10*time.Millisecond {
			break
		}
	}
	if err != nil || after-before < 10*time.Millisecond {
		t.Errorf("after working for a while the clock went on by %v: %v", after-before, err)
	}
	if thread <= 0 || thread > before+time.Second {
		t.Errorf("this thread used %v of %v", thread, before)
	}
	if _, err := cpuOfAll([]int{os.Getpid(), 1<<22 + 1}); err == nil {
		t.Error("a process that doesn't exist is no error")
	}
}

func TestStatusMAC(t *testing.T) {
	status := []byte(`{"interfaces":[{"name":"eth1","mac":"02:00:00:00:00:02"},{"name":"eth0","mac":"02:00:00:00:00:01"}]}`)
	mac, err := statusMAC(status, "eth0")
	if err != nil || mac.String() != "02:00:00:00:00:01" {
		t.Errorf("statusMAC = %v, %v", mac, err)
	}
	if _, err := statusMAC(status, "eth2"); err == nil {
		t.Error("statusMAC finds an interface that isn't there")
	}
}
