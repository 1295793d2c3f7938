package guard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// Local says which real servers are the host itself. They get their clients' packets by a device of uvs, and their answers
// must leave by it: uvs puts the virtual address back into them.
type Local struct {
	// Device is the interface, and Gateway and Gateway6 are the addresses by which the host sends everything into it. They
	// need not be anybody's; IPv6's is link-local.
	Device            string
	Gateway, Gateway6 netip.Addr
	// Unbound6 is the device's own IPv6 address, which the host chooses there as source for what has none.
	Unbound6 netip.Addr
	// Servers are the real servers.
	Servers []Server
}

// rulePriority is where the rules stand: behind the table local (0), so that the host talks to itself as ever, and before
// all that others use to have.
const rulePriority = RouteProtocol

// SetLocal brings rules and route in line with l. When it returns, answers take the way through the device.
func (g *Guard) SetLocal(l Local) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("guard is closed")
	}
	g.local = l
	return g.updateLocal(l)
}

// localRule selects packets that the host itself sends, by what they have in common.
type localRule struct {
	from         netip.Prefix // their source; 0.0.0.0/32, of IPv6 Local.Unbound6: none yet, to be chosen by the route
	proto        uint8
	sport, dport uint16 // 0: any
}

// icmpPortUnreachable is ICMP type 3, code 3, as the kernel's rules see it: in place of the destination port. The other is
// ICMPv6's.
const (
	icmpPortUnreachable  = packet.ICMPUnreachable<<8 | packet.ICMPCodePort
	icmp6PortUnreachable = packet.ICMP6Unreachable<<8 | packet.ICMP6CodePort
)

// rules are those that a server's answers are selected by. They are as narrow as can be: what else the host sends goes its
// own way.
func (s Server) rules(unbound6 netip.Addr) []localRule {
	addr := s.Addr.Addr()
	from := netip.PrefixFrom(addr, addr.BitLen())
	list := []localRule{{from, s.Proto, s.Addr.Port(), 0}}
	if s.Proto != packet.ProtoUDP {
		return list
	}
	unbound, refused := netip.IPv4Unspecified(), localRule{from, packet.ProtoICMP, 0, icmpPortUnreachable}
	if addr.Is6() {
		unbound, refused = unbound6, localRule{from, packet.ProtoICMPv6, 0, icmp6PortUnreachable}
	}
	// A socket on 0.0.0.0 or :: leaves the source to the route.
	return append(list, localRule{netip.PrefixFrom(unbound, unbound.BitLen()), s.Proto, s.Addr.Port(), 0}, refused)
}

func (r localRule) String() string {
	return fmt.Sprintf("from %v protocol %d port %d", r.from, r.proto, r.sport)
}

// netlink is the rule as the kernel takes it. Its table is the instance's number.
func (r localRule) netlink(table int) *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Table, n.Priority, n.Protocol, n.IifName = unix.AF_INET, table, rulePriority, RouteProtocol, "lo"
	if r.from.Addr().Is6() {
		n.Family = unix.AF_INET6
	}
	n.Src = &net.IPNet{IP: r.from.Addr().AsSlice(), Mask: net.CIDRMask(r.from.Bits(), r.from.Addr().BitLen())}
	n.IPProto = int(r.proto)
	if r.sport != 0 {
		n.Sport = netlink.NewRulePortRange(r.sport, r.sport)
	}
	if r.dport != 0 {
		n.Dport = netlink.NewRulePortRange(r.dport, r.dport)
	}
	return n
}

// readRule is the reverse of netlink. ok is false for a rule that isn't one of uvs's, of whatever instance.
func readRule(n *netlink.Rule) (r localRule, ok bool) {
	if n.Protocol != RouteProtocol || n.Priority != rulePriority || n.Src == nil {
		return r, false
	}
	addr, ok := netip.AddrFromSlice(n.Src.IP)
	bits, _ := n.Src.Mask.Size()
	r = localRule{from: netip.PrefixFrom(addr.Unmap(), bits), proto: uint8(n.IPProto)}
	if n.Sport != nil {
		r.sport = n.Sport.Start
	}
	if n.Dport != nil {
		r.dport = n.Dport.Start
	}
	return r, ok
}

// eachRule calls yield for each rule of uvs's, of both families. It fails with EOPNOTSUPP where IPv4 has no rules; a kernel
// without IPv6, or rules for it, has none of uvs's.
func (g *Guard) eachRule(yield func(n *netlink.Rule, r localRule) error) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := g.ruleList(family)
		if err != nil && (family == unix.AF_INET || !errors.Is(err, unix.EOPNOTSUPP)) {
			return err
		}
		for i := range list {
			if r, ours := readRule(&list[i]); ours {
				if err := yield(&list[i], r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ruleList lists all policy rules of a family.
func (g *Guard) ruleList(family int) ([]netlink.Rule, error) {
	list, err := g.nl.RuleList(family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			err = unix.EOPNOTSUPP
		}
		return nil, fmt.Errorf("list policy rules: %w", err)
	}
	return list, nil
}

// updateLocal makes the instance's rules, and the route that they lead to, those of l.
func (g *Guard) updateLocal(l Local) error {
	want := make(map[localRule]bool)
	wanted := make(map[bool]bool) // families: is6
	for _, s := range l.Servers {
		wanted[s.Addr.Addr().Is6()] = true
		for _, r := range s.rules(l.Unbound6) {
			want[r] = true
		}
	}
	for is6 := range wanted {
		if err := g.localRoute(l, is6); err != nil {
			return err
		}
	}
	have := make(map[localRule]bool)
	var errs []error
	err := g.eachRule(func(n *netlink.Rule, r localRule) error {
		if n.Table != g.id {
			return nil
		}
		if have[r] = true; !want[r] {
			errs = append(errs, g.delRule(r, g.id))
		}
		return nil
	})
	if err != nil {
		if len(want) == 0 && errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a kernel without policy rules
		}
		return err
	}
	for r := range want {
		if have[r] {
			continue
		}
		add := g.nl.RuleAdd
		if r.from.Addr() == l.Unbound6 {
			add = g.addUnboundRule6
		}
		if err := add(r.netlink(g.id)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("policy rule %v, by which a real server on this host answers: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

// localRoute makes a family's route into the device. One that stood there went with the device if that was made anew.
func (g *Guard) localRoute(l Local, is6 bool) error {
	link, err := g.nl.LinkByName(l.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil // deleted; it will be made again, which is news
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", l.Device, err)
	}
	all, gateway, family := net.IPv4zero.To4(), l.Gateway, unix.AF_INET
	if is6 {
		all, gateway, family = net.IPv6zero, l.Gateway6, unix.AF_INET6
	}
	route := &netlink.Route{
		Dst: &net.IPNet{IP: all, Mask: net.CIDRMask(0, 8*len(all))}, Gw: gateway.AsSlice(), LinkIndex: link.Attrs().Index,
		Flags: int(netlink.FLAG_ONLINK), Table: g.id, Protocol: RouteProtocol, Src: l.source(link, g.nl, family),
	}
	if err := g.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("route into %s: %w", l.Device, err)
	}
	return nil
}

// source is the device's own address, which the kernel gives to answers that have none yet.
func (l Local) source(link netlink.Link, nl *netlink.Handle, family int) net.IP {
	addrs, err := nl.AddrList(link, family)
	if err != nil || len(addrs) == 0 {
		return nil
	}
	return addrs[0].IP
}

func (g *Guard) delRule(r localRule, table int) error {
	if err := g.nl.RuleDel(r.netlink(table)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove policy rule %v: %w", r, err)
	}
	return nil
}

// removeRules removes the rules of the instances that gone says are gone.
func (g *Guard) removeRules(gone func(table int) bool) error {
	err := g.eachRule(func(n *netlink.Rule, r localRule) error {
		if !gone(n.Table) {
			return nil
		}
		g.log.Info("removing a policy rule that a crashed uvsd left", zap.Stringer("rule", r))
		return g.delRule(r, n.Table)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// CheckLocal says why SetLocal cannot work on this host for servers of IPv6 or IPv4, or nil.
func (g *Guard) CheckLocal(ipv6 bool) error {
	family, option := unix.AF_INET, "CONFIG_IP_MULTIPLE_TABLES"
	if ipv6 {
		family, option = unix.AF_INET6, "CONFIG_IPV6_MULTIPLE_TABLES"
	}
	_, err := g.ruleList(family)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: the kernel has no policy routing (%s)", err, option)
	}
	return err
}
