package conformance

import (
	"encoding/binary"
	"net/netip"

	"uvs/packet"
	"uvs/service"
)

// stackMAC is the device that leads to the director's own stack.
var stackMAC = packet.MAC{2, 0, 0, 0, 0, 0x77}

// hostAnswer is what the recorded host's own stack answers to a packet for a port on which nobody listens, or nil: TCP is
// reset, UDP gets port unreachable. It is no part of uvs, but what uvs asks where a real server is the director itself.
func (d *Director) hostAnswer(frame []byte) []byte {
	b := frame[packet.EthLen:]
	if b[0]>>4 == 6 {
		return d.hostAnswer6(b)
	}
	ip, l4, ok := packet.ParseIPv4(b)
	if !ok || len(l4) < packet.UDPLen {
		return nil
	}
	if !checksumRight(ip, l4) {
		return nil
	}
	ports := (*packet.Ports)(l4)
	client, own := packet.AddrFrom4(ip.Src()).Netip(), packet.AddrFrom4(ip.Dst()).Netip()
	h := header{src: own, dst: client, proto: ip.Proto(), ttl: 64}
	var body []byte
	switch ip.Proto() {
	case packet.ProtoTCP:
		t, payload, ok := packet.ParseTCP(l4)
		if !ok || t.Flags()&packet.TCPRst != 0 {
			return nil
		}
		h.df, h.tos = true, ip.TOS()&^3
		body = reset(t, len(payload), netip.AddrPortFrom(own, ports.Dst()), netip.AddrPortFrom(client, ports.Src()))
	case packet.ProtoUDP:
		h.proto, h.tos = packet.ProtoICMP, ip.TOS()&0x1e|0xc0
		body = icmp(packet.ICMPUnreachable, packet.ICMPCodePort, 0, 0, b[:min(len(b), 548)])
	default:
		return nil
	}
	return ethernet(stackMAC, stackMAC, h.packet(body))
}

// hostAnswer6 is hostAnswer for the IPv6 packet b.
func (d *Director) hostAnswer6(b []byte) []byte {
	ip, l4, ok := packet.ParseIPv6(b)
	if !ok || len(l4) < packet.UDPLen {
		return nil
	}
	client, own := ip.Src().Netip(), ip.Dst().Netip()
	if checksum(client, own, ip.NextHeader(), l4) != 0 {
		return nil
	}
	ports := (*packet.Ports)(l4)
	h := packet.Header6{NextHeader: ip.NextHeader(), HopLimit: 64, Src: ip.Dst(), Dst: ip.Src()}
	var body []byte
	switch h.NextHeader {
	case packet.ProtoTCP:
		t, payload, ok := packet.ParseTCP(l4)
		if !ok || t.Flags()&packet.TCPRst != 0 {
			return nil
		}
		h.TrafficClass = ip.TrafficClass() &^ 3
		body = reset(t, len(payload), netip.AddrPortFrom(own, ports.Dst()), netip.AddrPortFrom(client, ports.Src()))
	case packet.ProtoUDP:
		if d.losesErrors(netip.AddrPortFrom(own, ports.Dst())) {
			return nil
		}
		h.NextHeader = packet.ProtoICMPv6
		body = icmp6(own, client, packet.ICMP6Unreachable, packet.ICMP6CodePort, 0, b[:min(len(b), 1280-packet.IPv6Len-packet.ICMPLen)])
	default:
		return nil
	}
	answer := make([]byte, packet.IPv6Len, packet.IPv6Len+len(body))
	packet.PutIPv6(answer, len(body), h)
	f := ethernet(stackMAC, stackMAC, append(answer, body...))
	(*packet.Eth)(f).SetType(packet.EtherIPv6)
	return f
}

// losesErrors says that the recorded IPVS loses the ICMPv6 errors of a server that is the director itself, as it does other
// NAT servers' ("Forward ICMP: failed checksum"). By other methods they are none of IPVS's business.
func (d *Director) losesErrors(own netip.AddrPort) bool {
	for _, vs := range d.plane.Table().Services {
		for _, rs := range vs.Servers {
			if rs.Method() == service.Local && rs.Asked() == service.Masq && rs.IP == packet.AddrFrom(own.Addr()) &&
				(rs.Addr.Port() == own.Port() || vs.Mark != 0) {
				return true
			}
		}
	}
	return false
}

// checksumRight says that a packet's TCP or UDP checksum is, or that it has none.
func checksumRight(ip *packet.IPv4, l4 []byte) bool {
	if ip.Proto() == packet.ProtoUDP && (*packet.UDP)(l4).Checksum() == 0 {
		return true
	}
	return checksum(packet.AddrFrom4(ip.Src()).Netip(), packet.AddrFrom4(ip.Dst()).Netip(), ip.Proto(), l4) == 0
}

// reset is the answer to a segment for a closed port (RFC 9293 section 3.10.7.1).
func reset(t *packet.TCP, payload int, src, dst netip.AddrPort) []byte {
	b := make([]byte, packet.TCPLen)
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	b[12], b[13] = 5<<4, packet.TCPRst
	if t.Flags()&packet.TCPAck != 0 {
		binary.BigEndian.PutUint32(b[4:], t.Ack())
	} else {
		length := uint32(payload) + uint32(t.Flags()>>1&1) + uint32(t.Flags()&1) // SYN and FIN count as well
		binary.BigEndian.PutUint32(b[8:], t.Seq()+length)
		b[13] |= packet.TCPAck
	}
	binary.BigEndian.PutUint16(b[16:], checksum(src.Addr(), dst.Addr(), packet.ProtoTCP, b))
	return b
}
