package packet

import "encoding/binary"

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the Ethernet address of everybody.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// IsGroup says that m is a multicast or broadcast address.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// String is m in the usual notation, lower case with colons.
func (m MAC) String() string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i, x := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hex[x>>4], hex[x&15])
	}
	return string(b)
}

// Ethernet types.
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100
	EtherQinQ = 0x88a8
)

// EthLen is the length in bytes of an Ethernet header without VLAN tag.
const EthLen = 14

// Eth is a view of an Ethernet II header (IEEE 802.3, untagged).
type Eth [EthLen]byte

// ParseEth returns the header at the start of frame and what follows. ok is false if frame is too short.
func ParseEth(frame []byte) (h *Eth, payload []byte, ok bool) {
	if len(frame) < EthLen {
		return nil, nil, false
	}
	return (*Eth)(frame), frame[EthLen:], true
}

// Dst is the destination address.
func (h *Eth) Dst() MAC { return MAC(h[0:6]) }

// Src is the source address.
func (h *Eth) Src() MAC { return MAC(h[6:12]) }

// SetDst replaces the destination address.
func (h *Eth) SetDst(m MAC) { *(*MAC)(h[0:6]) = m }

// SetSrc replaces the source address.
func (h *Eth) SetSrc(m MAC) { *(*MAC)(h[6:12]) = m }

// Type is the Ethernet type, one of the Ether* values among others.
func (h *Eth) Type() uint16 { return binary.BigEndian.Uint16(h[12:14]) }

// SetType replaces the Ethernet type.
func (h *Eth) SetType(t uint16) { binary.BigEndian.PutUint16(h[12:14], t) }

// PutEth writes an Ethernet header to b, which must have EthLen bytes.
func PutEth(b []byte, dst, src MAC, etherType uint16) {
	h := (*Eth)(b)
	h.SetDst(dst)
	h.SetSrc(src)
	h.SetType(etherType)
}
