package forward

import (
	"uvs/packet"
)

// ARPFrameLen is the length in bytes of the frames that the ARP builders write, virtio-net header included; their buf
// needs as much room. The device pads them to Ethernet's minimum.
const ARPFrameLen = FrameHead + packet.ARPLen

// ARPReply writes to buf the answer "ip is at mac", to the host askerMAC and asker. Addresses are in host order.
func ARPReply(buf []byte, mac packet.MAC, ip uint32, askerMAC packet.MAC, asker uint32) []byte {
	f := arpFrame(buf, askerMAC, mac)
	packet.PutARP(f[FrameHead:], packet.ARPReply, mac, ip, askerMAC, asker)
	return f
}

// ARPRequest writes to buf the question of mac and sender, who has target. dst is packet.Broadcast, or the address last
// known when the question is only whether it still holds. A sender of 0 makes it a probe (RFC 5227).
func ARPRequest(buf []byte, mac packet.MAC, sender uint32, dst packet.MAC, target uint32) []byte {
	f := arpFrame(buf, dst, mac)
	packet.PutARP(f[FrameHead:], packet.ARPRequest, mac, sender, packet.MAC{}, target)
	return f
}

// GratuitousARP writes to buf the announcement to everybody that ip is at mac. op is packet.ARPRequest (RFC 5227
// section 2.3, the common form) or packet.ARPReply, which some old hosts heed instead.
func GratuitousARP(buf []byte, mac packet.MAC, ip uint32, op uint16) []byte {
	f := arpFrame(buf, packet.Broadcast, mac)
	var target packet.MAC
	if op == packet.ARPReply {
		target = packet.Broadcast
	}
	packet.PutARP(f[FrameHead:], op, mac, ip, target, ip)
	return f
}

func arpFrame(buf []byte, dst, src packet.MAC) []byte {
	f := buf[:ARPFrameLen]
	putHead(f, dst, src, packet.EtherARP)
	return f
}

// putHead writes an empty virtio-net header and an Ethernet header to the start of f.
func putHead(f []byte, dst, src packet.MAC, etherType uint16) {
	clear(f[:packet.VnetLen])
	packet.PutEth(f[packet.VnetLen:], dst, src, etherType)
}
