package link

import (
	"encoding/binary"
	"math/bits"

	"uvs/packet"
)

// Lengths in bytes in front of the EtherType of an Ethernet frame with its virtio-net header, and of an 802.1Q tag.
const (
	macsLen    = 12
	vlanTagLen = 4
	vnetMACs   = packet.VnetLen + macsLen
)

// InsertVLAN writes head to dst with an 802.1Q tag put in behind the MAC addresses, and returns the bytes written.
// head is the start of a frame as Link.Send takes it: virtio-net header, Ethernet header and perhaps more; what
// follows it (Send's body) stays as it is. tpid is the tag's protocol (0x8100 or 0x88a8), tci its priority, DEI and
// VID. The virtio-net header's csum_start and hdr_len grow by the tag's four bytes: left behind, the kernel refuses
// the frame with ENOMEM. It returns nil if head ends before the EtherType or dst is shorter than len(head)+4; dst must
// not overlap head.
func InsertVLAN(dst, head []byte, tpid, tci uint16) []byte {
	if len(head) < vnetMACs || len(dst) < len(head)+vlanTagLen {
		return nil
	}
	dst = dst[:len(head)+vlanTagLen]
	copy(dst, head[:vnetMACs])
	copy(dst[vnetMACs+vlanTagLen:], head[vnetMACs:])
	writeTag(dst, tpid, tci)
	return dst
}

// PushVLAN puts a tag into the frame in place, as InsertVLAN does, using the room in front of it. It returns false
// and changes nothing when the frame has no such room (one that did not come from a link) or is cut short.
func (f *Frame) PushVLAN(tpid, tci uint16) bool {
	if len(f.Buf) < vnetMACs || !f.Prepend(vlanTagLen) {
		return false
	}
	copy(f.Buf, f.Buf[vlanTagLen:vlanTagLen+vnetMACs])
	writeTag(f.Buf, tpid, tci)
	return true
}

// writeTag fills the gap of four bytes behind the MAC addresses and makes the virtio-net header follow.
func writeTag(buf []byte, tpid, tci uint16) {
	binary.BigEndian.PutUint16(buf[vnetMACs:], tpid)
	binary.BigEndian.PutUint16(buf[vnetMACs+2:], tci)
	v := (*packet.Vnet)(buf)
	if v.NeedsCsum() {
		v.SetCsumStart(v.CsumStart() + vlanTagLen)
	}
	if n := v.HdrLen(); n != 0 {
		v.SetHdrLen(n + vlanTagLen)
	}
}

// finishChecksum completes a partial checksum in the frame made of head (virtio-net header first) and body, for a
// socket that has no virtio-net header to leave it to. It clears the flag; false means that the header points
// outside the frame.
func finishChecksum(head, body []byte) bool {
	v := (*packet.Vnet)(head)
	if !v.NeedsCsum() {
		return true
	}
	eth := head[packet.VnetLen:]
	start, total := v.CsumStart(), len(eth)+len(body)
	field := start + v.CsumOffset()
	if field+2 > total {
		return false
	}
	// The field's present content, the pseudo-header's sum, is part of the sum.
	tail, rest := eth[min(start, len(eth)):], body[max(0, start-len(eth)):]
	second := packet.Fold(packet.Sum(rest, 0))
	if len(tail)&1 != 0 {
		second = bits.ReverseBytes16(second) // its words began in the middle of ours
	}
	c := ^packet.Fold(packet.Sum(tail, uint64(second)))
	if c == 0 {
		c = 0xffff // zero would say that a UDP datagram has no checksum; for TCP both are the same number
	}
	for i, b := range [2]byte{byte(c >> 8), byte(c)} {
		if at := field + i; at < len(eth) {
			eth[at] = b
		} else {
			body[at-len(eth)] = b
		}
	}
	v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
	return true
}
