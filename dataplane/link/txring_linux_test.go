package link

import (
	"encoding/binary"
	"testing"
	"time"

	"uvs/packet"
)

// TestRefusedFramesDoNotBlockTheTransmitRing: the kernel stops at a frame that the way out has no room for, and asks for it
// again; while the interface is down it looks at none. More of them than the ring has slots are dropped one by one, and when there is
// a way again, what is sent then arrives through the ring, and nothing else.
func TestRefusedFramesDoNotBlockTheTransmitRing(t *testing.T) {
	for _, tt := range []struct {
		down    string
		refused func(Stats) uint64
	}{
		{"far", func(st Stats) uint64 { return st.TxNoBuffer }}, // no carrier: past the queueing discipline that is a refused frame
		{"near", func(st Stats) uint64 { return st.TxError }},
	} {
		s := twoEnds(t)
		near, far := s.open(Config{Interface: "near", QdiscBypass: true}), s.open(Config{Interface: "far"})
		s.down(tt.down)
		const refused = 1000
		for i := range refused {
			near.Send(testFrame(i, 60), nil)
			if i%50 == 49 {
				near.Flush()
			}
		}
		if st := near.Stats(); tt.refused(st) != refused || st.TxFrames != 0 || st.TxBytes != 0 {
			t.Errorf("%s down: counted %+v, want %d refused", tt.down, st, refused)
		}
		s.up(tt.down)
		const more = 700
		for i := range more {
			near.Send(testFrame(refused+i, 60+i), nil)
			if near.tx.n > 0 {
				t.Fatalf("%s was down: frame %d doesn't go by the ring", tt.down, i)
			}
			if i%60 == 59 {
				near.Flush()
			}
		}
		near.Flush()
		frames := receive(t, far, more)
		if len(frames) != more {
			t.Fatalf("%s was down: received %d of %d frames: %+v", tt.down, len(frames), more, near.Stats())
		}
		for i, f := range frames {
			if seq := binary.BigEndian.Uint32(f.eth[14:]); seq != uint32(refused+i) {
				t.Fatalf("frame %d is number %d, want %d", i, seq, refused+i)
			}
		}
	}
}

// TestFramesOfAllLengthsKeepTheirOrder: some go through the transmit ring, some by sendmmsg.
func TestFramesOfAllLengthsKeepTheirOrder(t *testing.T) {
	s := twoEnds(t)
	near, far := s.open(Config{Interface: "near"}), s.open(Config{Interface: "far"})
	if near.tx.ring == nil {
		t.Fatalf("no transmit ring: %+v", near.Info())
	}
	const rounds, batch = 20, 40
	for round := range rounds {
		for i := range batch {
			n := round*batch + i
			switch {
			case n*n%7 == 1:
				near.Send(superFrame(n, 20000), nil)
			case n%3 == 0:
				f := testFrame(n, 1514)
				near.Send(f[:100], f[100:])
			default:
				near.Send(testFrame(n, 60+n), nil)
			}
		}
		near.Flush()
		var frames []got
		for end := time.Now().Add(5 * time.Second); len(frames) < batch && time.Now().Before(end); {
			frames = append(frames, takeAll(far)...)
		}
		if len(frames) != batch {
			t.Fatalf("received %d of %d frames: %+v", len(frames), batch, near.Stats())
		}
		for i, f := range frames {
			at := 14
			if binary.BigEndian.Uint16(f.eth[12:]) == packet.EtherIPv4 {
				at = 38 // where superFrame has it
			}
			if seq := binary.BigEndian.Uint32(f.eth[at:]); seq != uint32(round*batch+i) {
				t.Fatalf("frame %d of round %d is number %d", i, round, seq)
			}
		}
	}
}
