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
		Chunks             string // of SCTP
		Orig               struct{ S, D string }
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
	event    uint8 // of the step's packet
	first    uint8 // its first chunk, of SCTP
	sloppy   bool  // sloppy_sctp
}

type replayService struct {
	proto       service.Proto
	addr        netip.AddrPort
	mark        uint32
	persistence time.Duration
	mask        uint32 // of IPv4
	bits        int    // of IPv6
	onePacket   bool
	gone        bool
	servers     map[netip.Addr]*service.RealServer
}

func TestTableBehavesAsRecordedIPVS(t *testing.T) {
	var files []string
	for pattern, n := range map[string]int{
		"testdata/fwd-*.json": 30, "../testdata/golden/traces/sctp-*.json": 20,
		"../testdata/golden/traces/v6-persist*.json": 2, "../testdata/golden/traces/v6-wlc.json": 1,
	} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < n {
			t.Fatalf("%d recordings %s (%v), want %d", len(found), pattern, err, n)
		}
		files = append(files, found...)
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
				case "vs.sloppy_sctp":
					r.sloppy = v != 0
				case "vs.schedule_icmp":
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
		case s.Pkt == "icmperr":
			r.icmpError(s.Orig.D, s.Orig.S)
		case s.Pkt != "":
			r.event = packetFlags[s.Pkt]
			if s.Pkt == "sctp" {
				b := sctpBytes(s.Chunks)
				r.event, r.first = packet.SCTPEvent(b), packet.SCTPFirst(b)
			}
			if s.Dir == "rs" {
				r.answer(s.Pkt, s.S, s.C, s.From)
			} else {
				r.packet(s.Pkt, s.C, s.V, s.To)
			}
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
	switch pkt {
	case "udp":
		return service.UDP
	case "sctp":
		return service.SCTP
	}
	return service.TCP
}

// sctpChunks are the chunks that traces name: their types and the length of their values unless the trace tells it.
var sctpChunks = map[string]struct {
	typ uint8
	len int
}{
	"data": {packet.SCTPData, 13}, "init": {packet.SCTPInit, 16}, "initack": {packet.SCTPInitAck, 20},
	"sack": {packet.SCTPSack, 12}, "hb": {packet.SCTPHeartbeat, 0}, "abort": {packet.SCTPAbort, 0},
	"shut": {packet.SCTPShutdown, 4}, "shutack": {packet.SCTPShutdownAck, 0}, "error": {packet.SCTPError, 0},
	"cecho": {packet.SCTPCookieEcho, 16}, "cack": {packet.SCTPCookieAck, 0},
	"shutcomp": {packet.SCTPShutdownComplete, 0}, "auth": {15, 0}, "x255": {255, 0},
}

// sctpBytes is a packet of chunks as a trace has them: "cecho data:1400 abort:0:3", name, length of the value, and what
// the length field claims.
func sctpBytes(chunks string) []byte {
	b := make([]byte, packet.SCTPLen)
	for _, word := range strings.Fields(chunks) {
		spec := strings.Split(word, ":")
		chunk := sctpChunks[spec[0]]
		n := chunk.len
		if len(spec) > 1 {
			n, _ = strconv.Atoi(spec[1])
		}
		claimed := 4 + n
		if len(spec) > 2 {
			claimed, _ = strconv.Atoi(spec[2])
		}
		b = append(b, chunk.typ, 0, byte(claimed>>8), byte(claimed))
		b = append(b, make([]byte, (n+3)&^3)...)
	}
	return b
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
	if c.Method == service.Route {
		return station(c.Server)
	}
	return c.Server.String()
}

// station is how a trace names the server that a frame was sent to, whose MAC address tells its number only.
func station(server packet.Addr) string {
	return strings.Replace(server.String(), "2001:db8:1::", "10.1.0.", 1)
}

// leads says that what went to this place, as traces write it, went to rs.
func leads(rs *service.RealServer, to string) bool {
	if rs.Method() == service.Route {
		return station(rs.IP) == to
	}
	addr := rs.IP.String()
	return to == addr || strings.LastIndex(to, ":") == len(addr) && strings.HasPrefix(to, addr)
}

// icmpError is an ICMP error about a connection, with schedule_icmp: the first packet that IPVS sees of it.
func (r *replay) icmpError(client, vip string) {
	f := flow(service.SCTP, client, vip)
	var c Conn
	if r.Find(&f, In, r.now, &c) {
		return
	}
	for _, rs := range r.match(f).servers {
		n := newConn(f, rs, 0, r.now)
		n.About = true
		r.Insert(n, &c)
	}
}

func (r *replay) answer(pkt, server, client, from string) {
	var c Conn
	f := flow(protoOf(pkt), server, client)
	got := server
	if len(r.services) > 0 && r.Out(&f, r.event, r.now, &c) == Hit {
		got = fmt.Sprintf("%v:%d", c.Virtual, c.VirtualPort)
	}
	if got != from {
		r.errorf("answer of %s comes from %s, want %s", server, got, from)
	}
}

func (r *replay) packet(pkt, client, vip, to string) {
	f := flow(protoOf(pkt), client, vip)
	unserved := to == "rst" || to == "drop" || strings.HasPrefix(to, "icmp")
	if len(r.services) == 0 {
		if !unserved {
			r.errorf("no service, want %s", to)
		}
		return
	}
	var c Conn
	switch o := r.In(&f, r.event, r.now, &c); o {
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
	rs := r.schedule(f, to)
	switch {
	case rs == nil && !unserved:
		r.errorf("not scheduled, want %s", to)
	case rs != nil && goes(rs) != to:
		r.errorf("goes to %s, want %s", goes(rs), to)
	}
}

// schedule does for a new connection what the packet path does; the trace stands in for the scheduler.
func (r *replay) schedule(f packet.Flow, to string) *Conn {
	vs := r.match(f)
	if vs == nil || f.SrcPort == 20 || !r.mayOpen(f) {
		return nil
	}
	var rs *service.RealServer
	for _, candidate := range vs.servers {
		if candidate.Available() && leads(candidate, to) {
			rs = candidate
		}
	}
	var c Conn
	n := &NewConn{Flow: f, Event: r.event, Mark: vs.mark, Now: r.now}
	if vs.onePacket {
		n.Flags = OnePacket
	}
	if vs.persistence > 0 {
		k := TemplateKey{Proto: vs.proto, Client: f.Src.Masked(vs.bits), Virtual: f.Dst, VirtualPort: vs.addr.Port()}
		if f.Src.Is4() {
			k.Client = f.Src.Mask4(vs.mask)
		}
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

// mayOpen says that the step's packet may open a connection.
func (r *replay) mayOpen(f packet.Flow) bool {
	switch service.Proto(f.Proto) {
	case service.TCP:
		return r.event&packet.TCPSyn != 0 && r.event&packet.TCPRst == 0
	case service.SCTP:
		return r.first == packet.SCTPInit || r.sloppy && r.first != packet.SCTPAbort && r.first != packet.SCTPNoChunk
	}
	return true
}

func (r *replay) match(f packet.Flow) *replayService {
	if vs := r.services["-f 1"]; vs != nil && f.Dst.V4()>>17 == 0xc6120000>>17 {
		return vs
	}
	if vs := r.services["-f 7"]; vs != nil && f.Dst.String() == "2001:db8:9::100" {
		return vs
	}
	proto := map[service.Proto]string{service.TCP: "-t", service.UDP: "-u", service.SCTP: "--sctp-service"}[service.Proto(f.Proto)]
	ports := []uint16{f.DstPort, 0}
	if f.DstPort == 20 || f.DstPort >= 1024 {
		ports = []uint16{f.DstPort, 21, 0}
	}
	for _, port := range ports {
		if vs := r.services[proto+" "+netip.AddrPortFrom(f.Dst.Netip(), port).String()]; vs != nil && !vs.gone {
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
		vs = &replayService{servers: map[netip.Addr]*service.RealServer{}}
		r.services[name] = vs
		switch words[1] {
		case "-f":
			vs.mark = uint32(number("-f"))
		case "-t":
			vs.proto = service.TCP
		case "-u":
			vs.proto = service.UDP
		case "--sctp-service":
			vs.proto = service.SCTP
		}
		if vs.mark == 0 {
			vs.addr = netip.MustParseAddrPort(words[2])
		}
		fallthrough
	case "-E":
		vs.persistence, vs.mask, vs.bits = time.Duration(number("-p"))*time.Second, ^uint32(0), 128
		vs.onePacket = slices.Contains(words, "-o")
		if n := number("-M"); n > 0 {
			vs.bits = n
		} else if m := options["-M"]; m != "" {
			vs.mask = packet.AddrFrom(netip.MustParseAddr(m)).V4()
		}
	case "-D":
		vs.remove()
		r.ExpireRemoved()
	case "-a", "-e":
		r.edit(vs, options["-r"], words, number)
	case "-d":
		addr, _ := place(options["-r"])
		vs.servers[addr].SetAvailable(false)
		r.ExpireRemoved()
	default:
		r.t.Fatalf("command %s", line)
	}
}

func (r *replay) edit(vs *replayService, name string, words []string, number func(string) int) {
	addr, p := place(name)
	m := service.Route
	if slices.Contains(words, "-m") {
		m = service.Masq
	} else if slices.Contains(words, "-i") {
		m = service.Tunnel
	}
	if m != service.Masq || p < 0 {
		p = int(vs.addr.Port())
	}
	rs := vs.servers[addr]
	if rs == nil {
		rs = service.NewRealServer(service.Key{Proto: vs.proto, Addr: vs.addr, Mark: vs.mark},
			netip.AddrPortFrom(addr, uint16(p)), m, 1)
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

// place takes a server's address and port apart; -1 is no port.
func place(name string) (addr netip.Addr, port int) {
	if a, err := netip.ParseAddrPort(name); err == nil {
		return a.Addr(), int(a.Port())
	}
	return netip.MustParseAddr(name), -1
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
		line := fmt.Sprintf("%s %v %v %v %v", strings.ToUpper(c.Proto.String()), netip.AddrPortFrom(c.Client.Netip(), c.ClientPort),
			netip.AddrPortFrom(c.Virtual.Netip(), c.VirtualPort), netip.AddrPortFrom(c.Server.Netip(), c.ServerPort), c.State)
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
		if w[1] == netip.MustParseAddrPort(client).String() {
			rows = append(rows, []any{w[4], float64(seconds[line]), w[3]})
		}
	}
	if len(want) > len(rows) { // the kernel lists an entry that is gone at its next tick
		want = slices.DeleteFunc(want, func(row []any) bool { return row[1] == 0.0 })
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
	name = strings.NewReplacer("SCTP ", "--sctp-service ", "TCP ", "-t ", "UDP ", "-u ", "FWM ", "-f ").Replace(name)
	vs := r.services[name]
	for _, row := range want {
		addr, _ := place(row[0].(string))
		rs := vs.servers[addr]
		if float64(rs.Active()) != row[3] || float64(rs.Inactive()) != row[4] {
			r.errorf("%v has %d active, %d inactive, want %v, %v", rs, rs.Active(), rs.Inactive(), row[3], row[4])
		}
	}
}
