package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"uvs/packet"
)

// Sent is a frame that came out of the director, and the wire: 0 the clients', 1 the servers'.
type Sent struct {
	Wire  int
	Frame []byte
}

// Described is a frame in the words of the recordings.
type Described map[string]any

// Describe reads a frame independently of the code under test, as far as the recordings do.
func Describe(s Sent) Described {
	d := Described{"if": "cli", "eth": station(packet.MAC(s.Frame[:6]))}
	if s.Wire == 1 {
		d["if"] = "rs"
	}
	switch binary.BigEndian.Uint16(s.Frame[12:]) {
	case packet.EtherIPv4:
		describeIP(d, s.Frame[14:], 0)
	case packet.EtherIPv6:
		describeIPv6(d, s.Frame[14:], 0)
	case packet.EtherARP:
		d["arp"] = hexOf(s.Frame[14:42])
	default:
		d["raw"] = hexOf(s.Frame[14:])
	}
	return d
}

func station(m packet.MAC) string {
	switch {
	case m == clientGateway:
		return "cgw"
	case m == serverRouter:
		return "rgw"
	case m == directorClientSide:
		return "dir0"
	case m[0] == 2 && m[4] == 1:
		return fmt.Sprintf("10.1.0.%d", m[5])
	}
	return m.String()
}

// describeIP adds an IPv4 packet to d; one quoted in an ICMP error (depth above 0) may be cut short.
func describeIP(d Described, b []byte, depth int) {
	if len(b) < 20 || b[0]>>4 != 4 {
		d["raw"] = hexOf(b)
		return
	}
	ihl, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	frag := binary.BigEndian.Uint16(b[6:])
	proto := b[9]
	d["src"], d["dst"], d["ttl"], d["tos"] = src.String(), dst.String(), int(b[8]), int(b[1])
	d["id"], d["len"], d["proto"] = int(binary.BigEndian.Uint16(b[4:])), total, int(proto)
	if frag&0x4000 != 0 {
		d["df"] = 1
	}
	if frag&0x2000 != 0 {
		d["mf"] = 1
	}
	if frag&0x1fff != 0 {
		d["off"] = int(frag&0x1fff) * 8
	}
	if packet.Fold(packet.Sum(b[:ihl], 0)) != 0xffff {
		d["ipcsum"] = "bad"
	}
	p := b[ihl:min(total, len(b))]
	if frag&0x1fff != 0 {
		d["payload"] = len(p)
		return
	}
	whole := frag&0x3fff == 0
	switch {
	case proto == packet.ProtoTCP, proto == packet.ProtoUDP, proto == packet.ProtoSCTP:
		describeL4(d, src, dst, proto, p, whole && (depth == 0 || proto == packet.ProtoUDP && len(p) >= 8 && len(p) >= int(binary.BigEndian.Uint16(p[4:]))))
	case proto == packet.ProtoICMP && len(p) >= 8:
		d["icmp"] = fmt.Sprintf("%d/%d", p[0], p[1])
		if whole && depth == 0 {
			d["csum"] = okBad(packet.Fold(packet.Sum(p, 0)) == 0xffff)
		}
		if p[0] == 3 && p[1] == 4 {
			d["mtu"] = int(binary.BigEndian.Uint16(p[6:]))
		}
		if strings.ContainsRune("\x03\x0b\x0c\x05\x04", rune(p[0])) {
			inner := Described{}
			describeIP(inner, p[8:], depth+1)
			d["inner"] = inner
		}
	case proto == packet.ProtoIPIP:
		inner := Described{}
		describeIP(inner, p, 0)
		d["inner"] = inner
	case proto == packet.ProtoGRE && len(p) >= 4:
		describeGRE(d, p)
	}
}

// describeGRE adds a GRE packet to d. Of one with a checksum the recordings have eight bytes as they are.
func describeGRE(d Described, p []byte) {
	d["gre"] = hexOf(p[:4])
	inner := Described{}
	d["inner"] = inner
	if p[0] == 0 {
		describeIP(inner, p[4:], 0)
		return
	}
	n := min(8, len(p))
	inner["raw"] = hexOf(p[:n])
	in := Described{}
	describeIP(in, p[n:], 0)
	inner["inner"] = in
}

// describeL4 adds what TCP and UDP headers say to d, and whether their checksum is right if summed asks so.
func describeL4(d Described, src, dst netip.Addr, proto uint8, p []byte, summed bool) {
	if len(p) < 8 {
		return
	}
	d["sport"], d["dport"] = int(binary.BigEndian.Uint16(p)), int(binary.BigEndian.Uint16(p[2:]))
	if proto == packet.ProtoSCTP {
		if summed && len(p) >= packet.SCTPLen {
			d["csum"] = okBad((*packet.SCTP)(p).Checksum() == packet.CRC32c(p))
		}
		return
	}
	if proto == packet.ProtoUDP {
		n := int(binary.BigEndian.Uint16(p[4:]))
		d["data"] = n - 8
		switch {
		case !summed:
		case p[6] == 0 && p[7] == 0:
			d["csum"] = "none"
		default:
			d["csum"] = okBad(checksum(src, dst, proto, p[:min(n, len(p))]) == 0)
		}
		return
	}
	d["seq"] = int(binary.BigEndian.Uint32(p[4:]))
	if len(p) < 20 {
		return
	}
	d["ack"], d["fl"] = int(binary.BigEndian.Uint32(p[8:])), flagNames(p[13])
	d["win"] = int(binary.BigEndian.Uint16(p[14:]))
	if n := int(p[12]>>4) * 4; len(p) > n {
		d["data"] = len(p) - n
	}
	if summed {
		d["csum"] = okBad(checksum(src, dst, proto, p) == 0)
	}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func flagNames(f uint8) string {
	var s strings.Builder
	for i, c := range "FSRPAUEC" {
		if f>>i&1 != 0 {
			s.WriteRune(c)
		}
	}
	return s.String()
}

func okBad(ok bool) string {
	if ok {
		return "ok"
	}
	return "bad"
}

// Brief is where a packet went, in the recordings' one word, by which method, from whom, and in how many frames if not one.
type Brief struct {
	To, Fwd, From string
	NOut          int
}

// Briefly says where the packet of a step went.
func Briefly(s *Step, out []Sent) Brief {
	if len(out) == 0 {
		return Brief{To: "drop"}
	}
	var b Brief
	d := Describe(out[0])
	str := func(k string) string { v, _ := d[k].(string); return v }
	num := func(k string) int { v, _ := d[k].(int); return v }
	if out[0].Wire == 1 {
		switch virtual, _ := netip.ParseAddrPort(s.V); {
		case num("proto") == packet.ProtoIPIP, num("proto") == packet.ProtoIPv6:
			b = Brief{To: str("dst"), Fwd: "tun"}
		case num("proto") == packet.ProtoGRE:
			b = Brief{To: str("dst"), Fwd: "gre"}
		case s.V != "" && str("dst") == virtual.Addr().String():
			b = Brief{To: str("eth"), Fwd: "dr"}
		case d["dport"] != nil:
			b = Brief{To: fmt.Sprintf("%s:%d", str("dst"), num("dport")), Fwd: "nat"}
		default:
			b = Brief{To: str("dst"), Fwd: "?"}
		}
	} else {
		switch {
		case strings.HasPrefix(str("fl"), "R") && s.Dir != "rs":
			b = Brief{To: "rst"}
		case d["icmp6"] != nil:
			b = Brief{To: "icmp6 " + str("icmp6")}
		case d["icmp"] != nil:
			b = Brief{To: "icmp " + str("icmp")}
		default:
			b = Brief{To: "client", From: fmt.Sprintf("%s:%d", str("src"), num("sport"))}
		}
	}
	if len(out) > 1 {
		b.NOut = len(out)
	}
	return b
}
