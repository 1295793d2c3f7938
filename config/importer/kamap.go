package importer

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uvs/config"
	"uvs/health"
)

// kaMapper turns keepalived.conf's blocks into a configuration.
type kaMapper struct {
	*builder
	groups map[string]*directive // virtual_server_group by name
	track  map[string]*directive // track_file by name
	ssl    *directive            // the block SSL
}

// keepalived maps the whole of a file.
func (b *builder) keepalived(tree []*directive) {
	m := &kaMapper{builder: b, groups: map[string]*directive{}, track: map[string]*directive{}}
	for _, d := range tree {
		switch d.name {
		case "virtual_server_group":
			m.groups[d.arg(0)] = d
		case "track_file", "vrrp_track_file":
			m.track[d.arg(0)] = d
		case "SSL":
			m.ssl = d
		}
	}
	for _, d := range tree {
		switch {
		case d.name == "virtual_server":
			m.virtualServer(d)
		case d.name == "global_defs":
			m.globals(d)
		case slices.Contains(kaHA, d.name):
			d.all(Kept, "")
			m.ha = append(m.ha, d)
			if i := d.find("interface"); i != nil && d.name == "vrrp_instance" && !slices.Contains(m.links, i.arg(0)) {
				m.links = append(m.links, i.arg(0))
			}
		case slices.Contains(kaOwn, d.name):
			d.needless("about keepalived's own processes")
		case d.name == "net_namespace", d.name == "net_namespace_ipvs":
			d.missing("start uvsd in the namespace instead: ip netns exec " + d.arg(0) + " uvsd ...")
		case d.name == "include_check":
			d.needless("about how keepalived reads its files")
		}
	}
	m.leftOver(tree)
}

// Blocks and words outside of blocks that are about VRRP, and those about keepalived itself.
var (
	kaHA = []string{"vrrp_instance", "vrrp_sync_group", "vrrp_script", "vrrp_track_process", "garp_group", "static_ipaddress",
		"static_routes", "static_rules", "track_group", "linkbeat_interfaces", "interface_up_down_delays", "bfd_instance"}
	kaOwn = []string{"instance", "use_pid_dir", "linkbeat_use_polling", "child_wait_time", "namespace_with_ipsets"}
)

// leftOver grades what nothing above took up.
func (m *kaMapper) leftOver(tree []*directive) {
	for _, d := range tree {
		switch {
		case d.grade != ungraded:
		case d.name == "virtual_server_group":
			d.all(Missing, "no virtual_server has it")
		case d.name == "track_file", d.name == "vrrp_track_file":
			d.all(Kept, "")
			m.ha = append(m.ha, d)
		case d.name == "SSL":
			d.all(Needless, "no SSL_GET has it")
		default:
			d.all(Missing, "no keyword that the importer knows")
		}
	}
}

// kaService is what is common to the services that one virtual_server makes.
type kaService struct {
	at       *directive
	service  config.Service
	servers  []config.Server
	checks   [][]check
	defaults kaDefaults
	health   config.Health
	inhibits int // servers with inhibit_on_failure
	inhibit  []*directive
	ups      []*directive // their notify_up, notify_down
	downs    []*directive
	weight   *directive
	labels   map[string]bool // of its servers
}

// virtualServer maps a virtual_server.
func (m *kaMapper) virtualServer(d *directive) {
	s := &kaService{at: d, labels: map[string]bool{}}
	s.service.Comment = d.from()
	if !d.isBlock {
		d.missing("it has no block")
		return
	}
	m.scheduling(s)
	m.persistence(s)
	s.defaults = s.defaults.in(d)
	s.weight = d.find("weight")
	for _, in := range d.block {
		if in.name == "real_server" {
			m.realServer(s, in)
		}
	}
	if s.weight != nil && s.weight.grade == ungraded {
		s.weight.needless("every real_server has its own")
	}
	m.reaction(s)
	for _, in := range d.block {
		m.lessCommon(in)
	}
	if n := d.find("snmp_name"); n != nil {
		if d.arg(0) == "group" {
			n.missing("a group makes several services, and each has a name of its own")
		} else if s.service.Name = label(n.arg(0), m.labels); s.service.Name == n.arg(0) {
			n.exact("services.name")
		} else {
			n.approx("services.name: " + s.service.Name)
		}
	}
	m.place(s)
	for _, in := range d.block {
		kaUnused(in)
	}
}

// kaUnused grades what nobody used, of a virtual_server or something in it.
func kaUnused(d *directive) {
	if d.grade == ungraded {
		switch {
		case slices.Contains(kaTimes, d.name):
			d.needless("no check uses it")
		case slices.Contains(kaKnown, d.name):
			d.needless("another one below it counts")
		default:
			d.missing("no keyword that the importer knows here")
		}
	}
	for _, in := range d.block {
		kaUnused(in)
	}
}

// kaKnown are keywords of virtual_server and real_server of which one counts.
var kaKnown = []string{"lb_algo", "lvs_sched", "lb_kind", "lvs_method", "protocol", "persistence_timeout", "persistence_granularity",
	"persistence_engine", "weight", "quorum", "hysteresis", "quorum_up", "quorum_down", "sorry_server", "sorry_server_lvs_method", "ip_family",
	"uthreshold", "lthreshold", "notify_up", "notify_down", "inhibit_on_failure"}

// scheduling maps how a virtual_server schedules and forwards.
func (m *kaMapper) scheduling(s *kaService) {
	d := s.at
	protocol := "udp" // keepalived's default, being the kernel's
	p := d.find("protocol")
	switch {
	case d.arg(0) == "fwmark":
		if p != nil {
			p.needless("a mark's service has all protocols")
		}
	case p == nil:
		d.exact("services.protocol: udp, as keepalived takes a virtual_server without protocol")
	case slices.Contains([]string{"tcp", "udp", "sctp"}, strings.ToLower(p.arg(0))):
		protocol = strings.ToLower(p.arg(0))
		p.exact("services.protocol")
	default:
		p.missing("no protocol that IPVS has; keepalived goes on with UDP")
	}
	if protocol != "tcp" && d.arg(0) != "fwmark" {
		s.service.Protocol = []string{protocol}
	}
	if a := d.find("lb_algo", "lvs_sched"); a != nil {
		if knownScheduler(a.arg(0)) {
			s.service.Scheduler = a.arg(0)
			a.exact("services.scheduler")
		} else {
			a.missing("uvs has no such scheduler; wlc takes its place")
		}
	}
	var flags []*directive
	for _, f := range d.block {
		switch f.name {
		case "hashed":
			f.needless("has no effect in IPVS either")
		case "ops":
			if protocol != "udp" && d.arg(0) != "fwmark" {
				f.missing("one-packet scheduling is for UDP")
				break
			}
			s.service.OnePacket = true
			f.exact("services.ops")
		case "flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback":
			flags = append(flags, f)
		}
	}
	for _, f := range flags {
		if scheduler, _, own := strings.Cut(f.name, "-"); own && scheduler != "flag" && scheduler != s.service.Scheduler {
			f.missing("the scheduler isn't " + scheduler)
			continue
		}
		if !slices.Contains(s.service.SchedulerFlags, f.name) {
			s.service.SchedulerFlags = append(s.service.SchedulerFlags, f.name)
		}
		f.exact("services.flags")
	}
	s.service.Method = "nat" // keepalived's default
	if k := d.find("lb_kind", "lvs_method"); k != nil {
		s.service.Method, s.service.Tunnel = kaMethod(k, k.args, "services.method", s.service.Method)
	}
}

// kaMethod maps NAT, DR, or TUN with the kind of tunnel.
func kaMethod(d *directive, args []string, key, otherwise string) (method string, tunnel *config.Tunnel) {
	word := ""
	if len(args) > 0 {
		word = args[0]
	}
	switch word {
	case "NAT":
		d.exact(key)
		return "nat", nil
	case "DR":
		d.exact(key)
		return "dr", nil
	case "TUN":
	default:
		d.missing("no way of forwarding that IPVS has")
		return otherwise, nil
	}
	d.exact(key)
	t := config.Tunnel{}
	for args = args[1:]; len(args) > 0; args = args[1:] {
		switch args[0] {
		case "type":
			if len(args) > 1 {
				args = args[1:]
				switch args[0] {
				case "gue", "gre":
					t.Type = args[0]
				case "ipip":
				default:
					d.missing("no kind of tunnel that uvs has: " + args[0])
				}
			}
		case "port":
			if len(args) > 1 {
				args = args[1:]
				p, err := port(args[0])
				if err != nil {
					d.missing(err.Error())
				}
				t.Port = int(p)
			}
		case "nocsum":
		case "csum":
			t.Checksum = "full"
		case "remcsum":
			t.Checksum = "remote"
		default:
			d.missing("not understood: " + args[0])
		}
	}
	if t.Type == "" {
		if t != (config.Tunnel{}) {
			d.missing("port and checksum are for GUE and GRE")
		}
		return "tun", nil
	}
	switch {
	case t.Type == "gue" && t.Port == 0:
		d.missing("GUE wants a port")
		return "tun", nil
	case t.Type == "gre" && t.Port != 0:
		t.Port = 0
		d.missing("GRE has no port")
	case t.Type == "gre" && t.Checksum == "remote":
		t.Checksum = ""
		d.missing("GRE has no remote checksum")
	}
	return "tun", &t
}

// persistence maps persistence_timeout, persistence_granularity and persistence_engine.
func (m *kaMapper) persistence(s *kaService) {
	timeout, mask, engine := s.at.find("persistence_timeout"), s.at.find("persistence_granularity"), s.at.find("persistence_engine")
	if timeout == nil && mask == nil {
		if engine != nil {
			engine.missing("without persistence_timeout")
		}
		return
	}
	p := &config.Persistence{Timeout: config.Duration(6 * time.Minute)}
	if timeout != nil {
		switch n, err := whole(timeout.arg(0), 0, 1<<32-1); {
		case len(timeout.args) == 0:
			timeout.exact("services.persistence")
		case err != nil:
			timeout.missing(err.Error())
		case n == 0 && mask == nil:
			timeout.needless("asks for no persistence")
			return
		case n > 0:
			cut := false
			if p.Timeout, cut = clamp(time.Duration(n)*time.Second, time.Second, maxPersistence); cut {
				timeout.approx("services.persistence: uvs keeps no client longer than 31 days")
			} else {
				timeout.exact("services.persistence")
			}
		}
	}
	if mask != nil {
		if text := mask.arg(0); text != "" && p.Netmask.UnmarshalText([]byte(text)) == nil {
			mask.exact("services.persistence.netmask")
		} else {
			mask.missing("neither a netmask nor a prefix length")
		}
	}
	if engine != nil {
		if engine.arg(0) == "sip" && s.at.arg(0) != "fwmark" && !slices.Contains(s.service.Protocol, "udp") {
			engine.missing("the engine sip is for UDP")
		} else if engine.arg(0) == "sip" {
			p.Engine = "sip"
			engine.exact("services.persistence.engine")
		} else {
			engine.missing("uvs has the engine sip alone")
		}
	}
	s.service.Persistence = p
}

// reaction maps what follows from the servers' health.
func (m *kaMapper) reaction(s *kaService) {
	d, h := s.at, &s.health
	if all := d.find("inhibit_on_failure"); all != nil && kaTrue(all) {
		h.Reaction = "quiesce"
		all.exact("services.health.reaction: quiesce")
	}
	for _, one := range s.inhibit {
		switch {
		case h.Reaction == "quiesce" && s.inhibits < len(s.servers) && d.find("inhibit_on_failure") == nil, s.inhibits < len(s.servers) && h.Reaction == "":
			h.Reaction = "quiesce"
			one.approx("services.health.reaction: quiesce, for all servers of the service")
		default:
			h.Reaction = "quiesce"
			one.exact("services.health.reaction: quiesce")
		}
	}
	number := func(name, key string, low int64, to *int64) {
		if n := d.find(name); n != nil {
			v, err := whole(n.arg(0), low, maxWeight)
			if err != nil {
				n.missing(err.Error())
				return
			}
			*to = int64(v)
			n.exact(key)
		}
	}
	number("quorum", "services.health.quorum", 1, &h.Quorum)
	number("hysteresis", "services.health.hysteresis", 0, &h.Hysteresis)
	m.fitQuorum(s)
	kaProgram(d.find("quorum_up"), "services.health.quorumup", &h.QuorumUp)
	kaProgram(d.find("quorum_down"), "services.health.quorumdown", &h.QuorumDown)
	kaSamePrograms(s.ups, len(s.servers), "services.health.notifyup", &h.NotifyUp)
	kaSamePrograms(s.downs, len(s.servers), "services.health.notifydown", &h.NotifyDown)
	m.sorryServer(s)
}

// fitQuorum corrects what keepalived corrects: a quorum that the servers can't reach, a hysteresis that isn't below it.
func (m *kaMapper) fitQuorum(s *kaService) {
	h, all := &s.health, int64(0)
	for i := range s.servers {
		all += int64(weightOf(&s.servers[i]))
	}
	if h.Quorum > max(all, 1) {
		h.Quorum = max(all, 1)
		s.at.find("quorum").approx(fmt.Sprintf("services.health.quorum: %d, the sum of all weights, as keepalived corrects it", h.Quorum))
	}
	if h.Hysteresis > 0 && h.Hysteresis >= max(h.Quorum, 1) {
		h.Hysteresis = max(h.Quorum, 1) - 1
		s.at.find("hysteresis").approx(fmt.Sprintf("services.health.hysteresis: %d, less than quorum, as keepalived corrects it", h.Hysteresis))
	}
	if h.Quorum <= 1 {
		h.Quorum = 0 // the default
	}
}

// weightOf is a server's weight.
func weightOf(s *config.Server) int {
	if s.Weight == nil {
		return 1
	}
	return *s.Weight
}

// kaProgram maps a script: its path with arguments in quotes, perhaps a user and a group.
func kaProgram(d *directive, key string, to *health.Command) {
	if d == nil {
		return
	}
	if d.arg(0) == "" {
		d.missing("no program is named")
		return
	}
	words := literal(escaped(d.arg(0))...)
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		d.missing("the program's name must begin with /")
		return
	}
	*to = words
	if len(d.args) > 1 {
		d.approx(key + ": runs as uvsd's user, not as " + d.rest(1))
		return
	}
	d.exact(key)
}

// kaSamePrograms maps the scripts of servers, which uvs has for a service: where all servers have the same.
func kaSamePrograms(list []*directive, servers int, key string, to *health.Command) {
	for _, d := range list {
		if len(list) != servers || !slices.Equal(d.args, list[0].args) {
			d.missing("uvs has one program for all servers of a service, " + key + ", with %h and %p for the server")
			continue
		}
		kaProgram(d, key, to)
	}
}

// sorryServer maps sorry_server.
func (m *kaMapper) sorryServer(s *kaService) {
	d := s.at.find("sorry_server")
	inhibit, method := s.at.find("sorry_server_inhibit"), s.at.find("sorry_server_lvs_method")
	if d == nil {
		for _, x := range []*directive{inhibit, method} {
			if x != nil {
				x.missing("there is no sorry_server")
			}
		}
		return
	}
	server, err := kaServer(d)
	if err != nil {
		d.missing(err.Error())
		return
	}
	how, tunnel := s.service.Method, s.service.Tunnel
	if method != nil {
		how, tunnel = kaMethod(method, method.args, "services.health.sorrymethod", how)
	}
	d.exact("services.health.sorry")
	if tunnel != nil {
		if method == nil {
			method = d
		}
		method.approx("services.health.sorrymethod: by an IP-in-IP tunnel")
	}
	setSorry(&s.health, server.Address, server.Port, how)
	if inhibit != nil {
		inhibit.approx("services.health.sorry: uvs takes it away when the service is up again")
	}
}

// kaServer reads "address [port]".
func kaServer(d *directive) (s config.Server, err error) {
	r, err := addressRange(d.arg(0))
	if err != nil || r.First != r.Last {
		return s, fmt.Errorf("%s is no address", d.arg(0))
	}
	s.Address = r.First.String()
	if d.arg(1) != "" {
		p, err := port(d.arg(1))
		if err != nil {
			return s, err
		}
		s.Port = int(p)
	}
	return s, nil
}

// lessCommon grades what has no counterpart in a virtual_server or real_server.
func (m *kaMapper) lessCommon(d *directive) {
	switch d.name {
	case "smtp_alert":
		kaNoMail(d)
	case "ha_suspend":
		d.missing("uvs checks servers whether or not the director is the master")
	case "omega":
		d.missing("uvsd runs no notify programs when it ends")
	}
}

// kaNoMail grades an alert by mail.
func kaNoMail(d *directive) {
	if kaTrue(d) {
		d.missing("uvs sends no mail; a program in services.health.notifydown can")
	} else {
		d.needless("uvs sends no mail")
	}
}

// kaTrue reads a flag, which stands alone or with a word.
func kaTrue(d *directive) bool {
	switch strings.ToLower(d.arg(0)) {
	case "off", "false", "no":
		return false
	}
	return true
}
