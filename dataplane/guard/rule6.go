package guard

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// fibRuleFindSaddr (FIB_RULE_FIND_SADDR of linux/fib_rules.h) makes an IPv6 rule hold for a packet whose source is yet to be
// chosen too: if the one that the kernel then chooses on the way that the rule leads to is the rule's. Without it no rule but
// one for any source would hold for such a packet, where IPv4's has the source 0.0.0.0.
const fibRuleFindSaddr = 0x10000

// openRuleSocket opens a netlink socket in the calling thread's network namespace.
func openRuleSocket() (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return s, nil
}

// addUnboundRule6 adds an IPv6 rule with fibRuleFindSaddr, which package netlink has no word for.
func (g *Guard) addUnboundRule6(r *netlink.Rule) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: g.rules6}}
	// Where a route message has the type, a rule's has its action, and FR_ACT_TO_TBL is RTN_UNICAST's number.
	bits, _ := r.Src.Mask.Size()
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET6, Src_len: uint8(bits), Type: unix.RTN_UNICAST, Flags: fibRuleFindSaddr,
	}})
	for _, a := range []struct {
		kind int
		data []byte
	}{
		{nl.FRA_SRC, r.Src.IP.To16()}, {nl.FRA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))}, {nl.FRA_TABLE, nl.Uint32Attr(uint32(r.Table))},
		{nl.FRA_IIFNAME, nl.ZeroTerminated(r.IifName)}, {nl.FRA_IP_PROTO, nl.Uint8Attr(uint8(r.IPProto))},
		{nl.FRA_SPORT_RANGE, append(nl.Uint16Attr(r.Sport.Start), nl.Uint16Attr(r.Sport.End)...)}, {nl.FRA_PROTOCOL, nl.Uint8Attr(r.Protocol)},
	} {
		req.AddData(nl.NewRtAttr(a.kind, a.data))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
