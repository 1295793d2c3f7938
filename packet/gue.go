package packet

import "encoding/binary"

const (
	// GUELen is the length in bytes of a GUE header without options.
	GUELen = 4
	// GUERemoteLen is the length in bytes of the option for remote checksum offload, with the word of private flags that
	// announces it.
	GUERemoteLen = 8
)

const (
	gueControl       = 0x20       // of the first byte, beside two bits of version and five of length
	gueFlagPrivate   = 0x0001     // a word of private flags follows
	guePrivateRemote = 0x80000000 // start and place of a checksum follow
)

// GUE is what a GUE header says (draft-ietf-intarea-gue, variant 0, as Linux's fou module and IPVS have it).
type GUE struct {
	// Proto is the protocol of the payload: ProtoIPIP or ProtoIPv6.
	Proto uint8
	// Remote says that a checksum in the payload holds only the pseudo-header's sum, and is the receiver's to complete
	// (draft-herbert-remotecsumoffload). Start is where in the payload the sum begins, Field where the checksum lies.
	Remote       bool
	Start, Field int
}

// HeaderLen is the length in bytes of the header that PutGUE writes.
func (g *GUE) HeaderLen() int {
	if g.Remote {
		return GUELen + GUERemoteLen
	}
	return GUELen
}

// ParseGUE returns what the header at the start of b says, and its payload. ok is false if b is cut short, is a control
// message, has another variant or options unknown here, or announces a checksum outside the payload.
func ParseGUE(b []byte) (g GUE, payload []byte, ok bool) {
	if len(b) < GUELen {
		return g, nil, false
	}
	n, flags := GUELen+int(b[0]&0x1f)*4, binary.BigEndian.Uint16(b[2:4])
	if b[0]>>6 != 0 || b[0]&gueControl != 0 || flags&^gueFlagPrivate != 0 || len(b) < n {
		return g, nil, false
	}
	g.Proto = b[1]
	options, payload := b[GUELen:n], b[n:]
	if flags == 0 {
		return g, payload, true
	}
	if len(options) < 4 {
		return g, nil, false
	}
	switch binary.BigEndian.Uint32(options) {
	case 0:
		return g, payload, true
	case guePrivateRemote:
	default:
		return g, nil, false
	}
	if len(options) < GUERemoteLen {
		return g, nil, false
	}
	g.Remote = true
	g.Start, g.Field = int(binary.BigEndian.Uint16(options[4:])), int(binary.BigEndian.Uint16(options[6:]))
	return g, payload, g.Start <= g.Field && g.Field+2 <= len(payload)
}

// PutGUE writes the header to the start of b.
func PutGUE(b []byte, g GUE) {
	n := g.HeaderLen()
	b = b[:n]
	b[0], b[1] = byte((n-GUELen)/4), g.Proto
	if !g.Remote {
		b[2], b[3] = 0, 0
		return
	}
	binary.BigEndian.PutUint16(b[2:], gueFlagPrivate)
	binary.BigEndian.PutUint32(b[4:], guePrivateRemote)
	binary.BigEndian.PutUint16(b[8:], uint16(g.Start))
	binary.BigEndian.PutUint16(b[10:], uint16(g.Field))
}
