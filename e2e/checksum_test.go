package e2e

import (
	"encoding/binary"
	"slices"
	"testing"
)

// checkChecksums verifies the checksums of what a host received. No host would: one that gets a partial checksum, which
// the sender left to its hardware, trusts it.
func checkChecksums(t *testing.T, frames []wire) {
	t.Helper()
	checked, partial := 0, 0
	for _, w := range frames {
		if w.Out || !w.isIP() {
			continue
		}
		var l4, pseudo []byte
		packet := w.Data[etherHeader:]
		if w.kind == etherIPv4 {
			header := packet[:int(packet[0]&15)*4]
			if sum := onesSum(header); sum != 0xffff {
				t.Fatalf("wrong IP checksum: %v", w)
			}
			l4 = packet[len(header):binary.BigEndian.Uint16(header[2:])]
			pseudo = slices.Concat(header[12:20], []byte{0, w.proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))))
		} else {
			l4 = packet[40 : 40+int(binary.BigEndian.Uint16(packet[4:]))] // there is no extension header but a fragment's
			pseudo = slices.Concat(packet[8:40], []byte{0, w.proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))))
		}
		at := map[byte]int{protoTCP: 16, protoUDP: 6}[w.proto]
		if at == 0 || w.fragment {
			continue
		}
		checked++
		got := binary.BigEndian.Uint16(l4[at:])
		if w.PartialChecksum {
			if partial++; got != onesSum(pseudo) {
				t.Fatalf("the partial checksum is %#x, want %#x: %v", got, onesSum(pseudo), w)
			}
		} else if sum := onesSum(append(pseudo, l4...)); sum != 0xffff && !(w.proto == protoUDP && got == 0 && w.kind == etherIPv4) {
			t.Fatalf("wrong checksum %#x: %v", got, w)
		}
	}
	if checked == 0 {
		t.Error("no checksum was there to check")
	}
	t.Logf("%d checksums are right, %d of them partial", checked, partial)
}
