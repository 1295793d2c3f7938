package forward

import (
	"uvs/packet"
)

// Query is a packet that uvs sends of its own accord: a TCP segment, a UDP datagram without payload, or an ICMP echo request.
type Query struct {
	// Flow is the packet's. Its protocol is TCP, UDP or the family's ICMP; of that SrcPort is the echo's identifier.
	packet.Flow
	// Flags are TCP's.
	Flags uint8
	// Seq is TCP's sequence number, or the lower half of it the echo's.
	Seq uint32
	// Len is how long the IP packet is to be, in bytes. Only an echo request can be longer than its headers.
	Len int
	// Uncut forbids routers to fragment it.
	Uncut bool
}

// Size is the room in bytes that Put needs for a query, virtio-net header included.
func (q *Query) Size() int { return FrameHead + max(q.ipLen()+q.l4Len(), q.Len) }

func (q *Query) ipLen() int {
	if q.Dst.Is4() {
		return packet.IPv4Len
	}
	return packet.IPv6Len
}

func (q *Query) l4Len() int {
	switch q.Proto {
	case packet.ProtoTCP:
		return packet.TCPLen
	case packet.ProtoUDP:
		return packet.UDPLen
	}
	return packet.ICMPLen
}

// Put writes to buf, which has Size bytes, the frame of q, virtio-net header first. Its Ethernet addresses are zero, and
// its time to live is one more than usual, for the forwarding code to take away.
func (q *Query) Put(buf []byte) []byte {
	f := buf[:q.Size()]
	clear(f)
	b := f[FrameHead+q.ipLen():]
	pseudo := uint64(0)
	switch q.Proto {
	case packet.ProtoTCP:
		t := (*packet.TCP)(b)
		t.SetHeaderLen(packet.TCPLen)
		t.SetFlags(q.Flags)
		t.SetSeq(q.Seq)
		t.SetWindow(queryWindow)
		q.putPorts(b)
		pseudo = q.pseudo(len(b))
		t.SetChecksum(^packet.Fold(packet.Sum(b, pseudo)))
	case packet.ProtoUDP:
		packet.PutUDP(b, q.SrcPort, q.DstPort, len(b))
		(*packet.UDP)(b).SetChecksum(notZero(^packet.Fold(packet.Sum(b, q.pseudo(len(b))))))
	default:
		h := (*packet.ICMP)(b)
		h.SetType(packet.ICMPEcho, 0)
		if !q.Dst.Is4() {
			h.SetType(packet.ICMP6Echo, 0)
			pseudo = q.pseudo(len(b))
		}
		h.SetRest(uint32(q.SrcPort)<<16 | q.Seq&0xffff)
		h.SetChecksum(^packet.Fold(packet.Sum(b, pseudo)))
	}
	etherType := uint16(packet.EtherIPv6)
	if q.Dst.Is4() {
		etherType = packet.EtherIPv4
	}
	putHead(f, packet.MAC{}, packet.MAC{}, etherType)
	q.putIP(f[FrameHead:], len(b))
	return f
}

// queryWindow is the window of a segment of ours, Linux's.
const queryWindow = 64240

func (q *Query) putPorts(b []byte) {
	ports := (*packet.Ports)(b)
	ports.SetSrc(q.SrcPort)
	ports.SetDst(q.DstPort)
}

func (q *Query) pseudo(n int) uint64 {
	if q.Dst.Is4() {
		return packet.Pseudo4(q.Src.V4(), q.Dst.V4(), q.Proto, n)
	}
	return packet.Pseudo6(q.Src, q.Dst, q.Proto, n)
}

// putIP writes the IP header of a packet with n bytes behind it.
func (q *Query) putIP(b []byte, n int) {
	if !q.Dst.Is4() {
		packet.PutIPv6(b, n, packet.Header6{NextHeader: q.Proto, HopLimit: defaultTTL + 1, Src: q.Src, Dst: q.Dst})
		return
	}
	h := packet.Header4{DF: q.Uncut, TTL: defaultTTL + 1, Proto: q.Proto, Src: q.Src.V4(), Dst: q.Dst.V4()}
	if !h.DF {
		h.ID = nextID(h.Src, h.Dst, h.Proto)
	}
	packet.PutIPv4(b, packet.IPv4Len+n, h)
}
