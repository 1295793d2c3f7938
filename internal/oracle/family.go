package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// family is the address family of a sequence: addresses of the recorded topology, as ipvsadm takes them.
type family bool

// The families.
const (
	ipv4 family = false
	ipv6 family = true
)

// clients is the network of a sequence's own clients.
func (f family) clients(index int) string {
	if f == ipv6 {
		return fmt.Sprintf("2001:db8:c:%x::/64", index)
	}
	return fmt.Sprintf("172.%d.%d.0/24", 16+index>>8&15, index&255)
}

// client is one of them, with its port.
func (f family) client(network string, n, port int) string {
	if f == ipv6 {
		return fmt.Sprintf("[%s%x]:%d", strings.TrimSuffix(network, "/64"), n, port)
	}
	return fmt.Sprintf("%s%d:%d", strings.TrimSuffix(network, "0/24"), n, port)
}

// vip is the i-th of three virtual addresses, with a port.
func (f family) vip(i, port int) string {
	if f == ipv6 {
		return fmt.Sprintf("[2001:db8:9::%d]:%d", 100+i, port)
	}
	return fmt.Sprintf("10.9.0.%d:%d", 100+i, port)
}

// server is a real server's address, n from 11 to 30.
func (f family) server(n int) string {
	if f == ipv6 {
		return fmt.Sprintf("[2001:db8:1::%d]", n)
	}
	return fmt.Sprintf("10.1.0.%d", n)
}

// own are the director's own addresses, without brackets; the last is the loopback interface's.
func (f family) own() []string {
	if f == ipv6 {
		return []string{"2001:db8:9::1", "2001:db8:1::1", "::1"}
	}
	return []string{"10.9.0.1", "10.1.0.1", "127.0.0.1"}
}

// bracketed puts an IPv6 address, with its port behind it, into brackets, which recordings don't have around it.
func bracketed(to string) string {
	at := strings.LastIndexByte(to, ':')
	addr, err := netip.ParseAddr(to[:max(at, 0)])
	if err != nil || addr.Is4() {
		return to
	}
	return "[" + to[:at] + "]" + to[at:]
}

// procName is how /proc writes the addresses of a network of clients, as far as they are the same.
func procName(clients netip.Prefix) string {
	b := clients.Addr().AsSlice()
	if len(b) == 4 {
		return fmt.Sprintf(" %X", b[:3])
	}
	return fmt.Sprintf(" %x:%x:%x:%x:", b[:2], b[2:4], b[4:6], b[6:8])
}

// procAddrPort reads an address and its port as /proc has them: eight hexadecimal digits for IPv4, for IPv6 words of four
// between colons, perhaps in brackets, and four digits.
func procAddrPort(address, port string) (string, error) {
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return "", fmt.Errorf("port %q: %w", port, err)
	}
	if addr, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil && addr.Is6() {
		return netip.AddrPortFrom(addr, uint16(p)).String(), nil
	}
	n, err := strconv.ParseUint(address, 16, 32)
	if err != nil || len(address) != 8 {
		return "", fmt.Errorf("%q is no address as /proc has them", address)
	}
	addr := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return netip.AddrPortFrom(addr, uint16(p)).String(), nil
}

// procPair is procAddrPort of both in one, a colon between.
func procPair(s string) (string, error) {
	at := strings.LastIndexByte(s, ':')
	return procAddrPort(s[:max(at, 0)], s[at+1:])
}
