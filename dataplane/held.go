package dataplane

import (
	"time"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
)

// heldFrame is a packet that waits for its next hop, copied out of its ring.
type heldFrame struct {
	wait
	port     *port
	of       conntrack.Conn // what wait.conn points to
	since    int64
	frame    link.Frame
	fragment *reassembled
	traced   *Traced // nil if it isn't
}

// wait says what a packet without next hop waits for.
type wait struct {
	work   heldWork
	conn   *conntrack.Conn // nil for sendInner and sendHosts
	dst    packet.Addr     // whose next hop it is
	status nexthop.Status
	from   packet.Addr // an address of ours to say from that there is no way
}

// heldWork is what is left to do with a held packet. Its connection's state, timer and counts are done with.
type heldWork uint8

const (
	sendIn       heldWork = iota // path.deliver
	sendOut                      // path.deliverOut
	sendInner                    // path.route
	sendErrorIn                  // path.errorToServer
	sendErrorOut                 // path.errorToClient
	sendHosts                    // path.fromHost
)

const (
	heldPerHop  = 4
	heldInAll   = 512
	heldTimeout = 3 * time.Second
)

// hold sets a packet aside until its next hop is known, or drops it where it never will be.
func (w *path) hold(q *port, f *link.Frame, p *packet.Packet, why wait) Verdict {
	if why.status != nexthop.Pending {
		return w.noWay(q, p, why)
	}
	w.plane.cfg.NextHops.Resolve(why.dst)
	if len(w.held) >= heldInAll {
		return DropHeldFull
	}
	n := 0
	for i := range w.held {
		if w.held[i].dst == why.dst {
			n++
		}
	}
	if n >= heldPerHop {
		return DropHeldFull
	}
	h := heldFrame{wait: why, port: q, since: w.now, frame: copyFrame(f), fragment: w.fragment}
	if why.conn != nil {
		h.of = *why.conn
	}
	if w.tap != nil {
		h.traced = w.tap.park(w, p, why.conn)
	}
	w.held = append(w.held, h)
	return verdictNone
}

// noWay drops a packet that has no next hop and tells its sender, as the kernel does.
func (w *path) noWay(q *port, p *packet.Packet, why wait) Verdict {
	reason := hopVerdict(why.status)
	w.answerUnreachable(q, p, forward.NoHost, 0, why.from, reason)
	return reason // rather than that it was answered: this is what the operator needs to know
}

// heldDue says that a held packet has waited long enough.
func (w *path) heldDue(now int64) bool {
	return len(w.held) > 0 && now-w.held[0].since >= int64(heldTimeout)
}

// retryHeld sends the packets whose next hop has become known and drops those whose never will. The caller holds ledger.mu
// and flushes afterwards.
func (w *path) retryHeld() {
	if w.tap != nil {
		w.listen(true)
		defer w.listen(false)
	}
	waiting := w.held
	w.held = nil
	keep := waiting[:0]
	for _, h := range waiting {
		var hop *nexthop.Hop
		hop, h.status = w.plane.cfg.NextHops.Lookup(h.dst)
		if h.status == nexthop.Pending && w.now-h.since < int64(heldTimeout) {
			keep = append(keep, h)
			continue
		}
		weight := uint64(1)
		if h.fragment != nil {
			weight = uint64(h.fragment.pieces())
		}
		before := len(w.held)
		w.fragment = h.fragment
		if w.tap != nil {
			w.tap.resume(h.traced)
		}
		v := w.release(&h, hop)
		w.fragment = nil
		if v != verdictNone {
			w.verdicts[v] += weight
			if w.tap != nil {
				w.tap.end(w, v)
			}
		} else {
			w.held[before].since = h.since // its way was lost again at this very moment
		}
	}
	clear(waiting[len(keep):])
	w.held = append(keep, w.held...)
}

// release does what was left to do with a held packet.
func (w *path) release(h *heldFrame, hop *nexthop.Hop) Verdict {
	f, p := &h.frame, w.pkt
	if fault := h.port.decode(f.Eth(), p); fault != packet.NoFault {
		return faultVerdict[fault]
	}
	switch {
	case h.status != nexthop.Ready:
		return w.noWay(h.port, p, h.wait)
	case h.work == sendIn:
		return w.deliver(h.port, f, p, &h.of)
	case h.work == sendOut:
		return w.deliverOut(h.port, f, p, &h.of)
	case h.work == sendInner:
		return w.route(h.port, f, hop, h.status)
	case h.work == sendHosts:
		return w.fromHost(h.port, f)
	case !packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &w.quoted):
		return DropICMP
	case h.work == sendErrorIn:
		return w.errorToServer(h.port, f, p, &h.of)
	default:
		return w.errorToClient(h.port, f, p, &h.of)
	}
}

// copyFrame is f in memory of its own: the slot goes back to its ring.
func copyFrame(f *link.Frame) link.Frame {
	return link.Frame{
		Buf:  append(make([]byte, 0, len(f.Buf)), f.Buf...),
		VLAN: f.VLAN, TPID: f.TPID, Tagged: f.Tagged, Truncated: f.Truncated, Type: f.Type,
	}
}
