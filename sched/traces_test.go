package sched

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// A trace is a recording of the kernel's decisions; testdata/golden/README.md has its format.
type trace struct {
	Setup  []string
	Sysctl map[string]float64
	Steps  []traceStep
}

type traceStep struct {
	Pkt    string
	C, V   netip.AddrPort
	To     string
	IPVS   string
	Sleep  float64
	Counts map[string][][5]any // server, method, weight, active, inactive
}

// director is as much of a director as schedulers can notice: a service's list, and which connections are active.
type director struct {
	t      *testing.T
	config Config
	key    service.Key
	name   string
	sched  service.Scheduler
	list   servers
	trash  map[netip.AddrPort]*service.RealServer
	conns  map[[2]netip.AddrPort]*conn
	now    time.Duration

	finTimeout, udpTimeout time.Duration
}

type conn struct {
	rs      *service.RealServer
	state   string // SR and ES are active; FW, TW, CL and UDP inactive
	expires time.Duration
}

func active(state string) bool { return state == "SR" || state == "ES" }

// TestDecisionsAreTheKernels replays what the kernel's schedulers decided and counted, connection by connection.
func TestDecisionsAreTheKernels(t *testing.T) {
	files, err := filepath.Glob("../testdata/golden/traces/sched-*.json")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			replay(t, file)
		})
	}
	for _, name := range []string{"sh", "sh-port", "mh", "mh-port", "dh", "wlc"} {
		t.Run("v6-"+name, func(t *testing.T) { replay(t, "../testdata/golden/traces/v6-"+name+".json") })
	}
}

func replay(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var tr trace
	if err := json.Unmarshal(data, &tr); err != nil {
		t.Fatal(err)
	}
	d := &director{
		t: t, trash: map[netip.AddrPort]*service.RealServer{}, conns: map[[2]netip.AddrPort]*conn{},
		finTimeout: 2 * time.Minute, udpTimeout: 5 * time.Minute,
	}
	if s := tr.Sysctl["vs.lblcr_expiration"]; s > 0 {
		d.config.LBLCRExpiration = time.Duration(s * float64(time.Second))
	}
	for _, line := range tr.Setup {
		d.ipvsadm(line)
	}
	decisions := 0
	for i, s := range tr.Steps {
		switch {
		case s.Pkt != "":
			if got := d.packet(&s); got != s.To {
				t.Fatalf("step %d: %s from %v: %s, want %s", i+1, s.Pkt, s.C, got, s.To)
			}
			decisions++
		case s.IPVS != "":
			d.ipvsadm(s.IPVS)
		case s.Sleep != 0:
			d.pass(time.Duration(s.Sleep * float64(time.Second)))
		case s.Counts != nil:
			d.compare(i, s.Counts)
		}
	}
	if decisions == 0 {
		t.Error("the trace has no packets")
	}
}

// packet takes a client's packet and says what becomes of it in the trace's words.
func (d *director) packet(s *traceStep) string {
	d.pass(time.Millisecond)
	c := d.conns[[2]netip.AddrPort{s.C, s.V}]
	if c != nil && !c.rs.Available() {
		return "drop"
	}
	if s.Pkt == "syn" && c != nil && (c.state == "TW" || c.state == "CL") {
		c.rs.Unbind(false) // conn_reuse_mode=1
		c = nil
	}
	if c == nil {
		switch s.Pkt {
		case "ack", "fin":
			return "rst"
		case "rst":
			return "drop"
		}
		var rs *service.RealServer
		if d.sched != nil {
			rs = d.sched.Pick(&service.Request{
				Flow: packet.Flow{
					Src: packet.AddrFrom(s.C.Addr()), SrcPort: s.C.Port(),
					Dst: packet.AddrFrom(s.V.Addr()), DstPort: s.V.Port(), Proto: packet.ProtoTCP,
				},
				Now: int64(time.Hour + d.now),
			}, d.list)
		}
		if rs == nil {
			delete(d.conns, [2]netip.AddrPort{s.C, s.V})
			if s.C.Addr().Is6() {
				return "icmp 1/4"
			}
			return "icmp 3/3"
		}
		rs.Bind(false)
		c = &conn{rs: rs}
		d.conns[[2]netip.AddrPort{s.C, s.V}] = c
	}
	was := active(c.state)
	switch s.Pkt + " " + c.state {
	case "syn ", "syn SR", "syn FW":
		c.state, c.expires = "SR", d.now+time.Minute
	case "ack SR", "ack ES", "syn ES":
		c.state, c.expires = "ES", d.now+15*time.Minute
	case "fin ES", "fin FW", "ack FW":
		c.state, c.expires = "FW", d.now+d.finTimeout
	case "fin SR", "ack TW", "fin TW":
		c.state, c.expires = "TW", d.now+2*time.Minute
	case "rst ES", "rst FW", "rst TW", "rst CL", "ack CL", "fin CL":
		c.state, c.expires = "CL", d.now+10*time.Second
	case "rst SR":
		c.expires = d.now + time.Minute
	case "udp ", "udp UDP":
		c.state, c.expires = "UDP", d.now+d.udpTimeout
	default:
		d.t.Fatalf("no transition for %s in state %q", s.Pkt, c.state)
	}
	if active(c.state) != was {
		c.rs.SetActive(active(c.state))
	}
	if c.rs.Method() == service.Masq {
		return c.rs.Addr.String()
	}
	a := c.rs.Addr.Addr()
	if a.Is6() { // the recording names a server by its MAC: 2001:db8:1::11 is the one at 10.1.0.11
		return "10.1.0." + a.String()[strings.LastIndexByte(a.String(), ':')+1:]
	}
	return a.String()
}

// pass lets time pass and connections expire.
func (d *director) pass(by time.Duration) {
	d.now += by
	if by < time.Second {
		return // expiry matters only across the recordings' sleeps
	}
	for k, c := range d.conns {
		if c.expires <= d.now {
			c.rs.Unbind(active(c.state))
			delete(d.conns, k)
		}
	}
}

// ipvsadm does what a command line says.
func (d *director) ipvsadm(line string) {
	words := strings.Fields(line)
	if words[0] == "--set" {
		seconds := func(s string) time.Duration {
			n, _ := strconv.Atoi(s)
			return time.Duration(n) * time.Second
		}
		d.finTimeout, d.udpTimeout = seconds(words[2]), seconds(words[3])
		return
	}
	scheduler, method, weight, upper, lower := Default, service.Route, 1, 0, 0
	var flags service.SchedFlags
	var rip string
	for i, word := range words {
		arg := ""
		if i+1 < len(words) {
			arg = words[i+1]
		}
		var err error
		switch word {
		case "-t", "-u":
			d.key = service.Key{Proto: map[string]service.Proto{"-t": service.TCP, "-u": service.UDP}[word], Addr: netip.MustParseAddrPort(arg)}
		case "-f":
			d.key = service.Key{Mark: 1, Addr: netip.MustParseAddrPort("0.0.0.0:0")}
		case "-s":
			scheduler = arg
		case "-b":
			flags, err = ParseFlags(scheduler, strings.Split(arg, ","))
		case "-r":
			rip = arg
		case "-m":
			method = service.Masq
		case "-i":
			method = service.Tunnel
		case "-w":
			weight, err = strconv.Atoi(arg)
		case "-x":
			upper, err = strconv.Atoi(arg)
		case "-y":
			lower, err = strconv.Atoi(arg)
		}
		if err != nil {
			d.t.Fatalf("%s: %v", line, err)
		}
	}
	var addr netip.AddrPort
	if rip != "" {
		var err error
		if addr, err = netip.ParseAddrPort(rip); err != nil {
			addr = netip.AddrPortFrom(netip.MustParseAddr(rip), d.key.Addr.Port())
		}
	}
	change := service.Change{Before: d.list, Flags: flags}
	at := -1
	for i, rs := range d.list {
		if rs.Addr == addr {
			at, change.Server = i, rs
		}
	}
	switch words[0] {
	case "-A", "-E":
		change.Kind = service.ServiceEdited
		if d.sched == nil || scheduler != d.name {
			var err error
			if d.sched, err = d.config.New(scheduler, flags); err != nil {
				d.t.Fatal(err)
			}
			d.name = scheduler
			d.sched.Prepare(d.list)
		}
	case "-a":
		change.Kind = service.ServerAdded
		if change.Server = d.trash[addr]; change.Server == nil {
			change.Server = service.NewRealServer(d.key, addr, method, 0)
		}
		change.Server.SetAvailable(true)
		d.list = append(servers{change.Server}, d.list...)
	case "-e":
		change.Kind = service.ServerEdited
	case "-d":
		change.Kind = service.ServerRemoved
		change.Server.SetAvailable(false)
		d.trash[addr] = change.Server
		d.list = append(append(servers{}, d.list[:at]...), d.list[at+1:]...)
	}
	if words[0] == "-a" || words[0] == "-e" {
		change.Server.SetMethod(method)
		change.Server.SetWeight(int32(weight))
		change.Server.SetThresholds(uint32(upper), uint32(lower))
	}
	change.After = d.list
	d.sched.Changed(change)
	d.sched.Prepare(d.list)
}

// compare holds the list and its counts against the kernel's.
func (d *director) compare(step int, want map[string][][5]any) {
	for _, rows := range want { // there is one service
		for i, row := range rows {
			wants := fmt.Sprint(row[:]...)
			got := "nothing"
			if i < len(d.list) {
				rs := d.list[i]
				got = fmt.Sprint(rs.Addr.String(), rs.Method().String(), rs.Weight(), rs.Active(), rs.Inactive())
			}
			if got != wants {
				d.t.Errorf("step %d: server %d is %s, want %s", step+1, i, got, wants)
			}
		}
		if len(rows) != len(d.list) {
			d.t.Errorf("step %d: %d servers, want %d", step+1, len(d.list), len(rows))
		}
	}
}
