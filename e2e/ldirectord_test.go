package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// guarded is a rig whose director is uvsd with Debian's ldirectord, unmodified, which thinks that it drives the kernel's IPVS:
// it calls /sbin/ipvsadm and asks the real servers' nginx how they are. On 127.0.0.1 of the director is what ldirectord falls
// back to.
type guarded struct {
	*rig
	*view
	t     testing.TB // the rig's and the view's
	nginx map[int]*lab.Cmd
	conf  []string // {NAME}s of ldirectord.cf and what they stand for
}

// ldirectordConf has a service with a health check that says what a page must contain, and two that are there to be listed
// and parsed: a persistent one with thresholds, and one of a firewall mark.
const ldirectordConf = `checkinterval=1
checktimeout=3
negotiatetimeout=3
autoreload={AUTORELOAD}
quiescent={QUIESCENT}
logfile="/var/log/ldirectord.log"

virtual={VIP}:80
        real={RS1}:{PORT} {METHOD} {WEIGHT}
        real={RS2}:{PORT} {METHOD} 1
        fallback=127.0.0.1:80 {METHOD}
        service=http
        request="health"
        receive="in service"
        scheduler=wrr
        protocol=tcp
        checktype=negotiate

virtual={VIP}:443
        real={RS1}:{443} {METHOD} 3 l:5 u:20
        fallback=127.0.0.1:443 {METHOD}
        scheduler=sh
        schedflags=sh-port,sh-fallback
        persistent=600
        netmask=255.255.255.0
        protocol=tcp
        checktype=on

virtual=7
        real={RS2} {METHOD} 2
        fallback=127.0.0.1 {METHOD}
        scheduler=wlc
        persistent=300
        protocol=fwm
        checktype=on
`

// ldirectordConf6 is a service of IPv6 beside the others. Its check only connects: to ask HTTP by IPv6
// ldirectord wants a Perl module that its package doesn't depend on.
const ldirectordConf6 = `
virtual6=[{VIP6}]:80
        real6=[{RS1_6}]:{PORT} {METHOD} 2
        real6=[{RS2_6}]:{PORT} {METHOD} 1
        scheduler=wlc
        persistent=120
        netmask=64
        protocol=tcp
        checktype=connect
`

const healthyNginx = `daemon off;
user root;
worker_processes 1;
pid {DIR}/nginx.pid;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path {DIR}/body;
	proxy_temp_path {DIR}/proxy;
	fastcgi_temp_path {DIR}/fastcgi;
	uwsgi_temp_path {DIR}/uwsgi;
	scgi_temp_path {DIR}/scgi;
	server {
		listen {PORT};
		listen [::]:{PORT};
		add_header {HEADER} {NAME};
		location = /health { return 200 "{NAME} is in service\n"; }
		location / { return 200 "{NAME}\n"; }
	}
}
`

func newGuarded(t testing.TB, cfg rigConfig, quiescent, autoreload string) *guarded {
	t.Helper()
	needs(t, "ldirectord", "ldirectord")
	needs(t, "nginx", "nginx-light")
	r := &rig{t: t, direct: !cfg.NAT, tunnel: cfg.TUN}
	r.raise(cfg.Config)
	host := r.Directors[0]
	r.director = startDirector(t, host, program("uvsd"), append(r.attach(), cfg.Args...)...)
	_, err := lab.ServeHTTP(host.Namespace, "fallback", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 80))
	must(t, err)
	g := &guarded{rig: r, t: t, view: newView(t, host.Namespace, filepath.Dir(r.socket)), nginx: map[int]*lab.Cmd{}}
	g.make("install-ipvsadm")
	g.conf = []string{
		"{VIP}", r.VIP().String(), "{RS1}", r.RealServers[0].Addr().String(), "{RS2}", r.RealServers[1].Addr().String(),
		"{PORT}", fmt.Sprint(r.webPort()), "{METHOD}", map[string]string{"-g": "gate", "-m": "masq", "-i": "ipip"}[r.method()],
		"{443}", map[bool]string{true: "443", false: "8443"}[r.direct], "{QUIESCENT}", quiescent, "{AUTORELOAD}", autoreload,
	}
	if cfg.IPv6 {
		g.conf = append(g.conf, "{VIP6}", r.VIPs6[0].String(), "{RS1_6}", r.RealServers[0].Addr6().String(), "{RS2_6}", r.RealServers[1].Addr6().String())
	}
	for n := range r.RealServers {
		g.serve(n + 1)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ldirectord's log:\n%s", g.read("/var/log/ldirectord.log"))
		}
	})
	return g
}

// serve starts the nginx of a real server, the first of which is 1.
func (g *guarded) serve(n int) {
	g.t.Helper()
	h := g.RealServers[n-1]
	dir := g.t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("{DIR}", dir, "{PORT}", fmt.Sprint(g.webPort()), "{NAME}", h.Name(), "{HEADER}", lab.ServerHeader).Replace(healthyNginx)
	must(g.t, os.WriteFile(conf, []byte(text), 0o644))
	cmd := h.Command(g.t.Context(), "nginx", "-e", "stderr", "-p", dir, "-c", conf)
	must(g.t, cmd.Start())
	g.nginx[n] = cmd
}

// fail stops a real server's nginx: its port refuses connections from then on.
func (g *guarded) fail(n int) {
	g.t.Helper()
	must(g.t, g.nginx[n].Process.Signal(syscall.SIGTERM))
	g.nginx[n].Wait() // with an error if it was not quite up, and so ended by the signal
}

// configure writes ldirectord's configuration with a weight for the first real server.
func (g *guarded) configure(weight int) {
	g.t.Helper()
	conf := ldirectordConf
	if g.Config.IPv6 {
		conf += ldirectordConf6
	}
	g.write("/etc/ha.d/ldirectord.cf", conf, append(slices.Clone(g.conf), "{WEIGHT}", fmt.Sprint(weight))...)
}

// awaitServers waits until the web service has exactly these servers, by their addresses and weights.
func (g *guarded) awaitServers(when string, want map[string]string) {
	g.t.Helper()
	g.awaitServersOf(g.webService(), when, want)
}

// awaitServersOf is awaitServers for any service: as many check rounds as it takes, with room for a busy machine.
func (g *guarded) awaitServersOf(service, when string, want map[string]string) {
	g.t.Helper()
	var got map[string]string
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got = map[string]string{}
		for line := range strings.Lines(g.adm("-S", "-n")) {
			if f := strings.Fields(line); len(f) >= 8 && f[0] == "-a" && f[2] == service {
				got[f[4]] = f[7]
			}
		}
		if maps.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: %s still has %v, want %v", when, service, got, want)
		}
	}
}

// answers asks the web service so often that every server of weight has its turn, and checks who answers.
func (g *guarded) answers(when string, want ...string) {
	g.t.Helper()
	got := slices.Sorted(maps.Keys(g.count(12)))
	if !slices.Equal(got, want) {
		g.t.Errorf("%s: %v answer, want %v", when, got, want)
	}
}

// TestLdirectord has Debian's ldirectord drive uvs: it sets up the services, takes a real server whose nginx is gone out of
// service and puts it back, falls back to the director itself, learns of a new configuration, and removes everything.
func TestLdirectord(t *testing.T) {
	for _, c := range []struct {
		rigConfig
		quiescent, autoreload string
	}{
		{rigConfig{Config: lab.Config{IPv6: true}}, "no", "no"},
		{rigConfig{NAT: true}, "yes", "yes"},
		{rigConfig{TUN: true, Args: []string{"--mac", "interface"}}, "yes", "no"},
	} {
		t.Run(c.method()+"/quiescent="+c.quiescent, func(t *testing.T) {
			t.Parallel() // they mostly wait for ldirectord's rounds
			ldirectord(t, newGuarded(t, c.rigConfig, c.quiescent, c.autoreload), c.quiescent == "yes", c.autoreload == "yes")
		})
	}
}

// TestLdirectordFallback6 has ldirectord fall back to a program on the director's ::1, as it knows to say it.
func TestLdirectordFallback6(t *testing.T) {
	g := newGuarded(t, rigConfig{Config: lab.Config{IPv6: true}}, "no", "no")
	g.rig = g.over6()
	_, err := lab.ServeHTTP(g.Directors[0].Namespace, "fallback6", netip.AddrPortFrom(netip.IPv6Loopback(), 80))
	must(t, err)
	g.write("/etc/ha.d/ldirectord.cf", `checkinterval=1
checktimeout=3
logfile="/var/log/ldirectord.log"
fallback6=[::1]

virtual6={VIP}
	real6={RS1} gate
	scheduler=wrr
	protocol=tcp
	checktype=connect
`, "{VIP}", g.webService(), "{RS1}", g.webServer(1))
	g.fail(1)
	g.run("ldirectord", "start")
	// While it starts it adds the fallback, puts the real server in its place, and takes it out again before it ever asked.
	eventually(t, "ldirectord takes the real server out", func() (bool, any) {
		log := g.read("/var/log/ldirectord.log")
		return strings.Contains(log, "Deleted real server"), log
	})
	g.awaitServers("at the start", map[string]string{"[::1]:80": "1"})
	g.answers("at the start", "fallback6")
	g.serve(1)
	g.awaitServers("rs1 is back", map[string]string{g.webServer(1): "1"})
	g.answers("rs1 is back", "rs1")
	g.run("ldirectord", "stop")
	eventually(t, "no service is left", func() (bool, any) {
		rules := g.adm("-S", "-n")
		return rules == "", rules
	})
}

func ldirectord(t *testing.T, g *guarded, quiescent, autoreload bool) {
	const fallback = "127.0.0.1:80"
	rs1, rs2 := g.webServer(1), g.webServer(2)
	// down is what the service has of a server that is out of service, beside what it has of others.
	servers := func(up map[string]string, down ...string) map[string]string {
		if quiescent {
			for _, name := range down {
				up[name] = "0"
			}
		}
		return up
	}
	// await6 is awaitServers for the service of IPv6, where there is one.
	await6 := func(when string, want map[int]string) {
		t.Helper()
		if !g.Config.IPv6 {
			return
		}
		servers := map[string]string{}
		for n, weight := range want {
			servers[netip.AddrPortFrom(g.RealServers[n-1].Addr6(), g.webPort()).String()] = weight
		}
		g.awaitServersOf(netip.AddrPortFrom(g.VIPs6[0], 80).String(), when, servers)
	}
	g.adm("mark", "add", "7", "--dst", g.VIP().String(), "--proto", "tcp", "--dport", "8443")

	g.configure(2)
	g.run("ldirectord", "start")
	g.awaitServers("at the start", map[string]string{rs1: "2", rs2: "1"})
	g.answers("at the start", "rs1", "rs2")
	await6("at the start", map[int]string{1: "2", 2: "1"})
	g.checkListed()

	g.fail(1)
	g.awaitServers("rs1 is stopped", servers(map[string]string{rs2: "1"}, rs1))
	g.answers("rs1 is stopped", "rs2")
	await6("rs1 is stopped", map[int]string{2: "1"})
	g.serve(1)
	g.awaitServers("rs1 is back", map[string]string{rs1: "2", rs2: "1"})
	g.answers("rs1 is back", "rs1", "rs2")
	await6("rs1 is back", map[int]string{1: "2", 2: "1"})

	g.fail(1)
	g.fail(2)
	g.awaitServers("both are stopped", servers(map[string]string{fallback: "1"}, rs1, rs2))
	g.answers("both are stopped", "fallback")
	g.serve(2)
	g.awaitServers("rs2 is back", servers(map[string]string{rs2: "1"}, rs1))
	g.answers("rs2 is back", "rs2")
	g.serve(1)
	g.awaitServers("both are back", map[string]string{rs1: "2", rs2: "1"})

	before := g.list("-t", g.webService())[rs1]
	g.configure(5)
	if !autoreload {
		g.run("ldirectord", "reload")
	}
	g.awaitServers("with another configuration", map[string]string{rs1: "5", rs2: "1"})
	g.answers("with another configuration", "rs1", "rs2")
	if after := g.list("-t", g.webService())[rs1]; after.forward != before.forward {
		t.Errorf("forwarding method %s became %s", before.forward, after.forward)
	}
	if _, err := g.try("ldirectord", "status"); err != nil {
		t.Errorf("it doesn't think that it runs: %v", err)
	}

	g.run("ldirectord", "stop")
	eventually(t, "no service is left", func() (bool, any) {
		rules := g.adm("-S", "-n")
		return rules == "", rules
	})
	eventually(t, "ldirectord is gone", func() (bool, any) {
		_, err := g.try("ldirectord", "status")
		return err != nil, "running"
	})
	if log := g.read("/var/log/ldirectord.log"); strings.Contains(log, "failed") || !strings.Contains(log, "Purged virtual server") {
		t.Errorf("its commands were not all carried out")
	}
}

// checkListed checks what became of the services that are only listed.
func (g *guarded) checkListed() {
	g.t.Helper()
	var want []string
	for _, line := range []string{
		"-A -t {VIP}:443 -s sh -p 600 -M 255.255.255.0 -b sh-fallback,sh-port",
		"-a -t {VIP}:443 -r {RS1}:{443} {M} -w 3{TUN} -x 20 -y 5",
		"-A -f 7 -s wlc -p 300",
		"-a -f 7 -r {RS2}:0 {M} -w 2{TUN}",
	} {
		tunnel := ""
		if g.tunnel {
			tunnel = " --tun-type ipip"
		}
		want = append(want, strings.NewReplacer(append([]string{"{M}", g.method(), "{TUN}", tunnel}, g.conf...)...).Replace(line))
	}
	eventually(g.t, "the other services are as configured", func() (bool, any) {
		saved := strings.Split(g.adm("save", "--full"), "\n")
		for _, line := range want {
			if !slices.Contains(saved, line) {
				return false, strings.Join(saved, "\n") + "\nwithout\n" + line
			}
		}
		return true, nil
	})
}
