package guard

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestAnswersToChecksInTheHostsNameAreNoBusinessOfTheKernels(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("10.0.0.1")
	for _, mode := range []Mode{Virtual, InterfaceMAC} {
		for _, fib := range []bool{true, false} {
			t.Run(fmt.Sprintf("mode=%v/fib=%v", mode, fib), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				answer := func() {
					h.toClient.drain()
					h.toServer.drain()
					ip := ipv4(vipFar, own, layers.IPProtocolTCP)
					h.toServer.send(h.director.mac("eth1"), ip, tcp(ip, 80, 40000, true))
				}
				if answer(); len(h.leaks(vipFar)) == 0 {
					t.Fatal("the kernel resets nothing even without a guard: the test shows nothing")
				}
				g := h.guard(func(c *Config) {
					for i := range c.Interfaces {
						c.Interfaces[i].Mode = mode
					}
				})
				if err := g.CanDropFromVIPs(); err != nil {
					t.Fatal(err)
				}
				g.nft.fib = fib
				d := Desired{VIPs: []netip.Addr{vip, vipFar}, NATServers: server("10.0.0.2:80", 6)}
				d.FromVIPs = true
				h.update(g, d)
				answer()
				for _, l := range h.leaks(vipFar) {
					t.Errorf("sent by the kernel:\n%s", l)
				}
				h.reach("10.0.0.2:5000", "10.0.0.1:7000")
				d.FromVIPs = false
				h.update(g, d)
				if mode == Virtual {
					equal(t, "tables", h.tables())
				}
				h.update(g, Desired{})
				if answer(); len(h.leaks(vipFar)) == 0 {
					t.Error("the host is still kept from hearing an address that isn't uvs's any more")
				}
			})
		}
	}
}
