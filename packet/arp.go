package packet

import "encoding/binary"

// ARP operations (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARPLen is the length in bytes of an ARP packet for IPv4 over Ethernet.
const ARPLen = 28

// ARP is a view of an ARP packet for IPv4 over Ethernet (RFC 826).
type ARP [ARPLen]byte

// ParseARP returns the ARP packet at the start of b. ok is false if b is cut short, or speaks of other hardware or
// another protocol than Ethernet and IPv4.
func ParseARP(b []byte) (h *ARP, ok bool) {
	if len(b) < ARPLen || b[0] != 0 || b[1] != 1 || b[2] != 0x08 || b[3] != 0 || b[4] != 6 || b[5] != 4 {
		return nil, false
	}
	return (*ARP)(b), true
}

// PutARP writes an ARP packet to b, which must have ARPLen bytes. Addresses are in host order.
func PutARP(b []byte, op uint16, senderMAC MAC, sender uint32, targetMAC MAC, target uint32) {
	_ = b[:ARPLen]
	copy(b, []byte{0, 1, 0x08, 0, 6, 4})
	binary.BigEndian.PutUint16(b[6:8], op)
	copy(b[8:14], senderMAC[:])
	binary.BigEndian.PutUint32(b[14:18], sender)
	copy(b[18:24], targetMAC[:])
	binary.BigEndian.PutUint32(b[24:28], target)
}

// Op is the operation, ARPRequest or ARPReply among others.
func (h *ARP) Op() uint16 { return binary.BigEndian.Uint16(h[6:8]) }

// SenderMAC is the hardware address of the sender.
func (h *ARP) SenderMAC() MAC { return MAC(h[8:14]) }

// SetSenderMAC replaces the hardware address of the sender.
func (h *ARP) SetSenderMAC(m MAC) { *(*MAC)(h[8:14]) = m }

// Sender is the IPv4 address of the sender in host order.
func (h *ARP) Sender() uint32 { return binary.BigEndian.Uint32(h[14:18]) }

// TargetMAC is the hardware address asked about, all zero in a request.
func (h *ARP) TargetMAC() MAC { return MAC(h[18:24]) }

// Target is the IPv4 address asked about in host order.
func (h *ARP) Target() uint32 { return binary.BigEndian.Uint32(h[24:28]) }
