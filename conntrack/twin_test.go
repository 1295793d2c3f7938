package conntrack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// twins drives a Table and its model through the same operations, chosen by bytes, and compares all that can be seen.
type twins struct {
	*world
	t        testing.TB
	m        *model
	input    *bytes.Reader
	servers  []*service.RealServer
	reach    map[bool][]*service.RealServer // servers for IPv4 clients (true) and for IPv6 clients
	flows    []packet.Flow
	focus    int
	log      []string
	advanced int64 // when Advance was last called
}

func newTwins(t testing.TB, input []byte) *twins {
	// Two shards and one bucket page each: everything collides.
	tw := &twins{world: newWorld(t, Config{Shards: 2}), t: t, m: newModel(), input: bytes.NewReader(input)}
	tw.reach = map[bool][]*service.RealServer{}
	for _, s := range []struct {
		addr string
		m    service.Method
		four bool
	}{
		{"10.1.0.11:80", service.Masq, true}, {"10.1.0.12:80", service.Masq, true}, {"10.1.0.13:80", service.Route, true},
		{"10.1.0.14:80", service.Local, true}, {"[2001:db8:1::15]:80", service.Tunnel, true},
		{"[2001:db8:1::11]:80", service.Masq, false}, {"[2001:db8:1::12]:80", service.Masq, false},
		{"[2001:db8:1::13]:80", service.Route, false}, {"[::14]:80", service.Local, false},
		{"10.1.0.15:80", service.Tunnel, false},
	} {
		rs := tw.server(t, s.addr, s.m)
		if len(tw.servers)%2 == 0 {
			rs.TimeSetups() // which nothing may notice
		}
		tw.servers = append(tw.servers, rs)
		tw.reach[s.four] = append(tw.reach[s.four], rs)
	}
	for client := range 2 {
		for port := range 1 + client {
			for vip := range 3 {
				for _, proto := range []service.Proto{service.TCP, service.UDP, service.SCTP} {
					tw.flows = append(tw.flows,
						flow(proto, fmt.Sprintf("192.0.2.%d:%d", client, 1000+port),
							[]string{"10.9.0.100:80", "10.9.0.101:80", "10.9.0.100:81"}[vip]),
						flow(proto, fmt.Sprintf("[2001:db8::%d]:%d", client, 1000+port),
							[]string{"[2001:db8:9::100]:80", "[2001:db8:9:0:1::100]:80", "[2001:db8:9::100]:81"}[vip]))
				}
			}
		}
	}
	return tw
}

// serverFor returns a server that f can go to.
func (tw *twins) serverFor(f packet.Flow) *service.RealServer {
	reach := tw.reach[f.Src.Is4()]
	return reach[tw.pick(len(reach))]
}

// pick returns a number below n.
func (tw *twins) pick(n int) int {
	b, _ := tw.input.ReadByte()
	return int(b) % n
}

// flow returns mostly the flow it returned last, so that connections get into all their states.
func (tw *twins) flow() packet.Flow {
	if n := tw.pick(256); n >= 200 {
		tw.focus = n % len(tw.flows)
	}
	return tw.flows[tw.focus]
}

// answer returns what a server might send about a flow: mostly the one that its connection goes to.
func (tw *twins) answer() packet.Flow {
	f := tw.flow()
	rs := tw.serverFor(f)
	if mc := tw.m.find(f, In); mc != nil && tw.pick(8) > 0 {
		rs = mc.rs
	}
	return answer(f, rs)
}

func (tw *twins) run() {
	for tw.input.Len() > 0 && !tw.t.Failed() {
		tw.operation()
		tw.compareAll()
	}
	// When all timeouts are over nothing may be left.
	tw.m.settings, tw.log = DefaultSettings(), append(tw.log, "the end")
	for _, rs := range tw.servers {
		rs.SetAvailable(true)
	}
	tw.pass(20 * time.Minute)
	for _, rs := range tw.servers {
		if got := counts(rs); got != [3]int32{} {
			tw.fail("counts of %v at the end = %v, want none", rs, got)
		}
		if n := rs.SettingUp(); n != 0 {
			tw.fail("%v has %d set-ups at the end, want none", rs, n)
		}
	}
	if st := tw.Stats(); st.Conns != 0 || st.Templates != 0 || st.Inserts != st.Expirations || st.Refused != 0 || tw.entries.Load() != 0 {
		tw.fail("at the end %+v, want an empty table", st)
	}
	for i := range tw.conns {
		if n := tw.conns[i].items; n != 0 {
			tw.fail("at the end %d items in the index of shard %d", n, i)
		}
	}
}

func (tw *twins) operation() {
	switch tw.pick(16) {
	case 0, 1, 2, 3, 4, 5:
		tw.packetIn()
	case 6, 7, 8:
		tw.packetOut()
	case 9, 10:
		tw.time()
	case 11:
		tw.find()
	case 12:
		tw.persistent()
	case 13:
		tw.configure()
	case 14:
		tw.change()
	case 15:
		tw.insertTwice()
	}
}

// event is what a packet of f says: TCP's flags or SCTP's chunk.
func (tw *twins) event(f packet.Flow) uint8 {
	if f.Proto == packet.ProtoSCTP {
		return []uint8{
			packet.SCTPData, packet.SCTPInit, packet.SCTPInitAck, packet.SCTPCookieEcho, packet.SCTPCookieAck, packet.SCTPAbort,
			packet.SCTPShutdown, packet.SCTPShutdownAck, packet.SCTPNoChunk,
		}[tw.pick(9)]
	}
	return []uint8{
		packet.TCPSyn, packet.TCPAck, packet.TCPAck | packet.TCPPsh, packet.TCPSyn | packet.TCPAck,
		packet.TCPFin | packet.TCPAck, packet.TCPRst, packet.TCPRst | packet.TCPAck, 0, packet.TCPFin,
	}[tw.pick(9)]
}

func (tw *twins) packetIn() {
	f := tw.flow()
	flags := tw.event(f)
	tw.note("in %v flags %#x", f, flags)
	var c Conn
	got := tw.In(&f, flags, tw.now, &c)
	want, mc := tw.m.in(f, flags, tw.now)
	tw.compare(got, &c, want, mc)
	if want.Missed() {
		first := []uint8{flags, packet.TCPSyn, packet.TCPSyn, packet.TCPAck}[tw.pick(4)]
		if f.Proto == packet.ProtoSCTP {
			first = packet.SCTPInit
		}
		tw.insert(f, first, tw.serverFor(f), 0)
	}
}

func (tw *twins) insert(f packet.Flow, flags uint8, rs *service.RealServer, template ID) {
	tw.note("insert %v flags %#x to %v under %#x", f, flags, rs, template)
	n := newConn(f, rs, flags, tw.now)
	n.Template = template
	var c Conn
	got := tw.Insert(n, &c)
	want, mc := tw.m.insert(n)
	tw.compare(got, &c, want, mc)
}

func (tw *twins) insertTwice() {
	f := tw.flow()
	tw.insert(f, packet.TCPSyn, tw.serverFor(f), 0)
	tw.insert(f, packet.TCPSyn, tw.reach[f.Src.Is4()][0], 0)
}

func (tw *twins) packetOut() {
	f := tw.answer()
	flags := tw.event(f)
	tw.note("out %v flags %#x", f, flags)
	var c Conn
	got := tw.Out(&f, flags, tw.now, &c)
	want, mc := tw.m.out(f, flags, tw.now)
	tw.compare(got, &c, want, mc)
}

func (tw *twins) time() {
	d := time.Duration([]int{1, 1, 1, 1, 2, 4, 4, 9, 40, 119, 120, 121, 241, 480, 1200, 3601}[tw.pick(16)]) * 250 * time.Millisecond
	advance := tw.now+int64(d)-tw.advanced > int64(time.Second) || tw.pick(3) > 0 // the table relies on being advanced often
	tw.note("%v pass, advance %v", d, advance)
	tw.now += int64(d)
	if advance {
		tw.settle()
		tw.advanced = tw.now
		tw.m.dying = nil
	}
	tw.m.reconcile(tw.now, func(id ID) bool {
		var c Conn
		return tw.Lookup(id, tw.now, &c)
	}, func(what string, tm *modelTemplate) { tw.fail("template %+v %s", *tm, what) })
}

func (tw *twins) find() {
	f, dir := tw.flow(), In
	if tw.pick(2) == 1 {
		f, dir = tw.answer(), Out
	}
	tw.note("find %v %v", f, dir)
	var c Conn
	found := tw.Find(&f, dir, tw.now, &c)
	tw.m.lapse(tw.now)
	mc := tw.m.find(f, dir)
	if found != (mc != nil) {
		tw.fail("Find = %v, model %+v", found, mc)
		return
	}
	if found {
		tw.compare(Hit, &c, Hit, mc)
		var again Conn
		if !tw.Lookup(c.ID, tw.now, &again) || again.Client != c.Client || again.Virtual != c.Virtual {
			tw.fail("Lookup of %#x found by Find gives %+v, want %+v", c.ID, again, c)
		}
	}
}

// persistent is a packet for a persistent service: template first, connection then.
func (tw *twins) persistent() {
	f := tw.flow()
	k := TemplateKey{Proto: service.Proto(f.Proto), Client: f.Src.Masked(31), Virtual: f.Dst, VirtualPort: f.DstPort}
	if !f.Src.Is4() {
		k.Client = f.Src.Masked(127)
	}
	rs, timeout := tw.serverFor(f), time.Duration(2+tw.pick(9)*20)*time.Second
	tw.note("template %v for %v to %v", k, f, rs)
	var c Conn
	got := tw.FindTemplate(&k, tw.now, &c)
	want, tm := tw.m.findTemplate(k, tw.now)
	if got != want {
		tw.fail("FindTemplate = %v, want %v", got, want)
		return
	}
	if got != Hit {
		n := &NewTemplate{TemplateKey: k, Server: rs.IP, ServerPort: rs.Addr.Port(), Method: rs.Method(), RS: rs, Timeout: timeout, Now: tw.now}
		if o := tw.InsertTemplate(n, &c); o != Inserted && rs.Available() {
			tw.fail("InsertTemplate = %v, want inserted", o)
		}
		tm = tw.m.insertTemplate(n, c.ID)
	}
	state := TemplateNone
	if tm.assured {
		state = TemplateAssured
	}
	if c.ID != tm.id || c.RS != tm.rs.Index || c.State != state {
		tw.fail("template is %+v, want %+v", c, *tm)
	}
	if mc := tw.m.find(f, In); mc != nil {
		return
	}
	tw.insert(f, packet.TCPSyn, tm.rs, c.ID)
}

func (tw *twins) configure() {
	s := tw.m.settings
	switch tw.pick(5) {
	case 0:
		s.ConnReuseMode = tw.pick(4)
	case 1:
		s.ExpireNodestConn = tw.pick(2) == 1
	case 2:
		s.ExpireQuiescentTemplate = tw.pick(2) == 1
	case 3:
		s.SecureTCP = tw.pick(2) == 1
	case 4:
		tcp, fin, udp := time.Duration(tw.pick(4)*30)*time.Second, time.Duration(tw.pick(4)*5)*time.Second, time.Duration(tw.pick(3)*7)*time.Second
		tw.note("timeouts %v %v %v", tcp, fin, udp)
		tw.SetTimeouts(tcp, fin, udp)
		for state, d := range map[State]time.Duration{Established: tcp, FinWait: fin, UDPNormal: udp} {
			if d > 0 {
				tw.m.timeouts[state] = d
			}
		}
	}
	tw.note("settings %+v", s)
	tw.SetSettings(s)
	tw.m.settings = s
}

func (tw *twins) change() {
	rs := tw.servers[tw.pick(len(tw.servers))]
	switch tw.pick(5) {
	case 0:
		rs.SetWeight(0)
		tw.note("%v weight 0", rs)
	case 1:
		rs.SetWeight(1)
		tw.note("%v weight 1", rs)
	case 2:
		rs.SetAvailable(true)
		tw.note("%v returns", rs)
	case 3:
		rs.SetAvailable(false)
		tw.note("%v removed", rs)
		tw.settle()
		tw.m.dying = nil
		tw.ExpireRemoved()
		tw.settle()
		tw.m.lapse(tw.now)
		tw.m.flush()
	case 4:
		tw.note("%v cut", rs)
		tw.settle()
		tw.m.dying = nil
		tw.m.lapse(tw.now)
		tw.Cut(func(x *service.RealServer) bool { return x == rs }, tw.now)
		tw.m.cut(rs, tw.now)
	}
}

func (tw *twins) compare(got Outcome, c *Conn, want Outcome, mc *modelConn) {
	tw.t.Helper()
	if got != want {
		tw.fail("outcome %v, want %v (%+v)", got, want, mc)
		return
	}
	if want.Missed() {
		return
	}
	var template ID
	if mc.template != nil {
		template = mc.template.id
	}
	if c.Client != mc.flow.Src || c.ClientPort != mc.flow.SrcPort || c.Virtual != mc.flow.Dst || c.VirtualPort != mc.flow.DstPort ||
		c.Server != mc.server || c.ServerPort != mc.sport || c.Method != mc.method || c.RS != mc.rs.Index ||
		c.State != mc.state || c.Packets != mc.packets || c.Control != template ||
		c.Flags&NoOutput != 0 != mc.noOutput || c.Flags&Inactive != 0 == mc.active() {
		tw.fail("got %+v\nwant %+v", *c, *mc)
	}
	if late := c.Expires - mc.deadline; late < 0 || late > int64(100*time.Millisecond) {
		tw.fail("deadline %v late", time.Duration(late))
	}
}

// compareAll compares listing and counts.
func (tw *twins) compareAll() {
	tw.m.lapse(tw.now)
	for _, rs := range tw.servers {
		least, most := tw.m.bounds(rs)
		got := counts(rs)
		for i := range got {
			if got[i] < least[i] || got[i] > most[i] && i < 2 {
				tw.fail("counts of %v = %v, want between %v and %v", rs, got, least, most)
			}
		}
	}
	conns := 0
	tw.Walk(tw.now, func(c *Conn) bool {
		if c.Flags&Template != 0 {
			return true
		}
		conns++
		f := packet.Flow{Src: c.Client, SrcPort: c.ClientPort, Dst: c.Virtual, DstPort: c.VirtualPort, Proto: uint8(c.Proto)}
		if mc := tw.m.find(f, In); mc == nil {
			tw.fail("listed but not in the model: %+v", *c)
		} else {
			tw.compare(Hit, c, Hit, mc)
		}
		return true
	})
	if conns != len(tw.m.conns) {
		tw.fail("%d connections listed, want %d", conns, len(tw.m.conns))
	}
}

func (tw *twins) note(format string, args ...any) {
	tw.log = append(tw.log, fmt.Sprintf(format, args...))
}

func (tw *twins) fail(format string, args ...any) {
	tw.t.Helper()
	if tw.t.Failed() {
		return
	}
	for _, l := range tw.log[max(0, len(tw.log)-40):] {
		tw.t.Log(l)
	}
	tw.t.Errorf(format, args...)
}

func TestTableBehavesAsItsTwin(t *testing.T) {
	for seed := range uint64(250 / slowdown) {
		random := rand.New(rand.NewPCG(seed, 0))
		input := make([]byte, 2000)
		for i := range input {
			input[i] = byte(random.Uint32())
		}
		newTwins(t, input).run()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzTwin(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 3, 8, 10, 1})          // SYN, ACK, answer, time
	f.Add([]byte{12, 0, 0, 1, 0, 8, 11, 1, 8, 11, 1, 12, 0, 0, 1})       // template, time, again
	f.Add([]byte{0, 0, 0, 0, 13, 1, 1, 14, 0, 3, 0, 0, 0, 14, 0, 2})     // SYN, expire_nodest_conn, removal
	f.Add([]byte{0, 0, 0, 0, 1, 5, 0, 0, 3, 14, 0, 4, 0, 0, 1, 6, 0, 1}) // SYN, ACK, answer, cut, a packet from each side
	f.Add([]byte{15, 0, 0, 15, 2, 0, 15, 8, 0, 6, 0, 0, 1, 11, 0, 1})    // same client port, three VIPs, one server
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 4000 {
			return
		}
		newTwins(t, input).run()
	})
}
