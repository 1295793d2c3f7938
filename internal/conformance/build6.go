package conformance

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"uvs/packet"
)

// isIPv6 says that a recorded address, with or without port, is IPv6.
func isIPv6(s string) bool { return strings.Count(s, ":") > 1 }

// header6 is an IPv6 header to be.
type header6 struct {
	src, dst netip.Addr
	next     uint8
	hops, tc uint8
	flow     uint32
}

func (h *header6) packet(body []byte) []byte {
	b := make([]byte, packet.IPv6Len, packet.IPv6Len+len(body))
	binary.BigEndian.PutUint32(b, 6<<28|uint32(h.tc)<<20|h.flow)
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = h.next, h.hops
	copy(b[8:], h.src.AsSlice())
	copy(b[24:], h.dst.AsSlice())
	return append(b, body...)
}

// frame6 builds the frame of a step in IPv6.
func (b *Builder) frame6(s *Step, wire int) ([]byte, error) {
	h := header6{hops: value(s.TTL, 64), tc: s.TOS, flow: s.Flow}
	dstMAC, srcMAC := directorClientSide, clientGateway
	if wire == 1 {
		dstMAC, srcMAC = directorServerSide, serverRouter
	}
	var body []byte
	switch s.Pkt {
	case "echo":
		h = header6{src: addr(s.Src), dst: addr(s.Dst), next: packet.ProtoICMPv6, hops: 64}
		body = icmp6(h.src, h.dst, 128, 0, 77<<16|1, []byte("abcdefghabcdefghabcdefghabcdefgh"))
	case "icmperr":
		h = header6{src: addr(s.Src), dst: addr(s.Dst), next: packet.ProtoICMPv6, hops: 64}
		from, to := addrPort(s.Orig.S), addrPort(s.Orig.D)
		proto, seg, err := l4(s.Orig, from, to)
		if err != nil {
			return nil, err
		}
		quoted := (&header6{src: from.Addr(), dst: to.Addr(), next: proto, hops: 62}).packet(seg)
		quoted = quoted[:min(value(s.Quote, 88), len(quoted))]
		t := value(s.Type, 2)
		var rest uint32
		if t == packet.ICMP6TooBig {
			rest = uint32(value(s.MTU, 1400))
		}
		body = icmp6(h.src, h.dst, t, value(s.Code, 0), rest, quoted)
	default:
		from, to := s.C, s.V
		if wire == 1 {
			from, to = s.S, s.C
		}
		src, dst := addrPort(from), addrPort(to)
		proto, seg, err := l4(s, src, dst)
		if err != nil {
			return nil, err
		}
		h.src, h.dst, h.next, body = src.Addr(), dst.Addr(), proto, seg
		if s.Pkt == "udpfrag" {
			from, to := s.Part*s.FS, (s.Part+1)*s.FS
			part := make([]byte, packet.FragmentLen)
			packet.PutFragment(part, proto, from, to < len(body), uint32(value(s.IPID, 500)))
			h.next, body = 44, append(part, body[from:min(to, len(body))]...)
		}
		if host, ok := strings.CutPrefix(h.src.String(), "2001:db8:1::"); ok && wire == 1 {
			n, err := strconv.Atoi(host) // the servers' MAC addresses have the digits of their addresses, read as decimal
			if err != nil {
				return nil, err
			}
			srcMAC = serverMAC(byte(n))
		}
	}
	frame := ethernet(dstMAC, srcMAC, h.packet(body))
	binary.BigEndian.PutUint16(frame[12:], packet.EtherIPv6)
	return frame, nil
}

func icmp6(src, dst netip.Addr, t, c uint8, rest uint32, body []byte) []byte {
	m := append(make([]byte, 8), body...)
	m[0], m[1] = t, c
	binary.BigEndian.PutUint32(m[4:], rest)
	binary.BigEndian.PutUint16(m[2:], checksum(src, dst, packet.ProtoICMPv6, m))
	return m
}

// describeIPv6 adds an IPv6 packet to d; one quoted in an ICMPv6 error (depth above 0) may be cut short.
func describeIPv6(d Described, b []byte, depth int) {
	if len(b) < packet.IPv6Len || b[0]>>4 != 6 {
		d["raw"] = hexOf(b)
		return
	}
	word, n := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint16(b[4:]))
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	proto, p := b[6], b[40:min(40+n, len(b))]
	d["src"], d["dst"], d["hlim"], d["tc"], d["flow"] = src.String(), dst.String(), int(b[7]), int(word>>20&0xff), int(word&0xfffff)
	d["len"], d["proto"] = n, int(proto)
	switch {
	case proto == 44 && len(p) >= packet.FragmentLen:
		off := binary.BigEndian.Uint16(p[2:])
		d["frag"], d["off"], d["id"] = int(p[0]), int(off&0xfff8), int(binary.BigEndian.Uint32(p[4:]))
		if off&1 != 0 {
			d["mf"] = 1
		}
	case proto == packet.ProtoICMPv6 && len(p) >= 8:
		d["icmp6"] = strconv.Itoa(int(p[0])) + "/" + strconv.Itoa(int(p[1]))
		if depth == 0 {
			d["csum"] = okBad(checksum(src, dst, proto, p) == 0)
		}
		if p[0] == packet.ICMP6TooBig {
			d["mtu"] = int(binary.BigEndian.Uint32(p[4:]))
		}
		if p[0] < 128 {
			inner := Described{}
			describeIPv6(inner, p[8:], depth+1)
			d["inner"] = inner
		}
	case proto == packet.ProtoIPv6:
		inner := Described{}
		describeIPv6(inner, p, 0)
		d["inner"] = inner
	case proto == packet.ProtoTCP, proto == packet.ProtoUDP, proto == packet.ProtoSCTP:
		describeL4(d, src, dst, proto, p, depth == 0)
	}
}
