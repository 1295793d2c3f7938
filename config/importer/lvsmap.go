package importer

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uvs/config"
)

// lvsMapper turns lvs.cf's lines into a configuration, as lvs.cf(5) and nanny(8) describe them.
type lvsMapper struct {
	*builder
	global *directive // the lines outside of blocks, as a block
	method string
}

// Keywords of lvs.cf outside of blocks, and in the block of a virtual service.
var (
	lvsGlobals = []string{"serial_no", "primary", "primary_private", "primary_shared", "backup", "backup_private", "backup_shared", "backup_active",
		"heartbeat", "heartbeat_port", "keepalive", "deadtime", "network", "nat_router", "nat_nmask", "reservation_conflict_action", "debug_level",
		"monitor_links", "syncdaemon", "syncd_iface", "syncd_id", "tcp_timeout", "tcpfin_timeout", "udp_timeout", "hard_shutdown", "rsh_command", "sync",
		"ipvsadm", "active_cmd", "inactive_cmd"}
	lvsVirtuals = []string{"active", "address", "vip_nmask", "port", "protocol", "fwmark", "persistent", "pmask", "send", "expect", "use_regex",
		"send_program", "expect_program", "load_monitor", "scheduler", "timeout", "reentry", "quiesce_server", "sorry_server", "client_monitor"}
	lvsHA = []string{"primary", "primary_private", "primary_shared", "backup", "backup_private", "backup_shared", "backup_active", "heartbeat",
		"heartbeat_port", "keepalive", "deadtime", "reservation_conflict_action", "monitor_links", "active_cmd", "inactive_cmd", "sync", "rsh_command"}
)

// piranha maps the whole of a file.
func (b *builder) piranha(tree []*directive) {
	m := &lvsMapper{builder: b, global: &directive{block: tree}, method: "nat"}
	if d := m.global.find("network"); d != nil {
		switch d.arg(0) {
		case "nat":
			d.exact("services.method")
		case "direct":
			m.method = "dr"
			d.exact("services.method")
		case "tunnel":
			m.method = "tun"
			d.exact("services.method")
		default:
			d.missing("nat, direct or tunnel is wanted; nat takes its place")
		}
	}
	for _, d := range tree {
		switch {
		case d.name == "virtual" && d.isBlock:
			m.virtual(d)
		case d.name == "failover" && d.isBlock, slices.Contains(lvsHA, d.name):
			d.all(Kept, "")
			m.ha = append(m.ha, d)
		default:
			m.setting(d)
		}
	}
	if d := m.global.find("service"); d != nil && d.arg(0) == "fos" {
		d.missing("failover services were running, and they are kept as comments alone")
	}
}

// setting maps a line outside of blocks.
func (m *lvsMapper) setting(d *directive) {
	switch d.name {
	case "network":
		d.needless("a later one counts")
	case "service":
		d.needless("uvs has virtual services alone")
	case "serial_no":
		d.needless("the number of this version of the file")
	case "nat_router":
		m.natRouter(d)
	case "nat_nmask":
		if m.global.find("nat_router") == nil {
			d.needless("there is no nat_router")
		} else {
			d.exact("interfaces.gateways")
		}
	case "debug_level":
		d.needless("about Piranha's own log; log.level is uvsd's")
	case "hard_shutdown", "ipvsadm":
		d.needless("about Piranha's own processes")
	case "tcp_timeout":
		m.timeout(d, d.arg(0), &m.cfg.Timeouts.TCP)
	case "tcpfin_timeout":
		m.timeout(d, d.arg(0), &m.cfg.Timeouts.TCPFin)
	case "udp_timeout":
		m.timeout(d, d.arg(0), &m.cfg.Timeouts.UDP)
	case "syncdaemon":
		m.syncDaemon(d)
	case "syncd_iface", "syncd_id":
		if s := m.global.find("syncdaemon"); s != nil && s.arg(0) == "1" {
			d.exact("sync")
		} else {
			d.needless("the sync daemon is off")
		}
	default:
		d.all(Missing, "no keyword of lvs.cf's")
	}
}

// natRouter maps the address that real servers have as their gateway: "address device:alias".
func (m *lvsMapper) natRouter(d *directive) {
	a, err := netip.ParseAddr(d.arg(0))
	if err != nil || d.arg(1) == "" {
		d.missing("an address and a device are wanted")
		return
	}
	bits := 24
	if mask := m.global.find("nat_nmask"); mask != nil {
		n, ok := prefixLength(mask.arg(0))
		if !ok {
			mask.missing("no netmask; 255.255.255.0 takes its place")
		} else {
			bits = n
		}
	} else {
		d.approx("interfaces.gateways: with the netmask 255.255.255.0, as none is named")
	}
	gateway := fmt.Sprintf("%v/%d", a, min(bits, a.BitLen()))
	if err := m.connect(device(d.arg(1)), gateway); err != nil {
		d.missing(err.Error())
		return
	}
	d.exact("interfaces.gateways")
}

// device is an interface's name without its alias: eth0 of eth0:1.
func device(s string) string {
	name, _, _ := strings.Cut(s, ":")
	return name
}

// prefixLength is that of a netmask of IPv4.
func prefixLength(s string) (bits int, ok bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, false
	}
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	for v&(1<<31) != 0 {
		v <<= 1
		bits++
	}
	return bits, v == 0
}

// syncDaemon maps syncdaemon, syncd_iface and syncd_id.
func (m *lvsMapper) syncDaemon(d *directive) {
	if d.arg(0) != "1" {
		d.exact("sync")
		return
	}
	s := config.SyncDaemon{Interface: "eth0"} // Piranha's default
	if i := m.global.find("syncd_iface"); i != nil && i.arg(0) != "" {
		s.Interface = i.arg(0)
	}
	if i := m.global.find("syncd_id"); i != nil {
		n, err := whole(i.arg(0), 0, 255)
		if err != nil {
			i.missing(err.Error())
		}
		s.SyncID = n
	}
	if len(m.cfg.SyncDaemons) == 0 {
		if err := m.syncPair(s); err != nil {
			d.missing(err.Error())
			return
		}
	}
	d.approx("sync: master and backup, whoever is active; this version of uvs keeps them and synchronises no connections")
}

// virtual maps a virtual service.
func (m *lvsMapper) virtual(d *directive) {
	v := config.Service{Comment: d.from(), Method: m.method, Name: label(d.arg(0), m.labels)}
	if v.Name == d.arg(0) {
		d.exact("services.name")
	} else {
		d.approx("services.name: " + v.Name)
	}
	if err := m.target(d, &v); err != nil {
		d.missing(err.Error())
		for _, in := range d.block {
			in.all(Missing, "the service has no address")
		}
		return
	}
	m.scheduling(d, &v)
	var servers []config.Server
	var checks [][]check
	labels := map[string]bool{}
	for _, in := range d.block {
		if in.name == "server" && in.isBlock {
			if s, k, ok := m.server(d, in, &v, labels); ok {
				servers, checks = append(servers, s), append(checks, k)
			}
		}
	}
	if err := placeChecks(&v, servers, checks); err != nil {
		d.missing(err.Error())
	}
	v.Servers = servers
	m.reaction(d, &v)
	for _, in := range d.block {
		switch {
		case in.name == "vip_nmask":
			in.needless("uvs's virtual addresses have none")
		case in.name == "client_monitor":
			in.needless("uvs checks by itself")
		case in.name == "load_monitor":
			if l := in.arg(0); l == "none" || l == "" {
				in.exact("weights stay as they are")
			} else {
				in.missing("uvs-agent on the real servers, and an agent check, take the place of " + l)
			}
		case in.grade == ungraded && slices.Contains(lvsVirtuals, in.name):
			in.needless("the check that is made doesn't use it, or a later one counts")
		case in.grade == ungraded:
			in.all(Missing, "no keyword of lvs.cf's")
		}
	}
	if a := d.find("active"); a == nil || a.arg(0) != "1" {
		if a == nil {
			a = d
		} else {
			a.grade = ungraded
		}
		a.approx("the service wasn't running: it stands in comments at the end")
		m.comment(v)
		return
	}
	if err := m.add(&v); err != nil {
		d.all(Missing, err.Error())
	}
}

// comment puts a service that isn't running into comments at the end of the file.
func (m *lvsMapper) comment(v config.Service) {
	text, err := config.Marshal(&config.Config{Services: []config.Service{v}})
	if err != nil {
		return
	}
	m.notes = append(m.notes, "A service that wasn't active:\n"+string(bytes.TrimRight(text, "\n")))
}

// target maps who the service is for.
func (m *lvsMapper) target(d *directive, v *config.Service) error {
	if a := d.find("active"); a != nil {
		a.exact("services")
	}
	protocol := "tcp"
	if p := d.find("protocol"); p != nil {
		switch p.arg(0) {
		case "tcp", "udp":
			protocol = p.arg(0)
			p.exact("services.protocol")
		default:
			p.missing("tcp or udp is wanted")
		}
	}
	number := uint16(80) // Piranha's default
	if p := d.find("port"); p != nil {
		n, err := m.port(p.arg(0), "tcp")
		if err != nil || n == 0 {
			p.missing("no port")
			return fmt.Errorf("%s is no port", p.arg(0))
		}
		number = n
		p.exact("services.port")
	}
	address := d.find("address")
	if address != nil && address.arg(1) != "" {
		if err := m.connect(device(address.arg(1)), ""); err != nil {
			address.missing(err.Error())
		}
	}
	if f := d.find("fwmark"); f != nil && f.arg(0) != "0" {
		mark, err := whole(f.arg(0), 1, 1<<32-1)
		if err != nil {
			f.missing(err.Error())
			return err
		}
		v.FWMark = uint32(mark)
		f.approx("services.fwmark: the packets get the mark by rules under marks, which have to be written: netfilter's can't be seen here")
		if p := d.find("port"); p != nil {
			p.grade = ungraded
			p.exact("checks.port")
		}
		if p := d.find("protocol"); p != nil && p.grade == Exact {
			p.grade = ungraded
			p.needless("a mark's service has all protocols")
		}
		if address != nil {
			address.approx("the mark's rules say what addresses the service has; it has to be in one of them, as destination")
		}
		return nil
	}
	if address == nil {
		return fmt.Errorf("the service has no address")
	}
	if err := host(address.arg(0)); err != nil {
		address.missing(err.Error())
		return err
	}
	address.exact("services.address, interfaces")
	v.Address, v.Port = []string{address.arg(0)}, config.Ports{{First: number, Last: number}}
	if protocol != "tcp" {
		v.Protocol = []string{protocol}
	}
	return nil
}

// scheduling maps scheduler, persistent and pmask.
func (m *lvsMapper) scheduling(d *directive, v *config.Service) {
	if s := d.find("scheduler"); s != nil {
		if knownScheduler(s.arg(0)) {
			v.Scheduler = s.arg(0)
			s.exact("services.scheduler")
		} else {
			s.missing("no scheduler that uvs has; wlc takes its place")
		}
	}
	mask := d.find("pmask")
	if p := d.find("persistent"); p != nil {
		switch n, err := whole(p.arg(0), 0, 1<<31-1); {
		case err != nil:
			p.missing(err.Error())
		case n == 0:
			p.needless("asks for no persistence")
		default:
			v.Persistence = &config.Persistence{}
			cut := false
			if v.Persistence.Timeout, cut = clamp(time.Duration(n)*time.Second, time.Second, maxPersistence); cut {
				p.approx("services.persistence: uvs keeps no client longer than 31 days")
			} else {
				p.exact("services.persistence")
			}
		}
	}
	switch {
	case mask == nil:
	case v.Persistence == nil:
		mask.needless("the service isn't persistent")
	case mask.arg(0) == "0.0.0.0":
		mask.needless("asks for the whole address")
	case mask.arg(0) == "", v.Persistence.Netmask.UnmarshalText([]byte(mask.arg(0))) != nil, !v.Persistence.Netmask.Fits(false):
		v.Persistence.Netmask = config.Persistence{}.Netmask
		mask.missing("no netmask")
	default:
		mask.exact("services.persistence.netmask")
	}
}

// server maps a real server.
func (m *lvsMapper) server(v, d *directive, service *config.Service, labels map[string]bool) (s config.Server, list []check, ok bool) {
	if s.Name = label(d.arg(0), labels); s.Name == d.arg(0) {
		d.exact("services.servers.name")
	} else {
		d.approx("services.servers.name: " + s.Name)
	}
	address := d.find("address")
	if address == nil || host(address.arg(0)) != nil {
		d.missing("it has no address")
		for _, in := range d.block {
			in.missing("the server has no address")
		}
		return s, nil, false
	}
	s.Address = address.arg(0)
	address.exact("services.servers.address")
	own := 0
	if len(service.Port) > 0 {
		own = int(service.Port[0].First)
	} else if p := v.find("port"); p != nil {
		n, _ := m.port(p.arg(0), "tcp")
		own = int(n)
	}
	if p := d.find("port"); p != nil {
		n, err := port(p.arg(0))
		switch {
		case err != nil || n == 0:
			p.missing("no port")
		case m.method != "nat" && int(n) != own:
			p.missing("direct routing and tunnels change no port")
		default:
			if int(n) != own || service.FWMark != 0 && m.method == "nat" {
				s.Port = int(n)
			}
			p.exact("services.servers.port")
		}
	}
	if w := d.find("weight"); w != nil {
		if n, err := whole(w.arg(0), 0, maxWeight); err != nil {
			w.missing(err.Error())
		} else {
			if n != 1 {
				s.Weight = &n
			}
			w.exact("services.servers.weight")
		}
	}
	if a := d.find("active"); a != nil && a.arg(0) == "1" {
		a.exact("services.servers")
	} else {
		zero := 0
		s.Weight = &zero
		if a == nil {
			a = d
		}
		a.approx("services.servers.weight: 0, since the server isn't active")
	}
	for _, in := range d.block {
		if in.grade == ungraded {
			in.missing("no keyword of lvs.cf's, or a later one counts")
		}
	}
	return s, m.checks(v, d, service, &s, own), true
}

// reaction maps quiesce_server and sorry_server.
func (m *lvsMapper) reaction(d *directive, v *config.Service) {
	h := config.Health{}
	if q := d.find("quiesce_server"); q != nil {
		if q.arg(0) == "1" {
			h.Reaction = "quiesce"
			q.exact("services.health.reaction: quiesce")
		} else {
			q.exact("services.health.reaction: remove")
		}
	}
	if s := d.find("sorry_server"); s != nil {
		if a, err := netip.ParseAddr(s.arg(0)); err != nil {
			s.missing("no address")
		} else {
			setSorry(&h, a.String(), 0, m.method)
			s.exact("services.health.sorry")
		}
	}
	if says(&h) {
		v.Health = &h
	}
}
