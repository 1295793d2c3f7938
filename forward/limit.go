package forward

import (
	"sync/atomic"
	"time"
)

// Limiter limits how many answers (ICMP errors, RSTs) a worker makes, so that nobody can use the director to multiply
// packets: a token bucket. It belongs to one worker; Limited and Set may be called from any goroutine. The zero Limiter
// lets everything pass.
type Limiter struct {
	interval atomic.Int64 // nanoseconds per token; 0 means no limit
	burst    atomic.Int64 // tokens that gather at most
	limited  atomic.Uint64

	// spent is the time at which the bucket would be full again: the bucket holds (now-spent)/interval tokens above
	// what it lacks. The worker's alone.
	spent int64
}

// Set makes the limit rate answers per second on average, and up to burst at once (at least 1). A rate of 0 lifts the
// limit.
func (l *Limiter) Set(rate float64, burst int) {
	if rate <= 0 {
		l.interval.Store(0)
		return
	}
	l.burst.Store(int64(max(burst, 1)))
	l.interval.Store(max(1, int64(float64(time.Second)/rate)))
}

// Allow takes a token, or counts and returns false if there is none. now is in nanoseconds of a clock that doesn't go
// back.
func (l *Limiter) Allow(now int64) bool {
	interval := l.interval.Load()
	if interval == 0 {
		return true
	}
	full := max(l.spent, now) + interval // when the bucket will be full again if we take one
	if full-now > interval*l.burst.Load() {
		l.limited.Add(1)
		return false
	}
	l.spent = full
	return true
}

// Limited is how many times Allow returned false.
func (l *Limiter) Limited() uint64 { return l.limited.Load() }
