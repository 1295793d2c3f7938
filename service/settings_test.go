package service

import (
	"slices"
	"testing"
)

func TestLimiterDropsEveryNthPacket(t *testing.T) {
	var none *Limiter
	l := new(Limiter)
	drops := func(n int) (at []int) {
		for i := range n {
			if l.Drop() {
				at = append(at, i)
			}
		}
		return at
	}
	if got := drops(50); none.Drop() || len(got) != 0 {
		t.Errorf("without a rate %v are dropped", got)
	}
	l.Set(3, true)
	if got, want := drops(9), []int{2, 5, 8}; !slices.Equal(got, want) {
		t.Errorf("rate 3 drops %v, want %v", got, want)
	}
	l.Set(1, true)
	if got := drops(3); len(got) != 3 {
		t.Errorf("rate 1 drops %v, want all", got)
	}
	l = new(Limiter)
	l.Set(10, false) // the kernel's counter begins at 0
	if got, want := drops(21), []int{0, 10, 20}; !slices.Equal(got, want) {
		t.Errorf("rate 10 drops %v, want %v", got, want)
	}
}
