package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"uvs/lab"
)

// A rig is a lab with servers on its real servers and a director that balances them:
//
//	          virtual service   real servers, DR and TUN   NAT
//	HTTP      VIP:80            :80                        :8080
//	UDP echo  VIP:53            :53                        :5353
type rig struct {
	*lab.Topology
	*director
	t      testing.TB
	direct bool // DR or TUN: answers don't pass the director
	tunnel bool // TUN
	web    []*lab.HTTPServer
	udp    []*lab.UDPServer
}

// rigConfig says what a rig is. The zero value is DR with two real servers on veths, with offloads, by uvsd's defaults.
type rigConfig struct {
	lab.Config
	NAT       bool
	TUN       bool     // with uvsdecap on the real servers
	Args      []string // of uvsd, beside --interface and --gateway
	Scheduler string   // default rr
	Race      bool     // uvsd with the race detector
	Bare      bool     // configure no virtual service
}

// newRig raises a rig, and takes it down when the test ends.
func newRig(t testing.TB, cfg rigConfig) *rig {
	t.Helper()
	r := &rig{t: t, direct: !cfg.NAT, tunnel: cfg.TUN}
	r.raise(cfg.Config)
	var err error
	r.web, err = r.Topology.ServeHTTP(r.webPort())
	must(t, err)
	r.udp, err = r.Topology.ServeUDPEcho(r.udpPort())
	must(t, err)
	path := program("uvsd")
	if cfg.Race {
		path, err = raceDetecting()
		must(t, err)
	}
	r.director = startDirector(t, r.Directors[0], path, append(r.attach(), cfg.Args...)...)
	if !cfg.Bare {
		scheduler := cfg.Scheduler
		if scheduler == "" {
			scheduler = "rr"
		}
		r.restore(r.rules(r.VIP(), scheduler)...)
	}
	return r
}

// raise makes the rig's network, the tunnels' far ends included.
func (r *rig) raise(cfg lab.Config) {
	r.t.Helper()
	switch {
	case r.tunnel:
		r.Topology = lab.TUN(r.t, cfg)
		var directors []netip.Addr
		for _, d := range r.Directors {
			directors = append(directors, d.Addr())
			if cfg.IPv6 {
				directors = append(directors, d.Addr6())
			}
		}
		for _, rs := range r.RealServers {
			startDecapsulator(r.t, rs, directors, slices.Concat(r.VIPs, r.VIPs6))
		}
	case r.direct:
		r.Topology = lab.DR(r.t, cfg)
	default:
		r.Topology = lab.NAT(r.t, cfg)
	}
}

// attach are uvsd's arguments that say where it is.
func (r *rig) attach() []string {
	if r.direct {
		return []string{"--interface", "eth0"}
	}
	return []string{"--interface", "eth0,eth1", "--gateway", netip.PrefixFrom(r.Gateway, 24).String() + "@eth1"}
}

// method is the option of uvsadm -a.
func (r *rig) method() string {
	switch {
	case r.tunnel:
		return "-i"
	case r.direct:
		return "-g"
	}
	return "-m"
}

func (r *rig) webPort() uint16 {
	if r.direct {
		return 80
	}
	return 8080
}

func (r *rig) udpPort() uint16 {
	if r.direct {
		return 53
	}
	return 5353
}

// rules configure both services of a VIP with all real servers, in the order rs1, rs2...
func (r *rig) rules(vip netip.Addr, scheduler string) []string {
	rules := []string{
		fmt.Sprintf("-A -t %v:80 -s %s", vip, scheduler),
		fmt.Sprintf("-A -u %v:53 -s %s", vip, scheduler),
	}
	for i := range r.RealServers {
		rules = append(rules,
			fmt.Sprintf("-a -t %v:80 -r %s %s -w 1", vip, r.webServer(i+1), r.method()),
			fmt.Sprintf("-a -u %v:53 -r %s %s -w 1", vip, r.udpServer(i+1), r.method()))
	}
	return rules
}

// webServer and udpServer are a real server's addresses as uvsadm -r takes them and lists them; the first is number 1.
func (r *rig) webServer(number int) string {
	return netip.AddrPortFrom(r.RealServers[number-1].Addr(), r.webPort()).String()
}

func (r *rig) udpServer(number int) string {
	return netip.AddrPortFrom(r.RealServers[number-1].Addr(), r.udpPort()).String()
}

// webService and udpService are the virtual services' addresses as uvsadm takes them.
func (r *rig) webService() string { return netip.AddrPortFrom(r.VIP(), 80).String() }
func (r *rig) udpService() string { return r.udpAddr().String() }

func (r *rig) udpAddr() netip.AddrPort { return netip.AddrPortFrom(r.VIP(), 53) }

// url is the web service's.
func (r *rig) url() string { return "http://" + r.VIP().String() }

// client is client1 with a new connection for each request.
func (r *rig) client() *http.Client { return r.Clients[0].HTTPClient() }

// count asks the web service n times.
func (r *rig) count(n int) lab.Tally {
	r.t.Helper()
	tally, err := lab.CountHTTP(shortly(r.t), r.client(), r.url()+"/", n)
	if err != nil {
		r.t.Fatal(err)
	}
	return tally
}

// server is a line of uvsadm -L -n.
type server struct{ forward, weight, active, inactive string }

// list is the part of uvsadm -L -n about a service, "-t", "10.9.0.100:80", by real server.
func (r *rig) list(flag, service string) map[string]server {
	r.t.Helper()
	servers := map[string]server{}
	for line := range strings.Lines(r.adm("-L", "-n", flag, service)) {
		if f := strings.Fields(line); len(f) == 6 && f[0] == "->" && f[1] != "RemoteAddress:Port" {
			servers[f[1]] = server{f[2], f[3], f[4], f[5]}
		}
	}
	return servers
}

// modes runs a test by DR and by NAT.
func modes(t *testing.T, test func(t *testing.T, cfg rigConfig)) {
	t.Helper()
	for _, nat := range []bool{false, true} {
		t.Run(map[bool]string{false: "DR", true: "NAT"}[nat], func(t *testing.T) {
			test(t, rigConfig{NAT: nat})
		})
	}
}

// methods runs a test by DR, by TUN and by NAT.
func methods(t *testing.T, test func(t *testing.T, cfg rigConfig)) {
	t.Helper()
	for _, cfg := range []rigConfig{{}, {TUN: true}, {NAT: true}} {
		t.Run(cfg.method(), func(t *testing.T) { test(t, cfg) })
	}
}

// method is the forwarding method's name.
func (cfg rigConfig) method() string {
	switch {
	case cfg.TUN:
		return "TUN"
	case cfg.NAT:
		return "NAT"
	}
	return "DR"
}
