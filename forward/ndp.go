package forward

import (
	"uvs/packet"
)

// NDPFrameLen is the length in bytes of the longest frame that the builders of neighbour discovery write, virtio-net header
// included; their buf needs as much room.
const NDPFrameLen = FrameHead + packet.IPv6Len + packet.NDPLen + packet.NDPMACLen

// ndpHopLimit proves that no router has passed a packet on.
const ndpHopLimit = 255

// NeighbourReply writes to buf the answer "the target is at mac" to the solicitation n, from the target's address to the
// host askerMAC; to everybody if n is a probe that nobody has sent, as RFC 4861 section 7.2.4 has it. router says that the
// target is a router's address: hosts forget a default router that says otherwise.
func NeighbourReply(buf []byte, mac packet.MAC, n *packet.NDP, askerMAC packet.MAC, router bool) []byte {
	a := packet.NDP{Flags: packet.NDPSolicited, Dst: n.Src}
	if n.Src.IsZero() {
		a.Flags, a.Dst, askerMAC = 0, packet.AllNodes, packet.GroupMAC(packet.AllNodes)
	}
	return advert(buf, mac, a, askerMAC, n.Target, router)
}

// NeighbourAnnouncement writes to buf the unsolicited advertisement to everybody that ip is at mac, which replaces whatever
// they knew (RFC 4861 section 7.2.6).
func NeighbourAnnouncement(buf []byte, mac packet.MAC, ip packet.Addr, router bool) []byte {
	return advert(buf, mac, packet.NDP{Dst: packet.AllNodes}, packet.GroupMAC(packet.AllNodes), ip, router)
}

func advert(buf []byte, mac packet.MAC, a packet.NDP, to packet.MAC, ip packet.Addr, router bool) []byte {
	a.Type, a.Src, a.Target, a.MAC = packet.ICMP6NeighbourAdvert, ip, ip, mac
	a.Flags |= packet.NDPOverride
	if router {
		a.Flags |= packet.NDPRouter
	}
	return ndpFrame(buf, mac, to, &a)
}

// NeighbourSolicit writes to buf the question of mac and sender, who has target: to the host dst, the address last known,
// when the question is only whether it still holds; to target's solicited-node group if dst is all zero.
func NeighbourSolicit(buf []byte, mac packet.MAC, sender packet.Addr, dst packet.MAC, target packet.Addr) []byte {
	n := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: sender, Dst: target, Target: target, MAC: mac}
	if dst == (packet.MAC{}) {
		n.Dst = packet.SolicitedNode(target)
		dst = packet.GroupMAC(n.Dst)
	}
	return ndpFrame(buf, mac, dst, &n)
}

// NeighbourProbe writes to buf the question whether anybody has target, from no address: nobody's cache is touched (RFC
// 4862 section 5.4.2).
func NeighbourProbe(buf []byte, mac packet.MAC, target packet.Addr) []byte {
	group := packet.SolicitedNode(target)
	return ndpFrame(buf, mac, packet.GroupMAC(group), &packet.NDP{Type: packet.ICMP6NeighbourSolicit, Dst: group, Target: target})
}

func ndpFrame(buf []byte, src, dst packet.MAC, n *packet.NDP) []byte {
	size := packet.NDPLen
	if n.MAC != (packet.MAC{}) {
		size += packet.NDPMACLen
	}
	f := buf[:FrameHead+packet.IPv6Len+size]
	putHead(f, dst, src, packet.EtherIPv6)
	packet.PutIPv6(f[FrameHead:], size, packet.Header6{NextHeader: packet.ProtoICMPv6, HopLimit: ndpHopLimit, Src: n.Src, Dst: n.Dst})
	packet.PutNDP(f[FrameHead+packet.IPv6Len:], n)
	return f
}

// MLDGroups is how many groups fit into a report, by the smallest MTU of IPv6, 1280.
const MLDGroups = 60

// MLDFrameLen is the length in bytes of the frame that MLDReport writes for n groups, virtio-net header included.
func MLDFrameLen(n int) int { return FrameHead + packet.MLDReportLen(n) }

// MLDReport writes to buf, which needs MLDFrameLen bytes of room, the report of mac's that it listens to groups, MLDGroups
// at most; kind is packet.MLDJoins, MLDLeaves or MLDListens.
func MLDReport(buf []byte, mac packet.MAC, kind uint8, groups []packet.Addr) []byte {
	f := buf[:MLDFrameLen(len(groups))]
	putHead(f, packet.GroupMAC(packet.MLDRouters), mac, packet.EtherIPv6)
	packet.PutMLDReport(f[FrameHead:], kind, groups)
	return f
}

// MLDReport1 writes to buf the report of mac's in version 1 of the protocol that it listens to a group.
func MLDReport1(buf []byte, mac packet.MAC, group packet.Addr) []byte {
	f := buf[:FrameHead+packet.MLDReport1Len]
	putHead(f, packet.GroupMAC(group), mac, packet.EtherIPv6)
	packet.PutMLDReport1(f[FrameHead:], group)
	return f
}
