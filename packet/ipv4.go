package packet

import "encoding/binary"

// IP protocol numbers.
const (
	ProtoICMP     = 1
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoFragment = 44 // IPv6's fragment header
	ProtoGRE      = 47
	ProtoICMPv6   = 58
	ProtoSCTP     = 132
)

// IPv4Len is the length in bytes of an IPv4 header without options.
const IPv4Len = 20

// IPv4 is a view of the fixed part of an IPv4 header (RFC 791 section 3.1). Being an array, it needs no bounds check
// when read, and a wrong offset does not compile.
type IPv4 [IPv4Len]byte

// ParseIPv4 returns the header at the start of b and its payload; the payload ends where the header says, so that
// Ethernet padding is left out. ok is false if b is cut short or not IPv4. The checksum is not looked at.
func ParseIPv4(b []byte) (h *IPv4, payload []byte, ok bool) {
	if len(b) < IPv4Len || b[0]>>4 != 4 {
		return nil, nil, false
	}
	h = (*IPv4)(b)
	n, total := h.HeaderLen(), h.TotalLen()
	if n < IPv4Len || total < n || len(b) < total {
		return nil, nil, false
	}
	return h, b[n:total], true
}

// HeaderLen is the length in bytes of the header with its options.
func (h *IPv4) HeaderLen() int { return int(h[0]&15) * 4 }

// TOS is the type of service: six bits DSCP, two bits ECN.
func (h *IPv4) TOS() uint8 { return h[1] }

// SetTOS replaces the type of service; the checksum is not updated.
func (h *IPv4) SetTOS(tos uint8) { h[1] = tos }

// TotalLen is the length in bytes of the header and its payload.
func (h *IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(h[2:4])) }

// SetTotalLen replaces the total length; the checksum is not updated.
func (h *IPv4) SetTotalLen(n int) { binary.BigEndian.PutUint16(h[2:4], uint16(n)) }

// ID is the identification that the fragments of a datagram share.
func (h *IPv4) ID() uint16 { return binary.BigEndian.Uint16(h[4:6]) }

// SetID replaces the identification; the checksum is not updated.
func (h *IPv4) SetID(id uint16) { binary.BigEndian.PutUint16(h[4:6], id) }

// DF is the don't-fragment bit.
func (h *IPv4) DF() bool { return h[6]&0x40 != 0 }

// MF is the more-fragments bit.
func (h *IPv4) MF() bool { return h[6]&0x20 != 0 }

// FragOffset is the offset in bytes of this fragment in its datagram.
func (h *IPv4) FragOffset() int { return int(binary.BigEndian.Uint16(h[6:8])&0x1fff) * 8 }

// IsFragment says that this is not a whole datagram.
func (h *IPv4) IsFragment() bool { return binary.BigEndian.Uint16(h[6:8])&0x3fff != 0 }

// SetFrag replaces the flags and the offset (in bytes, a multiple of 8); the checksum is not updated.
func (h *IPv4) SetFrag(df, mf bool, offset int) {
	v := uint16(offset / 8)
	if df {
		v |= 0x4000
	}
	if mf {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(h[6:8], v)
}

// TTL is the time to live.
func (h *IPv4) TTL() uint8 { return h[8] }

// SetTTL replaces the time to live; the checksum is not updated.
func (h *IPv4) SetTTL(ttl uint8) { h[8] = ttl }

// DecTTL lowers the time to live by one and mends the checksum (RFC 1141). The TTL must not be 0.
func (h *IPv4) DecTTL() {
	h[8]--
	sum := uint32(binary.BigEndian.Uint16(h[10:12])) + 0x100
	binary.BigEndian.PutUint16(h[10:12], uint16(sum+sum>>16))
}

// Proto is the protocol of the payload.
func (h *IPv4) Proto() uint8 { return h[9] }

// Checksum is the header's checksum.
func (h *IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(h[10:12]) }

// Src is the source address in host order.
func (h *IPv4) Src() uint32 { return binary.BigEndian.Uint32(h[12:16]) }

// Dst is the destination address in host order.
func (h *IPv4) Dst() uint32 { return binary.BigEndian.Uint32(h[16:20]) }

// SetSrc replaces the source address and mends the header's checksum.
func (h *IPv4) SetSrc(a uint32) {
	h.setChecksum(Update32(h.Checksum(), h.Src(), a))
	binary.BigEndian.PutUint32(h[12:16], a)
}

// SetDst replaces the destination address and mends the header's checksum.
func (h *IPv4) SetDst(a uint32) {
	h.setChecksum(Update32(h.Checksum(), h.Dst(), a))
	binary.BigEndian.PutUint32(h[16:20], a)
}

// Header4 is what PutIPv4 writes into an IPv4 header; addresses are in host order.
type Header4 struct {
	TOS      uint8
	ID       uint16
	DF       bool
	TTL      uint8
	Proto    uint8
	Src, Dst uint32
}

// PutIPv4 writes to the start of b a header without options, of a whole datagram of n bytes, header included.
func PutIPv4(b []byte, n int, f Header4) {
	h := (*IPv4)(b)
	first := 0x45<<24 | uint32(f.TOS)<<16 | uint32(uint16(n))
	second := uint32(f.ID) << 16
	if f.DF {
		second |= 0x4000
	}
	third := uint32(f.TTL)<<24 | uint32(f.Proto)<<16
	third |= uint32(^Fold(uint64(first) + uint64(second) + uint64(third) + uint64(f.Src) + uint64(f.Dst)))
	binary.BigEndian.PutUint32(h[0:4], first)
	binary.BigEndian.PutUint32(h[4:8], second)
	binary.BigEndian.PutUint32(h[8:12], third)
	binary.BigEndian.PutUint32(h[12:16], f.Src)
	binary.BigEndian.PutUint32(h[16:20], f.Dst)
}

func (h *IPv4) setChecksum(c uint16) { binary.BigEndian.PutUint16(h[10:12], c) }

// IPv4ChecksumOK says that the header at the start of b, options included, has a right checksum. b must have been
// accepted by ParseIPv4.
func IPv4ChecksumOK(b []byte) bool {
	if b[0] == 0x45 { // no options: ten words without a loop
		s := uint64(binary.BigEndian.Uint32(b[0:4])) + uint64(binary.BigEndian.Uint32(b[4:8])) +
			uint64(binary.BigEndian.Uint32(b[8:12])) + uint64(binary.BigEndian.Uint32(b[12:16])) +
			uint64(binary.BigEndian.Uint32(b[16:20]))
		return Fold(s) == 0xffff
	}
	return Fold(Sum(b[:int(b[0]&15)*4], 0)) == 0xffff
}

// FixIPv4Checksum computes the checksum of the header at the start of b, options included.
func FixIPv4Checksum(b []byte) {
	n := int(b[0]&15) * 4
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:12], ^Fold(Sum(b[:n], 0)))
}

// IP option numbers, copied flag included (RFC 791 section 3.1).
const (
	optEnd    = 0
	optNop    = 1
	optLSRR   = 131
	optSSRR   = 137
	optCopied = 0x80
)

// optionsOK says that the IP options in b are well-formed and hold no source route: a host that isn't told otherwise
// drops packets that wish to choose their way.
func optionsOK(b []byte) bool {
	for len(b) > 0 && b[0] != optEnd {
		n := 1
		if b[0] != optNop {
			if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) || b[0] == optLSRR || b[0] == optSSRR {
				return false
			}
			n = int(b[1])
		}
		b = b[n:]
	}
	return true
}

// ClearUncopiedOptions makes of the header at the start of b that of a later fragment: options that only the first
// fragment carries become no-operations, as Linux does it, so that the length stays. The checksum is not updated.
func ClearUncopiedOptions(b []byte) {
	b = b[IPv4Len : int(b[0]&15)*4]
	for len(b) > 0 && b[0] != optEnd {
		n := 1
		if b[0] != optNop {
			if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
				return
			}
			n = int(b[1])
			if b[0]&optCopied == 0 {
				fillNop(b[:n])
			}
		}
		b = b[n:]
	}
}

// ClearOptions makes no-operations of all options of the header at the start of b. The checksum is not updated.
func ClearOptions(b []byte) { fillNop(b[IPv4Len : int(b[0]&15)*4]) }

func fillNop(b []byte) {
	for i := range b {
		b[i] = optNop
	}
}
