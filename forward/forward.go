// Package forward writes the outgoing frame: it rewrites a packet in place for NAT, gives it its Ethernet header for
// direct routing, puts a tunnel's header in front of it, cuts it to the way's MTU, and makes the answers that the
// director itself owes (RST, ICMP, ARP). It keeps no state but counters, reads no clock and knows no connection: what it
// needs comes as plain values.
//
// Everything that leaves a function here as a new frame starts with the ten bytes of its virtio-net header, as
// link.Link.Send wants it, and lies in the buffer that the caller gave.
package forward

import (
	"uvs/packet"
)

// FrameHead is the length in bytes of what stands before the IP header in the frames made here: virtio-net header and
// untagged Ethernet header.
const FrameHead = packet.VnetLen + packet.EthLen

// Ethernet replaces the addresses of the Ethernet header at the start of frame. It is all that direct routing changes
// beside the TTL.
func Ethernet(frame []byte, dst, src packet.MAC) {
	h := (*packet.Eth)(frame)
	h.SetDst(dst)
	h.SetSrc(src)
}

// partial says that the L4 checksum of p holds only the pseudo-header's sum, to be completed by the device. A checksum
// that the device shall complete elsewhere (in a packet tunnelled inside p) is no business of ours.
func partial(p *packet.Packet, v *packet.Vnet) bool {
	return v.NeedsCsum() && v.CsumStart() == p.L4
}
