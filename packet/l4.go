package packet

import "encoding/binary"

// TCP flags.
const (
	TCPFin = 0x01
	TCPSyn = 0x02
	TCPRst = 0x04
	TCPPsh = 0x08
	TCPAck = 0x10
	TCPUrg = 0x20
	TCPEce = 0x40
	TCPCwr = 0x80
)

// Ports is a view of the start of a TCP, UDP or SCTP header, which have their ports in the same place.
type Ports [4]byte

// Src is the source port.
func (h *Ports) Src() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// Dst is the destination port.
func (h *Ports) Dst() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// SetSrc replaces the source port; no checksum is updated.
func (h *Ports) SetSrc(port uint16) { binary.BigEndian.PutUint16(h[0:2], port) }

// SetDst replaces the destination port; no checksum is updated.
func (h *Ports) SetDst(port uint16) { binary.BigEndian.PutUint16(h[2:4], port) }

// TCPLen is the length in bytes of a TCP header without options.
const TCPLen = 20

// TCP is a view of the fixed part of a TCP header (RFC 9293 section 3.1).
type TCP [TCPLen]byte

// ParseTCP returns the header at the start of b and its payload. ok is false if b is cut short.
func ParseTCP(b []byte) (h *TCP, payload []byte, ok bool) {
	if len(b) < TCPLen {
		return nil, nil, false
	}
	h = (*TCP)(b)
	n := h.HeaderLen()
	if n < TCPLen || len(b) < n {
		return nil, nil, false
	}
	return h, b[n:], true
}

// SrcPort is the source port.
func (h *TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// DstPort is the destination port.
func (h *TCP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// Seq is the sequence number.
func (h *TCP) Seq() uint32 { return binary.BigEndian.Uint32(h[4:8]) }

// Ack is the acknowledgment number.
func (h *TCP) Ack() uint32 { return binary.BigEndian.Uint32(h[8:12]) }

// HeaderLen is the length in bytes of the header with its options.
func (h *TCP) HeaderLen() int { return int(h[12]>>4) * 4 }

// Flags is the set of TCP* flags.
func (h *TCP) Flags() uint8 { return h[13] }

// SetSeq replaces the sequence number; the checksum is not updated, nor by the other setters.
func (h *TCP) SetSeq(n uint32) { binary.BigEndian.PutUint32(h[4:8], n) }

// SetAck replaces the acknowledgment number.
func (h *TCP) SetAck(n uint32) { binary.BigEndian.PutUint32(h[8:12], n) }

// SetHeaderLen replaces the length in bytes of the header, a multiple of 4 up to 60.
func (h *TCP) SetHeaderLen(n int) { h[12] = byte(n/4)<<4 | h[12]&15 }

// SetFlags replaces the set of TCP* flags.
func (h *TCP) SetFlags(f uint8) { h[13] = f }

// SetWindow replaces the receive window as it stands in the header, unscaled.
func (h *TCP) SetWindow(n uint16) { binary.BigEndian.PutUint16(h[14:16], n) }

// Checksum is the checksum field as it stands.
func (h *TCP) Checksum() uint16 { return binary.BigEndian.Uint16(h[16:18]) }

// SetChecksum replaces the checksum field.
func (h *TCP) SetChecksum(c uint16) { binary.BigEndian.PutUint16(h[16:18], c) }

// UDPLen is the length in bytes of a UDP header.
const UDPLen = 8

// UDP is a view of a UDP header (RFC 768).
type UDP [UDPLen]byte

// ParseUDP returns the header at the start of b and its payload. ok is false if b is cut short or its length field lies.
func ParseUDP(b []byte) (h *UDP, payload []byte, ok bool) {
	if len(b) < UDPLen {
		return nil, nil, false
	}
	h = (*UDP)(b)
	n := h.Len()
	if n < UDPLen || n > len(b) {
		return nil, nil, false
	}
	return h, b[UDPLen:n], true
}

// SrcPort is the source port.
func (h *UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// DstPort is the destination port.
func (h *UDP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// Len is the length in bytes of the header and its payload.
func (h *UDP) Len() int { return int(binary.BigEndian.Uint16(h[4:6])) }

// SetLen replaces the length in bytes of the header and its payload; the checksum is not updated.
func (h *UDP) SetLen(n int) { binary.BigEndian.PutUint16(h[4:6], uint16(n)) }

// Checksum is the checksum field as it stands; 0 means that the sender computed none.
func (h *UDP) Checksum() uint16 { return binary.BigEndian.Uint16(h[6:8]) }

// SetChecksum replaces the checksum field.
func (h *UDP) SetChecksum(c uint16) { binary.BigEndian.PutUint16(h[6:8], c) }

// PutUDP writes to the start of b a header without checksum; n is the length in bytes of header and payload.
func PutUDP(b []byte, src, dst uint16, n int) {
	_ = b[:UDPLen]
	binary.BigEndian.PutUint16(b[0:2], src)
	binary.BigEndian.PutUint16(b[2:4], dst)
	binary.BigEndian.PutUint16(b[4:6], uint16(n))
	b[6], b[7] = 0, 0
}

// ICMP types and codes (RFC 792).
const (
	ICMPEchoReply      = 0
	ICMPUnreachable    = 3
	ICMPSourceQuench   = 4
	ICMPEcho           = 8
	ICMPRouterAdvert   = 9  // RFC 1256
	ICMPRouterSolicit  = 10 // RFC 1256
	ICMPTimeExceeded   = 11
	ICMPTimestamp      = 13
	ICMPTimestampReply = 14
	ICMPInfo           = 15
	ICMPInfoReply      = 16
	ICMPMask           = 17 // RFC 950
	ICMPMaskReply      = 18 // RFC 950
	ICMPCodeNet        = 0  // of ICMPUnreachable
	ICMPCodeHost       = 1  // of ICMPUnreachable
	ICMPCodeProtocol   = 2  // of ICMPUnreachable
	ICMPCodePort       = 3  // of ICMPUnreachable
	ICMPCodeFragNeeded = 4  // of ICMPUnreachable
	ICMPCodeProhibited = 13 // of ICMPUnreachable; RFC 1812
)

// ICMPv6 types (RFC 4443 section 2.1, RFC 4861 section 4, RFC 3810 section 5).
const (
	ICMP6Unreachable      = 1
	ICMP6TooBig           = 2
	ICMP6TimeExceeded     = 3
	ICMP6ParameterProblem = 4
	ICMP6Echo             = 128
	ICMP6EchoReply        = 129
	ICMP6ListenerQuery    = 130
	ICMP6ListenerReport1  = 131
	ICMP6ListenerDone     = 132
	ICMP6RouterSolicit    = 133
	ICMP6RouterAdvert     = 134
	ICMP6NeighbourSolicit = 135
	ICMP6NeighbourAdvert  = 136
	ICMP6Redirect         = 137
	ICMP6ListenerReport2  = 143

	ICMP6CodeNoRoute    = 0 // of ICMP6Unreachable
	ICMP6CodeProhibited = 1 // of ICMP6Unreachable
	ICMP6CodeAddress    = 3 // of ICMP6Unreachable
	ICMP6CodePort       = 4 // of ICMP6Unreachable
	ICMP6CodeNextHeader = 1 // of ICMP6ParameterProblem
)

// ICMPLen is the length in bytes of an ICMP header.
const ICMPLen = 8

// ICMP is a view of an ICMP header (RFC 792) of either version.
type ICMP [ICMPLen]byte

// ParseICMP returns the header at the start of b and what follows it: the quoted packet in an error. ok is false if b is
// cut short.
func ParseICMP(b []byte) (h *ICMP, payload []byte, ok bool) {
	if len(b) < ICMPLen {
		return nil, nil, false
	}
	return (*ICMP)(b), b[ICMPLen:], true
}

// Type is the message's type.
func (h *ICMP) Type() uint8 { return h[0] }

// Code is the message's code within its type.
func (h *ICMP) Code() uint8 { return h[1] }

// Checksum is the checksum field as it stands.
func (h *ICMP) Checksum() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// SetChecksum replaces the checksum field.
func (h *ICMP) SetChecksum(c uint16) { binary.BigEndian.PutUint16(h[2:4], c) }

// SetType replaces type and code; the checksum is not updated.
func (h *ICMP) SetType(typ, code uint8) { h[0], h[1] = typ, code }

// SetRest replaces the four bytes behind the checksum, zero in most errors; the checksum is not updated.
func (h *ICMP) SetRest(n uint32) { binary.BigEndian.PutUint32(h[4:8], n) }

// ID is the identifier of an echo request or reply (RFC 792, RFC 4443 section 4.1).
func (h *ICMP) ID() uint16 { return binary.BigEndian.Uint16(h[4:6]) }

// MTU is the next hop's MTU in a fragmentation-needed message (RFC 1191 section 4).
func (h *ICMP) MTU() int { return int(binary.BigEndian.Uint16(h[6:8])) }

// MTU6 is the next hop's MTU in an ICMPv6 packet-too-big message (RFC 4443 section 3.2).
func (h *ICMP) MTU6() int { return int(binary.BigEndian.Uint32(h[4:8])) }

// IsError6 says that the message is an ICMPv6 error: it quotes a packet (RFC 4443 section 2.1).
func (h *ICMP) IsError6() bool { return h[0] < 128 }

// IsError says that the message quotes a packet that IPVS relates to a connection: unreachable, source quench or time
// exceeded.
func (h *ICMP) IsError() bool {
	return h[0] == ICMPUnreachable || h[0] == ICMPSourceQuench || h[0] == ICMPTimeExceeded
}

// IsQuery says that the message is of a type known to be no error: one that may itself be answered with an error
// (RFC 1122 section 3.2.2).
func (h *ICMP) IsQuery() bool {
	switch h[0] {
	case ICMPEchoReply, ICMPEcho, ICMPRouterAdvert, ICMPRouterSolicit, ICMPTimestamp, ICMPTimestampReply,
		ICMPInfo, ICMPInfoReply, ICMPMask, ICMPMaskReply:
		return true
	}
	return false
}
