package conntrack

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// trace is a recording of what the kernel's IPVS did (Linux 6.1): packets and commands in, decisions and tables out.
type trace struct {
	Setup  []string
	Sysctl map[string]int
	Gap    float64
	Steps  []struct {
		Pkt, Dir, C, V, S  string
		To, From, IPVS, Sh string
		T, Sleep           *float64
		Conn1, Conns       [][]any
		Counts             map[string][][]any
	}
}

// replay drives a table as a trace tells. Which server a new connection goes to is read from the trace, where only the
// scheduler decided; templates, states, timers and counts are the table's.
type replay struct {
	*world
	t        *testing.T
	services map[string]*replayService
	step     int
}

type replayService struct {
	proto       service.Proto
	addr        netip.AddrPort
	mark        uint32
	persistence time.Duration
	mask        uint32
	onePacket   bool
	gone        bool
	servers     map[string]*service.RealServer
}

func TestTableBehavesAsRecordedIPVS(t *testing.T) {
	files, err := filepath.Glob("testdata/fwd-*.json")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d recordings (%v), want 30", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var tr trace
			if err := json.Unmarshal(b, &tr); err != nil {
				t.Fatal(err)
			}
			r := &replay{world: newWorld(t, Config{}), t: t, services: map[string]*replayService{}}
			s := DefaultSettings()
			for name, v := range tr.Sysctl {
				switch name {
				case "vs.conn_reuse_mode":
					s.ConnReuseMode = v
				case "vs.expire_nodest_conn":
					s.ExpireNodestConn = v != 0
				case "vs.expire_quiescent_template":
					s.ExpireQuiescentTemplate = v != 0
				case "vs.secure_tcp":
					s.SecureTCP = v != 0
				default:
					t.Fatalf("sysctl %s", name)
				}
			}
			r.SetSettings(s)
			r.run(&tr)
		})
	}
}

func (r *replay) run(tr *trace) {
	for _, c := range tr.Setup {
		r.command(c)
	}
	begin, gap := r.now, max(tr.Gap, 0.001)
	for i := range tr.Steps {
		s := &tr.Steps[i]
		r.step = i
		switch {
		case s.T != nil:
			r.pass(time.Duration(begin + int64(*s.T*1e9) - r.now))
		case s.Pkt != "":
			r.pass(time.Duration(gap * 1e9))
		}
		switch {
		case s.Sleep != nil && s.T == nil:
			r.pass(time.Duration(*s.Sleep * 1e9))
		case s.IPVS != "":
			r.command(s.IPVS)
			r.settle()
		case s.Sh == "echo 1 > /proc/sys/net/ipv4/vs/expire_nodest_conn":
			set := r.Settings()
			set.ExpireNodestConn = true
			r.SetSettings(set)
		case s.Sh != "":
			r.t.Fatalf("step %d: %s", i, s.Sh)
		case s.Pkt != "" && s.Dir == "rs":
			r.answer(s.Pkt, s.S, s.C, s.From)
		case s.Pkt != "":
			r.packet(s.Pkt, s.C, s.V, s.To)
		}
		r.settle()
		if s.Conn1 != nil {
			r.compareConn1(s.C, s.Conn1)
		}
		if s.Conns != nil {
			r.compareConns(s.Conns)
		}
		for name, servers := range s.Counts {
			r.compareCounts(name, servers)
		}
	}
}

var packetFlags = map[string]uint8{
	"syn": packet.TCPSyn, "ack": packet.TCPAck, "data": packet.TCPPsh | packet.TCPAck, "fin": packet.TCPFin | packet.TCPAck,
	"rst": packet.TCPRst, "rstack": packet.TCPRst | packet.TCPAck, "synack": packet.TCPSyn | packet.TCPAck, "null": 0,
	"xmas": packet.TCPFin | packet.TCPPsh | packet.TCPUrg, "synfin": packet.TCPSyn | packet.TCPFin, "udp": 0,
}

func protoOf(pkt string) service.Proto {
	if pkt == "udp" {
		return service.UDP
	}
	return service.TCP
}

func (r *replay) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("step %d: %s", r.step, fmt.Sprintf(format, args...))
}

// goes says where a packet of c went, as traces write it.
func goes(c *Conn) string {
	if c.Method == service.Masq {
		return fmt.Sprintf("%v:%d", c.Server, c.ServerPort)
	}
	return c.Server.String()
}

func (r *replay) answer(pkt, server, client, from string) {
	var c Conn
	f := flow(protoOf(pkt), server, client)
	got := server
	if len(r.services) > 0 && r.Out(&f, packetFlags[pkt], r.now, &c) == Hit {
		got = fmt.Sprintf("%v:%d", c.Virtual, c.VirtualPort)
	}
	if got != from {
		r.errorf("answer of %s comes from %s, want %s", server, got, from)
	}
}

func (r *replay) packet(pkt, client, vip, to string) {
	f, flags := flow(protoOf(pkt), client, vip), packetFlags[pkt]
	unserved := to == "rst" || to == "drop" || strings.HasPrefix(to, "icmp")
	if len(r.services) == 0 {
		if !unserved {
			r.errorf("no service, want %s", to)
		}
		return
	}
	var c Conn
	switch o := r.In(&f, flags, r.now, &c); o {
	case Hit:
		if goes(&c) != to {
			r.errorf("goes to %s, want %s", goes(&c), to)
		}
		return
	case NoServer:
		if to != "drop" {
			r.errorf("%v, want %s", o, to)
		}
		return
	}
	rs := r.schedule(f, flags, to)
	switch {
	case rs == nil && !unserved:
		r.errorf("not scheduled, want %s", to)
	case rs != nil && goes(rs) != to:
		r.errorf("goes to %s, want %s", goes(rs), to)
	}
}

// schedule does for a new connection what the packet path does; the trace stands in for the scheduler.
func (r *replay) schedule(f packet.Flow, flags uint8, to string) *Conn {
	tcp := f.Proto == uint8(service.TCP)
	vs := r.match(f)
	if vs == nil || f.SrcPort == 20 || tcp && (flags&packet.TCPSyn == 0 || flags&packet.TCPRst != 0) {
		return nil
	}
	addr, _, _ := strings.Cut(to, ":")
	rs := vs.servers[addr]
	var c Conn
	n := &NewConn{Flow: f, TCPFlags: flags, Mark: vs.mark, Now: r.now}
	if vs.onePacket {
		n.Flags = OnePacket
	}
	if vs.persistence > 0 {
		k := TemplateKey{Proto: vs.proto, Client: f.Src.Mask4(vs.mask), Virtual: f.Dst, VirtualPort: vs.addr.Port()}
		if vs.mark != 0 {
			k.Virtual = MarkAddr(vs.mark, f.Src)
		}
		if k.VirtualPort == 21 {
			k.VirtualPort = 0
		}
		if r.FindTemplate(&k, r.now, &c) != Hit {
			if rs == nil {
				return nil
			}
			nt := &NewTemplate{TemplateKey: k, Server: rs.IP, Method: rs.Method(), RS: rs, Timeout: vs.persistence, Now: r.now}
			if k.VirtualPort != 0 {
				nt.ServerPort = rs.Addr.Port()
			}
			if o := r.InsertTemplate(nt, &c); o != Inserted {
				r.errorf("InsertTemplate = %v", o)
			}
		}
		n.Template, rs = c.ID, r.servers.At(c.RS)
	}
	if rs == nil {
		return nil
	}
	n.RS, n.Server, n.Method, n.ServerPort = rs, rs.IP, rs.Method(), f.DstPort
	if p := rs.Addr.Port(); p != 0 && f.DstPort == vs.addr.Port() {
		n.ServerPort = p
	}
	if o := r.Insert(n, &c); o != Inserted {
		r.errorf("Insert = %v", o)
	}
	return &c
}

func (r *replay) match(f packet.Flow) *replayService {
	if vs := r.services["-f 1"]; vs != nil && f.Dst.V4()>>17 == 0xc6120000>>17 {
		return vs
	}
	proto := "-t"
	if f.Proto == uint8(service.UDP) {
		proto = "-u"
	}
	ports := []uint16{f.DstPort, 0}
	if f.DstPort == 20 || f.DstPort >= 1024 {
		ports = []uint16{f.DstPort, 21, 0}
	}
	for _, port := range ports {
		if vs := r.services[fmt.Sprintf("%s %v:%d", proto, f.Dst, port)]; vs != nil && !vs.gone {
			return vs
		}
	}
	return nil
}

// command does what an ipvsadm command line says.
func (r *replay) command(line string) {
	words := strings.Fields(line)
	options := map[string]string{}
	for i, w := range words {
		if strings.HasPrefix(w, "-") && i+1 < len(words) {
			options[w] = words[i+1]
		}
	}
	number := func(option string) int {
		n, _ := strconv.Atoi(options[option])
		return n
	}
	if words[0] == "-C" {
		for _, vs := range r.services {
			vs.remove()
		}
		clear(r.services)
		r.ExpireRemoved()
		return
	}
	if words[0] == "--set" {
		var d [3]time.Duration
		for i := range d {
			n, _ := strconv.Atoi(words[1+i])
			d[i] = time.Duration(n) * time.Second
		}
		r.SetTimeouts(d[0], d[1], d[2])
		return
	}
	name := words[1] + " " + words[2]
	vs := r.services[name]
	switch words[0] {
	case "-A":
		vs = &replayService{servers: map[string]*service.RealServer{}}
		r.services[name] = vs
		switch words[1] {
		case "-f":
			vs.mark = uint32(number("-f"))
		case "-t":
			vs.proto = service.TCP
		case "-u":
			vs.proto = service.UDP
		}
		if vs.mark == 0 {
			vs.addr = netip.MustParseAddrPort(words[2])
		}
		fallthrough
	case "-E":
		vs.persistence, vs.mask = time.Duration(number("-p"))*time.Second, ^uint32(0)
		vs.onePacket = slices.Contains(words, "-o")
		if m := options["-M"]; m != "" {
			vs.mask = packet.AddrFrom(netip.MustParseAddr(m)).V4()
		}
	case "-D":
		vs.remove()
		r.ExpireRemoved()
	case "-a", "-e":
		r.edit(vs, options["-r"], words, number)
	case "-d":
		addr, _, _ := strings.Cut(options["-r"], ":")
		vs.servers[addr].SetAvailable(false)
		r.ExpireRemoved()
	default:
		r.t.Fatalf("command %s", line)
	}
}

func (r *replay) edit(vs *replayService, name string, words []string, number func(string) int) {
	addr, port, _ := strings.Cut(name, ":")
	p, _ := strconv.Atoi(port)
	m := service.Route
	if slices.Contains(words, "-m") {
		m = service.Masq
	} else if slices.Contains(words, "-i") {
		m = service.Tunnel
	}
	if m != service.Masq || port == "" {
		p = int(vs.addr.Port())
	}
	rs := vs.servers[addr]
	if rs == nil {
		rs = service.NewRealServer(service.Key{Proto: vs.proto, Addr: vs.addr, Mark: vs.mark},
			netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(p)), m, 1)
		if err := r.servers.Add(rs); err != nil {
			r.t.Fatal(err)
		}
		vs.servers[addr] = rs
	}
	rs.SetAvailable(true)
	rs.SetMethod(m)
	rs.SetWeight(1)
	if slices.Contains(words, "-w") {
		rs.SetWeight(int32(number("-w")))
	}
	rs.SetThresholds(uint32(number("-x")), uint32(number("-y")))
}

func (vs *replayService) remove() {
	vs.gone = true
	for _, rs := range vs.servers {
		rs.SetAvailable(false)
	}
}

// listed is a line of a listing, without the seconds left.
func (r *replay) listing() (lines []string, seconds map[string]int) {
	seconds = map[string]int{}
	r.Walk(r.now, func(c *Conn) bool {
		line := fmt.Sprintf("%s %v:%d %v:%d %v:%d %v", strings.ToUpper(c.Proto.String()), c.Client, c.ClientPort,
			c.Virtual, c.VirtualPort, c.Server, c.ServerPort, c.State)
		lines = append(lines, line)
		seconds[line] = int((c.Expires - r.now) / int64(time.Second))
		return true
	})
	slices.Sort(lines)
	return lines, seconds
}

func (r *replay) compareConns(want [][]any) {
	got, seconds := r.listing()
	for _, row := range want {
		line := fmt.Sprintf("%v %v %v %v %v", row[0], row[1], row[2], row[3], row[4])
		left := int(row[5].(float64))
		i, found := slices.BinarySearch(got, line)
		switch {
		case !found && left > 0: // one with 0 seconds left is one that the kernel's timer wheel is late for
			r.errorf("not listed: %s %d", line, left)
		case found:
			got = slices.Delete(got, i, i+1)
			if d := seconds[line] - left; d < -1 || d > 1 {
				r.errorf("%s: %d seconds left, want %d", line, seconds[line], left)
			}
		}
	}
	for _, line := range got {
		r.errorf("listed: %s %d", line, seconds[line])
	}
}

func (r *replay) compareConn1(client string, want [][]any) {
	var rows [][]any
	lines, seconds := r.listing()
	for _, line := range lines {
		w := strings.Fields(line)
		if w[1] == client {
			rows = append(rows, []any{w[4], float64(seconds[line]), w[3]})
		}
	}
	same := slices.EqualFunc(rows, want, func(a, b []any) bool {
		d := a[1].(float64) - b[1].(float64)
		return a[0] == b[0] && a[2] == b[2] && d >= -1 && d <= 1
	})
	if !same {
		r.errorf("%s has %v, want %v", client, rows, want)
	}
}

func (r *replay) compareCounts(name string, want [][]any) {
	name = strings.NewReplacer("TCP ", "-t ", "UDP ", "-u ", "FWM ", "-f ").Replace(name)
	vs := r.services[name]
	for _, row := range want {
		addr, _, _ := strings.Cut(row[0].(string), ":")
		rs := vs.servers[addr]
		if float64(rs.Active()) != row[3] || float64(rs.Inactive()) != row[4] {
			r.errorf("%v has %d active, %d inactive, want %v, %v", rs, rs.Active(), rs.Inactive(), row[3], row[4])
		}
	}
}
