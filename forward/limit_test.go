package forward

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	var l Limiter
	for range 1000 {
		if !l.Allow(0) {
			t.Fatal("the zero Limiter limits")
		}
	}
	l.Set(10, 5) // 10 a second, 5 at once
	now := int64(time.Hour)
	take := func(n int) (got int) {
		for range n {
			if l.Allow(now) {
				got++
			}
		}
		return got
	}
	if got := take(20); got != 5 {
		t.Errorf("%d at once from a full bucket, want 5", got)
	}
	if l.Limited() != 15 {
		t.Errorf("Limited() = %d, want 15", l.Limited())
	}
	now += int64(100 * time.Millisecond)
	if got := take(5); got != 1 {
		t.Errorf("%d after a tenth of a second, want 1", got)
	}
	now += int64(250 * time.Millisecond)
	if got := take(5); got != 2 {
		t.Errorf("%d after a quarter of a second, want 2", got)
	}
	now += int64(time.Hour)
	if got := take(20); got != 5 {
		t.Errorf("%d after an hour, want the burst of 5", got)
	}
	sum := 0
	for range 1000 {
		now += int64(10 * time.Millisecond)
		sum += take(3)
	}
	if sum < 99 || sum > 101 {
		t.Errorf("%d in ten seconds, want 100", sum)
	}
	l.Set(0, 0)
	if got := take(100); got != 100 {
		t.Errorf("%d of 100 with the limit lifted", got)
	}
	l.Set(1, 0)
	if got := take(100); got != 1 {
		t.Errorf("%d with a burst of 0, want 1: no less makes sense", got)
	}
}

// TestLimiterIsMadeStricter lowers the rate while the bucket is empty: what is owed under the old rate must not
// lock the new one for longer than the new rate says.
func TestLimiterIsMadeStricter(t *testing.T) {
	var l Limiter
	l.Set(1, 100)
	for l.Allow(0) {
	}
	l.Set(1000, 10)
	if !l.Allow(int64(time.Second)) {
		t.Error("nothing allowed a second after the limit was raised to 1000 a second")
	}
}
