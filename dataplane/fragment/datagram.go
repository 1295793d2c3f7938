package fragment

import (
	"uvs/forward"
	"uvs/packet"
)

// Datagram is an IP datagram that came in fragments. Once Add has returned it, it is whole, the caller's, and no
// longer in the gatherer.
type Datagram struct {
	key              key
	src              *source
	prev, next       *Datagram // neighbours in the gatherer's list
	srcPrev, srcNext *Datagram // neighbours in the source's list
	arrived          int64     // when the first fragment came
	seen             int       // source.count at the last fragment
	bytes            int       // what it costs, as charged to gatherer and source
	pieces           []piece   // in order, without overlap
	have             int       // bytes in pieces
	total            int       // bytes of the datagram's payload, -1 until the last fragment came
	head             []byte    // part.head of the first fragment
	fixed            int       // part.fixed of it
	proto            uint8     // of IPv6: what its fragment header said was next
	largest          int       // longest fragment, IP header included
	maxDF            int       // longest with DF
	ecn              uint8     // bit n: a fragment with ECN field n came
	buf              []byte    // the whole, virtio-net header first
	ends             []int     // where the fragments ended
	whole            int       // length of the IP packet
	how              forward.Fragmentation
}

// join makes the whole of the pieces.
func (d *Datagram) join(ce bool) {
	d.buf = make([]byte, packet.VnetLen+len(d.head)+d.total)
	n := copy(d.buf[packet.VnetLen:], d.head) + packet.VnetLen
	d.ends = make([]int, len(d.pieces))
	for i := range d.pieces {
		n += copy(d.buf[n:], d.pieces[i].data)
		d.ends[i] = d.pieces[i].end()
	}
	b := d.Frame()[packet.EthLen:]
	d.whole = len(b)
	if d.key.src.Is4() {
		d.finish4(b, ce)
	} else {
		d.finish6(b, ce)
	}
	d.pieces, d.head = nil, nil
}

// finish4 makes the IPv4 header at the start of b that of a whole datagram.
func (d *Datagram) finish4(b []byte, ce bool) {
	ip := (*packet.IPv4)(b)
	ip.SetTotalLen(len(b))
	// As Linux has it, the whole keeps DF only if the longest fragment had it: then the sender probes the path.
	ip.SetFrag(d.maxDF == d.largest, false, 0)
	if ce {
		ip.SetTOS(ip.TOS() | 3)
	}
	packet.FixIPv4Checksum(b)
}

// finish6 makes the IPv6 header at the start of b that of a whole datagram, which has no fragment header, as Linux has it.
func (d *Datagram) finish6(b []byte, ce bool) {
	ip := (*packet.IPv6)(b)
	ip.SetPayloadLen(len(b) - packet.IPv6Len)
	if ce {
		ip.SetTrafficClass(ip.TrafficClass() | 3)
	}
	d.how = forward.Fragmentation{Fixed: packet.IPv6Len + d.fixed, ID: d.key.id}
	b[packet.NextHeaderAt(b, d.how.Fixed)] = d.proto
}

// Buf is the whole datagram as one frame with an empty virtio-net header in front.
func (d *Datagram) Buf() []byte { return d.buf }

// Vnet is the empty virtio-net header in front of the whole.
func (d *Datagram) Vnet() *packet.Vnet { return (*packet.Vnet)(d.buf) }

// Frame is the whole datagram as one Ethernet frame, contiguous, with the first fragment's headers: they are those of a whole
// datagram, without IPv6's fragment header. It may be decoded and rewritten in place.
func (d *Datagram) Frame() []byte { return d.buf[packet.VnetLen:] }

// Pieces is how many fragments it came in.
func (d *Datagram) Pieces() int { return len(d.ends) }

// Largest is the length in bytes of the longest fragment, IP header included, IPv6's fragment header too. An encapsulated datagram is cut to this
// size, as IPVS does it, if the way out does not ask for less.
func (d *Datagram) Largest() int { return d.largest }

// Emit calls emit for each fragment of whole, in order: head (virtio-net, Ethernet and IP header) followed by body, in
// one frame. whole is Frame, rewritten; it is cut where the datagram was cut when it came, or, if its length has changed or a
// piece exceeds mtu (IP bytes of the way out; 0 means no limit), to the length of the longest piece or mtu. IPv6's fragments
// keep their identification in the first case and get another in the second. Heads and bodies stay as they are for as long as
// whole does. It returns false, having emitted nothing, if whole is no IP frame of the datagram's family or mtu holds no
// header.
func (d *Datagram) Emit(whole []byte, mtu int, emit func(head, body []byte)) bool {
	_, b, ok := packet.ParseEth(whole)
	if !ok {
		return false
	}
	headerLen, n, ok := d.lengths(b)
	if !ok {
		return false
	}
	if mtu <= 0 {
		mtu = 0x1ffff
	}
	if n == d.whole && d.longest()+headerLen <= mtu {
		return forward.SplitAt(make([]byte, len(d.ends)*(forward.FrameHead+headerLen)), whole, d.ends, d.how, emit)
	}
	mtu = min(mtu, d.largest)
	size := (mtu - headerLen) &^ 7 // of a piece
	if size < 8 {
		return false
	}
	return forward.Split(make([]byte, (n/size+1)*(forward.FrameHead+headerLen)), whole, mtu, emit)
}

// lengths returns how long the header of each piece of the packet b is, at most if b is not as it came, and how long b is.
func (d *Datagram) lengths(b []byte) (headerLen, n int, ok bool) {
	if d.key.src.Is4() {
		ip, _, ok := packet.ParseIPv4(b)
		if !ok {
			return 0, 0, false
		}
		return ip.HeaderLen(), ip.TotalLen(), true
	}
	ip, payload, ok := packet.ParseIPv6(b)
	if !ok {
		return 0, 0, false
	}
	return packet.IPv6Len + d.fixed + packet.FragmentLen, packet.IPv6Len + ip.PayloadLen(), len(payload) > 0
}

// longest is the length in bytes of the longest fragment's payload.
func (d *Datagram) longest() int {
	n, at := 0, 0
	for _, end := range d.ends {
		n = max(n, end-at)
		at = end
	}
	return n
}
