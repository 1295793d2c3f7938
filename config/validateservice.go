package config

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
	"uvs/health"
	"uvs/sched"
)

// validateService finds what is wrong with a service that needs no look at the others.
func (d *decoder) validateService(c *Config, s *Service) {
	if s.FWMark != 0 {
		for _, x := range []struct {
			key     string
			pointer any
		}{{"address", &s.Address}, {"port", &s.Port}, {"protocol", &s.Protocol}} {
			if d.given(x.pointer) {
				d.fail(d.at(x.pointer), "a service has either a fwmark or %s, not both", x.key)
			}
		}
	} else {
		d.validateAddress(s)
	}
	if s.Name != "" { // several may have one, such as those of both families
		if err := api.CheckLabel(s.Name); err != nil {
			d.fail(d.at(&s.Name), "name: %v", err)
		}
	}
	d.validateScheduler(s)
	d.validatePersistence(s)
	if s.OnePacket && s.FWMark == 0 && (len(s.Protocol) == 0 || slices.ContainsFunc(s.Protocol, func(p string) bool { return p != "udp" })) {
		d.fail(d.at(&s.OnePacket), "ops is for UDP and firewall marks; the protocol here is %s", strings.Join(protocolsOf(s), ", "))
	}
	d.validateTunnel(s.Tunnel, s.Method, true)
	d.validateServers(s.Servers)
	for i := range s.ServerGroups {
		name := s.ServerGroups[i]
		if name != "" && !slices.ContainsFunc(c.ServerGroups, func(g ServerGroup) bool { return g.Name == name }) {
			var known []string
			for _, g := range c.ServerGroups {
				known = append(known, g.Name)
			}
			d.fail(d.at(&s.ServerGroups[i]), "there is no server group with the name %q%s", cut(name), didYouMean(name, known, nil))
		}
		if slices.Contains(s.ServerGroups[:i], name) {
			d.fail(d.at(&s.ServerGroups[i]), "the server group %q is there twice", cut(name))
		}
	}
	d.validateChecks(s.Checks, false)
	if s.FWMark != 0 {
		d.refuseVirtual(s.Checks)
		for i := range s.Servers {
			d.refuseVirtual(s.Servers[i].Checks)
		}
	}
	if s.Health != nil {
		if s.Health.Name != "" {
			d.fail(d.at(&s.Health.Name), "a health policy has a name only in healthPolicies; did you mean \"use\"?")
		}
		d.validateHealth(s.Health)
	}
}

// refuseVirtual refuses checks through a virtual address that there is not.
func (d *decoder) refuseVirtual(list []Check) {
	for i := range list {
		if list[i].Via == health.VIP {
			d.fail(d.at(&list[i]), "check: via: vip: a firewall mark has no virtual address")
		}
	}
}

func protocolsOf(s *Service) []string {
	if len(s.Protocol) == 0 {
		return []string{"tcp"}
	}
	return s.Protocol
}

func (d *decoder) validateAddress(s *Service) {
	at := d.at(s)
	switch {
	case d.given(&s.Family):
		d.fail(d.at(&s.Family), "family is for services of a fwmark; an address says its family itself")
	case len(s.Address) == 0 && !d.broken(at):
		d.fail(at, "a service has neither an address nor a fwmark")
	}
	if len(s.Port) == 0 && !d.broken(at) {
		d.fail(at, "a service has no port; 0 is all ports")
	}
	for i := range s.Protocol {
		if slices.Contains(s.Protocol[:i], s.Protocol[i]) {
			d.fail(d.at(&s.Protocol[i]), "the protocol %s is there twice", s.Protocol[i])
		}
	}
	for i := range s.Address {
		text, at := s.Address[i], d.at(&s.Address[i])
		if text == "" {
			continue
		}
		r, isAddress, err := ParseAddresses(text)
		switch {
		case !isAddress:
			d.hostName(at, text)
		case err != nil:
			d.fail(at, "address: %v", err)
		case !virtual(r.First) || !virtual(r.Last):
			d.fail(at, "address: %s is not one that a service can have", text)
		}
	}
}

// virtual says that an address can be a virtual service's.
func virtual(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// hostName checks what isn't an address.
func (d *decoder) hostName(at *yaml.Node, text string) {
	if a, port, ok := strings.Cut(text, ":"); ok && !strings.Contains(port, ":") || strings.HasPrefix(text, "[") {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			a, port = ap.Addr().String(), text[strings.LastIndex(text, ":")+1:]
		}
		d.fail(at, "address: %q has a port; write address: %s and port: %s", cut(text), cut(a), cut(port))
		return
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		d.fail(at, "address: %q is a network; write a range such as %v-%v", text, p.Masked().Addr(), last(p))
		return
	}
	if err := checkHostName(text); err != nil {
		d.fail(at, "address: %v", err)
	}
}

// last is the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

var schedulerFlags = []string{"sh-fallback", "sh-port", "mh-fallback", "mh-port", "flag-1", "flag-2", "flag-3"}

func (d *decoder) validateScheduler(s *Service) {
	name := s.Scheduler
	if name != "" && !sched.Known(name) {
		d.fail(d.at(&s.Scheduler), "there is no scheduler %q%s", cut(name), orThereAre(name, append(sched.Names(), sched.None), schedulersElsewhere))
		return
	}
	if name == "" {
		name = sched.Default
	}
	for i := range s.SchedulerFlags {
		if s.SchedulerFlags[i] == "" {
			continue
		}
		_, err := api.ParseSchedFlags(name, s.SchedulerFlags[i:i+1])
		if err != nil {
			hint := ""
			if !slices.Contains(schedulerFlags, s.SchedulerFlags[i]) {
				hint = didYouMean(s.SchedulerFlags[i], schedulerFlags, nil)
			}
			d.fail(d.at(&s.SchedulerFlags[i]), "%v%s", err, hint)
		}
	}
}

// orThereAre is what may have been meant, or else all there is.
func orThereAre(word string, known []string, elsewhere map[string]string) string {
	if hint := didYouMean(word, known, elsewhere); hint != "" {
		return hint
	}
	return "; there are " + strings.Join(known, ", ")
}

func (d *decoder) validatePersistence(s *Service) {
	if slices.Contains(s.Port, Port{}) && s.Persistence == nil && s.FWMark == 0 {
		d.fail(d.at(&s.Port), "port 0, all ports, is for persistent services; add persistence, or say which ports")
	}
	p := s.Persistence
	if p == nil {
		return
	}
	if p.Timeout%Duration(1e9) != 0 {
		d.fail(d.at(&p.Timeout), "timeout of persistence is in whole seconds, not %v", p.Timeout)
	}
	if p.Engine == "sip" && s.FWMark == 0 && slices.ContainsFunc(protocolsOf(s), func(x string) bool { return x != "udp" }) {
		d.fail(d.at(&p.Engine), "the persistence engine sip is for UDP; the protocol here is %s", strings.Join(protocolsOf(s), ", "))
	}
	if p.Netmask.IsZero() {
		return
	}
	if s.FWMark != 0 {
		if !p.Netmask.Fits(s.Family == "ipv6") {
			d.fail(d.at(&p.Netmask), "netmask %v is of the other address family", p.Netmask)
		}
		return
	}
	for i := range s.Address {
		if r, ok, err := ParseAddresses(s.Address[i]); ok && err == nil && !p.Netmask.Fits(r.First.Is6()) {
			d.fail(d.at(&p.Netmask), "netmask %v is of the other address family than %s", p.Netmask, s.Address[i])
			return
		}
	}
}

// validateTunnel finds what is wrong with a tunnel's settings. A service's may wait for servers that have the method tun.
func (d *decoder) validateTunnel(t *Tunnel, method string, ofService bool) {
	if t == nil {
		return
	}
	at := d.at(t)
	if method != "tun" && (!ofService || method != "") {
		d.fail(at, "tunnel is for the method tun, not for %s", method)
	}
	gue := t.Type == "gue"
	switch {
	case gue && t.Port == 0 && !d.broken(at):
		d.fail(at, "a tunnel of the type gue needs a port")
	case !gue && t.Port != 0:
		d.fail(d.at(&t.Port), "a tunnel's port is for the type gue")
	case t.Checksum == "remote" && !gue:
		d.fail(d.at(&t.Checksum), "the checksum remote is for the type gue")
	case t.Checksum == "full" && !gue && t.Type != "gre":
		d.fail(d.at(&t.Checksum), "the checksum full is for the types gue and gre")
	}
}

// validateServers finds what is wrong with real servers that needs no look at their services.
func (d *decoder) validateServers(list []Server) {
	for i := range list {
		d.validateServer(&list[i])
	}
}

func (d *decoder) validateServer(s *Server) {
	if s.Name != "" {
		if err := api.CheckLabel(s.Name); err != nil {
			d.fail(d.at(&s.Name), "name: %v", err)
		}
	}
	if s.Address != "" {
		r, isAddress, err := ParseAddresses(s.Address)
		switch at := d.at(&s.Address); {
		case !isAddress:
			d.hostName(at, s.Address)
		case err != nil:
			d.fail(at, "address: %v", err)
		case !oneHost(r.First) || !oneHost(r.Last):
			d.fail(at, "address: %s is not an address of one host", s.Address)
		}
	}
	if s.Method != "" {
		d.validateTunnel(s.Tunnel, s.Method, false)
	} else {
		d.validateTunnel(s.Tunnel, "", true)
	}
	if s.LowerThreshold > s.UpperThreshold {
		d.fail(d.at(&s.LowerThreshold), "lower %d is above upper, %d", s.LowerThreshold, s.UpperThreshold)
	}
	d.validateChecks(s.Checks, false)
}

// oneHost says that an address can be a real server's.
func oneHost(a netip.Addr) bool {
	if a.Is4() {
		return a.As4()[0] != 0 && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
