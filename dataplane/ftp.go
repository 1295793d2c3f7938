package dataplane

import (
	"time"

	"uvs/conntrack"
	"uvs/dataplane/ftp"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// isFTP says that c is a control connection that NAT must follow (ip_vs_ftp).
func isFTP(c *conntrack.Conn) bool {
	return c.VirtualPort == ftp.Port && c.Method == service.Masq && c.Proto == service.TCP && c.Flags&conntrack.Template == 0
}

func ftpControl(c *conntrack.Conn) ftp.Control {
	return ftp.Control{
		Client: c.Client, Virtual: c.Virtual, VirtualPort: c.VirtualPort, Server: c.Server, ServerPort: c.ServerPort,
	}
}

// ftpIn reads what the client says on control connection c. verdictNone says that the packet goes on.
func (w *path) ftpIn(f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	control := ftpControl(c)
	x, ok := w.plane.ftp.FromClient(uint64(c.ID), &control, p, f.Vnet(), c.State == conntrack.Established)
	if !ok {
		return verdictNone
	}
	var data conntrack.Conn
	if w.expect(c, &x, &data) == conntrack.Full {
		return DropTableFull
	}
	w.plane.ftp.Opens(uint64(c.ID), uint64(data.ID))
	return verdictNone
}

// expect makes the entry of a data connection of control connection c.
func (w *path) expect(c *conntrack.Conn, x *ftp.Expectation, data *conntrack.Conn) conntrack.Outcome {
	w.create = conntrack.NewConn{
		Flow:   packet.Flow{Src: x.Client, SrcPort: x.ClientPort, Dst: c.Virtual, DstPort: x.VirtualPort, Proto: packet.ProtoTCP},
		Server: x.Server, ServerPort: x.ServerPort, Method: service.Masq, Service: c.Service, RS: w.table.Servers.At(c.RS),
		Mark: c.Mark, Now: w.now,
	}
	return w.plane.cfg.Conns.Expect(&w.create, data)
}

// expectPorts is how many ports of the virtual service are tried for a data connection whose own is taken.
const expectPorts = 16

// ftpOut reads what the server says on control connection c. done says that the packet is dealt with.
func (w *path) ftpOut(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) (v Verdict, done bool) {
	control := ftpControl(c)
	id := uint64(c.ID)
	r, found := w.plane.ftp.FromServer(id, &control, p, f.Vnet(), c.State == conntrack.Established)
	switch found {
	case ftp.Nothing:
		return verdictNone, false
	case ftp.Torn:
		return DropFTP, true
	case ftp.Named:
		x, expected := r.Expectation(&control), false
		for range expectPorts {
			var data conntrack.Conn
			o := w.expect(c, &x, &data)
			if o == conntrack.Full {
				return DropTableFull, true
			}
			if expected = o == conntrack.Inserted || data.Server == x.Server && data.ServerPort == x.ServerPort; expected {
				break
			}
			x.VirtualPort = max(x.VirtualPort+1, 1024)
		}
		if !expected {
			return DropFTP, true
		}
		w.plane.ftp.Answer(id, &r, &control, x.VirtualPort)
	}
	mtu := 1500
	if hop, status := w.plane.cfg.NextHops.Lookup(c.Client); status == nexthop.Ready {
		mtu = hop.MTU
	}
	if n := ftp.Room(len(f.Buf)); n > len(w.said) {
		w.said = make([]byte, n)
	}
	first, second, ok := r.Rewrite(w.said, f.Buf, p, mtu)
	if !ok {
		return DropFTP, true
	}
	fragment := w.fragment
	w.fragment = nil // it is not what came in any more
	for _, b := range [][]byte{first, second} {
		if b == nil {
			continue
		}
		g := link.Frame{Buf: b}
		if packet.Decode(g.Eth(), p) != packet.NoFault {
			v = DropFTP
			break
		}
		v = w.deliverOut(q, &g, p, c)
	}
	w.fragment = fragment
	w.flush() // said is needed again
	return v, true
}

// ftpSweepInterval is the time between two looks at control connections.
const ftpSweepInterval = 10e9 // ns

// ftpSweep forgets control connections that are gone and keeps those alive that have data connections.
func (s *slowPath) ftpSweep() {
	if s.now < s.ftpSweepAt {
		return
	}
	s.ftpSweepAt = s.now + ftpSweepInterval
	conns := s.plane.cfg.Conns
	s.plane.ftp.Sweep(
		func(id uint64) bool {
			var c conntrack.Conn
			return conns.Lookup(conntrack.ID(id), s.now, &c)
		},
		func(id uint64) { conns.Extend(conntrack.ID(id), time.Minute, s.now) },
	)
}
