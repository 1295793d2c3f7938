package forward

import (
	"uvs/packet"
)

// SplitRoom is the room in bytes that Split's buf needs for any datagram and any MTU down to 576 bytes.
const SplitRoom = (FrameHead + 60) * (0xffff/(576-60-7) + 1)

// Split cuts the IPv4 frame (from its Ethernet header on) into fragments of at most mtu bytes, IP header included, and
// calls emit for each, in order (RFC 791 section 3.2): head is an empty virtio-net header, frame's Ethernet header and
// the fragment's IP header, written to buf; body is a part of frame. A frame that fits comes out whole; a fragment is
// cut into smaller ones. Options that only the first fragment carries become no-operations in the others, as Linux does
// it. A checksum left to the device must have been completed before, and whether DF allows this is the caller's
// decision: the pieces keep the bit. It returns false, having emitted nothing, if frame is no IPv4 frame or a fragment that
// ends beyond 64 KiB, mtu holds no header and eight bytes, or buf has no room for the heads.
func Split(buf, frame []byte, mtu int, emit func(head, body []byte)) bool {
	c, ok := newCutter(buf, frame)
	if !ok {
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

// SplitAt cuts as Split does, but where ends says: each is where a fragment ends, in bytes of IP payload, rising, all
// but the last multiples of 8, the last the payload's length. It returns false, having emitted nothing, also if ends is
// not so.
func SplitAt(buf, frame []byte, ends []int, emit func(head, body []byte)) bool {
	c, ok := newCutter(buf, frame)
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
	frame     []byte // to the end of the IP header
	payload   []byte
	headerLen int
	base      int // offset in its datagram of what is cut
	mf        bool
}

func newCutter(buf, frame []byte) (c cutter, ok bool) {
	eth, b, ok := packet.ParseEth(frame)
	if !ok || eth.Type() != packet.EtherIPv4 {
		return c, false
	}
	ip, payload, ok := packet.ParseIPv4(b)
	if !ok {
		return c, false
	}
	n := ip.HeaderLen()
	if n+ip.FragOffset()+len(payload) > 0xffff {
		return c, false // its last offsets could not be said
	}
	return cutter{buf, frame[:packet.EthLen+n], payload, n, ip.FragOffset(), ip.MF()}, true
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
	ip := (*packet.IPv4)(b)
	if at > 0 {
		packet.ClearUncopiedOptions(b)
	}
	ip.SetTotalLen(len(b) + end - at)
	ip.SetFrag(ip.DF(), c.mf || end < len(c.payload), c.base+at)
	packet.FixIPv4Checksum(b)
	return h
}
