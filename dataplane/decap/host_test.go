package decap

import (
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestTunnelOfTheKernelsOwnIsRefused(t *testing.T) {
	link := func(name string, flags net.Flags) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Flags: flags}
	}
	for _, c := range []struct {
		name  string
		links []netlink.Link
		want  string
	}{
		{"none", []netlink.Link{&netlink.Dummy{LinkAttrs: link("eth0", net.FlagUp)}}, ""},
		{"down", []netlink.Link{&netlink.Iptun{LinkAttrs: link("tunl0", 0)}}, ""},
		{"up", []netlink.Link{&netlink.Iptun{LinkAttrs: link("tunl0", net.FlagUp)}}, "ip link set tunl0 down"},
		{"any sender's GRE", []netlink.Link{&netlink.Gretun{LinkAttrs: link("gre0", net.FlagUp), Remote: net.IPv4zero}}, "ip link set gre0 down"},
		{"the director's GRE", []netlink.Link{&netlink.Gretun{LinkAttrs: link("gre1", net.FlagUp), Remote: net.IPv4(10, 0, 0, 1)}}, "ip link set gre1 down"},
		{"somebody else's GRE", []netlink.Link{&netlink.Gretun{LinkAttrs: link("gre1", net.FlagUp), Remote: net.IPv4(10, 0, 0, 2)}}, ""},
		{"any sender's 6in4", []netlink.Link{&netlink.Sittun{LinkAttrs: link("sit0", net.FlagUp)}}, "ip link set sit0 down"},
		{"any sender's tunnel over IPv6", []netlink.Link{&netlink.Ip6tnl{LinkAttrs: link("ip6tnl0", net.FlagUp)}}, "ip link set ip6tnl0 down"},
		{"another kind", []netlink.Link{&netlink.Vxlan{LinkAttrs: link("vxlan0", net.FlagUp)}}, ""},
	} {
		err := refuseTunnels(c.links, rules(t))
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
