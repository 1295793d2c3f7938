package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// sctpBytes is how much each association moves, each way, twice.
const sctpBytes = 200 << 10

// sctpService is one of the virtual services of TestSCTP.
type sctpService struct {
	method  string // of uvsadm -a
	addr    netip.AddrPort
	servers [2]netip.AddrPort
	names   [2]string
	listed  string // the method's name in a listing
}

// services are the three methods' in one family: ports 701 to 703 of the VIP; what NAT's real servers listen on is 7003.
func (g *sctpGuest) services(v6 bool) []sctpService {
	vip := g.VIP()
	if v6 {
		vip = g.VIPs6[0]
	}
	list := []sctpService{
		{method: "-g", listed: "Route", names: [2]string{"dr1", "dr2"}},
		{method: "-i", listed: "Tunnel", names: [2]string{"tun1", "tun2"}},
		{method: "-m", listed: "Masq", names: [2]string{"nat1", "nat2"}},
	}
	for i := range list {
		s := &list[i]
		s.addr = netip.AddrPortFrom(vip, 701+uint16(i))
		port := s.addr.Port()
		if s.method == "-m" {
			port = 7003
		}
		for k, name := range s.names {
			s.servers[k] = netip.AddrPortFrom(g.station(name).addr(v6), port)
		}
	}
	return list
}

// TestSCTP is associations between real SCTP sockets, of a kernel that has them: opened, kept while a real server is taken out,
// used both ways, and closed, by every method and over both IP families.
func TestSCTP(t *testing.T) {
	g := newSCTPGuest(t)
	var rules []string
	for _, v6 := range []bool{false, true} {
		for _, s := range g.services(v6) {
			rules = append(rules, fmt.Sprintf("-A --sctp-service %v -s wrr", s.addr))
			for k, server := range s.servers {
				rules = append(rules, fmt.Sprintf("-a --sctp-service %v -r %v %s -w %d", s.addr, server, s.method, k+1))
			}
		}
	}
	g.restore(rules...)
	stop := g.captureDirector()
	for _, v6 := range []bool{false, true} {
		for _, s := range g.services(v6) {
			t.Run(s.listed+"/IPv"+family(v6), func(t *testing.T) {
				g.at(t).checkSCTP(s)
			})
		}
	}
	g.checkCRCs(slices.Concat(stop()...))
	for _, s := range g.stations {
		if errors := g.shell("ip netns exec " + s.name + " grep ChecksumErrors /proc/net/sctp/snmp"); strings.Fields(errors)[1] != "0" {
			t.Errorf("%s got packets with wrong checksums: %s", s.name, errors)
		}
	}
}

// checkSCTP is a service's life.
func (g *sctpGuest) checkSCTP(s sctpService) {
	g.t.Helper()
	first := g.ask(s.addr, 6, sctpBytes)
	if want := (map[string]int{s.names[0]: 2, s.names[1]: 4}); !maps.Equal(first.greeted, want) {
		g.t.Errorf("6 associations went to %v, want by weight %v", first.greeted, want)
	}
	g.expectServers(s, server{s.listed, "1", "2", "0"}, server{s.listed, "2", "4", "0"})
	g.expectStates(s, map[string]int{"ESTABLISHED": 6})

	g.adm("-e", "--sctp-service", s.addr.String(), "-r", s.servers[1].String(), s.method, "-w", "0")
	second := g.ask(s.addr, 2, sctpBytes)
	if want := (map[string]int{s.names[0]: 2}); !maps.Equal(second.greeted, want) {
		g.t.Errorf("2 associations went to %v while %s was taken out", second.greeted, s.names[1])
	}
	second.end()
	first.end() // moves its bytes once more, to the server that was taken out as well
	g.expectServers(s, server{s.listed, "1", "0", "4"}, server{s.listed, "0", "0", "4"})
	g.expectStates(s, map[string]int{"CLOSED": 8})

	// A client closes while its server is cut off.
	g.adm("-e", "--sctp-service", s.addr.String(), "-r", s.servers[1].String(), s.method, "-w", "2")
	g.adm("-e", "--sctp-service", s.addr.String(), "-r", s.servers[0].String(), s.method, "-w", "0")
	last := g.ask(s.addr, 1, 0)
	g.expectStates(s, map[string]int{"CLOSED": 8, "ESTABLISHED": 1})
	port := g.station(s.names[1])
	must(g.t, g.Switch.SetBridge(port.tap(), ""))
	last.letGo()
	g.expectStates(s, map[string]int{"CLOSED": 8, "S-RECEIVED": 1})
	must(g.t, g.Switch.SetBridge(port.tap(), port.bridge))
	last.wait()
	g.expectStates(s, map[string]int{"CLOSED": 9})
	g.expectServers(s, server{s.listed, "0", "0", "4"}, server{s.listed, "2", "0", "5"})
}

// expectServers waits until a service's real servers are listed so.
func (g *sctpGuest) expectServers(s sctpService, first, second server) {
	g.t.Helper()
	want := map[string]server{s.servers[0].String(): first, s.servers[1].String(): second}
	eventually(g.t, fmt.Sprintf("uvsadm -L -n lists %v", want), func() (bool, any) {
		got := g.list("--sctp-service", s.addr.String())
		return maps.Equal(got, want), got
	})
}

// expectStates waits until a service has so many connections in each state.
func (g *sctpGuest) expectStates(s sctpService, want map[string]int) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("uvsadm -L -c -n lists %v of %v", want, s.addr), func() (bool, any) {
		got := map[string]int{}
		for line := range strings.Lines(g.adm("-L", "-n", "-c")) {
			if f := strings.Fields(line); len(f) == 6 && f[0] == "SCTP" && f[4] == s.addr.String() {
				got[f[2]]++
				if f[5] != s.servers[0].String() && f[5] != s.servers[1].String() {
					g.t.Fatalf("listed: %s", line)
				}
			}
		}
		return maps.Equal(got, want), got
	})
}

// associations are some that a client holds open.
type associations struct {
	g       *sctpGuest
	file    string         // what the client's program prints
	greeted map[string]int // how many each server took
}

// ask has the client open n associations, one after the other, and move so many bytes through each.
func (g *sctpGuest) ask(to netip.AddrPort, n, bytes int) *associations {
	g.t.Helper()
	g.asked.Add(1)
	a := &associations{g: g, file: fmt.Sprintf("/run/ask%d", g.asked.Load())}
	g.shell(fmt.Sprintf("(nsenter --net=/run/netns/client %s ask %v %v %d %d %s.end; echo status $?) </dev/null >%[6]s 2>&1 &",
		program("sctp"), g.station("client").addr(to.Addr().Is6()), to, n, bytes, a.file))
	out := g.await(a.file, "\n")
	if err := json.Unmarshal([]byte(out), &a.greeted); err != nil {
		g.t.Fatalf("%d associations with %v: %s", n, to, out)
	}
	return a
}

// letGo has the client use its associations again and close them.
func (a *associations) letGo() {
	a.g.t.Helper()
	a.g.shell(">" + a.file + ".end")
}

// wait waits until the client has done that.
func (a *associations) wait() {
	a.g.t.Helper()
	if out := a.g.await(a.file, "status "); !strings.HasSuffix(out, "status 0\n") {
		a.g.t.Errorf("the client: %s", out)
	}
}

func (a *associations) end() {
	a.g.t.Helper()
	a.letGo()
	a.wait()
}

// checkCRCs verifies all SCTP packets that left the director, but for tunnelled ones.
func (g *sctpGuest) checkCRCs(frames []wire) {
	g.t.Helper()
	checked := map[uint16]int{}
	for _, w := range frames {
		proto, l4 := tunnelled(w)
		if !w.Out || proto != protoSCTP {
			continue
		}
		checked[w.kind]++
		if !crcOK(l4[:ipLen(w)-(len(w.Data)-etherHeader-len(l4))]) { // without what Ethernet may have padded
			g.t.Fatalf("wrong CRC32c: %v", w)
		}
	}
	if checked[etherIPv4] < 100 || checked[etherIPv6] < 100 {
		g.t.Errorf("so few SCTP packets left the director: %v", checked)
	}
}
