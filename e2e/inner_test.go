package e2e

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// outsidePort is where client1 serves the real servers' own requests.
const outsidePort = 8081

// serveOutside starts servers on client1, and returns their address.
func (r *rig) serveOutside() netip.AddrPort {
	r.t.Helper()
	at := netip.AddrPortFrom(r.addr(r.Clients[0]), outsidePort)
	_, err := lab.ServeHTTP(r.Clients[0].Namespace, "outside", at)
	must(r.t, err)
	_, err = lab.ServeUDPEcho(r.Clients[0].Namespace, "outside", at)
	must(r.t, err)
	return at
}

// askOutside lets a real server make a request on its own behalf, and returns as whom it was seen.
func (r *rig) askOutside(rs *lab.Host, at netip.AddrPort, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	_, body, err := lab.AskHTTP(ctx, rs.HTTPClient(), "http://"+at.String()+"/client")
	return strings.TrimSpace(string(body)), err
}

// What real servers send through the gateway on their own behalf is dropped unless the operator says otherwise, whatever
// the host's kernel would do with it.
func TestInnerTrafficIsDropped(t *testing.T) { both(t, testInnerDropped) }

func testInnerDropped(t *testing.T, six bool) {
	for _, mac := range []string{"virtual", "interface"} {
		for _, forward := range []bool{false, true} {
			t.Run(map[bool]string{false: mac, true: mac + "+ip_forward"}[forward], func(t *testing.T) {
				r := newRig(t, rigConfig{NAT: true, Six: six, Config: lab.Config{IPForward: forward}, Args: []string{"--mac", mac}})
				at := r.serveOutside()
				// The way back is there, so that silence is the director's doing.
				must(t, r.Clients[0].AddRoute(r.insideNet(), r.addr(r.Directors[0]), ""))
				stop := capture(t, r.Clients[0].Namespace, "eth0")
				if seen, err := r.askOutside(r.RealServers[0], at, 300*time.Millisecond); err == nil {
					t.Errorf("a request of a real server's own arrived as %s", seen)
				}
				for _, w := range stop() {
					if !w.Out && w.src == r.addr(r.RealServers[0]) {
						t.Errorf("outside there is %v", w)
					}
				}
				if s := r.status(); s.drops("inner-traffic") == 0 {
					t.Errorf("no drop is counted as inner-traffic: %+v", s.Drops)
				}
				r.count(4)
			})
		}
	}
}

func TestInnerTrafficIsForwarded(t *testing.T) { both(t, testInnerForwarded) }

func testInnerForwarded(t *testing.T, six bool) {
	r := newRig(t, rigConfig{NAT: true, Six: six, Args: []string{"--inner-traffic", "forward"}})
	at := r.serveOutside()
	must(t, r.Clients[0].AddRoute(r.insideNet(), r.VIP(), "")) // uvs is the router to the inside
	for i, rs := range r.RealServers {
		seen, err := r.askOutside(rs, at, 5*time.Second)
		if err != nil || !seenAs(seen, r.addr(rs)) {
			t.Errorf("request %d of a real server's own arrived as %q, %v; want its own address %v", i+1, seen, err, r.addr(rs))
		}
	}
	if _, err := lab.Download(shortly(t), r.RealServers[0].HTTPClient(), "http://"+at.String(), 8<<20); err != nil {
		t.Error(err)
	}
	if _, _, err := lab.AskUDP(shortly(t), r.RealServers[0].Namespace, at, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	// And the other way: the servers can be reached themselves.
	if _, _, err := lab.AskHTTP(shortly(t), r.client(), "http://"+r.webServer(1)+"/"); err != nil {
		t.Error(err)
	}
	r.ping(r.Clients[0], r.addr(r.RealServers[1]), 1000)
	r.count(4)
}

func TestInnerTrafficIsMasqueraded(t *testing.T) { both(t, testInnerMasqueraded) }

// seenAs says that a client address as a server tells it, with a port, is a certain one.
func seenAs(seen string, addr netip.Addr) bool {
	got, err := netip.ParseAddrPort(seen)
	return err == nil && got.Addr() == addr
}

func testInnerMasqueraded(t *testing.T, six bool) {
	addresses := []string{"", "10.9.0.150"}
	if six {
		addresses = []string{"", "2001:db8:9::150"}
	}
	for _, own := range addresses {
		t.Run("address="+own, func(t *testing.T) {
			args, want := []string{"--inner-traffic", "masquerade"}, netip.MustParseAddr("10.9.0.100")
			if six {
				want = netip.MustParseAddr("2001:db8:9::100")
			}
			if own != "" {
				args, want = append(args, "--masquerade-address", own), netip.MustParseAddr(own)
			}
			r := newRig(t, rigConfig{NAT: true, Six: six, Args: args})
			at := r.serveOutside()
			for _, rs := range r.RealServers {
				seen, err := r.askOutside(rs, at, 5*time.Second)
				if err != nil || !seenAs(seen, want) {
					t.Errorf("a request of %s's own arrived as %q, %v; want %v", rs, seen, err, want)
				}
			}
			if _, err := lab.Download(shortly(t), r.RealServers[0].HTTPClient(), "http://"+at.String(), 8<<20); err != nil {
				t.Error(err)
			}
			if _, err := lab.Upload(shortly(t), r.RealServers[0].HTTPClient(), "http://"+at.String(), 8<<20); err != nil {
				t.Error(err)
			}
			for _, size := range []int{1, 1000, 4000} {
				if _, _, err := lab.AskUDP(shortly(t), r.RealServers[1].Namespace, at, make([]byte, size)); err != nil {
					t.Errorf("%d bytes by UDP: %v", size, err)
				}
			}
			r.count(4)
		})
	}
}
