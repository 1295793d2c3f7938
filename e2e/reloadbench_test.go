package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkReload10000Services reloads a file of 10,000 services with four servers each, half of which change each time, while
// clients ask two services that the file leaves alone: by TCP on new and lasting connections, and by datagrams, each of which is
// counted. It reports what the reload takes, uvsd's memory, and what was lost.
//
//	go test ./e2e -run '^$' -bench Reload10000 -benchtime 10x
func BenchmarkReload10000Services(b *testing.B) {
	y := newYAMLRig(b, "")
	more := func(changed bool) string {
		var s strings.Builder
		for i := range 10_000 {
			scheduler, weight := "wlc", 1
			if changed && i%2 == 1 {
				scheduler, weight = "sed", 3
			}
			a := netip.AddrFrom4([4]byte{10, 9, byte(100 + i/200), byte(i%200 + 1)})
			fmt.Fprintf(&s, "  - {name: s%d, address: %v, port: 81, scheduler: %s, servers: [{address: %v, weight: %d}, %v, 10.9.0.201, 10.9.0.202]}\n",
				i, a, scheduler, y.addr(y.RealServers[0]), weight, y.addr(y.RealServers[1]))
		}
		return s.String()
	}
	files := []string{y.text(y.rig, more(false)), y.text(y.rig, more(true))}
	y.write(files[0])
	begin := time.Now()
	y.adm("reload")
	b.Logf("10,000 services added in %v", time.Since(begin))
	before := y.rss()

	conn, err := y.Clients[0].Dial("udp", y.udpAddr().String())
	must(b, err)
	defer conn.Close()
	var sent, answered atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { datagrams(conn, stop, &sent) })
	all.Go(func() {
		buf := make([]byte, 100)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			answered.Add(1)
		}
	})
	dropped := y.status().Packets.Dropped
	counted := y.inPackets()
	var took time.Duration
	y.during(func() {
		for i := 0; b.Loop(); i++ {
			y.write(files[(i+1)%2])
			begin := time.Now()
			y.adm("reload", "--json")
			took += time.Since(begin)
		}
	})
	close(stop)
	time.Sleep(time.Second) // for the last answers
	conn.SetReadDeadline(time.Now())
	all.Wait()
	lost := sent.Load() - answered.Load()
	if n := y.status().Packets.Dropped - dropped; n != 0 || lost != 0 {
		b.Errorf("%d frames dropped; of %d datagrams %d were not answered", n, sent.Load(), lost)
	}
	eventually(b, "uvsd has counted each datagram", func() (bool, any) { // it reads the counters every two seconds
		n := y.inPackets() - counted
		return n == sent.Load(), n
	})
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/reload")
	b.ReportMetric(float64(sent.Load()), "datagrams")
	b.ReportMetric(float64(lost), "lost")
	b.ReportMetric(float64(before>>20), "MiB-before")
	b.ReportMetric(float64(y.rss()>>20), "MiB-after")
}

// datagrams sends one each half millisecond until stop is closed.
func datagrams(conn net.Conn, stop <-chan struct{}, sent *atomic.Int64) {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := conn.Write([]byte("x")); err == nil {
				sent.Add(1)
			}
		}
	}
}

// rss is uvsd's resident memory in bytes.
func (d *director) rss() int64 {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	must(d.t, err)
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	d.t.Fatalf("no VmRSS in\n%s", text)
	return 0
}

// inPackets is what uvsd counts of the echo service's packets from clients.
func (y *yamlRig) inPackets() int64 {
	y.t.Helper()
	var reply struct {
		Services []struct {
			Stats struct{ InPackets int64 }
		}
	}
	must(y.t, json.Unmarshal([]byte(y.adm("list", "-u", y.udpService(), "--json")), &reply))
	return reply.Services[0].Stats.InPackets
}
