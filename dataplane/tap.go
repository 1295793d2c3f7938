package dataplane

import (
	"bytes"
	"encoding/binary"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
)

// tap is what a path has while frames are traced. It copies each frame as it comes in, since it is rewritten where it lies,
// and what is sent while the path deals with it. Both go into scratch that is used again: only what a trace takes is
// allocated. A path without tap pays one look at Plane.traces a batch.
type tap struct {
	traces  []*Trace
	limiter forward.Limiter
	// links and send note what is sent. They change places with the path's while it deals with frames.
	links []link.Link
	send  []func(head, body []byte)

	port, size int    // that the frame came in by, and its segments' payload
	in, out    []byte // the frame, and one after the other those sent
	cuts       []cut  // of out
	// released says that the frame was held before, of what was known of it then, nil if that was before the trace; parked
	// that it is held now, so that end has nothing to tell.
	released, parked bool
	of               *Traced
}

// cut is a frame in tap.out, up to byte end.
type cut struct{ port, end, size int }

// tapped is a link that notes what is sent by it.
type tapped struct {
	link.Link
	tap  *tap
	port int
}

// Send implements link.Link.
func (l *tapped) Send(head, body []byte) {
	if t := l.tap; len(head) >= packet.VnetLen {
		t.out = append(append(t.out, head[packet.VnetLen:]...), body...)
		t.cuts = append(t.cuts, cut{l.port, len(t.out), segmentSize((*packet.Vnet)(head))})
	}
	l.Link.Send(head, body)
}

func segmentSize(v *packet.Vnet) int {
	if v.GSOType() == packet.GSONone {
		return 0
	}
	return v.GSOSize()
}

// retap follows a change of the plane's traces.
func (w *path) retap(traces *[]*Trace) {
	w.traces, w.tap = traces, nil
	if traces == nil {
		return
	}
	t := &tap{traces: *traces}
	t.limiter.Set(traceRate, traceBurst)
	for i := range w.tx {
		l := &tapped{tap: t, port: i}
		t.links, t.send = append(t.links, l), append(t.send, l.Send)
	}
	w.tap = t
}

// listen puts the tap's links in place of the path's, until the next call takes them back.
func (w *path) listen(on bool) {
	t := w.tap
	if on {
		for i, l := range w.tx { // which may be others than last time
			t.links[i].(*tapped).Link = l
		}
	}
	w.tx, t.links = t.links, w.tx
	w.send, t.send = t.send, w.send
}

// begin notes a frame that the path is about to deal with.
func (t *tap) begin(w *path, port int, f *link.Frame) {
	w.conn, w.create = conntrack.Conn{}, conntrack.NewConn{}
	t.port, t.size, t.of, t.parked = port, segmentSize(f.Vnet()), nil, false
	t.released = false
	t.out, t.cuts = t.out[:0], t.cuts[:0]
	t.in = appendReceived(t.in[:0], f)
}

// appendReceived appends a frame as it was on the wire, its VLAN tag where it was.
func appendReceived(b []byte, f *link.Frame) []byte {
	const addresses = 12
	eth := f.Eth()
	if !f.Tagged || len(eth) < addresses {
		return append(b, eth...)
	}
	b = append(b, eth[:addresses]...)
	b = binary.BigEndian.AppendUint16(b, f.TPID)
	b = binary.BigEndian.AppendUint16(b, f.VLAN)
	return append(b, eth[addresses:]...)
}

// resume goes on with a frame that was held. of is nil if it came before the trace.
func (t *tap) resume(of *Traced) {
	t.of, t.parked, t.released = of, false, true
	t.out, t.cuts = t.out[:0], t.cuts[:0]
}

// park keeps what is known of the frame that is being held, for resume.
func (t *tap) park(w *path, p *packet.Packet, c *conntrack.Conn) *Traced {
	t.parked = true
	if t.released {
		return t.of // held once more
	}
	e := t.event(w, c)
	e.In.Bytes = bytes.Clone(t.in)
	e.flow, e.Waited = p.Flow, true
	return e
}

// event is the frame at hand, its bytes still in scratch.
func (t *tap) event(w *path, c *conntrack.Conn) *Traced {
	e := &Traced{At: w.now, In: TracedFrame{Port: t.port, Bytes: t.in, SegmentSize: t.size}, table: w.table}
	if c != nil && !c.Client.IsZero() && c.Flags&conntrack.Template == 0 {
		e.Connected, e.Conn, e.Opened = true, *c, w.create.Now != 0
	}
	return e
}

// end offers the frame to the traces, now that it has its verdict. One that is held has its end another time.
func (t *tap) end(w *path, v Verdict) {
	if t.parked || t.released && t.of == nil {
		return
	}
	e := t.of
	if e == nil {
		c := &w.conn
		if v == DropNoMasqPort {
			c = nil // what was found were others'
		}
		e = t.event(w, c)
		e.flow = flowOf(w.ports[t.port].host, e.In.Bytes)
	}
	e.Verdict = v
	asked, allowed := false, false
	for _, trace := range t.traces {
		if !trace.filter.takes(e) {
			continue
		}
		if !asked {
			asked = true
			if allowed = t.limiter.Allow(w.now); allowed {
				t.keep(e)
			}
		}
		if allowed {
			trace.offer(e)
		} else {
			trace.missed.Add(1)
		}
	}
}

// keep copies an event's frames out of scratch.
func (t *tap) keep(e *Traced) {
	if t.of == nil {
		e.In.Bytes = bytes.Clone(t.in)
	}
	out := bytes.Clone(t.out)
	for begin, c := 0, 0; c < len(t.cuts); c++ {
		end := t.cuts[c].end
		e.Out = append(e.Out, TracedFrame{Port: t.cuts[c].port, Bytes: out[begin:end:end], SegmentSize: t.cuts[c].size})
		begin = end
	}
	const overhead = 512 // the event itself
	e.sizeOf = len(e.In.Bytes) + len(out) + overhead
}

// flowOf is a frame's flow; of ARP the sender and the target, of what is malformed the zero Flow.
func flowOf(own bool, frame []byte) packet.Flow {
	var p packet.Packet
	decode := packet.Decode
	if own {
		decode = packet.DecodeOwn
	}
	if decode(frame, &p) == packet.NoFault {
		return p.Flow
	}
	if eth, rest, ok := packet.ParseEth(frame); ok && eth.Type() == packet.EtherARP {
		if a, ok := packet.ParseARP(rest); ok {
			return packet.Flow{Src: packet.AddrFrom4(a.Sender()), Dst: packet.AddrFrom4(a.Target())}
		}
	}
	return packet.Flow{}
}

// tapBatch is batch for a path with a tap: frame by frame, each with what became of it.
func (w *worker) tapBatch(q *port, frames []link.Frame) {
	w.listen(true)
	defer w.listen(false)
	dir := conntrack.In
	if q.inside {
		dir = conntrack.Out
	}
	w.received += uint64(len(frames))
	w.pkt = &w.decoded
	for i := range frames {
		f := &frames[i]
		w.bytes += uint64(len(f.Buf) - packet.VnetLen)
		w.tap.begin(&w.path, q.index, f)
		v, whole := w.admit(q, f, w.pkt)
		if whole {
			w.plane.cfg.Conns.Hash(&w.pkt.Flow, dir, &w.keys[0])
			v = w.receive(q, f, &w.keys[0])
		}
		if v == verdictNone {
			continue // held, or the slow path's to tell
		}
		w.verdicts[v]++
		w.tap.end(&w.path, v)
	}
}
