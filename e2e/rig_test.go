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
	six    bool // speaks IPv6: what follows is about the services and hosts of that family
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
	Six       bool     // speak IPv6, in a network of both families

	Before func(*rig) // changes the network before uvsd starts
}

// newRig raises a rig, and takes it down when the test ends.
func newRig(t testing.TB, cfg rigConfig) *rig {
	t.Helper()
	r := &rig{t: t, direct: !cfg.NAT, tunnel: cfg.TUN, six: cfg.Six}
	cfg.IPv6 = cfg.IPv6 || cfg.Six
	r.raise(cfg.Config)
	var err error
	r.web, err = r.Topology.ServeHTTP(r.webPort())
	must(t, err)
	r.udp, err = r.Topology.ServeUDPEcho(r.udpPort())
	must(t, err)
	if cfg.Before != nil {
		cfg.Before(r)
	}
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
	args := []string{"--interface", "eth0,eth1", "--gateway", netip.PrefixFrom(r.Gateway, 24).String() + "@eth1"}
	if r.Config.IPv6 {
		args = append(args, "--gateway", netip.PrefixFrom(r.Gateway6, 64).String()+"@eth1")
	}
	return args
}

// over6 is the same rig, of a network of both families, speaking IPv6.
func (r *rig) over6() *rig {
	six := *r
	six.six = true
	return &six
}

// VIP is the first virtual address of the rig's family.
func (r *rig) VIP() netip.Addr { return r.vips()[0] }

// vips are the virtual addresses of the rig's family.
func (r *rig) vips() []netip.Addr {
	if r.six {
		return r.VIPs6
	}
	return r.VIPs
}

// addr is a host's address in the rig's family.
func (r *rig) addr(h *lab.Host) netip.Addr {
	if r.six {
		return h.Addr6()
	}
	return h.Addr()
}

// gateway is the real servers' in the rig's family, in NAT.
func (r *rig) gateway() netip.Addr {
	if r.six {
		return r.Gateway6
	}
	return r.Gateway
}

// insideNet is the real servers' segment in NAT.
func (r *rig) insideNet() netip.Prefix {
	if r.six {
		return netip.MustParsePrefix("2001:db8:1::/64")
	}
	return netip.MustParsePrefix("10.1.0.0/24")
}

// defaultRoute is where everything goes, in the rig's family.
func (r *rig) defaultRoute() netip.Prefix {
	if r.six {
		return netip.MustParsePrefix("::/0")
	}
	return defaultRoute
}

// at is an address of the VIP, as programs and uvsadm take it.
func (r *rig) at(port uint16) string { return netip.AddrPortFrom(r.VIP(), port).String() }

// urlOf is a web server's at an address.
func urlOf(addr netip.Addr) string {
	if addr.Is6() {
		return "http://[" + addr.String() + "]"
	}
	return "http://" + addr.String()
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
	web, udp := netip.AddrPortFrom(vip, 80), netip.AddrPortFrom(vip, 53)
	rules := []string{fmt.Sprintf("-A -t %v -s %s", web, scheduler), fmt.Sprintf("-A -u %v -s %s", udp, scheduler)}
	for i := range r.RealServers {
		rules = append(rules,
			fmt.Sprintf("-a -t %v -r %s %s -w 1", web, r.webServer(i+1), r.method()),
			fmt.Sprintf("-a -u %v -r %s %s -w 1", udp, r.udpServer(i+1), r.method()))
	}
	return rules
}

// webServer and udpServer are a real server's addresses as uvsadm -r takes them and lists them; the first is number 1.
func (r *rig) webServer(number int) string {
	return netip.AddrPortFrom(r.addr(r.RealServers[number-1]), r.webPort()).String()
}

func (r *rig) udpServer(number int) string {
	return netip.AddrPortFrom(r.addr(r.RealServers[number-1]), r.udpPort()).String()
}

// webService and udpService are the virtual services' addresses as uvsadm takes them.
func (r *rig) webService() string { return r.at(80) }
func (r *rig) udpService() string { return r.udpAddr().String() }

func (r *rig) udpAddr() netip.AddrPort { return netip.AddrPortFrom(r.VIP(), 53) }

// url is the web service's.
func (r *rig) url() string { return urlOf(r.VIP()) }

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
	each(t, test, rigConfig{}, rigConfig{NAT: true})
}

// methods runs a test by DR, by TUN and by NAT.
func methods(t *testing.T, test func(t *testing.T, cfg rigConfig)) {
	t.Helper()
	each(t, test, rigConfig{}, rigConfig{TUN: true}, rigConfig{NAT: true})
}

// families runs a test by DR and by NAT, each over IPv4 and over IPv6.
func families(t *testing.T, test func(t *testing.T, cfg rigConfig)) {
	t.Helper()
	each(t, test, rigConfig{}, rigConfig{NAT: true}, rigConfig{Six: true}, rigConfig{NAT: true, Six: true})
}

// everyway runs a test by DR, by TUN and by NAT, each over IPv4 and over IPv6.
func everyway(t *testing.T, test func(t *testing.T, cfg rigConfig)) {
	t.Helper()
	methods(t, test)
	each(t, test, rigConfig{Six: true}, rigConfig{TUN: true, Six: true}, rigConfig{NAT: true, Six: true})
}

// each runs a test with each of several rigs, called like DR, or DR6 over IPv6.
func each(t *testing.T, test func(t *testing.T, cfg rigConfig), configs ...rigConfig) {
	t.Helper()
	for _, cfg := range configs {
		name := cfg.method()
		if cfg.Six {
			name += "6"
		}
		t.Run(name, func(t *testing.T) { test(t, cfg) })
	}
}

// both runs a test over IPv4 and over IPv6.
func both(t *testing.T, test func(t *testing.T, six bool)) {
	t.Helper()
	for _, six := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) { test(t, six) })
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
