package forward

import (
	"uvs/packet"
)

// SplitRoom is the room in bytes that Split's buf needs for any IPv4 datagram and any MTU down to 576 bytes, or any IPv6
// packet without extension headers.
const SplitRoom = (FrameHead + 60) * (0xffff/(576-60-7) + 1)

// Split cuts the IP frame (from its Ethernet header on) into fragments of at most mtu bytes, IP header included, and calls
// emit for each, in order (RFC 791 section 3.2, RFC 8200 section 4.5): head is an empty virtio-net header, frame's Ethernet
// header and the fragment's IP header, written to buf; body is a part of frame. A frame that fits comes out whole. A
// checksum left to the device must have been completed before.
//
// Of IPv4 a fragment is cut into smaller ones, and options that only the first carries become no-operations in the others,
// as Linux does it. Whether DF allows this is the caller's decision: the pieces keep the bit. IPv6 is fragmented by its
// source alone, so this is for packets of our own, which get an identification here; one that has a fragment header is not
// cut. Split returns false, having emitted nothing, if frame is no IP frame or a fragment that ends beyond 64 KiB, mtu holds
// no header and eight bytes, or buf has no room for the heads.
func Split(buf, frame []byte, mtu int, emit func(head, body []byte)) bool {
	eth, b, ok := packet.ParseEth(frame)
	if !ok {
		return false
	}
	c := cutter{buf: buf, frame: frame}
	switch eth.Type() {
	case packet.EtherIPv4:
		if !c.set4(b) {
			return false
		}
	case packet.EtherIPv6:
		ip, _, ok := packet.ParseIPv6(b)
		if !ok {
			return false
		}
		if packet.IPv6Len+ip.PayloadLen() <= mtu {
			return c.emitWhole(packet.IPv6Len, ip.PayloadLen(), emit)
		}
		n, ok := packet.UnfragmentableLen(b)
		if !ok || !c.set6(b, n, nextID6(ip.Src(), ip.Dst())) {
			return false
		}
	default:
		return false
	}
	size := max(1, len(c.payload)) // of a piece's payload
	if mtu < c.headerLen+len(c.payload) {
		if size = (mtu - c.headerLen) &^ 7; size < 8 {
			return false
		}
	}
	if c.room() < max(1, (len(c.payload)+size-1)/size) {
		return false
	}
	for at := 0; ; at += size {
		end := min(at+size, len(c.payload))
		emit(c.head(at, end), c.payload[at:end])
		if end == len(c.payload) {
			return true
		}
	}
}

// Fragmentation is how an IPv6 datagram came in fragments.
type Fragmentation struct {
	// Fixed is the length in bytes of what each had before its fragment header: IPv6 header and extension headers.
	Fixed int
	ID    uint32
}

// SplitAt cuts as Split does, but where ends says: each is where a fragment ends, in bytes of what is fragmented (IPv4's
// payload, or what follows how.Fixed bytes of IPv6), rising, all but the last multiples of 8, the last the length of it all.
// An IPv6 datagram gets its fragment headers as how says. It returns false, having emitted nothing, also if ends is not so.
func SplitAt(buf, frame []byte, ends []int, how Fragmentation, emit func(head, body []byte)) bool {
	eth, b, ok := packet.ParseEth(frame)
	if !ok {
		return false
	}
	c := cutter{buf: buf, frame: frame}
	switch eth.Type() {
	case packet.EtherIPv4:
		ok = c.set4(b)
	case packet.EtherIPv6:
		ok = c.set6(b, how.Fixed, how.ID)
	default:
		ok = false
	}
	if !ok || c.room() < len(ends) {
		return false
	}
	at := 0
	for i, end := range ends {
		if last := i == len(ends)-1; end <= at && len(c.payload) > 0 || last != (end == len(c.payload)) ||
			!last && end%8 != 0 {
			return false
		}
		at = end
	}
	at = 0
	for _, end := range ends {
		emit(c.head(at, end), c.payload[at:end])
		at = end
	}
	return len(ends) > 0
}

// cutter writes the heads of a datagram's fragments, one behind the other.
type cutter struct {
	buf       []byte
	frame     []byte // to the end of the IP header, of IPv6 of the extension headers that every fragment has
	payload   []byte // what is cut
	headerLen int    // of each piece, IPv6's fragment header included

	// Of IPv4.
	base int // offset in its datagram of what is cut
	mf   bool

	// Of IPv6.
	v6     bool
	nextAt int   // where frame says that a fragment header follows
	next   uint8 // the protocol of payload
	id     uint32
}

// set4 prepares c to cut the IPv4 frame, whose packet b starts with.
func (c *cutter) set4(b []byte) bool {
	ip, payload, ok := packet.ParseIPv4(b)
	if !ok {
		return false
	}
	n := ip.HeaderLen()
	if n+ip.FragOffset()+len(payload) > 0xffff {
		return false // its last offsets could not be said
	}
	c.frame, c.payload, c.headerLen = c.frame[:packet.EthLen+n], payload, n
	c.base, c.mf = ip.FragOffset(), ip.MF()
	return true
}

// set6 prepares c to cut the IPv6 frame, whose packet b starts with, behind fixed bytes of that.
func (c *cutter) set6(b []byte, fixed int, id uint32) bool {
	_, payload, ok := packet.ParseIPv6(b)
	if !ok {
		return false
	}
	b = b[:packet.IPv6Len+len(payload)]
	nextAt := packet.NextHeaderAt(b, fixed)
	if nextAt == 0 {
		return false
	}
	c.frame, c.payload, c.headerLen = c.frame[:packet.EthLen+fixed], b[fixed:], fixed+packet.FragmentLen
	c.v6, c.nextAt, c.next, c.id = true, nextAt, b[nextAt], id
	return true
}

// emitWhole emits a packet of n bytes behind an IP header of headerLen as it is.
func (c *cutter) emitWhole(headerLen, n int, emit func(head, body []byte)) bool {
	at := packet.EthLen + headerLen
	h := packet.VnetLen + at
	if len(c.buf) < h {
		return false
	}
	head := c.buf[:h:h]
	clear(head[:packet.VnetLen])
	copy(head[packet.VnetLen:], c.frame[:at])
	emit(head, c.frame[at:at+n])
	return true
}

// room is how many heads the buffer still takes.
func (c *cutter) room() int { return len(c.buf) / (FrameHead + c.headerLen) }

// head writes the head of the fragment with the payload bytes from at to end.
func (c *cutter) head(at, end int) []byte {
	n := FrameHead + c.headerLen
	h := c.buf[:n:n]
	c.buf = c.buf[n:]
	clear(h[:packet.VnetLen])
	copy(h[packet.VnetLen:], c.frame)
	b := h[FrameHead:]
	if c.v6 {
		b[c.nextAt] = packet.ProtoFragment
		packet.PutFragment(b[c.headerLen-packet.FragmentLen:], c.next, at, end < len(c.payload), c.id)
		(*packet.IPv6)(b).SetPayloadLen(c.headerLen - packet.IPv6Len + end - at)
		return h
	}
	ip := (*packet.IPv4)(b)
	if at > 0 {
		packet.ClearUncopiedOptions(b)
	}
	ip.SetTotalLen(len(b) + end - at)
	ip.SetFrag(ip.DF(), c.mf || end < len(c.payload), c.base+at)
	packet.FixIPv4Checksum(b)
	return h
}

// MayFragment takes back that p must not be fragmented, as Linux does for what it sends itself where the way turns out to be
// narrow. The pieces need an identification then, which Linux leaves 0 in packets that are whole for certain.
func MayFragment(p *packet.Packet) {
	ip := p.IPv4()
	if !ip.DF() {
		return
	}
	ip.SetFrag(false, ip.MF(), ip.FragOffset())
	if ip.ID() == 0 {
		ip.SetID(nextID(ip.Src(), ip.Dst(), ip.Proto()))
	}
	packet.FixIPv4Checksum(p.Frame[p.L3:])
}
