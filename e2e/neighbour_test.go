package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uvs/lab"
)

// arpFrame is an ARP packet in a frame of its own.
func arpFrame(to, from net.HardwareAddr, request bool, sender netip.Addr, target netip.Addr) []byte {
	op := byte(2)
	if request {
		op = 1
	}
	frame := slices.Concat(to, from, []byte{0x08, 0x06}, []byte{0, 1, 8, 0, 6, 4, 0, op}, from, sender.AsSlice(), make([]byte, 6), target.AsSlice())
	return append(frame, make([]byte, 60-len(frame))...)
}

// allNodes is everybody on a link.
var allNodes = netip.MustParseAddr("ff02::1")

// solicitedNode is the multicast group in which an address is asked for (RFC 4291 section 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	ip := addr.As16()
	copy(group[13:], ip[13:])
	return netip.AddrFrom16(group)
}

// groupMAC is where frames to an IPv6 multicast group go.
func groupMAC(group netip.Addr) net.HardwareAddr {
	ip := group.As16()
	return slices.Concat(net.HardwareAddr{0x33, 0x33}, ip[12:])
}

// solicitation is a neighbour solicitation in a frame: sender, at from, asks the target's group for it.
func solicitation(from net.HardwareAddr, sender, target netip.Addr) []byte {
	group := solicitedNode(target)
	message := slices.Concat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice(), []byte{1, 1}, from)
	return ndpFrame(groupMAC(group), from, sender, group, message)
}

// advertisement is an unsolicited neighbour advertisement, with override, in a frame: everybody is told that addr is at from.
func advertisement(from net.HardwareAddr, addr netip.Addr) []byte {
	message := slices.Concat([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, addr.AsSlice(), []byte{2, 1}, from)
	return ndpFrame(groupMAC(allNodes), from, addr, allNodes, message)
}

// ndpFrame puts a message of ICMPv6 into a frame, and its checksum into it.
func ndpFrame(to, from net.HardwareAddr, src, dst netip.Addr, message []byte) []byte {
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, 0, 0, byte(len(message)), 0, 0, 0, protoICMPv6})
	binary.BigEndian.PutUint16(message[2:], ^onesSum(append(pseudo, message...)))
	header := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(message)), protoICMPv6, 255}, src.AsSlice(), dst.AsSlice())
	return slices.Concat(to, from, []byte{0x86, 0xdd}, header, message)
}

// announcement is the frame by which the station at mac tells everybody that it has an address: gratuitous ARP, or an
// unsolicited neighbour advertisement.
func announcement(mac net.HardwareAddr, addr netip.Addr) []byte {
	if addr.Is6() {
		return advertisement(mac, addr)
	}
	return arpFrame(bytes.Repeat([]byte{0xff}, 6), mac, true, addr, addr)
}

// announces says that a frame tells everybody that its sender has an address.
func (w wire) announces(addr netip.Addr) bool {
	if addr.Is6() {
		return w.ndp && !w.request && w.target == addr && w.dst == allNodes
	}
	return w.arp && w.src == addr && w.dst == addr
}

// whoHas asks on a host's first leg who has an address and returns every MAC address that answered within a moment.
func whoHas(t testing.TB, h *lab.Host, addr netip.Addr) (macs []string) {
	t.Helper()
	leg := h.Legs[0]
	c, err := h.Capture(leg.Name)
	must(t, err)
	defer c.Stop()
	question := arpFrame(bytes.Repeat([]byte{0xff}, 6), leg.MAC, true, h.Addr(), addr)
	if addr.Is6() {
		question = solicitation(leg.MAC, h.Addr6(), addr)
	}
	sendFrame(t, h.Namespace, leg.Name, question)
	time.Sleep(100 * time.Millisecond)
	for _, f := range c.Stop() {
		w := take(f)
		if w.Out || w.request || !(w.arp && w.src == addr || w.ndp && w.target == addr && w.dst == h.Addr6()) {
			continue
		}
		macs = append(macs, w.claims.String())
	}
	return macs
}
