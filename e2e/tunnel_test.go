package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"uvs/lab"
)

// tunnelKinds are what uvsadm -a takes to say how packets are encapsulated, and the protocol that is then on the wire; 0 stands
// for the one that IP has for the inner packet's family.
var tunnelKinds = []struct {
	name, args string
	proto      byte
}{
	{"ipip", "", 0},
	{"gre", "--tun-type gre --tun-nocsum", 47},
	{"gre-csum", "--tun-type gre --tun-csum", 47},
	{"gue", "--tun-type gue --tun-port 6080 --tun-nocsum", protoUDP},
	{"gue-csum", "--tun-type gue --tun-port 6080 --tun-csum", protoUDP},
	{"gue-remcsum", "--tun-type gue --tun-port 6080 --tun-remcsum", protoUDP},
}

// tunnelBytes is how much each connection moves.
const tunnelBytes = 4 << 20

// TestTunnelKinds: a client's connections through every kind of tunnel, of and over both IP families, to real servers where
// uvsdecap unpacks them. What arrives on the real servers' wire is looked at as well, lest another kind of tunnel did the work.
func TestTunnelKinds(t *testing.T) {
	for _, off := range []bool{false, true} {
		r := &rig{t: t, tunnel: true, direct: true}
		r.raise(lab.Config{OffloadsOff: off, IPv6: true})
		_, err := r.Topology.ServeHTTP(80)
		must(t, err)
		_, err = r.Topology.ServeUDPEcho(53)
		must(t, err)
		r.director = startDirector(t, r.Directors[0], program("uvsd"), r.attach()...)
		for _, k := range tunnelKinds {
			for i := range 4 {
				inner6, outer6 := i&1 != 0, i&2 != 0
				name := fmt.Sprintf("offloads=%v/%s/%sin%s", !off, k.name, family(inner6), family(outer6))
				t.Run(name, func(t *testing.T) {
					r.checkTunnel(t, k.args, k.proto, inner6, outer6)
				})
			}
		}
	}
}

// TestTunnelPathMTU: a narrow way between director and real servers. What a router on it says about the outer packets, by ICMP
// of their family, the client hears about its own, and sends shorter ones.
func TestTunnelPathMTU(t *testing.T) {
	r := &rig{t: t, tunnel: true, direct: true}
	r.raise(lab.Config{IPv6: true})
	_, err := r.Topology.ServeHTTP(80)
	must(t, err)
	_, err = r.Topology.ServeUDPEcho(53)
	must(t, err)
	must(t, r.Router.SetMTU("eth1", 1400))
	for _, rs := range r.RealServers {
		must(t, rs.SetMTU("eth0", 1400)) // or its longer answers would not arrive at the router
	}
	r.director = startDirector(t, r.Directors[0], program("uvsd"), r.attach()...)
	for _, k := range tunnelKinds {
		for i := range 4 {
			inner6, outer6 := i&1 != 0, i&2 != 0
			t.Run(fmt.Sprintf("%s/%sin%s", k.name, family(inner6), family(outer6)), func(t *testing.T) {
				r.checkTunnel(t, k.args, k.proto, inner6, outer6)
			})
		}
	}
}

func family(v6 bool) string { return map[bool]string{false: "4", true: "6"}[v6] }

// checkTunnel serves both services through one kind of tunnel and lets a client use them.
func (r *rig) checkTunnel(t *testing.T, args string, proto byte, inner6, outer6 bool) {
	vip := r.VIP()
	if inner6 {
		vip = r.VIPs6[0]
	}
	web, udp := netip.AddrPortFrom(vip, 80), netip.AddrPortFrom(vip, 53)
	rules := []string{fmt.Sprintf("-A -t %v -s rr", web), fmt.Sprintf("-A -u %v -s rr", udp)}
	var stops []func() []wire
	for _, rs := range r.RealServers {
		rip := rs.Addr()
		if outer6 {
			rip = rs.Addr6()
		}
		rules = append(rules,
			fmt.Sprintf("-a -t %v -r %v -i -w 1 %s", web, netip.AddrPortFrom(rip, 80), args),
			fmt.Sprintf("-a -u %v -r %v -i -w 1 %s", udp, netip.AddrPortFrom(rip, 53), args))
		stops = append(stops, capture(t, rs.Namespace, "eth0"))
	}
	r.adm("-C")
	r.restore(rules...)
	client, base := r.client(), "http://"+netip.AddrPortFrom(vip, 80).String()
	tally, err := lab.CountHTTP(shortly(t), client, base+"/", 4)
	must(t, err)
	if tally["rs1"] != 2 || tally["rs2"] != 2 {
		t.Errorf("answers from %v, want 2 of each", tally)
	}
	_, err = lab.Upload(shortly(t), client, base, tunnelBytes)
	must(t, err)
	_, err = lab.Download(shortly(t), client, base, tunnelBytes)
	must(t, err)
	for _, n := range []int{5, 3000} { // in one piece and in fragments
		want := bytes.Repeat([]byte("x"), n)
		if _, echo, err := lab.AskUDP(shortly(t), r.Clients[0].Namespace, udp, want); err != nil || !bytes.Equal(echo, want) {
			t.Errorf("echo of %d bytes: %d, %v", n, len(echo), err)
		}
	}
	if proto == 0 {
		proto = map[bool]byte{false: 4, true: 41}[inner6]
	}
	remote := 0
	for i, stop := range stops {
		n := 0
		for _, w := range stop() {
			if w.Out || w.to[0]&1 != 0 {
				continue
			}
			got, l4 := tunnelled(w)
			if got == protoFragment && l4[2]|l4[3]&^7 == 0 { // the first one
				got, l4 = l4[0], l4[8:]
			}
			if got == protoICMP || got == protoICMPv6 || got == protoFragment || l4 == nil {
				continue // neighbour discovery among them, and later fragments
			}
			if got != proto || (w.kind == etherIPv6) != outer6 {
				t.Fatalf("protocol %d came to rs%d, want %d, over IPv6 %v: %v", got, i+1, proto, outer6, w)
			}
			n++
			if proto == protoUDP && l4[8] == 2 { // GUE with two words of options
				remote++
			}
		}
		if n == 0 {
			t.Errorf("nothing in a tunnel came to rs%d", i+1)
		}
	}
	if want := strings.Contains(args, "remcsum") && !r.Config.OffloadsOff; (remote > 0) != want {
		t.Errorf("%d checksums were left to the real servers, want some: %v", remote, want)
	}
}

const protoFragment = 44

// tunnelled is the protocol of an IP packet of either family without options or extension headers, and what it carries.
func tunnelled(w wire) (proto byte, l4 []byte) {
	b := w.Data[etherHeader:]
	switch w.kind {
	case etherIPv4:
		return b[9], b[20:]
	case etherIPv6:
		return b[6], b[40:]
	}
	return 0, nil
}
