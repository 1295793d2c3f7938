package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uvs/config"
)

// place makes services of a virtual_server: one of an address and port or of a mark, or those of its group.
func (m *kaMapper) place(s *kaService) {
	d := s.at
	var targets []config.Service // with nothing but who they are for
	group := ""
	switch d.arg(0) {
	case "fwmark":
		mark, err := whole(d.arg(1), 1, 1<<32-1)
		if err != nil {
			d.all(Missing, "the mark: "+err.Error())
			return
		}
		targets = []config.Service{{FWMark: uint32(mark), Family: m.family(s)}}
		d.approx("the packets get the mark by rules under marks, which have to be written: netfilter's can't be seen here")
	case "group":
		group = d.arg(1)
		g := m.groups[group]
		if g == nil {
			d.all(Missing, "there is no virtual_server_group "+group)
			return
		}
		targets = m.members(g, s)
		d.exact("services, one for each port of the group")
	default:
		server, err := kaServer(d)
		if err != nil {
			d.all(Missing, err.Error())
			return
		}
		targets = []config.Service{{Address: []string{server.Address}, Port: config.Ports{{First: uint16(server.Port), Last: uint16(server.Port)}}}}
		d.exact("services")
	}
	if len(s.servers) == 0 {
		d.all(Missing, "keepalived ignores a virtual_server without real servers")
		return
	}
	if f := d.find("ip_family"); f != nil {
		f.exact("services.family")
	}
	if err := placeChecks(&s.service, s.servers, s.checks); err != nil {
		d.missing(err.Error())
	}
	groups, templates, before := len(m.cfg.ServerGroups), len(m.cfg.Checks), len(m.cfg.Services)
	if len(targets) > 1 {
		name := label(group, m.labels)
		m.cfg.ServerGroups = append(m.cfg.ServerGroups, config.ServerGroup{Name: name, Servers: s.servers})
		s.service.ServerGroups = []string{name}
		for i := range s.service.Checks { // said once, as are the servers
			c := s.service.Checks[i]
			c.Name = label(group+"-"+c.Kind, m.labels)
			m.cfg.Checks = append(m.cfg.Checks, c)
			s.service.Checks[i] = config.Check{Use: c.Name}
		}
	} else {
		s.service.Servers = s.servers
	}
	if says(&s.health) {
		s.service.Health = &s.health
	}
	for _, t := range targets {
		service := s.service
		service.Address, service.Port, service.FWMark, service.Family = t.Address, t.Port, t.FWMark, t.Family
		if t.Comment != "" {
			service.Comment = t.Comment
		}
		if t.FWMark != 0 {
			service.Protocol = nil
		}
		switch {
		case slices.Contains(service.Port, config.Port{}) && service.Persistence == nil:
			service.Persistence = &config.Persistence{Timeout: config.Duration(6 * time.Minute)}
			d.approx("services.persistence: 6 minutes, as keepalived has it for a service of all ports")
		case service.OnePacket && t.FWMark == 0 && (len(service.Protocol) != 1 || service.Protocol[0] != "udp"):
			service.OnePacket = false
		}
		m.fit(s, &service)
		if err := m.add(&service); err != nil {
			d.missing(err.Error())
		}
	}
	if len(m.cfg.Services) == before { // nothing of it is left
		d.all(Missing, "there is no service of it")
		m.cfg.ServerGroups, m.cfg.Checks = m.cfg.ServerGroups[:groups], m.cfg.Checks[:templates]
	}
}

// fit leaves out what has no place in a service of its family or port.
func (m *kaMapper) fit(s *kaService, v *config.Service) {
	six := v.Family == "ipv6" || len(v.Address) > 0 && strings.Contains(v.Address[0], ":")
	if p := v.Persistence; p != nil && !p.Netmask.Fits(six) {
		copied := *p
		copied.Netmask = config.Persistence{}.Netmask
		v.Persistence = &copied
		s.at.find("persistence_granularity").missing("of the other address family than the service")
	}
}

// family is that of a mark's service: what is said, or that of its servers.
func (m *kaMapper) family(s *kaService) string {
	if f := s.at.find("ip_family"); f != nil {
		if f.arg(0) == "inet6" {
			return "ipv6"
		}
		return ""
	}
	if g := s.at.find("persistence_granularity"); g != nil && !strings.Contains(g.arg(0), ".") {
		return "ipv6"
	}
	for i := range s.servers {
		if !strings.Contains(s.servers[i].Address, ":") {
			return ""
		}
	}
	if len(s.servers) > 0 {
		return "ipv6"
	}
	return ""
}

// members are the services of a virtual_server_group: its addresses by port, and its marks.
func (m *kaMapper) members(g *directive, s *kaService) (targets []config.Service) {
	g.exact("services")
	for _, e := range g.block {
		if e.name == "fwmark" {
			mark, err := whole(e.arg(0), 1, 1<<32-1)
			if err != nil {
				e.missing("the mark: " + err.Error())
				continue
			}
			family := m.family(s)
			switch e.arg(1) {
			case "inet":
				family = ""
			case "inet6":
				family = "ipv6"
			}
			targets = append(targets, config.Service{Comment: e.from(), FWMark: uint32(mark), Family: family})
			e.approx("the packets get the mark by rules under marks, which have to be written: netfilter's can't be seen here")
			continue
		}
		addresses, err := kaRange(e.name)
		p := uint16(0)
		if err == nil && e.arg(0) != "" {
			p, err = port(e.arg(0))
		}
		if err != nil {
			e.missing(err.Error())
			continue
		}
		e.exact("services.address")
		ports := config.Ports{{First: p, Last: p}}
		six := strings.Contains(addresses, ":")
		at := slices.IndexFunc(targets, func(t config.Service) bool {
			return t.FWMark == 0 && t.Port[0] == ports[0] && strings.Contains(t.Address[0], ":") == six
		})
		if at < 0 {
			targets = append(targets, config.Service{Comment: e.from(), Port: ports, Address: []string{addresses}})
			continue
		}
		targets[at].Address = append(targets[at].Address, addresses)
	}
	return targets
}

// kaRange reads an address, 192.168.200.1-10, 192.168.200.250-192.168.201.10, 192.168.202.8/29, or the same of IPv6, where
// the part behind the hyphen is hexadecimal; it returns what uvs.yaml has for it.
func kaRange(s string) (string, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		p = p.Masked()
		if p.Addr().BitLen()-p.Bits() > 16 {
			return "", fmt.Errorf("%s has more than %d addresses", s, maxAddresses)
		}
		last := p.Addr()
		for next := last.Next(); next.IsValid() && p.Contains(next); next = next.Next() {
			last = next
		}
		if last == p.Addr() {
			return last.String(), nil
		}
		return p.Addr().String() + "-" + last.String(), nil
	}
	low, high, isRange := strings.Cut(s, "-")
	if isRange {
		if i := strings.LastIndexAny(low, ".:"); i >= 0 && !strings.ContainsAny(high, ".:") {
			high = low[:i+1] + high
		}
		s = low + "-" + high
	}
	r, err := addressRange(s)
	switch {
	case err != nil:
		return "", err
	case r.First == r.Last:
		return r.First.String(), nil
	}
	return r.First.String() + "-" + r.Last.String(), nil
}
