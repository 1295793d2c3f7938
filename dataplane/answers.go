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
	if v := w.mayError(p, DropTTL); v != verdictNone {
		return v
	}
	w.reply(q, p, forward.TimeExceeded(w.answer(), p, from))
	return AnsweredICMP
}

// answerUnreachable tells p's sender that it cannot go on; otherwise is the verdict if it must not be told. mtu goes with
// packet.ICMPCodeFragNeeded.
func (w *path) answerUnreachable(q *port, p *packet.Packet, code uint8, mtu int, from packet.Addr, otherwise Verdict) Verdict {
	if v := w.mayError(p, otherwise); v != verdictNone {
		return v
	}
	w.reply(q, p, forward.Unreachable(w.answer(), p, code, mtu, from))
	return AnsweredICMP
}

// mayError says that an ICMP error about p may be sent now, by verdictNone.
func (w *path) mayError(p *packet.Packet, otherwise Verdict) Verdict {
	switch {
	case !forward.MayAnswer(p):
		return otherwise
	case !w.errors.Allow(w.now):
		return DropRateLimit
	}
	return verdictNone
}

// refuse answers as the host would if the VIP were its own and nobody listened: TCP with a reset, others with port
// unreachable.
func (w *path) refuse(q *port, f *link.Frame) Verdict {
	p := &w.pkt
	switch {
	case p.Proto == packet.ProtoTCP && p.TCPFlags&packet.TCPRst != 0, // a reset is never answered by one
		!forward.ChecksumOK(p, f.Vnet()):
		return DropNoConn
	case p.Proto != packet.ProtoTCP:
		return w.answerUnreachable(q, p, packet.ICMPCodePort, 0, p.Dst, DropNoConn)
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

// ownAddr is the address of ours that an ICMP error to a station on q's segment bears: the gateway address there, or else.
func (w *path) ownAddr(q *port, otherwise packet.Addr) packet.Addr {
	if len(q.gateways) > 0 {
		return q.gateways[0].addr
	}
	return otherwise
}

// routerAddr is ownAddr for packets that we merely route: on a segment without gateway address, that of another one. It is
// only asked for where there is one.
func (w *path) routerAddr(q *port) packet.Addr {
	for i := 0; len(q.gateways) == 0 && i < len(w.ports); i++ {
		q = &w.ports[i]
	}
	return w.ownAddr(q, packet.Addr{})
}
