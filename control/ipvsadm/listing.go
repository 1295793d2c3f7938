package ipvsadm

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"uvs/control/api"
)

// printer writes listings. Errors of writing stay in w until it is flushed.
type printer struct {
	w       *bufio.Writer
	lookup  *lookup
	numeric bool
	exact   bool
	headed  bool // the head of -L -c is out
	labels  bool // the names of services and servers stand behind them
	full    bool // save prints what the original leaves out, too
}

// style is a kind of service listing. With several asked for, the first in this order is printed.
type style uint8

const (
	styleStats style = iota
	styleRate
	styleThresholds
	stylePersistent
	styleTunnel
	stylePlain
)

// styleOf returns the style that options ask for.
func styleOf(given optionSet) style {
	for i, o := range []option{optStats, optRate, optThresholds, optPersistentConn, optTunInfo} {
		if given.has(o) {
			return style(i)
		}
	}
	return stylePlain
}

// heads are the column titles of each style.
var heads = [...]string{
	styleStats: "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n" +
		"  -> RemoteAddress:Port\n",
	styleRate: "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n" +
		"  -> RemoteAddress:Port\n",
	styleThresholds: "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n" +
		"  -> RemoteAddress:Port\n",
	stylePersistent: "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n" +
		"  -> RemoteAddress:Port\n",
	styleTunnel: "Prot LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n",
	stylePlain: "Prot LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
}

// sorted orders services by mark, family, protocol, address and port, and their servers by address and port.
func sorted(services []api.Service) {
	slices.SortStableFunc(services, func(a, b api.Service) int {
		return cmp.Or(cmp.Compare(a.FWMark, b.FWMark), cmp.Compare(a.Family, b.Family),
			compareFamily(a.Address, b.Address), cmp.Compare(protocolNumber[a.Protocol], protocolNumber[b.Protocol]),
			a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port))
	})
	for i := range services {
		slices.SortStableFunc(services[i].Servers, func(a, b api.Server) int {
			return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port))
		})
	}
}

func compareFamily(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) }

// protocolNumber is IANA's.
var protocolNumber = map[string]int{api.TCP: 6, api.UDP: 17, api.SCTP: 132}

// services prints services in their order.
func (p *printer) services(list []api.Service, s style) {
	p.w.WriteString(heads[s])
	for i := range list {
		svc := &list[i]
		name := p.serviceName(svc)
		switch s {
		case styleStats:
			fmt.Fprintf(p.w, "%-33s", name)
			p.stats(svc.Stats)
		case styleRate:
			fmt.Fprintf(p.w, "%-33s", name)
			p.stats(api.Stats(svc.Rates))
		default:
			fmt.Fprintf(p.w, "%s %s%s", name, svc.Config.Scheduler, serviceFlags(svc))
		}
		p.label(svc.Label)
		p.w.WriteByte('\n')
		for j := range svc.Servers {
			if !svc.Servers[j].Removed {
				p.server(svc, &svc.Servers[j], s)
			}
		}
		if q := svc.Quorum; q != nil && q.Sorry != nil {
			p.server(svc, q.Sorry, s)
		}
	}
}

// serviceName writes "TCP  10.0.0.1:80" or "FWM  7 IPv6".
func (p *printer) serviceName(svc *api.Service) string {
	if svc.FWMark == 0 {
		return fmt.Sprintf("%-4s %s", strings.ToUpper(svc.Protocol), p.column(svc.Address, svc.Port, svc.Protocol))
	}
	name := fmt.Sprintf("FWM  %d", svc.FWMark)
	if svc.Family == api.IPv6 {
		name += " IPv6"
	}
	return name
}

// columnWidth is that of addresses in listings.
const columnWidth = 28

// column writes an address for a listing: names of IPv4 addresses are cut to the column, IPv6 breaks it.
func (p *printer) column(a netip.Addr, port uint16, proto string) string {
	s := p.lookup.text(a, port, proto, p.numeric)
	if a.Is4() {
		s = s[:min(len(s), columnWidth)]
	}
	return s
}

// serviceFlags writes what follows the scheduler's name, with a blank before each.
func serviceFlags(svc *api.Service) string {
	c := &svc.Config
	var b strings.Builder
	if len(c.SchedFlags) > 0 {
		fmt.Fprintf(&b, " (%s)", schedFlags(c))
	}
	if c.PersistenceSeconds > 0 {
		fmt.Fprintf(&b, " persistent %d", c.PersistenceSeconds)
		if !c.Netmask.IsZero() {
			fmt.Fprintf(&b, " mask %v", c.Netmask)
		}
		if c.PersistenceEngine != "" {
			fmt.Fprintf(&b, " pe %s", c.PersistenceEngine)
		}
	}
	if c.OnePacket {
		b.WriteString(" ops")
	}
	return b.String()
}

// schedFlags writes the flags as ipvsadm does: it has no name for the third flag of sh and mh, and leaves it out.
func schedFlags(c *api.ServiceConfig) string {
	flags, err := api.ParseSchedFlags(c.Scheduler, c.SchedFlags)
	if err != nil {
		return strings.Join(c.SchedFlags, ",") // from a newer uvsd
	}
	if c.Scheduler == "sh" || c.Scheduler == "mh" {
		flags &^= api.SchedFlag3
	}
	return strings.Join(flags.Names(c.Scheduler), ",")
}

var methodNames = map[string]string{api.Masq: "Masq", api.Local: "Local", api.Tunnel: "Tunnel", api.Route: "Route"}

// server prints a server with the weight in force; save has those that were set.
func (p *printer) server(svc *api.Service, srv *api.Server, s style) {
	name := p.column(srv.Address, srv.Port, svc.Protocol)
	c := &srv.Config
	switch s {
	case styleStats:
		fmt.Fprintf(p.w, "  -> %-28s", name)
		p.stats(srv.Stats)
	case styleRate:
		fmt.Fprintf(p.w, "  -> %-28s", name)
		p.stats(api.Stats(srv.Rates))
	case styleThresholds:
		fmt.Fprintf(p.w, "  -> %-28s %-10d %-10d %-10d %-10d", name, c.Upper, c.Lower, srv.Active, srv.Inactive)
	case stylePersistent:
		fmt.Fprintf(p.w, "  -> %-28s %-9d %-11d %-10d %-10d", name, srv.Weight(), srv.Persistent, srv.Active, srv.Inactive)
	case styleTunnel:
		fmt.Fprintf(p.w, "  -> %-28s %-7s %-13s %-6d %-10d %-10d", name, methodNames[c.Method], tunnelInfo(c), srv.Weight(), srv.Active, srv.Inactive)
	default:
		fmt.Fprintf(p.w, "  -> %-28s %-7s %-6d %-10d %-10d", name, methodNames[c.Method], srv.Weight(), srv.Active, srv.Inactive)
	}
	p.label(srv.Label)
	p.w.WriteByte('\n')
}

// label writes the name of a service or server where it is wanted: not in ipvsadm's own listings.
func (p *printer) label(name string) {
	if p.labels && name != "" {
		fmt.Fprintf(p.w, "  (%s)", name)
	}
}

// tunnelOf returns a tunnel with its defaults.
func tunnelOf(c *api.ServerConfig) api.TunnelConfig {
	t := api.TunnelConfig{Type: api.IPIP}
	if c.Tunnel != nil {
		t = *c.Tunnel
	}
	if t.Checksum == "" {
		t.Checksum = api.NoChecksum
	}
	return t
}

func tunnelInfo(c *api.ServerConfig) string {
	if c.Method != api.Tunnel {
		return "n/a"
	}
	t := tunnelOf(c)
	if t.Type == api.IPIP {
		return t.Type
	}
	sum := map[string]string{api.NoChecksum: "-c", api.Checksum: "+c", api.RemoteChecksum: "r+c"}[t.Checksum]
	if t.Type == api.GUE {
		return fmt.Sprintf("%s:%d:%s", t.Type, t.Port, sum)
	}
	return t.Type + ":" + sum
}

func (p *printer) stats(s api.Stats) {
	for _, n := range []uint64{s.Conns, s.InPackets, s.OutPackets, s.InBytes, s.OutBytes} {
		p.largeNumber(n)
	}
}

// largeNumber writes a number into nine columns, shortened from a hundred millions on.
func (p *printer) largeNumber(n uint64) {
	switch {
	case p.exact:
		fmt.Fprintf(p.w, " %8d", n)
	case n < 1e8:
		fmt.Fprintf(p.w, "%9d", n)
	case n < 1e9:
		fmt.Fprintf(p.w, "%8dK", n/1e3)
	case n < 1e11:
		fmt.Fprintf(p.w, "%8dM", n/1e6)
	case n < 1e14:
		fmt.Fprintf(p.w, "%8dG", n/1e9)
	default:
		fmt.Fprintf(p.w, "%8dT", n/1e12)
	}
}

// connectionsHead prints the head of -L -c.
func (p *printer) connectionsHead(engines bool) {
	p.headed = true
	p.w.WriteString("IPVS connection entries\npro expire state       source             virtual            destination")
	if engines {
		p.w.WriteString("        pe name          pe_data")
	}
	p.w.WriteByte('\n')
}

// connection prints a line of -L -c.
func (p *printer) connection(c *api.Connection, engines bool) {
	text := func(a netip.AddrPort) string { return p.lookup.text(a.Addr(), a.Port(), c.Protocol, p.numeric) }
	left := fmt.Sprintf("%02d:%02d", c.ExpiresSeconds/60, c.ExpiresSeconds%60)
	fmt.Fprintf(p.w, "%-3s %-6s %-11s %-18s %-18s ", strings.ToUpper(c.Protocol), left, c.State, text(c.Client), text(c.Virtual))
	if server := text(c.Server); engines && c.PersistenceEngine != "" {
		fmt.Fprintf(p.w, "%-16s %-18s %s", server, c.PersistenceEngine, c.PersistenceData)
	} else {
		p.w.WriteString(server)
	}
	p.w.WriteByte('\n')
}

func (p *printer) daemon(d *api.Daemon) {
	fmt.Fprintf(p.w, "%s sync daemon (mcast=%s, syncid=%d, maxlen=%d, group=%s, port=%d, ttl=%d)\n",
		d.Role, d.Interface, d.SyncID, d.MaxLen, d.Group, d.Port, d.TTL)
}

// save prints the command lines that make a service and its servers. As in the original, thresholds are not among them, unless
// p.full asks for all.
func (p *printer) save(svc *api.Service) {
	c := &svc.Config
	name := p.saveName(svc)
	fmt.Fprintf(p.w, "-A %s -s %s", name, c.Scheduler)
	if c.PersistenceSeconds > 0 {
		fmt.Fprintf(p.w, " -p %d", c.PersistenceSeconds)
		if !c.Netmask.IsZero() {
			fmt.Fprintf(p.w, " -M %v", c.Netmask)
		}
	}
	if c.PersistenceEngine != "" {
		fmt.Fprintf(p.w, " --pe %s", c.PersistenceEngine)
	}
	if c.OnePacket {
		p.w.WriteString(" -o")
	}
	if flags := schedFlags(c); flags != "" {
		fmt.Fprintf(p.w, " -b %s", flags)
	}
	p.w.WriteByte('\n')
	for i := range svc.Servers {
		srv := &svc.Servers[i]
		fmt.Fprintf(p.w, "-a %s -r %s %s -w %d", name, p.lookup.text(srv.Address, srv.Port, svc.Protocol, p.numeric),
			methodSwitch(srv.Config.Method), srv.Config.Weight)
		if srv.Config.Method == api.Tunnel {
			t := tunnelOf(&srv.Config)
			fmt.Fprintf(p.w, " --tun-type %s", t.Type)
			if t.Type == api.GUE {
				fmt.Fprintf(p.w, " --tun-port %d", t.Port)
			}
			if t.Type != api.IPIP {
				p.w.WriteString(map[string]string{api.NoChecksum: " --tun-nocsum", api.Checksum: " --tun-csum",
					api.RemoteChecksum: " --tun-remcsum"}[t.Checksum])
			}
		}
		if p.full && srv.Config.Upper != 0 {
			fmt.Fprintf(p.w, " -x %d", srv.Config.Upper)
			if srv.Config.Lower != 0 {
				fmt.Fprintf(p.w, " -y %d", srv.Config.Lower)
			}
		}
		p.w.WriteByte('\n')
	}
}

// saveDaemon prints the command line that starts a sync daemon. The original saves none.
func (p *printer) saveDaemon(d *api.Daemon) {
	fmt.Fprintf(p.w, "--start-daemon %s --mcast-interface %s --syncid %d --sync-maxlen %d --mcast-group %s --mcast-port %d --mcast-ttl %d\n",
		d.Role, d.Interface, d.SyncID, d.MaxLen, d.Group, d.Port, d.TTL)
}

func (p *printer) saveName(svc *api.Service) string {
	if svc.FWMark != 0 {
		name := "-f " + strconv.FormatUint(uint64(svc.FWMark), 10)
		if svc.Family == api.IPv6 {
			name += " -6"
		}
		return name
	}
	option := map[string]string{api.TCP: "-t", api.UDP: "-u", api.SCTP: "--sctp-service"}[svc.Protocol]
	return option + " " + p.lookup.text(svc.Address, svc.Port, svc.Protocol, p.numeric)
}

// methodSwitch is the option for a forwarding method. A local server is written as -g: adding it makes it local again.
func methodSwitch(method string) string {
	switch method {
	case api.Masq:
		return "-m"
	case api.Tunnel:
		return "-i"
	default:
		return "-g"
	}
}
