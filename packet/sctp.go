package packet

import "encoding/binary"

// SCTPLen is the length in bytes of the common header of SCTP.
const SCTPLen = 12

// SCTP is a view of SCTP's common header (RFC 9260 section 3.1). Its checksum is a CRC32c of the whole SCTP packet, no
// pseudo-header, and alone in all of these headers lies with its low byte first.
type SCTP [SCTPLen]byte

// SrcPort is the source port.
func (h *SCTP) SrcPort() uint16 { return binary.BigEndian.Uint16(h[0:2]) }

// DstPort is the destination port.
func (h *SCTP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// Checksum is the checksum field as it stands.
func (h *SCTP) Checksum() uint32 { return binary.LittleEndian.Uint32(h[8:12]) }

// SetChecksum replaces the checksum field.
func (h *SCTP) SetChecksum(c uint32) { binary.LittleEndian.PutUint32(h[8:12], c) }

// SCTP chunk types (RFC 9260 section 3.2).
const (
	SCTPData             = 0
	SCTPInit             = 1
	SCTPInitAck          = 2
	SCTPSack             = 3
	SCTPHeartbeat        = 4
	SCTPHeartbeatAck     = 5
	SCTPAbort            = 6
	SCTPShutdown         = 7
	SCTPShutdownAck      = 8
	SCTPError            = 9
	SCTPCookieEcho       = 10
	SCTPCookieAck        = 11
	SCTPECNE             = 12
	SCTPCWR              = 13
	SCTPShutdownComplete = 14
	// SCTPNoChunk is no chunk at all, what SCTPEvent finds in a packet of a header alone. The type of this number is
	// reserved.
	SCTPNoChunk = 255
)

// SCTPChunk is a view of a chunk's header (RFC 9260 section 3.2).
type SCTPChunk [4]byte

// ParseSCTPChunk returns the header of the chunk at the start of b and the chunks behind it: none if its length field
// lies. ok is false if b is too short for a header.
func ParseSCTPChunk(b []byte) (c *SCTPChunk, rest []byte, ok bool) {
	if len(b) < len(c) {
		return nil, nil, false
	}
	c = (*SCTPChunk)(b)
	n := (c.Len() + 3) &^ 3 // chunks are padded to four bytes
	if c.Len() < len(c) || n > len(b) {
		return c, nil, true
	}
	return c, b[n:], true
}

// Type is the chunk's type.
func (c *SCTPChunk) Type() uint8 { return c[0] }

// Len is the length in bytes that the chunk claims, header included and padding not.
func (c *SCTPChunk) Len() int { return int(binary.BigEndian.Uint16(c[2:4])) }

// SCTPFirst returns the type of the first chunk of an SCTP packet, common header included, which decides whether it may
// open a connection; SCTPNoChunk if there is none.
func SCTPFirst(b []byte) uint8 {
	first, _ := sctpFirst(b)
	return first
}

// SCTPEvent returns the type of the chunk of an SCTP packet, common header included, that decides on its connection's
// state: the first, but an ABORT that follows a COOKIE ECHO or COOKIE ACK goes before it, as in IPVS
// (ip_vs_proto_sctp.c, set_sctp_state), which looks at no other. It is SCTPNoChunk if there is none.
func SCTPEvent(b []byte) uint8 {
	first, rest := sctpFirst(b)
	if first == SCTPCookieEcho || first == SCTPCookieAck {
		if next, _, ok := ParseSCTPChunk(rest); ok && next.Type() == SCTPAbort {
			return SCTPAbort
		}
	}
	return first
}

func sctpFirst(b []byte) (chunk uint8, rest []byte) {
	if len(b) < SCTPLen {
		return SCTPNoChunk, nil
	}
	c, rest, ok := ParseSCTPChunk(b[SCTPLen:])
	switch {
	case !ok:
		return SCTPNoChunk, nil
	case c.Type() == SCTPNoChunk:
		return SCTPData, rest // means as much to IPVS as any type that it doesn't know
	}
	return c.Type(), rest
}
