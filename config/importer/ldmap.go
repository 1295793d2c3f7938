package importer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uvs/config"
)

// ldMapper turns ldirectord.cf's lines into a configuration. The rules are those of ldirectord(8).
type ldMapper struct {
	*builder
	global *directive // the lines outside of virtual services, as a block
}

// Directives of ldirectord.cf outside of virtual services and in them.
var (
	ldGlobals = []string{"checktimeout", "negotiatetimeout", "checkinterval", "checkcount", "failurecount", "autoreload", "callback", "fallback", "fallback6",
		"fallbackcommand", "logfile", "emailalert", "emailalertfrom", "emailalertfreq", "emailalertstatus", "smtp", "execute", "supervised", "fork", "quiescent",
		"readdquiescent", "cleanstop", "maintenancedir"}
	ldVirtuals = []string{"real", "real6", "checktype", "service", "checkcommand", "checkport", "request", "receive", "httpmethod", "virtualhost", "login",
		"passwd", "database", "secret", "load", "scheduler", "schedflags", "persistent", "netmask", "protocol", "monitorfile", "ops", "servicename", "comment",
		"checktimeout", "negotiatetimeout", "checkinterval", "checkcount", "failurecount", "fallback", "fallback6", "fallbackcommand", "quiescent", "emailalert",
		"emailalertfreq", "emailalertstatus", "cleanstop", "smtp"}
)

// ldirectord maps the whole of a file.
func (b *builder) ldirectord(tree []*directive) {
	m := &ldMapper{builder: b, global: &directive{block: tree}}
	for _, d := range tree {
		if d.name == "virtual" || d.name == "virtual6" {
			m.virtual(d)
		}
	}
	for _, d := range tree {
		if d.grade == ungraded && !d.isBlock {
			m.setting(d)
		}
	}
}

// setting grades a global line that no service took up, or that is about ldirectord itself.
func (m *ldMapper) setting(d *directive) {
	switch d.name {
	case "autoreload":
		m.cfg.Watch = d.arg(0) == "yes"
		d.exact("watch")
	case "supervised", "fork":
		d.needless("about ldirectord's own processes")
	case "logfile":
		d.needless("uvsd writes to standard error, for journald or whoever starts it")
	case "callback":
		d.missing("uvs runs nothing when its file changes")
	case "execute":
		d.missing("import the file " + d.arg(0) + " by itself and put both together")
	case "maintenancedir":
		d.missing("uvsadm drain takes servers out for maintenance")
	case "readdquiescent":
		if d.arg(0) == "no" {
			d.missing("uvs gives a server that is there the weight 0, and doesn't look whether somebody removed it")
		} else {
			d.needless("servers stay in uvs's table anyway")
		}
	default:
		m.alike(d)
		if d.grade == ungraded && slices.Contains(ldGlobals, d.name) {
			d.needless("no virtual service uses it, or each has its own")
		}
		if d.grade == ungraded {
			d.missing("no keyword of ldirectord's")
		}
	}
}

// alike grades what is the same for all and for one virtual service.
func (m *ldMapper) alike(d *directive) {
	switch d.name {
	case "emailalert", "emailalertfrom", "emailalertfreq", "emailalertstatus", "smtp":
		d.missing("uvs sends no mail; a program in services.health.notifydown can")
	case "cleanstop":
		if d.arg(0) == "no" {
			d.missing("uvsd takes its services with it when it ends")
		} else {
			d.needless("uvsd takes its services with it when it ends")
		}
	case "monitorfile":
		d.missing("uvsadm health has the history of checks, the log their changes")
	case "load":
		d.missing("ldirectord does nothing with it either")
	}
}

// either is the directive that counts for a virtual service: its own or the one for all.
func (m *ldMapper) either(v *directive, names ...string) *directive {
	if own := v.find(names...); own != nil {
		return own
	}
	return m.global.find(names...)
}

// ldService is a virtual service while it is mapped.
type ldService struct {
	at      *directive
	six     bool
	service config.Service
	address string // as scripts are given it
	port    int
	kind    string // of service that checks ask
	servers []config.Server
	checks  [][]check
}

// virtual maps a virtual service.
func (m *ldMapper) virtual(d *directive) {
	s := &ldService{at: d, six: d.name == "virtual6"}
	s.service.Comment = d.from()
	if err := m.target(s); err != nil {
		d.all(Missing, err.Error())
		return
	}
	d.exact("services")
	m.scheduling(s)
	m.kindOfService(s)
	for _, in := range d.block {
		if in.name == "real" || in.name == "real6" {
			m.real(s, in)
		}
	}
	m.reaction(s)
	if err := placeChecks(&s.service, s.servers, s.checks); err != nil {
		d.missing(err.Error())
	}
	s.service.Servers = s.servers
	m.addService(s)
	for _, in := range d.block {
		m.alike(in)
		if in.grade == ungraded && slices.Contains(ldVirtuals, in.name) {
			in.needless("the check that is made doesn't use it, or a later one counts")
		}
		if in.grade == ungraded {
			in.missing("no keyword of ldirectord's")
		}
	}
}

// addService adds the service if it is one that can be.
func (m *ldMapper) addService(s *ldService) {
	if err := m.add(&s.service); err != nil {
		s.at.all(Missing, err.Error())
	}
}

// target reads who the service is for: address:port, host:port, [address]:port or a mark.
func (m *ldMapper) target(s *ldService) error {
	text, _, _ := strings.Cut(s.at.arg(0), " ")
	proto := s.at.find("protocol")
	if text != "" && strings.Trim(text, "0123456789") == "" {
		mark, err := whole(text, 1, 1<<32-1)
		if err != nil {
			return err
		}
		s.service.FWMark, s.address = uint32(mark), text
		if s.six {
			s.service.Family = "ipv6"
		}
		if proto != nil && proto.arg(0) == "fwm" {
			proto.exact("services.fwmark")
		} else if proto != nil {
			proto.missing("the service of a mark has fwm")
		}
		s.at.approx("the packets get the mark by rules under marks, which have to be written: netfilter's can't be seen here")
		return nil
	}
	address, portText, err := m.split(text, s.six)
	if err != nil {
		return err
	}
	if portText == "" {
		return errors.New("an address and a port is wanted, or a mark")
	}
	protocol := "tcp"
	if portText == "53" || portText == "domain" {
		protocol = "udp"
	}
	if proto != nil {
		switch proto.arg(0) {
		case "tcp", "udp":
			protocol = proto.arg(0)
			proto.exact("services.protocol")
		default:
			proto.missing("tcp or udp is wanted")
		}
	}
	p, err := m.port(portText, protocol)
	if err != nil {
		return err
	}
	s.address, s.port = address, int(p)
	s.service.Address, s.service.Port = []string{address}, config.Ports{{First: p, Last: p}}
	if protocol != "tcp" {
		s.service.Protocol = []string{protocol}
	}
	return nil
}

// split takes address:port apart. IPv6 stands in brackets. Without a port it is empty.
func (m *ldMapper) split(s string, six bool) (address, port string, err error) {
	if inside, is := strings.CutPrefix(s, "["); is {
		address, port, is = strings.Cut(inside, "]")
		if !is {
			return "", "", fmt.Errorf("%s: a ] is missing", s)
		}
		port = strings.TrimPrefix(port, ":")
	} else {
		address, port, _ = strings.Cut(s, ":")
		port = strings.TrimPrefix(port, ":") // ldirectord's own example has two colons
	}
	if err := host(address); err != nil {
		return "", "", err
	}
	if r, err := addressRange(address); err == nil {
		if r.First != r.Last {
			return "", "", fmt.Errorf("%s is no address", address)
		}
		if r.First.Is6() != six {
			return "", "", fmt.Errorf("%s is of the other address family", address)
		}
		address = r.First.String()
	}
	return address, port, nil
}

// port reads a port's number or name.
func (b *builder) port(s, proto string) (uint16, error) {
	if p, err := port(s); err == nil {
		return p, nil
	}
	if p, ok := b.names.Port(s, proto); ok {
		return p, nil
	}
	return 0, fmt.Errorf("%q is no port", s)
}

// scheduling maps how a service schedules.
func (m *ldMapper) scheduling(s *ldService) {
	v := &s.service
	v.Scheduler = "wrr" // ldirectord's default
	if d := s.at.find("scheduler"); d != nil {
		if knownScheduler(d.arg(0)) {
			v.Scheduler = d.arg(0)
			d.exact("services.scheduler")
		} else {
			d.missing("uvs has no such scheduler; wrr takes its place")
		}
	}
	if d := s.at.find("schedflags"); d != nil {
		d.exact("services.flags")
		for f := range strings.SplitSeq(d.arg(0), ",") {
			if !schedulerFlag(v.Scheduler, f) {
				d.missing("no flag of the scheduler: " + f)
				continue
			}
			v.SchedulerFlags = append(v.SchedulerFlags, f)
		}
	}
	if d := s.at.find("ops"); d != nil {
		switch {
		case d.arg(0) != "yes":
			d.exact("services.ops")
		case v.FWMark == 0 && !slices.Contains(v.Protocol, "udp"):
			d.missing("one-packet scheduling is for UDP")
		default:
			v.OnePacket = true
			d.exact("services.ops")
		}
	}
	mask := s.at.find("netmask")
	if d := s.at.find("persistent"); d != nil {
		switch n, err := whole(d.arg(0), 1, 1<<31-1); {
		case d.arg(0) == "0":
			d.needless("asks for no persistence")
		case err != nil:
			d.missing(err.Error())
		default:
			v.Persistence = &config.Persistence{}
			cut := false
			if v.Persistence.Timeout, cut = clamp(time.Duration(n)*time.Second, time.Second, maxPersistence); cut {
				d.approx("services.persistence: uvs keeps no client longer than 31 days")
			} else {
				d.exact("services.persistence")
			}
		}
	}
	if mask != nil {
		switch {
		case v.Persistence == nil:
			mask.needless("the service isn't persistent")
		case mask.arg(0) == "", v.Persistence.Netmask.UnmarshalText([]byte(mask.arg(0))) != nil, !v.Persistence.Netmask.Fits(s.six):
			v.Persistence.Netmask = config.Persistence{}.Netmask
			mask.missing("neither a netmask of IPv4's nor a prefix length of IPv6's, as the service needs")
		default:
			mask.exact("services.persistence.netmask")
		}
	}
	if d := s.at.find("servicename"); d != nil && d.arg(0) != "" {
		v.Name = label(d.arg(0), m.labels)
		if v.Name == d.arg(0) {
			d.exact("services.name")
		} else {
			d.approx("services.name: " + v.Name)
		}
	}
	if d := s.at.find("comment"); d != nil {
		v.Comment += "\n" + plain(d.arg(0))
		d.exact("the comment above the service")
	}
}

// reaction maps what follows from the servers' health.
func (m *ldMapper) reaction(s *ldService) {
	h := &config.Health{}
	h.Reaction = "quiesce" // ldirectord's default
	if d := m.either(s.at, "quiescent"); d != nil {
		switch d.arg(0) {
		case "no":
			h.Reaction = ""
			d.exact("services.health.reaction: remove")
		case "yes":
			d.exact("services.health.reaction: quiesce")
		default:
			d.missing("yes or no is wanted")
		}
	}
	name := "fallback"
	if s.six {
		name = "fallback6"
	}
	if d := m.either(s.at, name); d != nil && s.kind != "off" {
		m.fallback(s, d, h)
	}
	if d := m.either(s.at, "fallbackcommand"); d != nil {
		words := strings.Fields(d.arg(0))
		if len(words) == 0 || !filepath.IsAbs(words[0]) {
			d.missing("the program's name must begin with /")
		} else {
			proto := "fwm"
			if s.service.FWMark == 0 {
				proto = protocols(&s.service)[0]
			}
			words = literal(words...)
			tail := []string{fmt.Sprintf("%s:%d", bracketed(s.address), s.port), proto}
			h.QuorumDown = slices.Concat(words, []string{"start"}, tail)
			h.QuorumUp = slices.Concat(words, []string{"stop"}, tail)
			d.approx("services.health.quorumdown and quorumup, with the same arguments, without a shell")
		}
	}
	if says(h) {
		s.service.Health = h
	}
}

// fallback maps "address[:port] [gate|masq|ipip]".
func (m *ldMapper) fallback(s *ldService, d *directive, h *config.Health) {
	words := strings.Fields(d.arg(0))
	if len(words) == 0 {
		d.missing("it names no server")
		return
	}
	address, portText, err := m.split(words[0], s.six)
	if err != nil {
		d.missing(err.Error())
		return
	}
	d.exact("services.health.sorry")
	if _, err := addressRange(address); err != nil {
		a, ok := m.names.IPv4(address)
		if s.six {
			a, ok = m.names.IPv6(address)
		}
		if !ok {
			d.missing("the sorry server needs an address, and the name has none")
			return
		}
		address = a.String()
		d.approx("services.health.sorry: the address that the name has now")
	}
	method := "dr"
	if len(words) > 1 {
		var known bool
		if method, known = ldMethods[words[1]]; !known {
			method = "dr"
			d.missing("gate, masq or ipip is wanted")
		}
	}
	own := 0
	if portText != "" {
		p, err := m.port(portText, "tcp")
		if err != nil {
			d.missing(err.Error())
			return
		}
		if own = int(p); own == s.port {
			own = 0
		}
		if own != 0 && method != "nat" && s.service.FWMark == 0 {
			d.approx("services.health.sorry: at the service's own port, as IPVS does it")
		}
	}
	setSorry(h, address, own, method)
}

var ldMethods = map[string]string{"gate": "dr", "masq": "nat", "ipip": "tun"}

// bracketed is an address as it stands before a port.
func bracketed(s string) string {
	if strings.Contains(s, ":") {
		return "[" + s + "]"
	}
	return s
}

// schedulerFlag reports whether a scheduler has a flag.
func schedulerFlag(scheduler, flag string) bool {
	own, _, _ := strings.Cut(flag, "-")
	return slices.Contains([]string{"flag-1", "flag-2", "flag-3"}, flag) ||
		(own == "sh" || own == "mh") && own == scheduler && slices.Contains([]string{"sh-port", "sh-fallback", "mh-port", "mh-fallback"}, flag)
}
