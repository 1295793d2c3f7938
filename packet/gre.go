package packet

import "encoding/binary"

const (
	// GRELen is the length in bytes of a GRE header without optional fields.
	GRELen = 4
	// GREChecksumLen is the length in bytes of the optional fields checksum and reserved.
	GREChecksumLen = 4
)

const (
	greChecksum = 0x8000
	greUnknown  = 0x7fff // routing, key, sequence number, reserved bits and versions other than 0: nothing that IPVS sends
)

// GRE is a view of the fixed part of a GRE header (RFC 2784 section 2).
type GRE [GRELen]byte

// ParseGRE returns the header at the start of b and its payload. ok is false if b is cut short, or has fields or a version
// that a tunnel of IPVS never has. The checksum is not looked at.
func ParseGRE(b []byte) (h *GRE, payload []byte, ok bool) {
	if len(b) < GRELen {
		return nil, nil, false
	}
	h = (*GRE)(b)
	n := h.HeaderLen()
	if binary.BigEndian.Uint16(h[0:2])&greUnknown != 0 || len(b) < n {
		return nil, nil, false
	}
	return h, b[n:], true
}

// HasChecksum says that the header has a checksum field.
func (h *GRE) HasChecksum() bool { return binary.BigEndian.Uint16(h[0:2])&greChecksum != 0 }

// HeaderLen is the length in bytes of the header with its checksum field.
func (h *GRE) HeaderLen() int {
	if h.HasChecksum() {
		return GRELen + GREChecksumLen
	}
	return GRELen
}

// Type is the Ethernet type of the payload.
func (h *GRE) Type() uint16 { return binary.BigEndian.Uint16(h[2:4]) }

// PutGRE writes to the start of b a header for a payload of that Ethernet type, and, if there shall be a checksum, its field,
// which is 0 until SetGREChecksum.
func PutGRE(b []byte, etherType uint16, checksum bool) {
	h := (*GRE)(b)
	var flags uint16
	if checksum {
		flags = greChecksum
		clear(b[GRELen : GRELen+GREChecksumLen])
	}
	binary.BigEndian.PutUint16(h[0:2], flags)
	binary.BigEndian.PutUint16(h[2:4], etherType)
}

// SetGREChecksum writes the checksum into the header at the start of b, whose field must be 0; payload is the unfolded sum of
// what follows the header.
func SetGREChecksum(b []byte, payload uint64) {
	b = b[:GRELen+GREChecksumLen]
	binary.BigEndian.PutUint16(b[GRELen:], ^Fold(Sum(b, payload)))
}

// GREChecksumOK says that the GRE packet b, header first, has a right checksum. It must have been accepted by ParseGRE and have
// the field.
func GREChecksumOK(b []byte) bool { return Fold(Sum(b, 0)) == 0xffff }
