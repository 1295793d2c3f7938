package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"uvs/config"
)

// ldReal is how ldirectord takes a real server's line apart.
var (
	ldReal       = regexp.MustCompile(`^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+?)(?:->(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+))?(?::+([A-Za-z0-9_-]+))?\s+(gate|masq|ipip)\b(.*)$`)
	ldWeight     = regexp.MustCompile(`^\s+(\d+)(.*)$`)
	ldExchange   = regexp.MustCompile(`^\s+"(.*)"[, ]\s*"(.*)"(.*)$`)
	ldThresholds = regexp.MustCompile(`^\s+([lu]):(\d+)(.*)$`)
)

// real maps a real server, or a range of them.
func (m *ldMapper) real(s *ldService, d *directive) {
	if (d.name == "real6") != s.six {
		d.missing("of the other address family than the service")
		return
	}
	parts := ldReal.FindStringSubmatch(d.raw)
	if parts == nil {
		d.missing("address[->address][:port] gate|masq|ipip is wanted")
		return
	}
	server := config.Server{Method: ldMethods[parts[4]]}
	if err := m.realAddress(s, d, parts[1], parts[2], &server); err != nil {
		d.missing(err.Error())
		return
	}
	own := 0 // the port that checks ask
	if parts[3] != "" {
		p, err := m.port(parts[3], "tcp")
		if err != nil {
			d.missing(err.Error())
			return
		}
		own = int(p)
	}
	if server.Method == "nat" && own != s.port {
		server.Port = own
	}
	if server.Method != "nat" && s.service.FWMark == 0 {
		own = s.port // nothing on the way could change it
	}
	request, receive, rest, err := ldOptions(parts[5], &server)
	if err != nil {
		d.missing(err.Error())
		return
	}
	if rest != "" {
		d.missing("not understood: " + rest)
	}
	for i := range s.servers {
		if s.servers[i].Address == server.Address && s.servers[i].Port == server.Port {
			d.missing("there is already a real server of this address and port")
			return
		}
	}
	if s.service.Method == "" {
		s.service.Method = server.Method
	}
	if server.Method == s.service.Method {
		server.Method = ""
	}
	if t := s.at.find("checktype"); t != nil && t.arg(0) == "off" {
		zero := 0
		server.Weight = &zero
	}
	d.exact("services.servers")
	c := &ldCheck{ldMapper: m, s: s, real: d, server: &server, port: own, request: request, receive: receive}
	s.servers = append(s.servers, server)
	s.checks = append(s.checks, c.all())
}

// realAddress reads the address, or the first and the last.
func (m *ldMapper) realAddress(s *ldService, d *directive, low, high string, server *config.Server) error {
	first, _, err := m.split(low, s.six)
	if err != nil || high == "" {
		server.Address = first
		return err
	}
	last, _, err := m.split(high, s.six)
	if err != nil {
		return err
	}
	if s.six {
		return fmt.Errorf("ranges are for IPv4")
	}
	for _, end := range []*string{&first, &last} {
		if _, err := addressRange(*end); err == nil {
			continue
		}
		a, ok := m.names.IPv4(*end)
		if !ok {
			return fmt.Errorf("a range needs addresses, and %s has none", *end)
		}
		d.approx("services.servers: the range of the addresses that the names have now")
		*end = a.String()
	}
	r, err := addressRange(first + "-" + last)
	if err != nil {
		return err
	}
	server.Address = first
	if r.First != r.Last {
		server.Address = first + "-" + last
	}
	return nil
}

// ldOptions reads what follows the method: weight, request and receive, thresholds.
func ldOptions(s string, server *config.Server) (request, receive *string, rest string, err error) {
	if p := ldWeight.FindStringSubmatch(s); p != nil {
		n, err := whole(p[1], 0, maxWeight)
		if err != nil {
			return nil, nil, "", err
		}
		if n != 1 {
			server.Weight = &n
		}
		s = p[2]
	}
	if p := ldExchange.FindStringSubmatch(s); p != nil {
		request, receive, s = &p[1], &p[2], p[3]
	}
	for {
		p := ldThresholds.FindStringSubmatch(s)
		if p == nil {
			break
		}
		n, err := whole(p[2], 0, 1<<31-1)
		if err != nil {
			return nil, nil, "", err
		}
		if s = p[3]; p[1] == "l" {
			server.LowerThreshold = uint32(n)
		} else {
			server.UpperThreshold = uint32(n)
		}
	}
	if server.LowerThreshold > server.UpperThreshold {
		return nil, nil, "", fmt.Errorf("the lower threshold %d is above the upper one %d", server.LowerThreshold, server.UpperThreshold)
	}
	return request, receive, strings.TrimSpace(s), nil
}

// ldPorts are the kinds of service that ldirectord knows by their ports.
var ldPorts = map[int]string{21: "ftp", 25: "smtp", 53: "dns", 80: "http", 110: "pop", 119: "nntp", 143: "imap", 389: "ldap", 443: "https",
	587: "submission", 636: "ldaps", 993: "imaps", 995: "pops", 1521: "oracle", 1812: "radius", 3128: "http_proxy", 3306: "mysql", 5060: "sip", 5432: "pgsql"}

// kindOfService maps service, or what the port says.
func (m *ldMapper) kindOfService(s *ldService) {
	s.kind = "none"
	if s.service.FWMark == 0 {
		if k, known := ldPorts[s.port]; known {
			s.kind = k
		}
	}
	d := s.at.find("service")
	if d == nil {
		return
	}
	if _, known := ldKinds[d.arg(0)]; !known {
		d.missing("no kind of service that ldirectord has")
		return
	}
	s.kind = d.arg(0)
}

// ldUses are the directives that the check of a kind of service uses.
var ldUses = []string{"request", "receive", "httpmethod", "virtualhost", "login", "passwd", "database", "secret"}

// uses grades the directives of a service that a check used.
func (s *ldService) uses(key map[string]string) {
	for name, k := range key {
		if d := s.at.find(name); d != nil && slices.Contains(ldUses, name) {
			d.exact("checks." + k)
		}
	}
}
