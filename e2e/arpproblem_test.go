package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// The ARP problem: real servers that have the VIP and answer ARP for it. docs/arp-problem.md tells operators what these tests
// show; the commands that they run are that page's.

// loud lets a real server answer ARP for all that it has, and ask with whatever address it likes, as Linux does by default.
func loud(t testing.TB, rs *lab.Host) {
	t.Helper()
	must(t, rs.Sysctl("net/ipv4/conf/all/arp_ignore", "0"))
	must(t, rs.Sysctl("net/ipv4/conf/all/arp_announce", "0"))
}

// newLoudRig is a rig without services whose real servers have the problem.
func newLoudRig(t *testing.T, args ...string) *rig {
	t.Helper()
	r := newRig(t, rigConfig{Bare: true, Args: args})
	for _, rs := range r.RealServers {
		loud(t, rs)
	}
	return r
}

// realMACs are the real servers' addresses.
func (r *rig) realMACs() (macs []string) {
	for _, rs := range r.RealServers {
		macs = append(macs, rs.Legs[0].MAC.String())
	}
	return macs
}

// neighbour is the station that a host believes to have an address on its first leg; empty if it knows none.
func neighbour(t testing.TB, h *lab.Host, addr netip.Addr) string {
	t.Helper()
	index, err := h.Index(h.Legs[0].Name)
	must(t, err)
	all, err := h.Netlink().NeighList(index, netlink.FAMILY_V4)
	must(t, err)
	for _, n := range all {
		if n.IP.Equal(addr.AsSlice()) {
			return n.HardwareAddr.String()
		}
	}
	return ""
}

// forget makes a host ask anew who has an address.
func forget(t testing.TB, h *lab.Host, addr netip.Addr) {
	t.Helper()
	index, err := h.Index(h.Legs[0].Name)
	must(t, err)
	h.Netlink().NeighDel(&netlink.Neigh{LinkIndex: index, IP: addr.AsSlice()}) // an error says that it didn't know
}

func TestARPProblemAsTheClientSeesIt(t *testing.T) {
	needs(t, "arping", "iputils-arping")
	// So often announced that a connection's fate shows soon.
	r := newLoudRig(t, "--announce-interval", "2s")
	client, director := r.Clients[0], r.macOf("eth0")
	r.restore(r.rules(r.VIP(), "rr")...)
	eventually(t, "a warning says which real server answers, and what to do", func() (bool, any) {
		warnings := r.status().Warnings
		for _, w := range warnings {
			for _, mac := range r.realMACs() {
				if strings.Contains(w.Text, mac+" answers ARP on eth0 for "+r.VIP().String()) && strings.Contains(w.Remedy, "arp_ignore=1") {
					return true, nil
				}
			}
		}
		return false, warnings
	})
	if got, want := whoHas(t, client, r.VIP()), append(r.realMACs(), director); !sameElements(got, want) {
		t.Errorf("for the VIP answer %v, want the director and all real servers: %v", got, want)
	}
	out, _ := r.tryDocumented(t, client, "How to see it", "arping") // it fails, by its exit status, if more answer than it asked
	out = strings.ToLower(out)
	for _, mac := range append(r.realMACs(), director) {
		if !strings.Contains(out, mac) {
			t.Errorf("arping doesn't show %s:\n%s", mac, out)
		}
	}

	// The client takes the first answer, a kernel's, and its requests never see the director.
	eventually(t, "all requests of a client go to one real server, past the director", func() (bool, any) {
		forget(t, client, r.VIP())
		before := r.status()
		tally := r.count(6)
		after := r.status()
		past := before.Connections == after.Connections && before.Packets.Forwarded == after.Packets.Forwarded
		return past && len(tally) == 1 && slices.Contains(r.realMACs(), neighbour(t, client, r.VIP())),
			fmt.Sprint(tally, " by ", neighbour(t, client, r.VIP()), ", ", after.Connections-before.Connections, " at the director")
	})

	// A connection that grew up so breaks when the client learns whose the address is.
	var conn *httpConn
	eventually(t, "a connection goes past the director", func() (bool, any) {
		forget(t, client, r.VIP())
		before := r.status().Packets.Forwarded
		conn = r.dialHTTP(client)
		must(t, conn.get())
		after := r.status().Packets.Forwarded
		return before == after, after - before
	})
	eventually(t, "the director's announcement reaches the client", func() (bool, any) {
		mac := neighbour(t, client, r.VIP())
		return mac == director, mac
	})
	if err := conn.get(); err == nil {
		t.Error("a connection past the director survived the director's announcement")
	} else if !errors.Is(err, errReset) {
		t.Errorf("the connection past the director ended with: %v; want a reset at once", err)
	}
}

// sameElements says that two lists are equal but for their order.
func sameElements(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// httpConn is a connection on which requests are made one after the other, and never on another one in its place.
type httpConn struct {
	net.Conn
	answers *bufio.Reader
}

func (r *rig) dialHTTP(from *lab.Host) *httpConn {
	r.t.Helper()
	c, err := from.DialContext(shortly(r.t), "tcp", r.webService())
	must(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	return &httpConn{c, bufio.NewReader(c)}
}

// errReset is the end of a connection that the other side doesn't know.
var errReset = errors.New("connection reset")

// get makes a request.
func (c *httpConn) get() error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: vip\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		if strings.Contains(err.Error(), errReset.Error()) {
			return errReset
		}
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// documented runs the commands below a heading of docs/arp-problem.md on a host, with the lab's addresses: those that begin
// with the given program, if there is one.
func (r *rig) documented(t *testing.T, h *lab.Host, heading, program string) {
	t.Helper()
	if out, err := r.tryDocumented(t, h, heading, program); err != nil {
		t.Fatalf("%s on %s: %v\n%s", heading, h, err, out)
	}
}

// tryDocumented returns what the commands print.
func (r *rig) tryDocumented(t *testing.T, h *lab.Host, heading, program string) (string, error) {
	t.Helper()
	page, err := os.ReadFile("../docs/arp-problem.md")
	must(t, err)
	var commands []string
	here := false
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "#") {
			here = strings.TrimSpace(strings.TrimLeft(line, "#")) == heading
		}
		command, indented := strings.CutPrefix(line, "    ")
		first, _, _ := strings.Cut(command, " ")
		if here && indented && slices.Contains([]string{"arping", "arptables", "ip", "nft", "sysctl"}, first) && (program == "" || first == program) {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if len(commands) == 0 {
		t.Fatalf("the page has no commands for %q", heading)
	}
	script := strings.NewReplacer("192.0.2.100", r.VIP().String(), "192.0.2.11", h.Addr().String()).Replace(strings.Join(commands, "\n"))
	if strings.Contains(script, "type dummy") && !hasDummies(h) {
		// A bridge without ports is a device that nothing is behind as well.
		script = strings.Replace(script, "type dummy", "type bridge", 1)
	}
	out, err := h.Command(shortly(t), "sh", "-exc", script).CombinedOutput()
	return string(out), err
}

// hasDummies says that the kernel knows dummy devices.
func hasDummies(h *lab.Host) bool {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "try0"
	err := h.Netlink().LinkAdd(&netlink.Dummy{LinkAttrs: attrs})
	return err == nil && h.DeleteLink(attrs.Name) == nil
}

// checkAnswers fails the test if others than those answer ARP for the VIP.
func (r *rig) checkAnswers(want ...string) {
	r.t.Helper()
	if got := whoHas(r.t, r.Clients[0], r.VIP()); !sameElements(got, want) {
		r.t.Errorf("for the VIP answer %v, want %v", got, want)
	}
}

// checkCured fails the test if the real servers still have the problem: a client that asks anew, and servers that have to ask
// for the client, go on through the director as by its schedule.
func (r *rig) checkCured() {
	r.t.Helper()
	client, director := r.Clients[0], r.macOf("eth0")
	r.checkAnswers(director)
	stop := capture(r.t, client.Namespace, "eth0")
	before := r.status().Connections
	conn := r.dialHTTP(client)
	for range 2 {
		forget(r.t, client, r.VIP())
		for _, rs := range r.RealServers {
			forget(r.t, rs, client.Addr())
		}
		if got := r.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
			r.t.Errorf("8 requests went to %v", got)
		}
		if err := conn.get(); err != nil {
			r.t.Errorf("a connection that was open: %v", err)
		}
	}
	if got := r.status().Connections - before; got != 17 {
		r.t.Errorf("the director has seen %d connections, want 17", got)
	}
	asked := false
	for _, w := range stop() {
		asked = asked || w.arp && !w.Out && w.request && w.dst == client.Addr()
		if w.arp && w.src == r.VIP() && w.claims.String() != director {
			r.t.Fatalf("somebody else claims the VIP: %v", w)
		}
	}
	if !r.tunnel && !asked {
		r.t.Error("no real server asked for the client: this test sees nothing")
	}
	for _, w := range r.status().Warnings {
		r.t.Errorf("uvsd warns: %v", w)
	}
}

// Each remedy, by its commands, on servers that answered before.
func TestARPProblemRemedies(t *testing.T) {
	needs(t, "nft", "nftables")
	needs(t, "arptables", "arptables")
	for _, heading := range []string{"arp_ignore and arp_announce", "nftables", "arptables"} {
		t.Run(heading, func(t *testing.T) {
			r := newLoudRig(t)
			r.checkAnswers(r.realMACs()...)
			for _, rs := range r.RealServers {
				r.documented(t, rs, heading, "")
			}
			r.restore(r.rules(r.VIP(), "rr")...)
			r.checkCured()
		})
	}
	// Where the VIP lies changes nothing.
	t.Run("A dummy device", func(t *testing.T) {
		r := newLoudRig(t)
		for _, rs := range r.RealServers {
			must(t, rs.RemoveAddr("lo", netip.PrefixFrom(r.VIP(), 32)))
		}
		r.checkAnswers()
		for _, rs := range r.RealServers {
			r.documented(t, rs, "A dummy device", "ip")
		}
		r.checkAnswers(r.realMACs()...)
		for _, rs := range r.RealServers {
			r.documented(t, rs, "A dummy device", "sysctl")
		}
		r.restore(r.rules(r.VIP(), "rr")...)
		r.checkCured()
	})
	// On the network card itself the settings don't help, and a filter does.
	t.Run("on eth0", func(t *testing.T) {
		r := newLoudRig(t)
		for _, rs := range r.RealServers {
			must(t, rs.RemoveAddr("lo", netip.PrefixFrom(r.VIP(), 32)))
			must(t, rs.AddAddr("eth0", netip.PrefixFrom(r.VIP(), 32)))
			r.documented(t, rs, "arp_ignore and arp_announce", "sysctl")
		}
		r.checkAnswers(r.realMACs()...)
		for _, rs := range r.RealServers {
			r.documented(t, rs, "nftables", "")
		}
		r.restore(r.rules(r.VIP(), "rr")...)
		r.checkCured()
	})
}

// The VIP's segment is not the real servers': they may answer as they please.
//
//	client 192.0.2.201 -- router --+-- 10.9.0.0/24, VIP --- eth0 director eth1 --+-- 10.1.0.0/24
//	                               +------------ 10.1.0.253 ---------------------+-- rs1, rs2: VIP on lo
func TestARPProblemRemedySeparateNetwork(t *testing.T) {
	topo := lab.NAT(t, lab.Config{Routed: true})
	r := &rig{t: t, Topology: topo, direct: true}
	way := netip.MustParsePrefix("10.1.0.253/24")
	must(t, topo.AddVeth(lab.End{Namespace: topo.Switch, Name: "router-eth2", Bridge: topo.RealServers[0].Legs[0].Bridge},
		lab.End{Namespace: topo.Router.Namespace, Name: "eth2"}, 0))
	must(t, topo.Router.AddAddr("eth2", way))
	for i, rs := range topo.RealServers {
		loud(t, rs)
		must(t, rs.AddAddr("lo", netip.PrefixFrom(topo.VIP(), 32)))
		must(t, rs.Netlink().RouteReplace(&netlink.Route{Gw: way.Addr().AsSlice()}))
		_, err := lab.ServeHTTP(rs.Namespace, fmt.Sprintf("rs%d", i+1), netip.AddrPortFrom(topo.VIP(), 80))
		must(t, err)
	}
	if got := whoHas(t, topo.Directors[0], topo.VIP()); len(got) > 0 {
		t.Errorf("on the clients' segment %v answer for the VIP", got)
	}
	r.director = startDirector(t, topo.Directors[0], program("uvsd"), "--interface", "eth0,eth1")
	rules := []string{"-A -t " + r.webService() + " -s rr"}
	for _, rs := range topo.RealServers {
		rules = append(rules, fmt.Sprintf("-a -t %s -r %v -g", r.webService(), rs.Addr()))
	}
	r.restore(rules...)
	for range 2 {
		forget(t, topo.Router, topo.VIP())
		if got := r.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
			t.Errorf("8 requests went to %v", got)
		}
	}
	if got := r.status().Connections; got != 16 {
		t.Errorf("the director has seen %d connections, want 16", got)
	}
	if got := neighbour(t, topo.Router, topo.VIP()); got != r.macOf("eth0") {
		t.Errorf("the router believes that %s has the VIP, want the director's %s", got, r.macOf("eth0"))
	}
	for _, w := range r.status().Warnings {
		t.Errorf("uvsd warns: %v", w)
	}
}

// A tunnel's device is one like others: servers of TUN on the VIP's own segment have the problem, and uvsdecap cures it.
func TestARPProblemOfTunnels(t *testing.T) {
	r := &rig{t: t, Topology: lab.DR(t, lab.Config{}), direct: true, tunnel: true}
	for _, rs := range r.RealServers {
		must(t, rs.RemoveAddr("lo", netip.PrefixFrom(r.VIP(), 32)))
		loud(t, rs)
		startDecapsulator(t, rs, []netip.Addr{r.Directors[0].Addr()}, r.VIPs)
	}
	_, err := r.Topology.ServeHTTP(80)
	must(t, err)
	r.checkAnswers()
	for _, rs := range r.RealServers {
		loud(t, rs) // as with a device that nobody is behind who knows
	}
	r.checkAnswers(r.realMACs()...)
	for _, rs := range r.RealServers {
		r.documented(t, rs, "arp_ignore and arp_announce", "sysctl")
	}
	r.director = startDirector(t, r.Directors[0], program("uvsd"), r.attach()...)
	rules := []string{"-A -t " + r.webService() + " -s rr"}
	for i := range r.RealServers {
		rules = append(rules, fmt.Sprintf("-a -t %s -r %s -i", r.webService(), r.webServer(i+1)))
	}
	r.restore(rules...)
	r.checkCured()
}
