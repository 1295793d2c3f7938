package control

import (
	"math/rand/v2"
	"slices"
	"testing"

	"uvs/service"
)

// TestServerListsAlreadyGivenOutNeverChange adds and removes at random beside a plain slice, and looks at all earlier lists again.
func TestServerListsAlreadyGivenOutNeverChange(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 3))
		var l serverList
		var twin []*service.RealServer
		var given, copies [][]*service.RealServer
		for range 200 {
			if len(twin) == 0 || random.IntN(5) < 3 {
				rs := new(service.RealServer)
				l.prepend(rs)
				twin = slices.Insert(slices.Clone(twin), 0, rs)
			} else {
				i := [3]int{0, random.IntN(len(twin)), len(twin) - 1}[random.IntN(3)]
				l.remove(twin[i])
				twin = slices.Delete(slices.Clone(twin), i, i+1)
			}
			if !slices.Equal(l.all(), twin) {
				t.Fatalf("seed %d: the list has %d servers, want %d, or others", seed, len(l.all()), len(twin))
			}
			given, copies = append(given, l.all()), append(copies, twin)
		}
		for i := range given {
			if !slices.Equal(given[i], copies[i]) {
				t.Fatalf("seed %d: list %d changed after it was given out", seed, i)
			}
		}
	}
}
