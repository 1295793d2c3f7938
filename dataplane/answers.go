package dataplane

import (
	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
)

// reply sends a frame of our own back where the packet came from: to the station that sent it, by the port it came in.
func (w *path) reply(q *port, p *packet.Packet, b []byte) {
	src := (*packet.Eth)(p.Frame).Src()
	forward.Ethernet(b[packet.VnetLen:], src, q.mac)
	w.tx[q.index].Send(b, nil)
}

// answerTimeExceeded tells p's sender that its time to live ran out on the way.
func (w *path) answerTimeExceeded(q *port, p *packet.Packet, from packet.Addr) Verdict {
	if v := w.mayError(p, from, DropTTL); v != verdictNone {
		return v
	}
	w.reply(q, p, forward.TimeExceeded(w.answer(), p, from))
	return AnsweredICMP
}

// answerUnreachable tells p's sender that it cannot go on; otherwise is the verdict if it must not be told. mtu goes with
// forward.TooBig.
func (w *path) answerUnreachable(q *port, p *packet.Packet, why forward.Reason, mtu int, from packet.Addr, otherwise Verdict) Verdict {
	if v := w.mayError(p, from, otherwise); v != verdictNone {
		return v
	}
	w.reply(q, p, forward.Unreachable(w.answer(), p, why, mtu, from))
	return AnsweredICMP
}

// mayError says that an ICMP error about p may be sent now, by verdictNone. It takes an address of ours to send it from.
func (w *path) mayError(p *packet.Packet, from packet.Addr, otherwise Verdict) Verdict {
	switch {
	case !forward.MayAnswer(p), from.IsZero():
		return otherwise
	case !w.errors.Allow(w.now):
		return DropRateLimit
	}
	return verdictNone
}

// refuse answers as the host would if the VIP were its own and nobody listened: TCP with a reset, SCTP with protocol
// unreachable, others with port unreachable.
func (w *path) refuse(q *port, f *link.Frame) Verdict {
	p := w.pkt
	switch {
	case p.Proto == packet.ProtoTCP && p.TCPFlags&packet.TCPRst != 0, // a reset is never answered by one
		!forward.ChecksumOK(p, f.Vnet()):
		return DropNoConn
	case p.Proto == packet.ProtoSCTP: // the host of the VIP would have no SCTP
		return w.answerUnreachable(q, p, forward.NoProtocol, 0, p.Dst, DropNoConn)
	case p.Proto != packet.ProtoTCP:
		return w.answerUnreachable(q, p, forward.NoPort, 0, p.Dst, DropNoConn)
	case !w.resets.Allow(w.now):
		return DropRateLimit
	}
	b := forward.Reset(w.answer(), p)
	if b == nil {
		return DropNoConn
	}
	w.reply(q, p, b)
	return AnsweredReset
}

// ownAddr is the address of ours that an ICMP error to a station on q's segment bears: the gateway address there of
// otherwise's family, or else otherwise.
func (w *path) ownAddr(q *port, otherwise packet.Addr) packet.Addr {
	for _, g := range q.gateways {
		if g.addr.Is4() == otherwise.Is4() {
			return g.addr
		}
	}
	return otherwise
}

// routerAddr is ownAddr for packets to or from a that we merely route: on a segment without gateway address, that of another
// one; the zero Addr if there is none of that family.
func (w *path) routerAddr(q *port, a packet.Addr) packet.Addr {
	if own := w.ownAddr(q, a); own != a {
		return own
	}
	for i := range w.ports {
		if own := w.ownAddr(&w.ports[i], a); own != a {
			return own
		}
	}
	return packet.Addr{}
}
