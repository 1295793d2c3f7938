package control

import (
	"fmt"
	"net/netip"
	"strings"

	"uvs/packet"
	"uvs/service"
)

// maxNested is how deep summaries look into tunnels.
const maxNested = 3

// summary says in one line what is in an Ethernet frame.
func summary(frame []byte) string {
	eth, rest, ok := packet.ParseEth(frame)
	if !ok {
		return "cut short"
	}
	switch t := eth.Type(); t {
	case packet.EtherVLAN, packet.EtherQinQ:
		if len(rest) < 4 {
			return "vlan, cut short"
		}
		inner := append(append([]byte(nil), frame[:packet.EthLen-2]...), rest[2:]...)
		return fmt.Sprintf("vlan %d: %s", int(rest[0]&0xf)<<8|int(rest[1]), summary(inner))
	case packet.EtherARP:
		return arpSummary(rest)
	case packet.EtherIPv4, packet.EtherIPv6:
		return ipSummary(frame, 0)
	default:
		return fmt.Sprintf("ethertype 0x%04x %v > %v", t, eth.Src(), eth.Dst())
	}
}

func arpSummary(b []byte) string {
	a, ok := packet.ParseARP(b)
	if !ok {
		return "arp, malformed"
	}
	sender, target := packet.AddrFrom4(a.Sender()).Netip(), packet.AddrFrom4(a.Target()).Netip()
	switch {
	case a.Op() == packet.ARPRequest && sender == target:
		return fmt.Sprintf("arp %v is at %v", sender, a.SenderMAC())
	case a.Op() == packet.ARPRequest:
		return fmt.Sprintf("arp who has %v, tell %v", target, sender)
	case a.Op() == packet.ARPReply:
		return fmt.Sprintf("arp %v is at %v", sender, a.SenderMAC())
	default:
		return fmt.Sprintf("arp operation %d", a.Op())
	}
}

// ipSummary is that of the IP packet in an Ethernet frame, and of those it carries.
func ipSummary(frame []byte, depth int) string {
	var p packet.Packet
	if fault := packet.DecodeOwn(frame, &p); fault != packet.NoFault {
		return "ip, malformed"
	}
	proto := protoName(&p)
	switch {
	case p.LaterFragment():
		return fmt.Sprintf("%s %v > %v, fragment", proto, addrText(p.Src), addrText(p.Dst))
	case p.IsICMP() && !p.Fragment:
		return fmt.Sprintf("%s %v > %v: %s", proto, addrText(p.Src), addrText(p.Dst), icmpSummary(&p))
	}
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		if p.Fragment {
			return fmt.Sprintf("%s %v > %v, first fragment", proto, addrText(p.Src), addrText(p.Dst))
		}
		s := fmt.Sprintf("%s %s", proto, flowSummary(&p.Flow))
		if p.Proto == packet.ProtoTCP {
			s += " " + tcpLetters(p.TCPFlags)
		}
		return s
	}
	s := fmt.Sprintf("%s %v > %v", proto, addrText(p.Src), addrText(p.Dst))
	if p.Fragment || depth == maxNested {
		return s
	}
	if inner := nested(&p); inner != nil {
		s += ": " + ipSummary(inner, depth+1)
	}
	return s
}

// nested is the packet that a tunnel's packet carries, as an Ethernet frame, or nil.
func nested(p *packet.Packet) []byte {
	body := p.L4Bytes()
	var etherType uint16
	switch p.Proto {
	case packet.ProtoIPIP:
		etherType = packet.EtherIPv4
	case packet.ProtoIPv6:
		etherType = packet.EtherIPv6
	case packet.ProtoGRE:
		h, rest, ok := packet.ParseGRE(body)
		if !ok {
			return nil
		}
		etherType, body = h.Type(), rest
	default:
		return nil
	}
	b := make([]byte, packet.EthLen, packet.EthLen+len(body))
	packet.PutEth(b, packet.MAC{}, packet.MAC{}, etherType)
	return append(b, body...)
}

// addrText is an address; the zero Addr is the one of IPv6 that a station without address has.
func addrText(a packet.Addr) string {
	if a.IsZero() {
		return "::"
	}
	return a.String()
}

func protoName(p *packet.Packet) string {
	switch p.Proto {
	case packet.ProtoICMP:
		return "icmp"
	case packet.ProtoICMPv6:
		return "icmp6"
	case packet.ProtoIPIP:
		return "ipip"
	case packet.ProtoIPv6:
		return "ip6ip"
	case packet.ProtoGRE:
		return "gre"
	}
	return service.Proto(p.Proto).String()
}

func flowSummary(f *packet.Flow) string {
	return fmt.Sprintf("%v > %v", netip.AddrPortFrom(f.Src.Netip(), f.SrcPort), netip.AddrPortFrom(f.Dst.Netip(), f.DstPort))
}

// tcpLetters names flags as tcpdump does, by their first letters, the acknowledgement by a dot.
func tcpLetters(flags uint8) string {
	var s strings.Builder
	for i, c := range "FSRP.UEC" {
		if flags&(1<<i) != 0 {
			s.WriteRune(c)
		}
	}
	if s.Len() == 0 {
		return "none"
	}
	return s.String()
}

var icmpNames = map[uint8]string{
	packet.ICMPEcho: "echo request", packet.ICMPEchoReply: "echo reply", packet.ICMPUnreachable: "unreachable",
	packet.ICMPTimeExceeded: "time exceeded",
}

var icmp6Names = map[uint8]string{
	packet.ICMP6Echo: "echo request", packet.ICMP6EchoReply: "echo reply", packet.ICMP6Unreachable: "unreachable",
	packet.ICMP6TooBig: "packet too big", packet.ICMP6TimeExceeded: "time exceeded", packet.ICMP6ParameterProblem: "parameter problem",
	packet.ICMP6NeighbourSolicit: "neighbour solicitation", packet.ICMP6NeighbourAdvert: "neighbour advertisement",
	packet.ICMP6RouterSolicit: "router solicitation", packet.ICMP6RouterAdvert: "router advertisement",
	packet.ICMP6ListenerReport2: "listener report", packet.ICMP6ListenerQuery: "listener query",
}

func icmpSummary(p *packet.Packet) string {
	h := p.ICMP()
	names, isError, mtu := icmpNames, h.IsError(), h.MTU()
	if !p.Is4() {
		names, isError, mtu = icmp6Names, h.IsError6(), h.MTU6()
	}
	s := names[h.Type()]
	if s == "" {
		s = fmt.Sprintf("type %d", h.Type())
	}
	var ndp packet.NDP
	switch {
	case p.IsNeighbourDiscovery() && packet.ParseNDP(p, &ndp):
		return fmt.Sprintf("%s, %v", s, ndp.Target.Netip())
	case !isError:
		return s
	case p.Is4() && h.Type() == packet.ICMPUnreachable && h.Code() == packet.ICMPCodeFragNeeded:
		s = fmt.Sprintf("fragmentation needed, MTU %d", mtu)
	case !p.Is4() && h.Type() == packet.ICMP6TooBig:
		s = fmt.Sprintf("%s, MTU %d", s, mtu)
	default:
		s = fmt.Sprintf("%s, code %d", s, h.Code())
	}
	var q packet.Packet
	if packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &q) {
		s += fmt.Sprintf(", about %s %s", protoName(&q), flowSummary(&q.Flow))
	}
	return s
}
