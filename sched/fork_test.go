package sched

import (
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// TestForkTellsTheNextDecision asks a fork before every decision of every scheduler, while servers gain and lose connections and
// weight: it must say the same, and asking must change nothing.
func TestForkTellsTheNextDecision(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 11))
				list := randomList(r, 8, 9)
				flags := service.SchedFlags(0)
				if seed%2 == 1 {
					flags = service.SchedFlag1 | service.SchedFlag2
				}
				s, err := New(name, flags)
				if err != nil {
					t.Fatal(err)
				}
				s.Prepare(list)
				now := int64(time.Hour)
				for range 60 {
					now += r.Int64N(int64(2 * time.Second))
					q := service.Request{Now: now, Flow: packet.Flow{
						Src: packet.AddrFrom4(0x0a000000 + r.Uint32N(9)), SrcPort: uint16(1024 + r.IntN(9)),
						Dst: packet.AddrFrom4(0xc6120000 + r.Uint32N(4)), DstPort: 80, Proto: packet.ProtoTCP,
					}}
					for range r.IntN(3) {
						service.Fork(s, &q).Pick(&q, list)
					}
					foretold := service.Fork(s, &q).Pick(&q, list)
					if picked := s.Pick(&q, list); picked != foretold {
						t.Fatalf("seed %d: %v was foretold, %v picked", seed, foretold, picked)
					}
					rs := list[r.IntN(len(list))]
					switch r.IntN(4) {
					case 0:
						rs.Bind(true)
					case 1:
						if rs.Active() > 0 {
							rs.Unbind(true)
						}
					case 2:
						rs.SetWeight(r.Int32N(9))
						s.Changed(service.Change{Kind: service.ServerEdited, Server: rs, Before: list, After: list})
						s.Prepare(list)
					}
				}
			}
		})
	}
}
