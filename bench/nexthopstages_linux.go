package bench

import (
	"net/netip"
	"os"
	"testing"

	"uvs/dataplane/nexthop"
	"uvs/packet"
)

// nextHopStages are lookups of the way to clients behind a router and to a real server, as mirrored from the kernel of a
// namespace made for it: for root alone.
func nextHopStages() []stage {
	if os.Geteuid() != 0 {
		return nil
	}
	return []stage{
		{"NextHop/routed-1", nextHops(1, "198.18.0.0")}, {"NextHop/routed-4096", nextHops(4096, "198.18.0.0")},
		{"NextHop/on-link", nextHops(1, "10.1.0.11")},
	}
}

// nextHops looks n addresses up in turn.
func nextHops(n int, first string) func(*testing.B) {
	return func(b *testing.B) {
		s, err := newSite(false, false)
		if err != nil {
			b.Fatal(err)
		}
		defer s.close()
		if err := s.director.AddRoute(netip.MustParsePrefix("198.18.0.0/15"), netip.MustParseAddr("10.9.0.201"), ""); err != nil {
			b.Fatal(err)
		}
		for ifname, addr := range map[string]string{"eth0": "10.9.0.201", "eth1": "10.1.0.11"} {
			if err := neighbourOn(s.director, ifname, netip.MustParseAddr(addr), clientSide); err != nil {
				b.Fatal(err)
			}
		}
		var r *nexthop.Resolver
		err = s.director.Do(func() (err error) {
			r, err = nexthop.New(nexthop.Config{
				Interfaces: []nexthop.Interface{{Name: "eth0", MAC: microMAC[0]}, {Name: "eth1", MAC: microMAC[1]}},
				Ask:        func(int, nexthop.Question) {}, Changed: func() {},
			})
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		addrs := make([]packet.Addr, n)
		for i := range addrs {
			addrs[i] = packet.AddrFrom4(packet.AddrFrom(netip.MustParseAddr(first)).V4() + uint32(i*31))
		}
		for i := 0; b.Loop(); i++ {
			if _, status := r.Lookup(addrs[i%n]); status != nexthop.Ready {
				b.Fatalf("the way to %v is %v", addrs[i%n], status)
			}
		}
	}
}
