package forward

import (
	"uvs/packet"
)

// TunnelLen is the length in bytes of the outer header that a Tunnel puts in front of a packet.
const TunnelLen = packet.IPv4Len

// Tunnel is the way to a real server through IP-in-IP (RFC 2003).
type Tunnel struct {
	// Src is the director's address and Dst the real server's, of the outer header.
	Src, Dst packet.Addr
	// PMTUDisc copies the inner DF bit to the outer header (IPVS's pmtu_disc, on by default); else outer packets
	// never have it and may be fragmented on their way.
	PMTUDisc bool
}

// Wrap puts the outer header in front of p, whose TTL has been decremented, and returns the frame in two parts: head,
// written to buf, which needs FrameHead+TunnelLen bytes and begins with p's Ethernet header, and body, p's own IP packet.
// A checksum that was left to the device is completed first: nobody would after the encapsulation. A super-frame cannot
// be wrapped: Segment cuts it first.
func (t *Tunnel) Wrap(buf []byte, p *packet.Packet, v *packet.Vnet) (head, body []byte) {
	CompleteChecksum(p.Frame, v)
	head, body = buf[:FrameHead+TunnelLen], p.Frame[p.L3:]
	clear(head[:packet.VnetLen])
	copy(head[packet.VnetLen:FrameHead], p.Frame)
	t.outer(head[FrameHead:], p.IPv4(), len(body))
	return head, body
}

// outer writes to b the header in front of an inner packet of n bytes with the given header.
func (t *Tunnel) outer(b []byte, inner *packet.IPv4, n int) {
	h := packet.Header4{
		TOS: inner.TOS(), TTL: inner.TTL(), DF: t.PMTUDisc && inner.DF(),
		Proto: packet.ProtoIPIP, Src: t.Src.V4(), Dst: t.Dst.V4(),
	}
	if h.TOS&3 == 3 {
		h.TOS ^= 1 // congestion marked before the tunnel is not marked in it (RFC 3168 section 9.1.1)
	}
	if !h.DF {
		h.ID = nextID(h.Src, h.Dst, h.Proto)
	}
	packet.PutIPv4(b, TunnelLen+n, h)
}
