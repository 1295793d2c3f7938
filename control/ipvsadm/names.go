package ipvsadm

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Names turns names into numbers and back. Protocols are "tcp", "udp" and "sctp"; anything else has no ports by name.
type Names interface {
	// IPv4 and IPv6 return the first address of a host of that family.
	IPv4(host string) (netip.Addr, bool)
	IPv6(host string) (netip.Addr, bool)
	// Host returns the name of an address, or nothing.
	Host(a netip.Addr) string
	// Port returns the port of a service, and PortName the service of a port, or nothing. Case matters.
	Port(name, proto string) (uint16, bool)
	PortName(port uint16, proto string) string
}

// SystemNames looks in /etc/hosts, /etc/services and the name servers of the system. The zero value is ready; it
// remembers what it found, so that a long list asks once for each name.
type SystemNames struct {
	resolver net.Resolver
	services string // the file of services(5); empty is /etc/services

	mu    sync.Mutex
	hosts map[netip.Addr]string        // guarded by mu
	addrs map[[2]string]netip.Addr     // by network and host; guarded by mu
	load  sync.Once                    // fills the two below
	ports map[[2]string]uint16         // by name and protocol
	names map[string]map[uint16]string // by protocol and port
}

// IPv4 implements Names.
func (s *SystemNames) IPv4(host string) (netip.Addr, bool) { return s.addr("ip4", host) }

// IPv6 implements Names.
func (s *SystemNames) IPv6(host string) (netip.Addr, bool) { return s.addr("ip6", host) }

func (s *SystemNames) addr(network, host string) (netip.Addr, bool) {
	key := [2]string{network, host}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, known := s.addrs[key]
	if !known && host != "" && len(host) < 256 {
		s.resolver.PreferGo = true
		if found, err := s.resolver.LookupNetIP(context.Background(), network, host); err == nil && len(found) > 0 {
			a = found[0].Unmap()
			if network == "ip6" {
				a = found[0].WithZone("")
			}
		}
		if s.addrs == nil {
			s.addrs = make(map[[2]string]netip.Addr)
		}
		s.addrs[key] = a
	}
	return a, a.IsValid()
}

// Host implements Names.
func (s *SystemNames) Host(a netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, known := s.hosts[a]
	if !known {
		s.resolver.PreferGo = true
		if found, err := s.resolver.LookupAddr(context.Background(), a.String()); err == nil && len(found) > 0 {
			name = strings.TrimSuffix(found[0], ".")
		}
		if s.hosts == nil {
			s.hosts = make(map[netip.Addr]string)
		}
		s.hosts[a] = name
	}
	return name
}

// Port implements Names.
func (s *SystemNames) Port(name, proto string) (uint16, bool) {
	s.load.Do(s.readServices)
	p, ok := s.ports[[2]string{name, proto}]
	return p, ok
}

// PortName implements Names.
func (s *SystemNames) PortName(port uint16, proto string) string {
	s.load.Do(s.readServices)
	return s.names[proto][port]
}

// readServices reads services(5): "name port/protocol aliases... # comment". The first entry of a name or port counts.
func (s *SystemNames) readServices() {
	s.ports = make(map[[2]string]uint16)
	s.names = make(map[string]map[uint16]string)
	f, err := os.Open(cmp.Or(s.services, "/etc/services"))
	if err != nil {
		return // without the file ports have no names
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		digits, proto, _ := strings.Cut(fields[1], "/")
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			continue
		}
		if s.names[proto] == nil {
			s.names[proto] = make(map[uint16]string)
		}
		if _, taken := s.names[proto][uint16(port)]; !taken {
			s.names[proto][uint16(port)] = fields[0]
		}
		for i, name := range fields {
			key := [2]string{name, proto}
			if _, taken := s.ports[key]; i != 1 && !taken {
				s.ports[key] = uint16(port)
			}
		}
	}
}

// lookup reads and writes addresses with names.
type lookup struct {
	names Names
}

// nameLimit is how much of a name and port ipvsadm keeps.
const nameLimit = 59

// text writes an address and port, numerically or by what names are known.
func (n *lookup) text(a netip.Addr, port uint16, proto string, numeric bool) string {
	if numeric {
		return netip.AddrPortFrom(a, port).String()
	}
	host := n.names.Host(a)
	if host == "" {
		host = a.String()
	}
	name := n.names.PortName(port, proto)
	if name == "" {
		name = strconv.Itoa(int(port))
	}
	if a.Is6() {
		host = "[" + host + "]"
	}
	s := host + ":" + name
	return s[:min(len(s), nameLimit)]
}
