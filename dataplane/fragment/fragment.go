// Package fragment gathers the fragments of IPv4 and IPv6 datagrams until each datagram is whole, so that all of it goes to
// one real server, and sends it on in the pieces in which it came, as IPVS does. What it holds is bounded in bytes, per
// source too, and in time.
package fragment

import (
	"slices"
	"sync/atomic"
	"time"

	"uvs/packet"
)

// Limits bound what a Gatherer holds. Zero fields mean the defaults.
type Limits struct {
	// Bytes is the memory for all incomplete datagrams: the oldest give way. Default 8 MiB.
	Bytes int
	// PerSource is the same for those of one source, an IPv4 address or the 64 bits of an IPv6 address that its network
	// gives out: its own oldest give way. Default a quarter of Bytes.
	PerSource int
	// Timeout is how long after its first fragment arrived a datagram must be whole. Default 30 s, as in Linux.
	Timeout time.Duration
	// MaxDistance is how many fragments of other datagrams the same source may send between two of one; a datagram
	// continued later starts anew, since its identification may have come round again. Default 64, as in Linux;
	// negative means no limit. IPv6's identifications are too long to come round.
	MaxDistance int
}

// What a fragment and its datagram cost in bytes beside the data, roughly.
const (
	pieceOverhead    = 64
	datagramOverhead = 512
)

// maxPieces is how many fragments a datagram may have: 64 KiB cut for an MTU of 68 is 1366.
const maxPieces = 2048

// Gatherer holds incomplete datagrams. It belongs to one goroutine, but for Stats.
type Gatherer struct {
	limits  Limits
	bytes   int
	byKey   map[key]*Datagram
	sources map[packet.Addr]*source
	oldest  *Datagram // in order of arrival of their first fragments
	newest  *Datagram
	pkt     packet.Packet // scratch

	discarded int // by the call under way

	received, reassembled, datagrams, held                                atomic.Uint64
	duplicate, overlapping, malformed, stale, timedOut, evicted, mixedECN atomic.Uint64
}

// Stats count fragments (frames) since the gatherer was made. Received is the sum of all others but Datagrams.
type Stats struct {
	Received    uint64 // taken by Add
	Reassembled uint64 // that became part of a whole datagram
	Held        uint64 // waiting for the rest, now
	Duplicate   uint64 // dropped: all their bytes were there already
	Overlapping uint64 // dropped with their datagram: a part of their bytes was there, or they contradict its length
	Malformed   uint64 // dropped: no fragment at all, not a multiple of 8 bytes, beyond 64 KiB, or IPv6 headers not all in the first
	Stale       uint64 // dropped: the source went on too far (Limits.MaxDistance)
	TimedOut    uint64 // dropped: the rest didn't come in time
	Evicted     uint64 // dropped: no room
	MixedECN    uint64 // dropped: some fragments of the datagram say ECN-capable and others do not (RFC 3168 section 5.3)
	Datagrams   uint64 // whole datagrams handed out
}

// key is what the fragments of a datagram share (RFC 791 section 3.2, RFC 8200 section 4.5).
type key struct {
	src, dst packet.Addr
	id       uint32
	proto    uint32 // 0 in IPv6, where the first fragment's alone counts; as wide as it is for want of padding: it hashes faster
}

// source is whose account the datagram is on.
func (k *key) source() packet.Addr {
	if k.src.Is4() {
		return k.src
	}
	return k.src.Masked(64)
}

// source is what a Gatherer knows of one source.
type source struct {
	bytes  int
	count  int // fragments received, to measure Limits.MaxDistance
	oldest *Datagram
	newest *Datagram
}

// piece is the payload of one fragment.
type piece struct {
	at   int // offset in the datagram's payload
	data []byte
}

func (p *piece) end() int { return p.at + len(p.data) }

// New returns an empty gatherer.
func New(l Limits) *Gatherer {
	if l.Bytes <= 0 {
		l.Bytes = 8 << 20
	}
	if l.PerSource <= 0 {
		l.PerSource = l.Bytes / 4
	}
	if l.Timeout <= 0 {
		l.Timeout = 30 * time.Second
	}
	if l.MaxDistance == 0 {
		l.MaxDistance = 64
	}
	return &Gatherer{limits: l, byKey: map[key]*Datagram{}, sources: map[packet.Addr]*source{}}
}

// Add takes a fragment, an Ethernet frame without virtio-net header that packet.Decode or DecodeOwn has accepted, and copies
// what it keeps. It returns the whole datagram if this was the last part that lacked, else nil: the fragment is held, or was
// dropped. discarded is how many fragments have been dropped, this one or held ones. now is in nanoseconds of a clock
// that doesn't go back.
func (g *Gatherer) Add(frame []byte, now int64) (d *Datagram, discarded int) {
	n := g.Expire(now)
	d = g.add(frame, now)
	return d, n + g.takeDiscarded()
}

func (g *Gatherer) add(frame []byte, now int64) *Datagram {
	g.received.Add(1)
	f, ok := g.parse(frame)
	if !ok || len(f.data) == 0 || f.mf && len(f.data)%8 != 0 || f.fixed+f.at+len(f.data) > 0xffff {
		return g.refuse(&g.malformed)
	}
	d := g.byKey[f.key]
	if d != nil && g.tooFar(d) {
		g.drop(d, &g.stale)
		d = nil
	}
	if d == nil {
		d = g.start(f.key, now)
	}
	d.src.count++
	d.seen = d.src.count
	return g.insert(d, &f)
}

// part is a fragment, as it came.
type part struct {
	key
	head   []byte // Ethernet header, IP header, and IPv6's extension headers before the fragment header
	fixed  int    // what of head counts towards the 64 KiB of a datagram
	data   []byte
	at     int // offset of data in its datagram
	size   int // IP length
	mf, df bool
	ecn    uint8
}

// parse reads a fragment; ok is false if frame is none, or the first of an IPv6 datagram without all its headers.
func (g *Gatherer) parse(frame []byte) (f part, ok bool) {
	p := &g.pkt
	eth, b, ok := packet.ParseEth(frame)
	switch {
	case !ok:
		return f, false
	case eth.Type() == packet.EtherIPv6:
		if packet.DecodeOwn(frame, p) != packet.NoFault || !p.Fragment {
			return f, false
		}
		h := p.FragmentHeader()
		f.key = key{src: p.Src, dst: p.Dst, id: h.ID()}
		f.head, f.fixed = frame[:p.FragmentAt], p.FragmentAt-p.L3-packet.IPv6Len
		f.data, f.at, f.mf = p.L4Bytes(), h.Offset(), h.MF()
		f.ecn = p.IPv6().TrafficClass() & 3
		f.size = p.IPLen()
		return f, f.at != 0 || p.HeadersWhole()
	}
	ip, data, ok := packet.ParseIPv4(b)
	if !ok || !ip.IsFragment() {
		return f, false
	}
	f.key = key{packet.AddrFrom4(ip.Src()), packet.AddrFrom4(ip.Dst()), uint32(ip.ID()), uint32(ip.Proto())}
	f.fixed = ip.HeaderLen()
	f.head = frame[:packet.EthLen+f.fixed]
	f.data, f.at, f.mf, f.df = data, ip.FragOffset(), ip.MF(), ip.DF()
	f.ecn = ip.TOS() & 3
	f.size = f.fixed + len(data)
	return f, true
}

// tooFar says that d's source has sent so many fragments since d's last that its identification may belong to another
// datagram by now.
func (g *Gatherer) tooFar(d *Datagram) bool {
	return g.limits.MaxDistance > 0 && d.key.src.Is4() && d.src.count-d.seen > g.limits.MaxDistance
}

// insert puts a fragment in its place in d.
func (g *Gatherer) insert(d *Datagram, f *part) *Datagram {
	at, end := f.at, f.at+len(f.data)
	i, _ := slices.BinarySearchFunc(d.pieces, at, func(p piece, at int) int { return p.end() - 1 - at })
	// pieces[i] is the first that ends behind at.
	last := len(d.pieces) - 1
	switch {
	case d.total >= 0 && (end > d.total || !f.mf && end < d.total), // beyond the end, or another end
		!f.mf && last >= 0 && d.pieces[last].end() > end: // an end before what is there
		g.drop(d, &g.overlapping)
		return g.refuse(&g.overlapping)
	case d.covers(i, at, end):
		return g.refuse(&g.duplicate)
	case i <= last && d.pieces[i].at < end:
		g.drop(d, &g.overlapping)
		return g.refuse(&g.overlapping)
	case len(d.pieces) == maxPieces || !g.makeRoom(d, cost(d, len(f.data))):
		g.drop(d, &g.evicted)
		return g.refuse(&g.evicted)
	}

	d.pieces = slices.Insert(d.pieces, i, piece{at, slices.Clone(f.data)})
	g.held.Add(1)
	d.have += len(f.data)
	if !f.mf {
		d.total = end
	}
	if at == 0 {
		d.head, d.fixed = slices.Clone(f.head), f.fixed
		if !d.key.src.Is4() {
			d.proto = g.pkt.Proto
		}
	}
	d.largest = max(d.largest, f.size)
	if f.df {
		d.maxDF = max(d.maxDF, f.size)
	}
	d.ecn |= 1 << f.ecn
	if d.have != d.total {
		return nil
	}
	return g.finish(d)
}

// cost is what a fragment with n bytes of data adds to what d takes.
func cost(d *Datagram, n int) int {
	if len(d.pieces) == 0 {
		n += datagramOverhead
	}
	return n + pieceOverhead
}

// covers says that the bytes from at to end are all there, pieces[i] being the first that could hold any.
func (d *Datagram) covers(i, at, end int) bool {
	for ; i < len(d.pieces) && d.pieces[i].at <= at; i++ {
		if at = d.pieces[i].end(); at >= end {
			return true
		}
	}
	return false
}

// finish takes d, which is complete, out of the gatherer and joins its pieces.
func (g *Gatherer) finish(d *Datagram) *Datagram {
	ce, ok := joinECN(d.ecn)
	if !ok || d.fixed+d.total > 0xffff {
		if ok {
			g.drop(d, &g.malformed)
		} else {
			g.drop(d, &g.mixedECN)
		}
		return nil
	}
	g.remove(d)
	g.held.Add(-uint64(len(d.pieces)))
	g.reassembled.Add(uint64(len(d.pieces)))
	g.datagrams.Add(1)
	d.join(ce)
	return d
}

// joinECN says what the whole datagram's ECN field becomes when its fragments' fields were those in the set bits (bit n:
// value n occurred): congestion experienced if any had it. ok is false if capable and not capable are mixed.
func joinECN(set uint8) (ce, ok bool) {
	const notECT, hasCE = 1 << 0, 1 << 3
	return set&hasCE != 0, set == notECT || set&notECT == 0
}

// Expire drops the datagrams whose time is up and returns how many fragments that were. Add calls it too.
func (g *Gatherer) Expire(now int64) int {
	for g.oldest != nil && now-g.oldest.arrived >= int64(g.limits.Timeout) {
		g.drop(g.oldest, &g.timedOut)
	}
	return g.takeDiscarded()
}

func (g *Gatherer) takeDiscarded() int {
	n := g.discarded
	g.discarded = 0
	return n
}

// Deadline is the time at which Expire has something to do, or 0 when nothing is held.
func (g *Gatherer) Deadline() int64 {
	if g.oldest == nil {
		return 0
	}
	return g.oldest.arrived + int64(g.limits.Timeout)
}

// Stats returns the gatherer's counters. It may be called from any goroutine.
func (g *Gatherer) Stats() Stats {
	return Stats{
		Received:    g.received.Load(),
		Reassembled: g.reassembled.Load(),
		Held:        g.held.Load(),
		Duplicate:   g.duplicate.Load(),
		Overlapping: g.overlapping.Load(),
		Malformed:   g.malformed.Load(),
		Stale:       g.stale.Load(),
		TimedOut:    g.timedOut.Load(),
		Evicted:     g.evicted.Load(),
		MixedECN:    g.mixedECN.Load(),
		Datagrams:   g.datagrams.Load(),
	}
}
