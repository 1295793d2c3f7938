package conformance

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"uvs/packet"
)

// sctpChunks are the chunks that traces name: their types and the length of their values unless the trace tells it.
var sctpChunks = map[string]struct {
	typ    uint8
	length int
}{
	"data": {packet.SCTPData, 13}, "init": {packet.SCTPInit, 16}, "initack": {packet.SCTPInitAck, 20}, "sack": {packet.SCTPSack, 12},
	"hb": {packet.SCTPHeartbeat, 0}, "abort": {packet.SCTPAbort, 0}, "shut": {packet.SCTPShutdown, 4}, "shutack": {packet.SCTPShutdownAck, 0},
	"error": {packet.SCTPError, 0}, "cecho": {packet.SCTPCookieEcho, 16}, "cack": {packet.SCTPCookieAck, 0},
	"shutcomp": {packet.SCTPShutdownComplete, 0}, "auth": {15, 0}, "x255": {255, 0},
}

// sctp builds an SCTP packet of the chunks that a trace lists: "cecho data:1400 abort:0:3" is name, length of the value, and
// what the length field claims.
func sctp(s *Step, src, dst netip.AddrPort) ([]byte, error) {
	const verificationTag = 0x01020304
	b := make([]byte, packet.SCTPLen)
	(*packet.Ports)(b).SetSrc(src.Port())
	(*packet.Ports)(b).SetDst(dst.Port())
	if first, _, _ := strings.Cut(s.Chunks, " "); !strings.HasPrefix(first, "init") || strings.HasPrefix(first, "initack") {
		copy(b[4:], []byte{verificationTag >> 24, verificationTag >> 16 & 0xff, verificationTag >> 8 & 0xff, verificationTag & 0xff})
	}
	for word := range strings.FieldsSeq(s.Chunks) {
		spec := strings.Split(word, ":")
		chunk, ok := sctpChunks[spec[0]]
		if !ok {
			return nil, fmt.Errorf("unknown chunk %q", word)
		}
		n, claimed := chunk.length, 0
		for i, into := range []*int{&n, &claimed} {
			if i+1 < len(spec) {
				v, err := strconv.Atoi(spec[i+1])
				if err != nil {
					return nil, fmt.Errorf("chunk %q: %w", word, err)
				}
				*into = v
			}
		}
		if len(spec) < 3 {
			claimed = 4 + n
		}
		var flags byte
		if chunk.typ == packet.SCTPData {
			flags = 3 // the whole of a message
		}
		b = append(b, chunk.typ, flags, byte(claimed>>8), byte(claimed))
		for i := range (n + 3) &^ 3 {
			if i < n {
				b = append(b, byte(i*5+1))
			} else {
				b = append(b, 0)
			}
		}
	}
	c := packet.CRC32c(b)
	if s.BadCsum != 0 {
		c ^= 0x5555
	}
	(*packet.SCTP)(b).SetChecksum(c)
	return b, nil
}
