package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// localRules are the policy rules of uvs's on the director, a line each.
func (h *host) localRules() (list []string) {
	h.t.Helper()
	h.director.in(func() error {
		rules, err := netlink.RuleList(unix.AF_INET)
		if err != nil {
			return err
		}
		more, err := netlink.RuleList(unix.AF_INET6)
		if err != nil {
			return err
		}
		rules = append(rules, more...)
		for i := range rules {
			if r, ours := readRule(&rules[i]); ours {
				list = append(list, fmt.Sprintf("%v protocol %d sport %d dport %d iif %s", r.from, r.proto, r.sport, r.dport, rules[i].IifName))
			}
		}
		return nil
	})
	slices.Sort(list)
	return list
}

func (h *host) local(servers ...Server) Local {
	return Local{
		Device: "eth1", Gateway: netip.MustParseAddr("169.254.9.9"), Gateway6: netip.MustParseAddr("fe80::9"),
		Unbound6: netip.MustParseAddr("fd00::9"), Servers: servers,
	}
}

func TestLocalAnswersAreLedToTheDevice(t *testing.T) {
	h := newHost(t)
	g := h.guard()
	tcp := Server{Proto: packet.ProtoTCP, Addr: netip.MustParseAddrPort("127.0.0.1:80")}
	udp := Server{Proto: packet.ProtoUDP, Addr: netip.MustParseAddrPort("192.0.2.1:53")}
	check := func(what string, want ...string) {
		t.Helper()
		if got := h.localRules(); !slices.Equal(got, want) {
			t.Errorf("%s: rules %q, want %q", what, got, want)
		}
	}
	const (
		web     = "127.0.0.1/32 protocol 6 sport 80 dport 0 iif lo"
		bound   = "192.0.2.1/32 protocol 17 sport 53 dport 0 iif lo"
		loose   = "0.0.0.0/32 protocol 17 sport 53 dport 0 iif lo"
		refused = "192.0.2.1/32 protocol 1 sport 0 dport 771 iif lo"
	)
	for range 2 { // the second time there is nothing to do
		if err := g.SetLocal(h.local(tcp, udp)); err != nil {
			t.Fatal(err)
		}
		check("both", loose, web, refused, bound)
	}
	h.director.in(func() error {
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: g.id}, netlink.RT_FILTER_TABLE)
		if err == nil && (len(routes) != 1 || routes[0].Gw.String() != "169.254.9.9" || routes[0].Protocol != RouteProtocol) {
			t.Errorf("routes %v", routes)
		}
		return err
	})
	h.update(g, Desired{VIPs: []netip.Addr{vip}})
	check("after another change", loose, web, refused, bound)
	if err := g.SetLocal(h.local(tcp)); err != nil {
		t.Fatal(err)
	}
	check("one", web)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed")
}

func TestLocalAnswersByIPv6AreLedToTheDevice(t *testing.T) {
	h := newHost6(t)
	g := h.guard()
	local := h.local(Server{Proto: packet.ProtoTCP, Addr: netip.MustParseAddrPort("[::1]:80")},
		Server{Proto: packet.ProtoUDP, Addr: netip.MustParseAddrPort("[2001:db8::1]:53")})
	want := []string{
		"2001:db8::1/128 protocol 17 sport 53 dport 0 iif lo", "2001:db8::1/128 protocol 58 sport 0 dport 260 iif lo",
		"::1/128 protocol 6 sport 80 dport 0 iif lo", "fd00::9/128 protocol 17 sport 53 dport 0 iif lo",
	}
	for range 2 { // the second time there is nothing to do
		if err := g.SetLocal(local); err != nil {
			t.Fatal(err)
		}
		if got := h.localRules(); !slices.Equal(got, want) {
			t.Errorf("rules %q, want %q", got, want)
		}
	}
	h.director.in(func() error {
		routes, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: g.id}, netlink.RT_FILTER_TABLE)
		if err == nil && (len(routes) != 1 || routes[0].Gw.String() != "fe80::9" || routes[0].Protocol != RouteProtocol) {
			t.Errorf("routes %v", routes)
		}
		return err
	})
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got := h.localRules(); len(got) != 0 {
		t.Errorf("closed, and still there: %q", got)
	}
}

func TestLocalRulesOfACrashedInstanceAreRemoved(t *testing.T) {
	h := newHost6(t)
	other := h.guard(func(c *Config) { c.Instance = "other" })
	if err := other.SetLocal(h.local(Server{Proto: packet.ProtoTCP, Addr: netip.MustParseAddrPort("127.0.0.1:80")},
		Server{Proto: packet.ProtoUDP, Addr: netip.MustParseAddrPort("[::1]:53")})); err != nil {
		t.Fatal(err)
	}
	h.guard(func(c *Config) { c.Instance = "third" })
	if got := h.localRules(); len(got) != 4 {
		t.Errorf("another instance took a living one's rules: %q", got)
	}
	other.lock.release() // as if it had crashed
	h.guard(func(c *Config) { c.Instance = "fourth" })
	if got := h.localRules(); len(got) != 0 {
		t.Errorf("still there: %q", got)
	}
}
