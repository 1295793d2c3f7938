package conntrack

import (
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// TestEveryChunkLeadsSomewhere looks at every cell of the state table, those of states that aren't SCTP's too. What the
// cells hold is compared with recordings in TestTableBehavesAsRecordedIPVS.
func TestEveryChunkLeadsSomewhere(t *testing.T) {
	for column := range numColumns {
		for chunk := range 256 {
			for s := range NumStates {
				next := sctpNext(column, uint8(chunk), s)
				if chunk == packet.SCTPNoChunk {
					if next != s {
						t.Errorf("column %d: no chunk leads from %v to %v", column, s, next)
					}
				} else if next < SCTPInit1 || next > SCTPClosed {
					t.Errorf("column %d, chunk %d leads from %v to %v", column, chunk, s, next)
				}
			}
		}
	}
}

func TestDropRandomTakesAssociationsThatAreNotEstablished(t *testing.T) {
	f := newFlood(t)
	for range 50 {
		f.open(service.SCTP, packet.SCTPInit)
		f.open(service.SCTP, packet.SCTPInit, packet.SCTPInit)
	}
	var kept []packet.Flow
	for range 50 {
		kept = append(kept, f.open(service.SCTP, packet.SCTPInit, packet.SCTPCookieEcho), // DR: the server isn't seen
			f.open(service.SCTP, packet.SCTPInit, packet.SCTPAbort))
	}
	for n := 0; f.Stats().Conns > len(kept) && n < 10000; n++ {
		f.drop(1)
	}
	st := f.Stats()
	if st.States[SCTPInit1]+st.States[SCTPInit] != 0 || st.States[SCTPEstablished] != 50 || st.States[SCTPClosed] != 50 {
		t.Errorf("left: %v", st.States)
	}
	if got := counts(f.rs); got != [3]int32{50, 50, 0} {
		t.Errorf("counts %v, want the established active and the closed inactive", got)
	}
	for range 2000 {
		f.drop(1)
	}
	f.pass(63 * time.Second) // the established are idle now, with two packets each
	if got := f.Stats().Conns; got != 50 {
		t.Errorf("%d left a minute later, want the established", got)
	}
	for n := 0; f.Stats().Conns > 25 && n < 10000; n++ {
		f.drop(1)
	}
	if got := f.Stats().Conns; got > 25 {
		t.Errorf("%d idle associations are left", got)
	}
}
