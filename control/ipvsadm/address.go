package ipvsadm

import (
	"net/netip"
	"strconv"
	"strings"
)

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// number reads a decimal as strtol does, which must be all there is: space and a sign may stand before it.
func number(s string, lowest, highest int64) (int64, bool) {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	digits := strings.TrimPrefix(s, "-")
	if digits == s {
		digits = strings.TrimPrefix(s, "+")
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= lowest && n <= highest
}

// dotted reads an IPv4 address as inet_aton(3) does: one to four parts, each decimal, octal or hexadecimal, the last
// filling the remaining bytes; a blank ends it and whatever follows is not looked at.
func dotted(s string) (netip.Addr, bool) {
	for i := range len(s) {
		if isSpace(s[i]) {
			s = s[:i]
			break
		}
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var addr uint64
	for i, part := range parts {
		n, ok := cNumber(part)
		room := uint64(1) << 8
		if i == len(parts)-1 {
			room = 1 << (8 * (5 - len(parts)))
		}
		if !ok || n >= room {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			addr |= n
		} else {
			addr |= n << (8 * (3 - i))
		}
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}), true
}

// cNumber reads an unsigned number in C's notation.
func cNumber(s string) (uint64, bool) {
	base := 10
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	n, err := strconv.ParseUint(s, base, 33) // an empty string and a sign are errors
	return n, err == nil && !strings.HasPrefix(s, "+")
}

// endpoint is what a service-address or server-address says. Without a port, has is false.
type endpoint struct {
	addr netip.Addr
	port uint16
	has  bool
}

// endpoint reads host[:port], an IPv6 address alone, or [address]:port. Port names are looked up for proto.
func (n *lookup) endpoint(s, proto string) (endpoint, bool) {
	if strings.Trim(s, "0123456789") == "" {
		return endpoint{}, false // ipvsadm takes no bare number for an address, nor nothing
	}
	host, port := s, ""
	bracketed := s[0] == '['
	if bracketed {
		inside, after, ok := strings.Cut(s[1:], "]")
		if !ok || !strings.HasPrefix(after, ":") {
			return endpoint{}, false
		}
		host, port = inside, after[1:]
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() && a.Zone() == "" {
		return n.withPort(a, port, bracketed, proto)
	}
	// What stands in brackets and is no IPv6 address is read like anything else, the port behind them forgotten.
	name, after, hasPort := host, "", false
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		name, after, hasPort = host[:i], host[i+1:], true
	}
	if a, ok := n.ipv4(name); ok {
		return n.withPort(a, after, hasPort, proto)
	}
	if bracketed && !hasPort {
		if a, ok := n.names.IPv6(host); ok {
			return n.withPort(a, port, true, proto)
		}
	}
	return endpoint{}, false
}

// withPort completes an endpoint by a port's number or name.
func (n *lookup) withPort(a netip.Addr, port string, has bool, proto string) (endpoint, bool) {
	e := endpoint{addr: a, has: has}
	if !has {
		return e, true
	}
	if p, ok := number(port, 0, 65535); ok {
		e.port = uint16(p)
		return e, true
	}
	p, ok := n.names.Port(port, proto)
	e.port = p
	return e, ok
}

// ipv4 reads an address in dots or looks up a name.
func (n *lookup) ipv4(s string) (netip.Addr, bool) {
	if a, ok := dotted(s); ok {
		return a, true
	}
	if strings.Trim(s, "0123456789.") == "" {
		return netip.Addr{}, false // looks like an address and is none: not worth asking a name server
	}
	return n.names.IPv4(s)
}
