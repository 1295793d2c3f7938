package ftp

import (
	"uvs/packet"
)

// shiftSeq brings a segment of the server to the client's numbers. v is the virtio-net header in front of the frame.
func shiftSeq(s *Shift, p *packet.Packet, v *packet.Vnet) {
	if s.None() {
		return
	}
	h := p.TCP()
	old := h.Seq()
	h.SetSeq(s.Seq(old))
	if !v.NeedsCsum() {
		h.SetChecksum(packet.Update32(h.Checksum(), old, h.Seq()))
	}
}

// shiftAck brings a segment of the client to the server's numbers: what it acknowledges, and what it acknowledges
// selectively.
func shiftAck(s *Shift, p *packet.Packet, v *packet.Vnet) {
	h := p.TCP()
	if s.None() || h.Flags()&packet.TCPAck == 0 {
		return
	}
	old := h.Ack()
	h.SetAck(s.Ack(old))
	if !v.NeedsCsum() {
		h.SetChecksum(packet.Update32(h.Checksum(), old, h.Ack()))
	}
	options := p.Frame[p.L4+packet.TCPLen : p.Payload]
	blocks, n, _ := packet.SACKBlocks(options)
	if n == 0 {
		return
	}
	before := packet.Sum(options, 0)
	for _, b := range blocks[:n] {
		b.Set(s.Block(b.Left(), b.Right()))
	}
	if !v.NeedsCsum() {
		h.SetChecksum(packet.UpdateSum(h.Checksum(), before, packet.Sum(options, 0)))
	}
}

// Room is how many bytes Rewrite may need for a frame whose buffer, virtio-net header included, has n.
func Room(n int) int { return n + 2*maxText + maxHeaders }

// maxHeaders is the longest headers of a segment in second that Room counts on: virtio-net, Ethernet, IP and TCP with all
// options. A longer chain of IPv6 extension headers makes Rewrite allocate.
const maxHeaders = packet.VnetLen + packet.EthLen + 60 + 60

// Rewrite makes a copy of a segment with the reply r answered: lengths and checksums follow. buf has Room for it; frame is
// the whole of it, virtio-net header first, that p was decoded from. A segment that became longer than mtu (of the IP
// packet) goes on as two; second is nil otherwise. A super-frame stays one. Both lie in buf. ok is false if the segment
// is better dropped: its checksum is wrong, so that its receiver would do so too, or no IP packet is as long as it became.
func (r *Reply) Rewrite(buf, frame []byte, p *packet.Packet, mtu int) (first, second []byte, ok bool) {
	v := (*packet.Vnet)(frame)
	if !v.NeedsCsum() && packet.Fold(packet.Sum(p.L4Bytes(), p.Pseudo(packet.ProtoTCP, len(p.Frame)-p.L4))) != 0xffff {
		return nil, nil, false
	}
	grown := r.text.n - (r.end - r.start)
	if p.IPLen()+grown > 0xffff {
		return nil, nil, false
	}
	start, end := packet.VnetLen+p.Payload+r.start, packet.VnetLen+p.Payload+r.end
	first = append(append(append(buf[:0], frame[:start]...), r.text.b[:r.text.n]...), frame[end:packet.VnetLen+len(p.Frame)]...)
	if v.GSOType() != packet.GSONone || p.IPLen()+grown <= mtu {
		finish(first, p)
		return first, nil, true
	}
	// Too long for the way: the bytes that came to it go on in a segment of their own, behind what fitted so far.
	whole, payload := len(first)-grown, packet.VnetLen+p.Payload
	if grown <= 0 || whole <= payload {
		finish(first, p)
		return first, nil, true // it was too long before; that is for others to deal with
	}
	tail := first[whole:]
	second = append(append(buf[len(first):len(first)], frame[:payload]...), tail...)
	first = first[:whole]
	h := tcpOf(second, p)
	h.SetSeq(h.Seq() + uint32(whole-payload))
	if p.Is4() {
		ipOf(second, p).SetID(p.IPv4().ID() + 1)
	}
	h = tcpOf(first, p)
	h.SetFlags(h.Flags() &^ (packet.TCPPsh | packet.TCPFin))
	finish(first, p)
	finish(second, p)
	return first, second, true
}

func ipOf(frame []byte, p *packet.Packet) *packet.IPv4 {
	return (*packet.IPv4)(frame[packet.VnetLen+p.L3:])
}

func tcpOf(frame []byte, p *packet.Packet) *packet.TCP {
	return (*packet.TCP)(frame[packet.VnetLen+p.L4:])
}

// finish sets lengths and checksums of a frame made of p's headers and another payload.
func finish(frame []byte, p *packet.Packet) {
	h, n := tcpOf(frame, p), len(frame)-packet.VnetLen-p.L3
	if p.Is4() {
		ipOf(frame, p).SetTotalLen(n)
		packet.FixIPv4Checksum(frame[packet.VnetLen+p.L3:])
	} else {
		(*packet.IPv6)(frame[packet.VnetLen+p.L3:]).SetPayloadLen(n - packet.IPv6Len)
	}
	l4 := frame[packet.VnetLen+p.L4:]
	pseudo := p.Pseudo(packet.ProtoTCP, len(l4))
	if (*packet.Vnet)(frame).NeedsCsum() {
		h.SetChecksum(packet.Fold(pseudo))
		return
	}
	h.SetChecksum(0)
	h.SetChecksum(^packet.Fold(packet.Sum(l4, pseudo)))
}
