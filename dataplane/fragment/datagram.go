package fragment

import (
	"uvs/forward"
	"uvs/packet"
)

// Datagram is an IPv4 datagram that came in fragments. Once Add has returned it, it is whole, the caller's, and no
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
	head             []byte    // Ethernet and IP header of the first fragment
	largest          int       // longest fragment, IP header included
	maxDF            int       // longest with DF
	ecn              uint8     // bit n: a fragment with ECN field n came
	buf              []byte    // the whole, virtio-net header first
	ends             []int     // where the fragments ended
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
	d.pieces, d.head = nil, nil

	b := d.Frame()[packet.EthLen:]
	ip := (*packet.IPv4)(b)
	ip.SetTotalLen(len(b))
	// As Linux has it, the whole keeps DF only if the longest fragment had it: then the sender probes the path.
	ip.SetFrag(d.maxDF == d.largest, false, 0)
	if ce {
		ip.SetTOS(ip.TOS() | 3)
	}
	packet.FixIPv4Checksum(b)
}

// Buf is the whole datagram as one frame with an empty virtio-net header in front.
func (d *Datagram) Buf() []byte { return d.buf }

// Vnet is the empty virtio-net header in front of the whole.
func (d *Datagram) Vnet() *packet.Vnet { return (*packet.Vnet)(d.buf) }

// Frame is the whole datagram as one Ethernet frame, contiguous, with the first fragment's headers: total length and
// fragment field are those of a whole datagram. It may be decoded and rewritten in place.
func (d *Datagram) Frame() []byte { return d.buf[packet.VnetLen:] }

// Pieces is how many fragments it came in.
func (d *Datagram) Pieces() int { return len(d.ends) }

// Largest is the length in bytes of the longest fragment, IP header included. An encapsulated datagram is cut to this
// size, as IPVS does it, if the way out does not ask for less.
func (d *Datagram) Largest() int { return d.largest }

// Emit calls emit for each fragment of whole, in order: head (virtio-net, Ethernet and IP header) followed by body, in
// one frame. whole is Frame, rewritten; it is cut where the datagram was cut when it came, or, if its length has changed
// or a piece exceeds mtu (IP bytes of the way out; 0 means no limit), to the length of the longest piece or mtu. Heads and bodies stay as
// they are for as long as whole does. It returns false, having emitted nothing, if whole is no IPv4 frame or mtu holds
// no header.
func (d *Datagram) Emit(whole []byte, mtu int, emit func(head, body []byte)) bool {
	_, b, ok := packet.ParseEth(whole)
	if !ok {
		return false
	}
	ip, payload, ok := packet.ParseIPv4(b)
	if !ok {
		return false
	}
	if mtu <= 0 {
		mtu = 0xffff
	}
	headLen := forward.FrameHead + ip.HeaderLen()
	if len(payload) == d.ends[len(d.ends)-1] && d.longest()+ip.HeaderLen() <= mtu {
		return forward.SplitAt(make([]byte, len(d.ends)*headLen), whole, d.ends, forward.Fragmentation{}, emit)
	}
	mtu = min(mtu, d.largest)
	count := len(payload)/max(1, (mtu-ip.HeaderLen())&^7) + 1
	if mtu < ip.HeaderLen()+8 {
		return false
	}
	return forward.Split(make([]byte, count*headLen), whole, mtu, emit)
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
