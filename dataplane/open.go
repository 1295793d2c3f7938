package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/packet"
	"uvs/service"
)

const ftpDataPort = 20

// open deals with a packet of no known connection for service vs: it may open one (ip_vs_schedule).
func (w *path) open(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	p := &w.pkt
	if w.owns(q, p.Src) {
		return DropAddress // nobody else sends from it: the kernel's martian source
	}
	if p.Proto == packet.ProtoTCP && (p.TCPFlags&packet.TCPSyn == 0 || p.TCPFlags&packet.TCPRst != 0) {
		return w.refuse(q, f)
	}
	if p.SrcPort == ftpDataPort {
		return w.refuse(q, f) // an FTP session's data connection is expected, never scheduled; the kernel asks for no protocol
	}
	if vs.Mark == 0 && !vs.Persistent() && p.DstPort != vs.Addr.Port() {
		return w.unavailable(q, f, vs) // FTP's or port 0's service stands for other ports only when persistent
	}
	w.req.Service, w.req.Flow, w.req.Now = vs, p.Flow, w.now
	if vs.Persistent() {
		return w.openPersistent(q, f, vs)
	}
	rs := w.pick(vs)
	if rs == nil {
		return w.unavailable(q, f, vs)
	}
	port := rs.Addr.Port()
	if port == 0 {
		port = p.DstPort
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

// connect makes the connection's entry and sends its first packet.
func (w *path) connect(q *port, f *link.Frame, vs *service.VirtualService, rs *service.RealServer, serverPort uint16, template conntrack.ID) Verdict {
	p, c := &w.pkt, &w.conn
	n := &w.create
	*n = conntrack.NewConn{
		Flow: p.Flow, Server: rs.IP, ServerPort: serverPort, Method: rs.Method(), Service: vs.Index, RS: rs,
		Template: template, TCPFlags: p.TCPFlags, Now: w.now,
	}
	if vs.OnePacket && p.Proto == packet.ProtoUDP {
		n.Flags |= conntrack.OnePacket
	}
	switch w.plane.cfg.Conns.Insert(n, c) {
	case conntrack.Full:
		return DropTableFull
	case conntrack.Inserted:
		w.ledger.conn(vs, rs)
	}
	return w.toServer(q, f, p, c)
}

// openPersistent opens a connection under a persistence template (ip_vs_sched_persist).
func (w *path) openPersistent(q *port, f *link.Frame, vs *service.VirtualService) Verdict {
	p, conns := &w.pkt, w.plane.cfg.Conns
	t := &w.template
	t.TemplateKey = templateKey(vs, &p.Flow)
	var rs *service.RealServer
	if conns.FindTemplate(&t.TemplateKey, w.now, &w.conn) == conntrack.Hit {
		rs = w.table.Servers.At(w.conn.RS)
	}
	if rs == nil {
		if rs = w.pick(vs); rs == nil {
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
	serverPort := p.DstPort
	if p.DstPort == vs.Addr.Port() && rs.Addr.Port() != 0 {
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
		k.Proto, k.Virtual = 0, packet.AddrFrom4(vs.Mark)
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
	p := &w.pkt
	if vs.Mark == 0 && vs.Addr.Port() == ftpPort && p.DstPort != ftpPort {
		return w.refuse(q, f)
	}
	return w.answerUnreachable(q, p, packet.ICMPCodePort, 0, p.Dst, DropNoScheduler)
}
