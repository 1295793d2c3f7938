package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// beginning is how many packets of a client's belong to the beginning of a connection, of which symptoms are counted. To all that
// come later it is one comparison.
const beginning = 4

// begins looks at one of the first packets of a connection from its client.
func (w *path) begins(p *packet.Packet, c *conntrack.Conn) {
	if p.Proto != packet.ProtoTCP {
		return
	}
	s := w.symptoms.at(c.RS)
	switch {
	case s == nil:
	case p.TCPFlags&packet.TCPSyn == 0:
		if c.Packets == 2 { // later ones may be repeated, because nothing answers
			s.Answered++
		}
	case c.Packets <= 1:
		s.Opened++
	default:
		s.Repeated++
	}
}

// beginsOut looks at a packet from the server while its client has sent few.
func (w *path) beginsOut(p *packet.Packet, c *conntrack.Conn) {
	if p.Proto != packet.ProtoTCP {
		return
	}
	s := w.symptoms.at(c.RS)
	switch {
	case s == nil:
	case p.TCPFlags&packet.TCPRst != 0:
		s.Refused++
	default:
		s.Answered++
	}
}

// notReachable notes that there is no way to a real server now.
func (w *path) notReachable(rs uint32) {
	if s := w.symptoms.at(rs); s != nil {
		s.Unreachable++
	}
}

// lostWay notes that a real server's next hop doesn't answer.
func (w *path) lostWay(c *conntrack.Conn, status nexthop.Status) {
	if status == nexthop.Unreachable {
		w.notReachable(c.RS)
	}
}

// AddSymptoms adds every worker's symptoms to sum, by RealServer.Index. A slot that is used again goes on counting.
func (p *Plane) AddSymptoms(sum []service.Symptoms) {
	p.eachPath(func(w *path) { addSlots(&w.mu, sum, &w.symptoms, (*service.Symptoms).Add) })
}
