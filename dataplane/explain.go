package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/nexthop"
	"uvs/dataplane/sip"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// Question is a packet that nobody has sent: from a client, addressed to us.
type Question struct {
	// Flow is the packet's: from the client to the VIP.
	Flow packet.Flow
	// Port is the index of the port that it would come in by.
	Port int
	// Mark is its firewall mark; 0 leaves that to the rules.
	Mark uint32
	// Event is what the packet says to its connection's state: TCP's flags, or its one chunk's type of SCTP.
	Event uint8
	// TTL is its time to live or hop limit on arrival.
	TTL uint8
	// Len is the length of the IP packet in bytes, and Uncut says that it must not be fragmented.
	Len   int
	Uncut bool
	// Payload is what a persistence engine may look at.
	Payload []byte
}

// Explanation is what would become of a packet, and why.
type Explanation struct {
	// Mark is the packet's, Service the one that it meets, or nil.
	Mark    uint32
	Service *service.VirtualService
	// Owned says that the VIP is an address of ours.
	Owned bool
	// Conn is the connection that the packet belongs to, or that its flow has left behind, as Known says: Miss, Hit,
	// NoServer, Cut, or one of the reasons to drop the entry and schedule anew.
	Known conntrack.Outcome
	Conn  conntrack.Conn
	// Template is the client's persistence template: Miss, Hit, or MissNoServer if it leads nowhere any more.
	Templated conntrack.Outcome
	Template  conntrack.Conn
	// Scheduled says that the scheduler decided, with Picked as its answer, perhaps nil.
	Scheduled bool
	Picked    *service.RealServer
	// Server is the real server that the packet goes to, ServerAddr and ServerPort what it is addressed to there, and
	// Method how.
	Server     *service.RealServer
	ServerAddr packet.Addr
	ServerPort uint16
	Method     service.Method
	// Hop is the way there, if Way is nexthop.Ready, and MTU the longest packet that it carries, a tunnel's header
	// allowed for.
	Way nexthop.Status
	Hop *nexthop.Hop
	MTU int
	// Verdict is how the packet would end, so far as it isn't held or limited.
	Verdict Verdict
}

// Explain says what would become of a packet if it came now. It changes nothing: no connection, no scheduler's state, no
// counter. It goes the way of path.ip, on the configuration in force.
func (p *Plane) Explain(q *Question, now int64) Explanation {
	x := &explainer{plane: p, table: p.table.Load(), q: q, now: now}
	x.explain()
	return x.Explanation
}

// explainer is an explanation being made.
type explainer struct {
	Explanation
	plane *Plane
	table *service.Table
	q     *Question
	now   int64
}

func (x *explainer) explain() {
	f := &x.q.Flow
	x.Owned = x.table.IsVIP(f.Dst)
	x.Way = nexthop.NoRoute
	x.Mark = x.q.Mark
	if x.Mark == 0 {
		x.Mark = x.table.Mark(f, x.q.Port)
	}
	if x.table.Empty() {
		x.Verdict = x.stray()
		return
	}
	x.Known = x.plane.cfg.Conns.Peek(f, x.q.Event, x.now, &x.Conn)
	switch x.Known {
	case conntrack.Hit:
		x.Service = x.serviceOf(&x.Conn)
		x.Server = x.table.Servers.At(x.Conn.RS)
		x.send(x.Conn.Server, x.Conn.ServerPort, x.Conn.Method)
		return
	case conntrack.NoServer:
		x.Service = x.serviceOf(&x.Conn)
		x.Verdict = DropNoServer
		return
	case conntrack.Cut:
		x.Service = x.serviceOf(&x.Conn)
		x.Verdict = AnsweredCut
		return
	}
	if x.Service = x.table.Match(f, x.Mark); x.Service == nil {
		x.Verdict = x.stray()
		return
	}
	x.open()
}

// serviceOf is the service that a connection was made for, if it is still there.
func (x *explainer) serviceOf(c *conntrack.Conn) *service.VirtualService {
	for _, vs := range x.table.Services {
		if vs.Index == c.Service {
			return vs
		}
	}
	return nil
}

// stray is path.stray.
func (x *explainer) stray() Verdict {
	switch {
	case !x.Owned:
		return PassNotOurs
	case x.table.IsVIP(x.q.Flow.Src):
		return DropAddress
	}
	return x.refuse()
}

// refuse is path.refuse.
func (x *explainer) refuse() Verdict {
	switch {
	case x.q.Flow.Proto == packet.ProtoTCP && x.q.Event&packet.TCPRst != 0:
		return DropNoConn
	case x.q.Flow.Proto == packet.ProtoTCP:
		return AnsweredReset
	}
	return AnsweredICMP
}

// open is path.open and path.schedule.
func (x *explainer) open() {
	f, vs := &x.q.Flow, x.Service
	switch {
	case x.table.IsVIP(f.Src):
		x.Verdict = DropAddress
		return
	case !mayOpen(f.Proto, x.q.Event, &x.table.Settings), f.SrcPort == ftpDataPort:
		x.Verdict = x.refuse()
		return
	case vs.Mark == 0 && !vs.Persistent() && f.DstPort != vs.Addr.Port():
		x.unavailable()
		return
	case vs.Persistent() && !x.template():
		return
	}
	if x.Server == nil {
		x.pick()
	}
	if x.Server == nil {
		x.unavailable()
		return
	}
	port := x.Server.Addr.Port()
	switch {
	case vs.Persistent() && (f.DstPort != vs.Addr.Port() || port == 0):
		port = f.DstPort
	case port == 0:
		port = f.DstPort
	}
	x.send(x.Server.IP, port, x.Server.Method())
}

// template looks for the client's, and is false if the packet ends here.
func (x *explainer) template() bool {
	k, data := templateKey(x.Service, &x.q.Flow), []byte(nil)
	if x.Service.PersistenceEngine != "" {
		id, ok := sip.CallID(x.q.Payload)
		if !ok || x.q.Flow.Proto != packet.ProtoUDP {
			x.Verdict = DropSIP
			return false
		}
		data = id
	}
	if x.Templated = x.plane.cfg.Conns.PeekTemplate(&k, data, x.now, &x.Template); x.Templated == conntrack.Hit {
		x.Server = x.table.Servers.At(x.Template.RS)
	}
	return true
}

// pick asks a copy of the service's scheduler.
func (x *explainer) pick() {
	x.Scheduled = true
	if x.Service.Scheduler == nil {
		return
	}
	r := &service.Request{Service: x.Service, Flow: x.q.Flow, Now: x.now}
	x.Picked = service.Fork(x.Service.Scheduler, r).Pick(r, x.Service.Servers)
	x.Server = x.Picked
}

// unavailable is path.unavailable.
func (x *explainer) unavailable() {
	f, vs := &x.q.Flow, x.Service
	switch {
	case x.table.Settings.CacheBypass && vs.Mark != 0 && !x.Owned && !isGroup(f.Dst):
		x.send(f.Dst, f.DstPort, service.Bypass)
	case vs.Mark == 0 && vs.Addr.Port() == ftpPort && f.DstPort != ftpPort:
		x.Verdict = x.refuse()
	default:
		x.Verdict = AnsweredICMP
	}
}

// send finds the way to a server, and whether the packet fits it.
func (x *explainer) send(addr packet.Addr, port uint16, m service.Method) {
	x.ServerAddr, x.ServerPort, x.Method = addr, port, m
	if m == service.Local { // whatever its TTL and length are
		if x.Verdict = ForwardedLocal; x.plane.cfg.Stack == nil {
			x.Verdict = DropMethod
		}
		return
	}
	if x.q.TTL <= 1 {
		x.Verdict = AnsweredICMP
		return
	}
	if x.Hop, x.Way = x.plane.cfg.NextHops.Lookup(addr); x.Way != nexthop.Ready {
		x.Hop = nil
		x.Verdict = hopVerdict(x.Way)
		return
	}
	x.MTU = x.Hop.MTU
	tunnelled := m == service.Tunnel
	if tunnelled {
		x.MTU = x.tunnelMTU()
	}
	if x.q.Len > x.MTU && (x.q.Uncut && (!tunnelled || x.table.Settings.PMTUDisc) || !x.q.Flow.Src.Is4()) {
		x.Verdict = AnsweredICMP
		return
	}
	x.Verdict = sentBy(m)
}

// tunnelMTU is path.tunnelMTU.
func (x *explainer) tunnelMTU() int {
	p := packet.Packet{Flow: x.q.Flow}
	var t forward.Tunnel
	aimAt(&t, x.Server, x.ServerAddr, &x.table.Settings)
	mtu := x.plane.mtus.limit(x.ServerAddr, x.Hop.MTU, x.now) - t.HeadLen(&p, new(packet.Vnet))
	if !p.Is4() {
		return max(mtu, ipv6MinMTU)
	}
	return mtu
}

// sentBy is the verdict of a packet that was sent to a real server.
func sentBy(m service.Method) Verdict {
	switch m {
	case service.Route:
		return ForwardedDR
	case service.Masq:
		return ForwardedNAT
	case service.Tunnel:
		return ForwardedTUN
	case service.Bypass:
		return ForwardedBypass
	default:
		return DropMethod
	}
}
