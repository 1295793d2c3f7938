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
	full     atomic.Int64 // nanoseconds of credit that gather at most
	limited  atomic.Uint64

	// The worker's alone: time not yet spent on tokens, as of last, under the setting that used was.
	credit, last, used int64
}

// Set makes the limit rate answers per second on average, and up to burst at once (at least 1), starting with a full
// bucket. A rate of 0 lifts the limit.
func (l *Limiter) Set(rate float64, burst int) {
	if rate <= 0 {
		l.interval.Store(0)
		return
	}
	interval := max(1, int64(float64(time.Second)/rate))
	l.full.Store(interval * int64(max(burst, 1)))
	l.interval.Store(interval)
}

// Allow takes a token, or counts and returns false if there is none. now is in nanoseconds of a clock that doesn't go
// back.
func (l *Limiter) Allow(now int64) bool {
	interval := l.interval.Load()
	full := l.full.Load()
	if interval != l.used {
		l.used, l.credit, l.last = interval, full, now
	}
	if interval == 0 {
		return true
	}
	l.credit = min(l.credit+now-l.last, full)
	l.last = now
	if l.credit < interval {
		l.limited.Add(1)
		return false
	}
	l.credit -= interval
	return true
}

// Limited is how many times Allow returned false.
func (l *Limiter) Limited() uint64 { return l.limited.Load() }
