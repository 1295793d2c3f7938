package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/lab"
)

// hostState is what uvsd may change on its host, a line each.
type hostState []string

// stateOf looks at a host: routes and rules, firewall, interface flags, forwarding database, pinned neighbours, sysctls.
func stateOf(t testing.TB, h *lab.Host) hostState {
	t.Helper()
	var s hostState
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	nl := h.Netlink()

	routes, err := nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		add("route %v", r)
	}
	rules, err := nl.RuleList(netlink.FAMILY_ALL)
	must(t, err)
	for _, r := range rules {
		add("rule %v", r)
	}
	links, err := nl.LinkList()
	must(t, err)
	for _, l := range links {
		a := l.Attrs()
		add("link %s: flags %v, promiscuous %d, allmulti %d, MAC %v", a.Name, a.Flags, a.Promisc, a.Allmulti, a.HardwareAddr)
	}
	addrs, err := nl.AddrList(nil, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range addrs {
		add("address %v", a.IPNet)
	}
	fdb, err := nl.NeighList(0, unix.AF_BRIDGE)
	must(t, err)
	for _, n := range fdb {
		if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 { // not what a bridge learned
			add("fdb %v on %d, flags %x", n.HardwareAddr, n.LinkIndex, n.Flags)
		}
	}
	neighbours, err := nl.NeighList(0, netlink.FAMILY_ALL)
	must(t, err)
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT != 0 || n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 || n.Flags&netlink.NTF_PROXY != 0 {
			add("neighbour %v", n)
		}
	}
	must(t, h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			add("nft table %s, family %d", table.Name, table.Family)
		}
		return sysctls(add)
	}))
	slices.Sort(s)
	return s
}

// sysctls adds the settings of both families, those of each interface too.
func sysctls(add func(string, ...any)) error {
	for _, pattern := range []string{"/proc/sys/net/ipv4/conf/*/*", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/*/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			if filepath.Base(f) == "mtu" {
				continue // the interface's
			}
			value, err := os.ReadFile(f)
			if err != nil {
				continue // write-only
			}
			add("sysctl %s = %s", f, strings.TrimSpace(string(value)))
		}
	}
	return nil
}

// difference lists the lines that only one of two states has.
func (s hostState) difference(now hostState) (diff []string) {
	for _, line := range s {
		if !slices.Contains(now, line) {
			diff = append(diff, "- "+line)
		}
	}
	for _, line := range now {
		if !slices.Contains(s, line) {
			diff = append(diff, "+ "+line)
		}
	}
	return diff
}

// check fails the test if the host isn't as it was. The kernel may take a moment to forget a closed socket's memberships.
func (s hostState) check(t testing.TB, h *lab.Host) {
	t.Helper()
	var diff []string
	for range 20 {
		if diff = s.difference(stateOf(t, h)); len(diff) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("uvsd left %s changed:\n%s", h, strings.Join(diff, "\n"))
}
