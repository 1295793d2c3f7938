package e2e

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// failing is how one of BenchmarkFailover's servers fails.
type failing struct {
	name string
	fail func(r *rig, server *lab.HTTPServer)
}

var failings = []failing{
	{"refuses", func(_ *rig, server *lab.HTTPServer) { server.Close() }},
	{"silent", func(r *rig, _ *lab.HTTPServer) {
		must(r.t, r.RealServers[0].Command(r.t.Context(), "ip", "link", "set", "eth0", "down").Run())
	}},
}

// BenchmarkFailover measures what clients see when one of two real servers fails behind NAT, under load: how many requests
// failed, and how long after the failure the last of those began. Checks come each second and two of them must fail, for uvs,
// ldirectord (driving uvs) and HAProxy alike. Run it with -benchtime 1x.
func BenchmarkFailover(b *testing.B) {
	needs(b, "haproxy", "haproxy")
	for _, how := range failings {
		for _, who := range []struct {
			name  string
			begin func(b *testing.B) *rig
		}{
			{"uvs", func(b *testing.B) *rig { return checkedByUVS(b) }},
			{"uvs-out-of-band", func(b *testing.B) *rig { return checkedByUVS(b, "inband=no") }},
			{"ldirectord", checkedByLdirectord},
			{"haproxy", checkedByHAProxy},
		} {
			b.Run(how.name+"/"+who.name, func(b *testing.B) {
				for b.Loop() {
					r := who.begin(b)
					time.Sleep(4 * time.Second) // until all have found both servers up
					clients := ask(r.Clients[0], r.webService())
					time.Sleep(time.Second)
					how.fail(r, r.web[0])
					failed := time.Now()
					time.Sleep(12 * time.Second)
					tried, lost, last := clients.end(failed)
					b.ReportMetric(float64(last.Milliseconds()), "ms-last-failed")
					b.ReportMetric(float64(lost), "failed")
					b.ReportMetric(float64(tried), "requests")
					b.ReportMetric(0, "ns/op")
				}
			})
		}
	}
}

// ask is knock with a whole HTTP request on each connection, beside four clients that ask one after the other all the time.
func ask(from *lab.Host, addr string) *knocker {
	k := &knocker{stop: make(chan struct{})}
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-k.stop:
					return
				default:
					_ = askOnce(from, addr)
				}
			}
		})
	}
	k.done.Go(func() {
		for every := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-k.stop:
				load.Wait()
				return
			case <-every.C:
			}
			k.done.Go(func() {
				began := time.Now()
				err := askOnce(from, addr)
				k.mu.Lock()
				defer k.mu.Unlock()
				k.tried++
				if err != nil {
					k.failed = append(k.failed, began)
				}
			})
		}
	})
	return k
}

// askOnce asks a web server as a client would that waits for a second.
func askOnce(from *lab.Host, addr string) error {
	end := time.Now().Add(time.Second)
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(answer), " 200 OK\r\n") {
		err = fmt.Errorf("answered %.40q", answer)
	}
	return err
}

func checkedByUVS(b *testing.B, options ...string) *rig {
	r := newRig(b, rigConfig{NAT: true})
	r.adm(append([]string{"check", "add", "-t", r.webService(), "http", "path=/", "interval=1s", "timeout=500ms"}, options...)...)
	return r
}

// checkedByLdirectord is uvs without checks of its own, driven by Debian's ldirectord.
func checkedByLdirectord(b *testing.B) *rig {
	needs(b, "ldirectord", "ldirectord")
	r := &rig{t: b}
	r.raise(lab.Config{})
	r.director = startDirector(b, r.Directors[0], program("uvsd"), r.attach()...)
	r.adm("sysctl", "net.ipv4.vs.expire_nodest_conn=1") // as ldirectord's users are told to, or reused client ports lead to the dead
	g := &guarded{rig: r, t: b, view: newView(b, r.Directors[0].Namespace, filepath.Dir(r.socket))}
	g.make("install-ipvsadm")
	var err error
	r.web, err = r.Topology.ServeHTTP(r.webPort())
	must(b, err)
	g.write("/etc/ha.d/ldirectord.cf", `checkinterval=1
checktimeout=1
negotiatetimeout=1
failurecount=2
quiescent=no
logfile="/var/log/ldirectord.log"

virtual={VIP}
	real={RS1} masq
	real={RS2} masq
	service=http
	request="/"
	receive="rs"
	scheduler=rr
	protocol=tcp
	checktype=negotiate
`, "{VIP}", r.webService(), "{RS1}", r.webServer(1), "{RS2}", r.webServer(2))
	g.run("ldirectord", "start") // it ends with the view
	g.awaitServers("at the start", map[string]string{r.webServer(1): "1", r.webServer(2): "1"})
	return r
}

// checkedByHAProxy has HAProxy in TCP mode in the director's place.
func checkedByHAProxy(b *testing.B) *rig {
	r := &rig{t: b}
	r.raise(lab.Config{})
	host := r.Directors[0]
	must(b, host.AddAddr("eth0", netip.PrefixFrom(r.VIP(), 24)))
	must(b, host.AddAddr("eth1", netip.PrefixFrom(r.Gateway, 24)))
	var err error
	r.web, err = r.Topology.ServeHTTP(r.webPort())
	must(b, err)
	conf := filepath.Join(b.TempDir(), "haproxy.cfg")
	must(b, os.WriteFile(conf, []byte(fmt.Sprintf(`global
	maxconn 4000
defaults
	mode tcp
	retries 0
	timeout connect 1s
	timeout client 10s
	timeout server 10s
	timeout check 500ms
listen web
	bind %s
	balance roundrobin
	option httpchk GET /
	server rs1 %s check inter 1s fall 2 rise 2
	server rs2 %s check inter 1s fall 2 rise 2
`, r.webService(), r.webServer(1), r.webServer(2))), 0o644))
	cmd := host.Command(b.Context(), "haproxy", "-db", "-f", conf)
	must(b, cmd.Start())
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(b, "HAProxy listens", func() (bool, any) {
		conn, err := r.Clients[0].Dial("tcp", r.webService())
		if err == nil {
			conn.Close()
		}
		return err == nil, err
	})
	return r
}
