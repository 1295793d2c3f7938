package dataplane

import (
	"slices"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

const (
	batchSize   = 64
	answerSize  = 2048 // the largest answer of our own: an ICMPv6 error of at most 1280 bytes
	answerCount = 64
)

// port is one interface as one path sees it.
type port struct {
	index    int
	mac      packet.MAC
	inside   bool // real servers with our gateway address are behind it: try their answers first
	host     bool // the host's own stack is behind it, and nothing else
	gateways []gateway
}

// gateway is an address that uvs owns on a segment of real servers.
type gateway struct {
	addr packet.Addr
	bits int
}

// path is what it takes to bring one packet from reception to transmission: configuration as of this batch, links to send
// by, counters and scratch. Every worker has one, and the slow path has one.
type path struct {
	plane *Plane
	table *service.Table
	now   int64
	ports []port
	tx    []link.Link               // by port
	send  []func(head, body []byte) // the Send of each, made once: a method value would be allocated anew each time
	legs  []leg
	// attach opens another link for a port whose interface came back; replaced and cameUp are called when it is in place,
	// and when an interface is up or has a carrier that had not, or has got another MAC address. Either may be nil.
	attach           func(port int) (link.Link, error)
	replaced, cameUp func(port int)
	looked, lookAt   int64 // when links were looked at, and when they will be

	ledger
	hops  perIndex[hopSlot] // by RealServer.Index
	stack stackWay

	pkt      *packet.Packet // the packet at hand
	decoded  packet.Packet  // where one is decoded that is not staged
	quoted   packet.Packet
	conn     conntrack.Conn
	masq     []packet.Addr // the addresses configured for masquerading, which are ours
	own      []packet.Addr // those, and the ones that probes are sent from
	opening  opening
	create   conntrack.NewConn
	template conntrack.NewTemplate
	req      service.Request

	answers  [answerCount][]byte // answers of our own, valid until flush
	nAnswers int
	errors   forward.Limiter // of ICMP errors
	resets   forward.Limiter // apart, so that a port scan doesn't keep clients from learning of path MTUs
	held     []heldFrame     // the oldest first
	fragment *reassembled    // set while a gathered datagram passes
	traces   *[]*Trace       // those that tap is for
	tap      *tap            // nil while nobody traces

	heads  []byte // headers of fragments and segments, made when first needed
	whole  []byte // an outer packet that must be cut
	tunnel forward.Tunnel
	said   []byte // a server's reply, rewritten
}

// hopSlot remembers the way to a real server for as long as the resolver's generation stands.
type hopSlot struct {
	generation uint64
	server     packet.Addr
	hop        *nexthop.Hop
}

// init prepares a path that sends by tx, one link per port.
func (w *path) init(p *Plane, tx []link.Link) {
	w.plane, w.table, w.pkt = p, p.table.Load(), &w.decoded
	w.setTx(tx)
	if p.cfg.Inner == MasqueradeInnerTraffic {
		for _, a := range p.cfg.MasqueradeAddrs {
			w.masq = append(w.masq, packet.AddrFrom(a))
		}
	}
	w.own = slices.Clone(w.masq)
	for _, a := range p.cfg.ProbeAddrs {
		w.own = append(w.own, packet.AddrFrom(a))
	}
	for _, l := range []*forward.Limiter{&w.errors, &w.resets} {
		l.Set(float64(p.cfg.AnswersPerSecond), p.cfg.AnswersPerSecond)
	}
	for i := range w.answers {
		w.answers[i] = make([]byte, answerSize)
	}
	for i, c := range p.cfg.Ports {
		q := port{index: i, mac: c.MAC, inside: len(c.Gateways) > 0}
		for _, g := range c.Gateways {
			q.gateways = append(q.gateways, gateway{packet.AddrFrom(g.Addr()), g.Bits()})
		}
		w.ports = append(w.ports, q)
	}
	if i := p.cfg.stackPort(); i >= 0 {
		w.ports[i].inside, w.ports[i].host = true, true
		w.stack = newStackWay(i, p.cfg.Stack)
	}
}

// setTx makes tx the links to send by.
func (w *path) setTx(tx []link.Link) {
	w.tx, w.send, w.legs = tx, nil, make([]leg, len(tx))
	for _, l := range tx {
		w.send = append(w.send, l.Send)
	}
}

// begin starts a batch: it takes the configuration and the time that all its packets see. The caller holds ledger.mu.
func (w *path) begin(now int64) {
	w.now = now
	if t := w.plane.traces.Load(); t != w.traces {
		w.retap(t)
	}
	if t := w.plane.table.Load(); t != w.table {
		w.table = t
	}
}

// flush transmits what the batch produced.
func (w *path) flush() {
	for _, l := range w.tx {
		l.Flush()
	}
	w.nAnswers = 0
}

// answer lends a buffer for a frame of our own; it is free again after flush.
func (w *path) answer() []byte {
	if w.nAnswers == len(w.answers) {
		w.flush()
	}
	b := w.answers[w.nAnswers]
	w.nAnswers++
	return b
}

// receive is ip, unless the packet w.pkt is the answer to a probe that is out.
func (w *path) receive(q *port, f *link.Frame, k *conntrack.Key) Verdict {
	if w.probing() && w.probed(q, f) {
		return AnsweredProbe
	}
	return w.ip(q, f, k)
}

// probing says that a probe waits for its answer.
func (w *path) probing() bool { return w.plane.probes.out() }

// ip takes the packet w.pkt, addressed to us, from its lookup to its transmission. k is its key: of a server's answer if q
// has real servers behind it, else of a client's packet.
func (w *path) ip(q *port, f *link.Frame, k *conntrack.Key) Verdict {
	p := w.pkt
	if q.host {
		return w.fromStack(q, f, k)
	}
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
	default:
		if p.IsICMP() {
			return w.icmp(q, f)
		}
		return w.other(q, f)
	}
	if w.idle() {
		return w.stray(q, f)
	}
	conns := w.plane.cfg.Conns
	if q.inside {
		if v, found := w.fromServer(q, f, k); found {
			return v
		}
		conns.Hash(&p.Flow, conntrack.In, k)
	}
	switch conns.InHashed(k, p.Event(), w.now, &w.conn) {
	case conntrack.Hit:
		if c := &w.conn; c.Flags&conntrack.NoCPort != 0 {
			w.plane.ftp.Claimed(uint64(c.ID), c.Client, c.Virtual, c.VirtualPort)
		}
		return w.toServer(q, f, p, &w.conn)
	case conntrack.NoServer:
		return DropNoServer
	case conntrack.Cut:
		return w.cut(q, f, p, &w.conn)
	}
	mark := w.table.Mark(&p.Flow, q.index)
	if vs := w.table.Match(&p.Flow, mark); vs != nil {
		return w.open(q, f, vs, mark)
	}
	if !q.inside {
		conns.Hash(&p.Flow, conntrack.Out, k)
		if v, found := w.fromServer(q, f, k); found {
			return v
		}
	}
	if w.table.Settings.NATICMPSend && w.table.IsNATServer(&p.Flow) && p.TCPFlags&packet.TCPRst == 0 && p.TTL > 1 {
		p.DecTTL() // as the host has when it comes to IPVS
		return w.answerUnreachable(q, p, forward.NoPort, 0, w.ownAddr(q, p.Dst), DropNoConn)
	}
	return w.stray(q, f)
}

// fromServer moves a packet that a real server sent; found is false if it belongs to no connection. k is its key.
func (w *path) fromServer(q *port, f *link.Frame, k *conntrack.Key) (v Verdict, found bool) {
	p, c, conns := w.pkt, &w.conn, w.plane.cfg.Conns
	if p.TTL <= 1 { // the kernel's routing drops it before IPVS sees it: the connection's state stays
		if !conns.Find(&p.Flow, conntrack.Out, w.now, c) {
			return verdictNone, false
		}
		return w.answerTimeExceeded(q, p, w.ownAddr(q, c.Virtual)), true
	}
	switch conns.OutHashed(k, p.Event(), w.now, c) {
	case conntrack.Hit:
		return w.toClient(q, f, p, c), true
	case conntrack.Cut:
		return w.cut(q, f, p, c), true
	}
	return verdictNone, false
}

// idle says that there can be no connection. Without any service IPVS looks at nothing, even if connections live on; only
// masquerading needs no service.
func (w *path) idle() bool {
	return w.table.Empty() && w.plane.cfg.Inner != MasqueradeInnerTraffic
}

// toServer moves a packet of a known connection to its real server.
func (w *path) toServer(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	w.in(c, p.IPLen())
	if c.Packets <= beginning {
		w.begins(p, c)
	}
	if isFTP(c) {
		if v := w.ftpIn(f, p, c); v != verdictNone {
			return v
		}
	}
	return w.deliver(q, f, p, c)
}

// deliver is toServer after the counting: what a held packet comes back to.
func (w *path) deliver(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	if isLocal(c) {
		return w.toStack(f, p, c)
	}
	if p.TTL <= 1 {
		return w.answerTimeExceeded(q, p, c.Virtual)
	}
	hop, status := w.serverHop(c)
	if hop == nil {
		w.lostWay(c, status)
		return w.hold(q, f, p, wait{work: sendIn, conn: c, dst: c.Server, status: status, from: c.Virtual})
	}
	mtu := hop.MTU
	if c.Method == service.Tunnel {
		mtu = w.tunnelMTU(p, f.Vnet(), c, hop)
	}
	p.DecTTL()                                                               // before a fragmentation-needed quotes it, as in the kernel
	if c.Method != service.Tunnel || w.table.Settings.PMTUDisc || !p.Is4() { // else the outer packet is fragmented
		if v := w.fits(q, f, p, mtu, c.Virtual); v != verdictNone {
			return v
		}
	}
	switch c.Method {
	case service.Route:
		return w.transmit(f, p, hop, ForwardedDR)
	case service.Masq:
		forward.NATIn(p, f.Vnet(), c.Server, c.ServerPort)
		return w.transmit(f, p, hop, ForwardedNAT)
	case service.Tunnel:
		return w.encapsulate(f, p, c, hop)
	case service.Bypass:
		return w.transmit(f, p, hop, ForwardedBypass)
	default:
		return DropMethod
	}
}

// toClient moves a real server's answer to its client, in the virtual service's name.
func (w *path) toClient(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	w.out(c, p.IPLen())
	if c.Packets <= beginning {
		w.beginsOut(p, c)
	}
	if isFTP(c) {
		if v, done := w.ftpOut(q, f, p, c); done {
			return v
		}
	}
	return w.deliverOut(q, f, p, c)
}

// deliverOut is toClient after the counting: what a held packet comes back to.
func (w *path) deliverOut(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	switch {
	case isLocal(c):
		return w.fromStackOut(q, f, p, c)
	case c.Method != service.Masq:
		return PassNotOurs
	case p.TTL <= 1:
		return w.answerTimeExceeded(q, p, w.ownAddr(q, c.Virtual))
	}
	hop, status := w.plane.cfg.NextHops.Lookup(c.Client)
	if status != nexthop.Ready {
		return w.hold(q, f, p, wait{work: sendOut, conn: c, dst: c.Client, status: status, from: w.ownAddr(q, c.Virtual)})
	}
	if v := w.fits(q, f, p, hop.MTU, w.ownAddr(q, c.Virtual)); v != verdictNone {
		return v
	}
	forward.NATOut(p, f.Vnet(), c.Virtual, c.VirtualPort)
	p.DecTTL()
	return w.transmit(f, p, hop, Replied)
}

// serverHop is the way to a connection's real server; without one it says why.
func (w *path) serverHop(c *conntrack.Conn) (*nexthop.Hop, nexthop.Status) {
	hops := w.plane.cfg.NextHops
	slot := w.hops.at(c.RS)
	if slot == nil {
		hop, status := hops.Lookup(c.Server)
		if status != nexthop.Ready {
			return nil, status
		}
		return hop, status
	}
	generation := hops.Generation()
	if slot.hop != nil && slot.generation == generation && slot.server == c.Server {
		return slot.hop, nexthop.Ready
	}
	hop, status := hops.Lookup(c.Server)
	if status != nexthop.Ready {
		slot.hop = nil
		return nil, status
	}
	slot.generation, slot.server, slot.hop = generation, c.Server, hop
	return hop, status
}

// fits answers a packet that is longer than mtu and must not be cut; verdictNone says that it may go.
func (w *path) fits(q *port, f *link.Frame, p *packet.Packet, mtu int, from packet.Addr) Verdict {
	n := p.IPLen()
	if n <= mtu {
		return verdictNone
	}
	switch v := f.Vnet(); {
	case w.fragment != nil:
		n = w.fragment.largest // goes out in the pieces it came in
	case v.GSOType() != packet.GSONone:
		n = segmentLen(p, v) // a super-frame is judged by its segments
	}
	if n <= mtu || p.MayFragment() {
		return verdictNone
	}
	return w.answerUnreachable(q, p, forward.TooBig, mtu, from, DropTooBig)
}

// segmentLen is the length of the IP packets that a super-frame stands for.
func segmentLen(p *packet.Packet, v *packet.Vnet) int { return p.Payload - p.L3 + v.GSOSize() }

// transmit sends the frame by hop: in one piece, in those it came in, or cut to the way's MTU. It returns sent, or a drop if
// it cannot be cut so.
func (w *path) transmit(f *link.Frame, p *packet.Packet, hop *nexthop.Hop, sent Verdict) Verdict {
	q, v := &w.ports[hop.Iface], f.Vnet()
	forward.Ethernet(p.Frame, hop.Dst, q.mac)
	if p.Proto == packet.ProtoSCTP && v.NeedsCsum() { // the kernel would take it for TCP's kind
		forward.CompleteChecksum(p.Frame, v)
	}
	ok := true
	switch {
	case w.fragment != nil:
		ok = w.fragment.datagram.Emit(p.Frame, hop.MTU, w.send[hop.Iface])
	case p.IPLen() <= hop.MTU:
		w.tx[hop.Iface].Send(f.Buf[:packet.VnetLen+len(p.Frame)], nil)
	case v.GSOType() == packet.GSONone:
		ok = w.split(hop.Iface, v, p.Frame, hop.MTU)
	case segmentLen(p, v) > hop.MTU: // nobody behind us cuts a segment up
		ok = w.splitSegments(p, v, hop)
	default:
		w.tx[hop.Iface].Send(f.Buf[:packet.VnetLen+len(p.Frame)], nil)
	}
	if !ok {
		return DropTooBig
	}
	return sent
}

// split sends an IPv4 frame out of a port in fragments that fit mtu. Their payload is sent from where it lies.
func (w *path) split(port int, v *packet.Vnet, frame []byte, mtu int) bool {
	if v.NeedsCsum() {
		forward.CompleteChecksum(frame, v)
	}
	w.needHeads(splitRoom(mtu))
	ok := forward.Split(w.heads, frame, mtu, w.send[port])
	w.tx[port].Flush() // heads is needed again
	return ok
}

// splitRoom is the room for heads that the longest datagram needs on a way of that MTU.
func splitRoom(mtu int) int {
	const longest = forward.FrameHead + 60
	if mtu >= 576 {
		return forward.SplitRoom
	}
	return longest * (0xffff/max((mtu-60)&^7, 8) + 1)
}

// splitSegments cuts a super-frame into its segments, and these into fragments.
func (w *path) splitSegments(p *packet.Packet, v *packet.Vnet, hop *nexthop.Hop) bool {
	w.needHeads(forward.SegmentRoom(p, v))
	ok := true
	segmented := forward.Segment(w.heads, p, v, nil, func(head, body []byte) {
		w.whole = append(append(w.whole[:0], head...), body...)
		// Overwrites heads of segments that are sent or not yet made.
		ok = w.split(hop.Iface, (*packet.Vnet)(w.whole), w.whole[packet.VnetLen:], hop.MTU) && ok
	})
	return segmented && ok
}

func (w *path) needHeads(n int) {
	if len(w.heads) < n {
		w.heads = make([]byte, n)
	}
}

// owns says that a is an address that uvs has on port q: a VIP, an address for masquerading or probes, or a gateway address of
// that segment.
func (w *path) owns(q *port, a packet.Addr) bool {
	if w.table.IsVIP(a) || slices.Contains(w.own, a) {
		return true
	}
	for _, g := range q.gateways {
		if g.addr == a {
			return true
		}
	}
	return false
}
