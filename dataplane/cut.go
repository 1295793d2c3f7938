package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
)

// cut deals with a packet of a connection that conntrack.Table.Cut has ended. Nobody here knows its sequence numbers, but the
// packet does: its sender gets a reset made from its acknowledgment, and the packet itself goes on, as a reset, to the other
// end in the place of what it carried. The one that doesn't fit there is asked about by its receiver (RFC 5961), and that
// question comes here again, unless it goes from a server past the director to a client who has got its own reset by then.
// They are not limited as answers to strangers are: there can be no more of them than packets of connections that were ours.
func (w *path) cut(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	if !forward.ChecksumOK(p, f.Vnet()) {
		return DropNoConn
	}
	if b := forward.Reset(w.answer(), p); b != nil {
		w.reply(q, p, b)
	}
	if w.fragment != nil || p.TTL <= 1 || !forward.MakeReset(p, f.Vnet()) {
		return AnsweredCut
	}
	send := w.deliver
	if c.Dir == conntrack.Out {
		send = w.deliverOut
	}
	if send(q, f, p, c) == verdictNone {
		return verdictNone // held: counted when its next hop is known
	}
	return AnsweredCut
}
