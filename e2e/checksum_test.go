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
		if w.Out || w.kind != etherIPv4 {
			continue
		}
		header := w.Data[etherHeader:][:int(w.Data[etherHeader]&15)*4]
		if sum := onesSum(header); sum != 0xffff {
			t.Fatalf("wrong IP checksum: %v", w)
		}
		l4 := w.Data[etherHeader+len(header) : etherHeader+int(binary.BigEndian.Uint16(header[2:]))]
		at := map[byte]int{protoTCP: 16, protoUDP: 6}[w.proto]
		if at == 0 || w.fragment {
			continue
		}
		checked++
		pseudo := slices.Concat(header[12:20], []byte{0, w.proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))))
		got := binary.BigEndian.Uint16(l4[at:])
		if w.PartialChecksum {
			if partial++; got != onesSum(pseudo) {
				t.Fatalf("the partial checksum is %#x, want %#x: %v", got, onesSum(pseudo), w)
			}
		} else if sum := onesSum(append(pseudo, l4...)); sum != 0xffff && !(w.proto == protoUDP && got == 0) {
			t.Fatalf("wrong checksum %#x: %v", got, w)
		}
	}
	if checked == 0 {
		t.Error("no checksum was there to check")
	}
	t.Logf("%d checksums are right, %d of them partial", checked, partial)
}
