package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// The first packet to a server, and the first answer to a client, wait for their next hop and are not lost: TCP would
// repeat a lost SYN only after a second.
func TestFirstPacketWaitsForItsNextHop(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers, cfg.Clients, cfg.Bare = 10, 5, true
		r := newRig(t, cfg)
		var captures []*lab.Capture
		for _, c := range r.Clients {
			capture, err := c.Capture("eth0")
			must(t, err)
			captures = append(captures, capture)
		}
		r.restore(r.rules(r.VIP(), "rr")...) // and at once, before anybody had a need to know a server or client:
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				conn, err := r.Clients[i%5].DialContext(shortly(t), "tcp", r.webService())
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
			})
		}
		all.Wait()
		checkNoSYNTwice(t, captures, 10)
	})
}

// checkNoSYNTwice fails the test if a client had to repeat a SYN.
func checkNoSYNTwice(t *testing.T, captures []*lab.Capture, want int) {
	t.Helper()
	syns := 0
	for i, c := range captures {
		seen := map[uint16]bool{}
		for _, f := range c.Stop() {
			if w := take(f); w.Out && w.proto == protoTCP && w.flags == tcpSYN {
				if seen[w.sport] {
					t.Errorf("client %d had to repeat its SYN: %v", i+1, w)
				}
				seen[w.sport] = true
			}
		}
		syns += len(seen)
	}
	if syns != want {
		t.Errorf("the clients sent SYNs of %d connections, want %d", syns, want)
	}
}

// A server that cannot be resolved at first: the SYN is held until it can.
func TestPacketIsHeldUntilTheServerIsThere(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers, cfg.Bare = 1, true
		r := newRig(t, cfg)
		// The director's kernel is to ask more often than once a second.
		family := "ipv4"
		if cfg.Six {
			family = "ipv6"
		}
		must(t, r.Directors[0].Sysctl("net/"+family+"/neigh/eth0/retrans_time_ms", "50"))
		must(t, r.Directors[0].Sysctl("net/"+family+"/neigh/eth0/mcast_solicit", "30"))
		rs := r.RealServers[0]
		must(t, rs.SetUp("eth0", false))
		r.restore(r.rules(r.VIP(), "rr")...)
		c, err := r.Clients[0].Capture("eth0")
		must(t, err)
		answered := make(chan error, 1)
		go func() {
			conn, err := r.Clients[0].DialContext(shortly(t), "tcp", r.webService())
			if err == nil {
				conn.Close()
			}
			answered <- err
		}()
		time.Sleep(300 * time.Millisecond)
		must(t, rs.SetUp("eth0", true))
		if cfg.NAT {
			must(t, rs.AddRoute(r.defaultRoute(), r.gateway(), "")) // went with the interface
		}
		must(t, <-answered)
		if cfg.NAT {
			return // uvs's own client of ARP or NDP asks once a second: the SYN may be repeated before its answer
		}
		checkNoSYNTwice(t, []*lab.Capture{c}, 1)
	})
}

// When a real server dies, the connections of the others don't notice, and when it comes back its own go on.
func TestDeadServerHarmsNoOther(t *testing.T) {
	families(t, func(t *testing.T, cfg rigConfig) {
		cfg.RealServers = 3
		r := newRig(t, cfg)
		byServer := map[string]*held{}
		for len(byServer) < 3 {
			h := r.hold(r.Clients[0])
			byServer[h.server] = h
		}
		dead := r.RealServers[1]
		must(t, dead.SetUp("eth0", false))
		director, leg := r.Directors[0], r.Directors[0].Legs[len(r.Directors[0].Legs)-1]
		index, err := director.Index(leg.Name)
		must(t, err)
		// The director's host forgets where the dead one was, as it does by itself some time later.
		director.Netlink().NeighDel(&netlink.Neigh{LinkIndex: index, IP: r.addr(dead).AsSlice()}) // none if uvs resolves it alone
		lost := make(chan error, 1)
		go func() { // keeps the director sending to the dead one
			_, err := byServer["rs2"].ask(r)
			lost <- err
		}()
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			for _, name := range []string{"rs1", "rs3"} {
				start := time.Now()
				if _, err := byServer[name].ask(r); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("a request on %s's connection took %v while rs2 is dead", name, took)
				}
			}
		}
		r.adm("-e", "-t", r.webService(), "-r", r.webServer(2), r.method(), "-w", "0")
		if got := r.count(6); got["rs1"] != 3 || got["rs3"] != 3 {
			t.Errorf("with rs2 quiesced 6 requests went to %v", got)
		}
		must(t, dead.SetUp("eth0", true))
		if cfg.NAT {
			must(t, dead.AddRoute(r.defaultRoute(), r.gateway(), ""))
		}
		if err := <-lost; err != nil {
			t.Errorf("the request on rs2's connection after rs2 came back: %v", err)
		}
	})
}

var defaultRoute = netip.MustParsePrefix("0.0.0.0/0")

// Clients behind a router, and the next hops to them, come from the host's routes.
func TestClientsBehindARouter(t *testing.T) {
	everyway(t, func(t *testing.T, cfg rigConfig) {
		cfg.Routed, cfg.Clients = true, 3
		r := newRig(t, cfg)
		for _, c := range r.Clients {
			if _, err := lab.CountHTTP(shortly(t), c.HTTPClient(), r.url()+"/", 4); err != nil {
				t.Error(err)
			}
			if _, err := lab.Download(shortly(t), c.HTTPClient(), r.url(), 4<<20); err != nil {
				t.Error(err)
			}
		}
		if cfg.TUN && cfg.Six { // a client learns what fits from a segment that doesn't: a datagram would be lost by that
			if _, err := lab.Upload(shortly(t), r.client(), r.url(), 1<<20); err != nil {
				t.Error(err)
			}
		}
		r.echo(1, 4000)
		// When another router takes over, as it announces, clients are reached by it. A host believes such a thing not
		// sooner than a second after it heard the contrary.
		time.Sleep(1100 * time.Millisecond)
		mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
		must(t, r.Router.SetMAC("eth0", mac))
		sendFrame(t, r.Router.Namespace, "eth0", announcement(mac, r.addr(r.Router)))
		if _, err := lab.CountHTTP(within(t, 3*time.Second), r.client(), r.url()+"/", 2); err != nil {
			t.Errorf("after the router got another MAC address: %v", err)
		}
	})
}

// A way that carries less than a client's segments: the client is told, and what it sends then fits.
func TestSmallerMTUOnTheWay(t *testing.T) {
	for _, offloadsOff := range []bool{false, true} {
		t.Run(fmt.Sprintf("offloads=%v", !offloadsOff), func(t *testing.T) {
			families(t, func(t *testing.T, cfg rigConfig) {
				cfg.OffloadsOff, cfg.RealServers = offloadsOff, 1
				r := newRig(t, cfg)
				rs, director := r.RealServers[0], r.Directors[0]
				if cfg.NAT { // the servers' segment is of a smaller kind, but they offer the usual segment size
					must(t, director.SetMTU("eth1", 1300))
					must(t, rs.SetMTU("eth0", 1300))
					must(t, rs.Netlink().RouteReplace(&netlink.Route{Gw: r.gateway().AsSlice(), AdvMSS: 1440}))
				} else { // a route says so
					index, err := director.Index("eth0")
					must(t, err)
					small := &netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(r.addr(rs), r.addr(rs).BitLen())), MTU: 1300}
					if !cfg.Six {
						small.Scope, small.MTULock = netlink.SCOPE_LINK, true
					}
					must(t, director.Netlink().RouteAdd(small))
					defer director.Netlink().RouteDel(small)
				}
				time.Sleep(200 * time.Millisecond) // uvsd learns of it by netlink
				atServer, atClient := capture(t, rs.Namespace, "eth0"), capture(t, r.Clients[0].Namespace, "eth0")
				if _, err := lab.Upload(shortly(t), r.client(), r.url(), 4<<20); err != nil {
					t.Error(err)
				}
				for _, w := range atServer() {
					if n := segmentLen(w); !w.Out && w.proto == protoTCP && (n > 1300 || w.fragment) {
						t.Fatalf("a packet of %d bytes went where 1300 fit, or a fragment of one that forbade it: %v", n, w)
					}
				}
				if !slices.ContainsFunc(atClient(), func(w wire) bool { // checksum, zero, MTU, and what it is about; of IPv6, checksum, the longer MTU
					return !w.Out && w.src == r.VIP() && w.isICMP() && (w.sport == icmpFragNeeded || w.sport == icmp6TooBig) && bytes.Equal(w.payload[2:6], []byte{0, 0, 1300 >> 8, 1300 & 255})
				}) {
					t.Error("the client was not told that 1300 bytes fit")
				}
				// Datagrams may be cut: those of IPv6 by the client, which knows by now.
				r.echo(1000, 1400, 4000)
			})
		})
	}
}

// segmentLen is the length of the IP packet that a frame is, or that its segments will be.
func segmentLen(w wire) int {
	n := len(w.Data) - etherHeader
	if w.SegmentSize > 0 {
		n = n - len(w.payload) + w.SegmentSize
	}
	return n
}
