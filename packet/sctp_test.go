package packet

import (
	"encoding/hex"
	"testing"
)

// sctpSeeds are the chunks behind SCTP's common header: type, flags, length, value and padding of each.
var sctpSeeds = []struct {
	name, chunks string
	first, event uint8
}{
	{"none", "", SCTPNoChunk, SCTPNoChunk},
	{"half a header", "060000", SCTPNoChunk, SCTPNoChunk},
	{"data", "00030014" + "00000001000000000000000061626300", SCTPData, SCTPData},
	{"init", "01000014" + "01020304000100000001000100000001", SCTPInit, SCTPInit},
	{"init whose length lies", "01000003", SCTPInit, SCTPInit},
	{"abort, data", "06000004" + "00030004", SCTPAbort, SCTPAbort},
	{"data, abort", "00030004" + "06000004", SCTPData, SCTPData},
	{"cookie echo, abort", "0a000008aabbccdd" + "06000004", SCTPCookieEcho, SCTPAbort},
	{"cookie ack, abort", "0b000004" + "06000004", SCTPCookieAck, SCTPAbort},
	{"cookie echo, data, abort", "0a000004" + "00030004" + "06000004", SCTPCookieEcho, SCTPCookieEcho},
	{"padded cookie echo, abort", "0a000005aa000000" + "06000004", SCTPCookieEcho, SCTPAbort},
	{"cookie echo that claims its padding and a lie, abort", "0a000007aa000000" + "06000004", SCTPCookieEcho, SCTPAbort},
	{"cookie echo of length 3, abort", "0a000003" + "06000004", SCTPCookieEcho, SCTPCookieEcho},
	{"cookie echo of length 0, abort", "0a000000" + "06000004", SCTPCookieEcho, SCTPCookieEcho},
	{"cookie echo that claims the abort", "0a000008" + "06000004", SCTPCookieEcho, SCTPCookieEcho},
	{"cookie ack longer than the packet, abort", "0b00ffff" + "06000004", SCTPCookieAck, SCTPCookieAck},
	{"cookie ack, half a header", "0b000004" + "0600", SCTPCookieAck, SCTPCookieAck},
	{"cookie ack without its padding", "0b000005aa", SCTPCookieAck, SCTPCookieAck},
	{"forward TSN", "c0000008" + "00000001", 0xc0, 0xc0},
	{"the reserved type", "ff000004", SCTPData, SCTPData},
}

func sctpSeed(t testing.TB, chunks string) []byte {
	b, err := hex.DecodeString("1388" + "0050" + "01020304" + "00000000" + chunks)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChunkThatDecides holds what the trace sctp-bundled shows.
func TestChunkThatDecides(t *testing.T) {
	for _, tt := range sctpSeeds {
		b := sctpSeed(t, tt.chunks)
		if got := SCTPFirst(b); got != tt.first {
			t.Errorf("%s: SCTPFirst = %d, want %d", tt.name, got, tt.first)
		}
		if got := SCTPEvent(b); got != tt.event {
			t.Errorf("%s: SCTPEvent = %d, want %d", tt.name, got, tt.event)
		}
		p := Packet{Flow: Flow{Proto: ProtoSCTP}, Frame: b, TCPFlags: 99}
		if got := p.Event(); got != tt.event {
			t.Errorf("%s: Event = %d, want %d", tt.name, got, tt.event)
		}
	}
	p := Packet{Flow: Flow{Proto: ProtoTCP}, TCPFlags: TCPSyn}
	if got := p.Event(); got != TCPSyn {
		t.Errorf("Event of a SYN = %#x", got)
	}
	if n := testing.AllocsPerRun(100, func() { SCTPEvent(p.Frame) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSCTPEvent compares with a reading of the same rule that copies the packet and pads it, so that nothing is out of
// bounds.
func FuzzSCTPEvent(f *testing.F) {
	for _, s := range sctpSeeds {
		f.Add(sctpSeed(f, s.chunks))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		padded := append(append([]byte{}, b...), make([]byte, 1<<17)...)
		chunk := func(at int) (typ uint8, next int, ok bool) {
			n := int(padded[at+2])<<8 | int(padded[at+3])
			return padded[at], at + (n+3)/4*4, at+4 <= len(b)
		}
		first, next, ok := chunk(SCTPLen)
		claims := int(padded[SCTPLen+2])<<8 | int(padded[SCTPLen+3])
		want := first
		if !ok {
			first, want = SCTPNoChunk, SCTPNoChunk
		} else if first == SCTPNoChunk {
			first, want = SCTPData, SCTPData
		} else if first == SCTPCookieEcho || first == SCTPCookieAck {
			if typ, _, ok := chunk(next); ok && claims >= 4 && typ == SCTPAbort {
				want = SCTPAbort
			}
		}
		if got := SCTPFirst(b); got != first {
			t.Errorf("SCTPFirst = %d, want %d", got, first)
		}
		if got := SCTPEvent(b); got != want {
			t.Errorf("SCTPEvent = %d, want %d", got, want)
		}
		// A walk over all chunks ends.
		for rest := b; ; {
			c, more, ok := ParseSCTPChunk(rest)
			if !ok {
				break
			}
			if len(more) >= len(rest) {
				t.Fatalf("%d bytes left of %d behind a chunk of %d", len(more), len(rest), c.Len())
			}
			rest = more
		}
	})
}
