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
		{"another kind", []netlink.Link{&netlink.Gretun{LinkAttrs: link("gre0", net.FlagUp)}}, ""},
	} {
		err := refuseTunnels(c.links)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
