package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// network is a packet path and its routes: clients' port 0 and servers' port 1, whose gateway is the director.
type network struct {
	table  *service.Table
	answer func(*dataplane.Probe) dataplane.ProbeAnswer
	claims []dataplane.Claim
	alive  bool
	mtu    int
	stats  dataplane.Stats
	links  []link.Stats
	away   map[packet.Addr]nexthop.Status // servers without way
}

var (
	vip    = netip.MustParseAddr("192.0.2.100")
	asker  = netip.MustParseAddr("192.0.2.50")
	rip    = netip.MustParseAddrPort("10.0.0.11:8080")
	ripMAC = packet.MAC{2, 0, 10, 0, 0, 11}
)

func (n *network) Table() *service.Table { return n.table }

func (n *network) Probe(ctx context.Context, pr *dataplane.Probe) dataplane.ProbeResult {
	hop, way := n.Lookup(pr.Server)
	r := dataplane.ProbeResult{Hop: hop, Way: way}
	if r.ProbeAnswer = n.answer(pr); r.Outcome == dataplane.ProbeSilent {
		select {
		case <-time.After(1500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return r
}

func (n *network) Alive(context.Context, int, packet.Addr, packet.Addr) bool { return n.alive }

func (n *network) Claims(context.Context) ([]dataplane.Claim, int) { return n.claims, 3 }

func (n *network) PathMTU(_ packet.Addr, mtu int) int {
	if n.mtu > 0 {
		return n.mtu
	}
	return mtu
}

func (n *network) LinkStats(port int) link.Stats {
	if port < len(n.links) {
		return n.links[port]
	}
	return link.Stats{}
}

func (n *network) Stats() dataplane.Stats { return n.stats }

func (n *network) Lookup(dst packet.Addr) (*nexthop.Hop, nexthop.Status) {
	if status, ok := n.away[dst]; ok {
		return nil, status
	}
	port, _ := n.OnLink(dst)
	return &nexthop.Hop{Iface: port, Dst: ripMAC, Gateway: dst, MTU: 1500}, nexthop.Ready
}

func (n *network) OnLink(dst packet.Addr) (int, bool) {
	if dst.Is4() && dst.V4()>>24 == 10 {
		return 1, true
	}
	return 0, true
}

func (*network) Resolve(packet.Addr) {}

// serve makes n's table one service with a server.
func (n *network) serve(proto service.Proto, port uint16, m service.Method, servers ...netip.AddrPort) {
	key := service.Key{Proto: proto, Addr: netip.AddrPortFrom(vip, port)}
	vs := &service.VirtualService{Key: key}
	x := new(service.ServerIndex)
	for _, a := range servers {
		rs := service.NewRealServer(key, a, m, 1)
		if err := x.Add(rs); err != nil {
			panic(err)
		}
		vs.Servers = append(vs.Servers, rs)
	}
	n.table = service.NewTable([]*service.VirtualService{vs}, x, 1)
}

func (n *network) run(t *testing.T, sources ...netip.Addr) (d *api.Diagnosis) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		d, err = Run(t.Context(), Config{
			Plane: n, NextHops: n, Sources: sources,
			Ports: []Port{{Name: "eth0"}, {Name: "eth1", Gateways: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	return d
}

// kinds are those of the findings.
func kinds(d *api.Diagnosis) (list []string) {
	for i := range d.Findings {
		list = append(list, d.Findings[i].Kind)
	}
	return list
}

// by answers every probe alike, and pings or datagrams as others says.
func by(o dataplane.ProbeOutcome, others dataplane.ProbeOutcome) func(*dataplane.Probe) dataplane.ProbeAnswer {
	return func(pr *dataplane.Probe) dataplane.ProbeAnswer {
		a := dataplane.ProbeAnswer{Outcome: o, From: pr.Server, Station: ripMAC, Port: 1}
		if pr.Kind != dataplane.ProbeConnect {
			a.Outcome = others
		}
		return a
	}
}

func TestVerdictsOnServers(t *testing.T) {
	const silent, echoed = dataplane.ProbeSilent, dataplane.ProbeEchoed
	for _, tt := range []struct {
		name   string
		proto  service.Proto
		method service.Method
		answer func(*dataplane.Probe) dataplane.ProbeAnswer
		alive  bool
		want   string // kinds, and parts of the first finding
	}{
		{"DR, sound", service.TCP, service.Route, by(dataplane.ProbeAccepted, silent), true, ""},
		{"DR, UDP, sound", service.UDP, service.Route, by(silent, echoed), true, ""},
		{"DR, refused", service.TCP, service.Route, by(dataplane.ProbeRefused, silent), true, "not-listening"},
		{"DR, silent", service.TCP, service.Route, by(silent, silent), true, "no-vip"},
		{"DR, UDP, silent", service.UDP, service.Route, by(silent, silent), true, "no-vip"},
		{"DR, dead", service.TCP, service.Route, by(silent, silent), false, "unreachable"},
		{"DR, firewall", service.TCP, service.Route, by(silent, echoed), true, "silent"},
		{"DR, a router", service.TCP, service.Route, by(dataplane.ProbeReturned, silent), true, "no-vip"},
		{"TUN, sound", service.TCP, service.Tunnel, by(dataplane.ProbeAccepted, echoed), true, ""},
		{"NAT, sound", service.TCP, service.Masq, by(dataplane.ProbeAccepted, silent), true, ""},
		{"NAT, refused", service.TCP, service.Masq, by(dataplane.ProbeRefused, silent), true, "not-listening"},
		{"NAT, to the host", service.TCP, service.Masq, by(dataplane.ProbeAstray, silent), true, "nat-bypass"},
		{"NAT, dead", service.TCP, service.Masq, by(silent, silent), false, "unreachable"},
		{"NAT, firewall", service.TCP, service.Masq, by(silent, silent), true, "silent"},
		{"NAT, by another router", service.TCP, service.Masq, func(pr *dataplane.Probe) dataplane.ProbeAnswer {
			return dataplane.ProbeAnswer{Outcome: dataplane.ProbeAccepted, Station: packet.MAC{2, 0, 0, 0, 0, 99}}
		}, true, "nat-bypass"},
		{"NAT, lost", service.TCP, service.Masq, func(pr *dataplane.Probe) (a dataplane.ProbeAnswer) {
			if pr.From.V4()>>24 == 10 { // from its own segment
				a = dataplane.ProbeAnswer{Outcome: dataplane.ProbeAccepted, Station: ripMAC, Port: 1}
			}
			return a
		}, true, "nat-bypass"},
		{"Local", service.TCP, service.Local, by(silent, silent), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &network{answer: tt.answer, alive: tt.alive}
			port := map[service.Proto]uint16{service.TCP: 80, service.UDP: 53}[tt.proto]
			n.serve(tt.proto, port, tt.method, rip)
			d := n.run(t, asker)
			if got := strings.Join(kinds(d), " "); got != tt.want || len(d.Unchecked) > 0 {
				t.Errorf("found %q, want %q: %+v", got, tt.want, d)
			}
			for _, f := range d.Findings {
				if f.Host == nil || *f.Host != rip.Addr() || f.Service == nil || f.What == "" || f.Seen == "" || len(f.Remedies) == 0 {
					t.Errorf("the finding lacks something: %+v", f)
				}
			}
			if d.Milliseconds > 6000 {
				t.Errorf("it took %d ms", d.Milliseconds)
			}
		})
	}
}

func TestWhatCannotBeAskedIsSaid(t *testing.T) {
	n := &network{answer: by(dataplane.ProbeAccepted, dataplane.ProbeEchoed), alive: true}
	// The VIP's segment is the server's: whoever its gateway is, it answers there directly.
	n.serve(service.TCP, 80, service.Masq, netip.MustParseAddrPort("192.0.2.11:80"))
	if d := n.run(t, asker); len(d.Findings) > 0 || len(d.Unchecked) != 1 || !strings.Contains(d.Unchecked[0], "come back through the director") {
		t.Errorf("one-armed NAT: %+v", d)
	}
	n.serve(service.TCP, 80, service.Route, netip.MustParseAddrPort("192.0.2.11:80"), netip.MustParseAddrPort("192.0.2.12:80"))
	if d := n.run(t); len(d.Findings) > 0 || d.Probes > 0 || len(d.Unchecked) != 1 || !strings.Contains(d.Unchecked[0], "--probe-address") {
		t.Errorf("without an address to ask from: %+v", d)
	}
	mark := &service.VirtualService{Key: service.Key{Mark: 7, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}}
	n.table = service.NewTable([]*service.VirtualService{mark}, new(service.ServerIndex), 1)
	if d := n.run(t, asker); len(d.Findings) > 0 || len(d.Unchecked) != 1 || !strings.Contains(d.Unchecked[0], "fwmark 7") {
		t.Errorf("a service by mark: %+v", d)
	}
}

func TestTimeIsBounded(t *testing.T) {
	n := &network{answer: by(dataplane.ProbeSilent, dataplane.ProbeSilent), alive: true}
	var servers []netip.AddrPort
	for i := range 4000 {
		servers = append(servers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(1 + i/250), byte(1 + i%250)}), 80))
	}
	n.serve(service.TCP, 80, service.Route, servers...)
	d := n.run(t, asker)
	if d.Milliseconds > timeLimit.Milliseconds()+1000 || !slices.ContainsFunc(d.Unchecked, func(s string) bool { return strings.Contains(s, "not enough") }) {
		t.Errorf("it took %d ms; not checked: %v", d.Milliseconds, d.Unchecked)
	}
}

func TestServersWithoutWay(t *testing.T) {
	for status, remedy := range map[nexthop.Status]string{
		nexthop.NoRoute: "ip route add", nexthop.NotAttached: "--interface", nexthop.Unreachable: "ip neigh", nexthop.Pending: "ip neigh",
	} {
		n := &network{answer: by(dataplane.ProbeAccepted, dataplane.ProbeEchoed), away: map[packet.Addr]nexthop.Status{packet.AddrFrom(rip.Addr()): status}}
		n.serve(service.TCP, 80, service.Route, rip)
		d := n.run(t, asker)
		if k := kinds(d); len(k) != 1 || k[0] != api.FindingUnreachable || !strings.Contains(fmt.Sprint(d.Findings[0].Remedies), remedy) {
			t.Errorf("%v: %+v", status, d)
		}
	}
}

func TestWhoClaimsAnAddress(t *testing.T) {
	v4, v6 := packet.AddrFrom(vip), packet.AddrFrom(netip.MustParseAddr("2001:db8::100"))
	n := &network{answer: by(dataplane.ProbeAccepted, dataplane.ProbeEchoed), claims: []dataplane.Claim{
		{Addr: v4, Port: 1, Station: ripMAC},
		{Addr: v4, Port: 0, Station: packet.MAC{2, 0x75, 1, 2, 3, 4}},
		{Addr: v4, Port: 0, Station: packet.MAC{0, 0, 0x5e, 0, 1, 51}},
		{Addr: v4, Port: 0, Station: packet.MAC{2, 9, 9, 9, 9, 1}, Announces: true},
		{Addr: v6, Port: 0, Station: packet.MAC{2, 9, 9, 9, 9, 2}},
	}}
	n.serve(service.TCP, 80, service.Masq, rip)
	d := n.run(t, asker)
	want := []string{"arp", "arp", "second-director", "second-director", "second-director"}
	if got := kinds(d); !slices.Equal(got, want) {
		t.Fatalf("found %v, want %v", got, want)
	}
	byMAC := map[string]api.Finding{}
	for _, f := range d.Findings {
		byMAC[f.MAC] = f
	}
	if f := byMAC[ripMAC.String()]; f.Host == nil || *f.Host != rip.Addr() || !strings.Contains(f.What, "the real server 10.0.0.11") || f.Interface != "eth1" {
		t.Errorf("a real server: %+v", f)
	}
	if f := byMAC["02:09:09:09:09:02"]; !strings.Contains(f.What, "neighbour discovery") || f.Host != nil {
		t.Errorf("another station: %+v", f)
	}
}

func TestTunnelsPathsAndCounters(t *testing.T) {
	n := &network{mtu: 1400, answer: by(dataplane.ProbeAccepted, dataplane.ProbeEchoed), alive: true}
	n.serve(service.TCP, 80, service.Tunnel, rip)
	n.links = []link.Stats{{RxRingFull: 5, RxFrames: 100}, {TxNoBuffer: 3, RxError: 1}}
	n.stats.Verdicts[dataplane.DropOffload], n.stats.Verdicts[dataplane.DropSlowPathFull] = 1, 1
	d := n.run(t, asker)
	want := []string{"tunnel-mtu", "offload", "offload", "drops", "drops", "drops"}
	if got := kinds(d); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if f := d.Findings[0]; !strings.Contains(f.What, "1400 of 1500") || !strings.Contains(fmt.Sprint(f.Remedies), "advmss 1340") {
		t.Errorf("of the tunnel: %+v", f)
	}
	host := guard.Finding{What: "the host has it", Remedy: "ip addr del", Offload: true}
	x := &doctor{Config: Config{Host: func(context.Context) []guard.Finding { return []guard.Finding{host} }}}
	x.host()
	if f := x.Findings[0]; f.Kind != api.FindingOffload || f.What != host.What || f.Remedies[0].Do[0] != host.Remedy {
		t.Errorf("of the host: %+v", f)
	}
}
