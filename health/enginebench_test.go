package health

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/service"
)

// acceptorEnv makes this program a server that accepts connections on all addresses and closes them, so that its CPU time
// isn't the engine's.
const acceptorEnv = "UVS_HEALTH_ACCEPTOR"

func TestMain(m *testing.M) {
	if os.Getenv(acceptorEnv) != "" {
		accept()
		return
	}
	os.Exit(m.Run())
}

func accept() {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	for {
		if c, err := ln.Accept(); err == nil {
			c.Close()
		}
	}
}

// startAcceptor returns its port.
func startAcceptor(b *testing.B) uint16 {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), acceptorEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.Replace(strings.TrimSpace(line), "[::]", "0.0.0.0", 1)).Port()
}

// cpuTime is that of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentMB is the memory of this process, in megabytes.
func residentMB() float64 {
	var pages int
	f, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fmt.Sscan(strings.Fields(string(f))[1], &pages)
	return float64(pages*os.Getpagesize()) / 1e6
}

// BenchmarkEngine asks thousands of servers on the loopback for ten seconds and reports how often, how late, and what it cost:
// "each-second" 5,000 servers by TCP, "rate" as many connections a second as one core makes. Run it with -benchtime 1x.
func BenchmarkEngine(b *testing.B) {
	for _, c := range []struct {
		name     string
		kind     string
		servers  int
		interval string
		cores    int
	}{
		{"each-second/tcp", "tcp", 5000, "1s", 2},
		{"each-second/icmp", "icmp", 5000, "1s", 2},
		{"rate/tcp", "tcp", 5000, "200ms", 1},
		{"rate/icmp", "icmp", 5000, "200ms", 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.cores))
			port := startAcceptor(b)
			before := residentMB()
			e := NewEngine(Config{Changed: func([]Subject) {}})
			spec, err := FromWords(c.kind, []string{"interval=" + c.interval, "timeout=1s", "jitter=0"})
			if err != nil {
				b.Fatal(err)
			}
			subjects := make([]Subject, c.servers)
			for i := range subjects {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port)
				subjects[i] = Subject{webKey, at}
				e.Watch(webKey, realServer(webKey, at), service.Masq, []*Spec{spec})
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { defer close(done); e.Run(ctx) }()
			time.Sleep(2 * time.Second)
			for b.Loop() {
				first, cpu, began := e.Stats(), cpuTime(), time.Now()
				time.Sleep(10 * time.Second)
				last, took := e.Stats(), time.Since(began)
				probes := float64(last.Probes - first.Probes)
				b.ReportMetric(probes/took.Seconds(), "probes/s")
				b.ReportMetric(100*(cpuTime()-cpu).Seconds()/took.Seconds(), "%cpu")
				b.ReportMetric((cpuTime()-cpu).Seconds()*1e6/probes, "µs-cpu/probe")
				b.ReportMetric(residentMB()-before, "MB")
				b.ReportMetric(lateness(first, last, 0.99), "ms-late-p99")
				b.ReportMetric(0, "ns/op")
			}
			up := 0
			for _, s := range subjects {
				if e.Standing(s).State == Up {
					up++
				}
			}
			if up != c.servers {
				b.Errorf("%d of %d servers are up: %v", up, c.servers, e.Standing(subjects[0]))
			}
			cancel()
			<-done
		})
	}
}

// lateness is how late, in milliseconds, a share of the probes between two looks was at most: the bound of its power of two.
func lateness(first, last Stats, share float64) float64 {
	var total, sum uint64
	for i := range last.Late {
		total += last.Late[i] - first.Late[i]
	}
	for i := range last.Late {
		if sum += last.Late[i] - first.Late[i]; float64(sum) >= share*float64(total) {
			return float64(uint64(1) << i)
		}
	}
	return 0
}
