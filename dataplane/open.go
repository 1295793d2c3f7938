package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/dataplane/sip"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

const ftpDataPort = 20

// opening is the connection that a packet may open.
type opening struct {
	flow packet.Flow // from client to VIP
	mark uint32
	// about says that the packet is an ICMP error about the connection, not one of its own (schedule_icmp).
	about bool
}

// open deals with a packet of no known connection for service vs: it may open one (ip_vs_schedule).
func (w *path) open(q *port, f *link.Frame, vs *service.VirtualService, mark uint32) Verdict {
	p := w.pkt
	if w.owns(q, p.Src) {
		return DropAddress // nobody else sends from it: the kernel's martian source
	}
	switch said := says(p); {
	case p.Proto == packet.ProtoSCTP && said == packet.SCTPNoChunk:
		return DropNoConn // the kernel hands every other one to the host's stack, but not this
	case !mayOpen(p.Proto, said, &w.table.Settings):
		return w.refuse(q, f)
	}
	w.opening = opening{flow: p.Flow, mark: mark}
	return w.schedule(q, f, vs)
}

// says is what mayOpen asks of a packet: TCP's flags or SCTP's first chunk.
func says(p *packet.Packet) uint8 {
	if p.Proto == packet.ProtoSCTP {
		return packet.SCTPFirst(p.L4Bytes())
	}
	return p.TCPFlags
}

// mayOpen says that a packet may open a connection: of TCP a SYN, or anything but a RST with sloppy_tcp; of SCTP an INIT, or
// anything but an ABORT with sloppy_sctp.
func mayOpen(proto, says uint8, s *service.Settings) bool {
	switch proto {
	case packet.ProtoTCP:
		return says&packet.TCPRst == 0 && (says&packet.TCPSyn != 0 || s.SloppyTCP)
	case packet.ProtoSCTP:
		return says == packet.SCTPInit || s.SloppySCTP && says != packet.SCTPAbort && says != packet.SCTPNoChunk
	}
	return true
}

// schedule picks a real server for what w.opening says.
func (w *path) schedule(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	o := &w.opening
	if w.table.Limiter.Drop() {
		return DropDefence
	}
	if o.flow.SrcPort == ftpDataPort {
		return w.refuse(q, f) // an FTP session's data connection is expected, never scheduled; the kernel asks for no protocol
	}
	if vs.Mark == 0 && !vs.Persistent() && o.flow.DstPort != vs.Addr.Port() {
		return w.unavailable(q, f, vs) // FTP's or port 0's service stands for other ports only when persistent
	}
	w.req.Service, w.req.Flow, w.req.Now = vs, o.flow, w.now
	if vs.Persistent() {
		return w.openPersistent(q, f, vs)
	}
	rs := w.pick(vs)
	if rs == nil {
		w.refused(vs)
		return w.unavailable(q, f, vs)
	}
	port := rs.Addr.Port()
	if port == 0 {
		port = o.flow.DstPort
	}
	return w.connect(q, f, vs, rs, port, 0)
}

// pick asks the service's scheduler.
func (w *path) pick(vs *service.VirtualService) *service.RealServer {
	if vs.Scheduler == nil {
		return nil
	}
	return vs.Scheduler.Pick(&w.req, vs.Servers)
}

// refused tells of a connection that found no server, if somebody watches the service's.
func (w *path) refused(vs *service.VirtualService) {
	if vs.Watched {
		w.plane.cfg.Conns.Refuse(&w.opening.flow, vs.Index, w.now)
	}
}

// connect makes the connection's entry and sends the packet.
func (w *path) connect(q *port, f *link.Frame, vs *service.VirtualService, rs *service.RealServer, serverPort uint16, template conntrack.ID) Verdict {
	o, n := &w.opening, &w.create
	*n = conntrack.NewConn{
		Flow: o.flow, Server: rs.IP, ServerPort: serverPort, Method: rs.Method(), Service: vs.Index, RS: rs, Mark: o.mark,
		Template: template, Event: w.pkt.Event(), About: o.about, Now: w.now,
	}
	if vs.OnePacket && o.flow.Proto == packet.ProtoUDP {
		n.Flags |= conntrack.OnePacket
	}
	if vs.Watched {
		n.Flags |= conntrack.Watched
	}
	return w.insert(q, f, vs, rs)
}

// insert inserts w.create and sends the packet.
func (w *path) insert(q *port, f *link.Frame, vs *service.VirtualService, rs *service.RealServer) Verdict {
	p, c := w.pkt, &w.conn
	switch w.plane.cfg.Conns.Insert(&w.create, c) {
	case conntrack.Full:
		return DropTableFull
	case conntrack.Inserted:
		w.ledger.conn(vs, rs)
	}
	if w.opening.about {
		w.in(c, p.IPLen())
		return w.errorToServer(q, f, p, c)
	}
	return w.toServer(q, f, p, c)
}

// openPersistent opens a connection under a persistence template (ip_vs_sched_persist).
func (w *path) openPersistent(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	conns := w.plane.cfg.Conns
	t := &w.template
	t.TemplateKey, t.Data = templateKey(vs, &w.opening.flow), nil
	if vs.PersistenceEngine != "" { // "sip", the only one
		id, ok := sip.CallID(w.pkt.Frame[w.pkt.Payload:])
		if !ok || w.pkt.Proto != packet.ProtoUDP {
			return DropSIP
		}
		t.Data = id
	}
	var rs *service.RealServer
	if conns.FindTemplateData(&t.TemplateKey, t.Data, w.now, &w.conn) == conntrack.Hit {
		rs = w.table.Servers.At(w.conn.RS)
	}
	if rs == nil {
		if rs = w.pick(vs); rs == nil {
			w.refused(vs)
			return w.unavailable(q, f, vs)
		}
		t.Server, t.ServerPort, t.Method = rs.IP, templatePort(vs, rs), rs.Method()
		t.Service, t.RS, t.Timeout, t.Now = vs.Index, rs, vs.Persistence, w.now
		switch conns.InsertTemplate(t, &w.conn) {
		case conntrack.Full:
			return DropTableFull
		case conntrack.Hit:
			if other := w.table.Servers.At(w.conn.RS); other != nil {
				rs = other // another worker was faster
			}
		}
	}
	// The connection's own port: the server's where the service's port was asked for, else the port asked for.
	serverPort := w.opening.flow.DstPort
	if w.opening.flow.DstPort == vs.Addr.Port() && rs.Addr.Port() != 0 {
		serverPort = rs.Addr.Port()
	}
	return w.connect(q, f, vs, rs, serverPort, w.conn.ID)
}

// templateKey is under which a client's template is kept: per service port, per address (FTP and port 0), or per mark.
func templateKey(vs *service.VirtualService, f *packet.Flow) conntrack.TemplateKey {
	k := conntrack.TemplateKey{Proto: service.Proto(f.Proto), Virtual: f.Dst}
	if f.Src.Is4() {
		k.Client = f.Src.Mask4(vs.Netmask)
	} else {
		k.Client = f.Src.Masked(vs.PrefixLen)
	}
	switch {
	case vs.Mark != 0:
		k.Proto, k.Virtual = 0, conntrack.MarkAddr(vs.Mark, f.Src)
	case vs.Addr.Port() != ftpPort:
		k.VirtualPort = vs.Addr.Port()
	}
	return k
}

const ftpPort = 21

// templatePort is the server's port in a template: none where the template stands for several ports.
func templatePort(vs *service.VirtualService, rs *service.RealServer) uint16 {
	if vs.Mark != 0 || vs.Addr.Port() == ftpPort || vs.Addr.Port() == 0 {
		return 0
	}
	return rs.Addr.Port()
}

// unavailable answers when a service has no server for a new connection (ip_vs_leave): port unreachable, for TCP as well;
// but what merely passed by FTP's service is not ours to refuse so.
func (w *path) unavailable(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	p, o := w.pkt, &w.opening
	switch {
	case w.table.Settings.CacheBypass && vs.Mark != 0 && !o.about && w.isElsewhere(q, o.flow.Dst):
		return w.bypass(q, f, vs)
	case vs.Mark == 0 && vs.Addr.Port() == ftpPort && o.flow.DstPort != ftpPort, o.about:
		return w.refuse(q, f)
	}
	return w.answerUnreachable(q, p, forward.NoPort, 0, p.Dst, DropNoScheduler)
}

// isElsewhere says that a is another station's unicast address.
func (w *path) isElsewhere(q *port, a packet.Addr) bool {
	if w.owns(q, a) || isGroup(a) {
		return false
	}
	_, status := w.plane.cfg.NextHops.Lookup(a)
	return status != nexthop.Local
}

// bypass opens a connection to where its first packet was going, past the cluster of caches that has no server left
// (cache_bypass).
func (w *path) bypass(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	o := &w.opening
	w.create = conntrack.NewConn{
		Flow: o.flow, Server: o.flow.Dst, ServerPort: o.flow.DstPort, Method: service.Bypass, Service: vs.Index, Mark: o.mark,
		Event: w.pkt.Event(), Now: w.now,
	}
	return w.insert(q, f, vs, nil)
}
