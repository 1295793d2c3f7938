package control

import (
	"math"
	"time"
)

// lifetime estimates how long a server's connections live, to tell when it will have none. The connection table has no
// room for the time at which a connection began, so the ages are those of all connections together: before a drain begins,
// by Little's law, the mean is how many there are divided by how many come in a second; from then on it is how many seconds
// all of them have lived for each that ended. What is seen while draining counts for more with each end, and what was seen
// long ago for less, since the short-lived go first.
type lifetime struct {
	prior   float64 // seconds that a connection lived before; 0 is unknown
	ended   float64 // connections that ended, fading
	lived   float64 // seconds that connections lived meanwhile, fading likewise
	last    uint64  // connections when last looked at
	lastNow int64   // and when, in nanoseconds
}

// lifetimeHalf is the time in which what was seen comes to count for half as much.
const lifetimeHalf = 60.0 // seconds

// begin begins with n connections and, while new ones came, so many a second in fractions of 1/1024.
func (l *lifetime) begin(n uint64, rate int64, now int64) {
	l.last, l.lastNow = n, now
	if rate > 0 {
		l.prior = float64(n) / (float64(rate) / (1 << pktShift))
	}
}

// observe takes the number of connections as of now and returns how many have ended since it did so last.
func (l *lifetime) observe(n uint64, now int64) (ended uint64) {
	elapsed := time.Duration(now - l.lastNow).Seconds()
	if elapsed <= 0 {
		return 0
	}
	ended = max(l.last, n) - n
	fade := math.Exp2(-elapsed / lifetimeHalf)
	l.ended = l.ended*fade + float64(ended)
	l.lived = l.lived*fade + float64(l.last+n)/2*elapsed
	l.last, l.lastNow = n, now
	return ended
}

// eulerGamma is the limit of 1 + 1/2 + ... + 1/n - ln(n).
const eulerGamma = 0.5772

// empty is how long it takes until none is left: of n lives of one mean, the longest is 1 + 1/2 + ... + 1/n means on average.
// ok is false if nothing is known of any that ended.
func (l *lifetime) empty() (d time.Duration, ok bool) {
	if l.last == 0 {
		return 0, true
	}
	ended, lived := l.ended, l.lived
	if l.prior > 0 { // counts as one that ended
		ended, lived = ended+1, lived+l.prior
	}
	if ended < 1e-3 {
		return 0, false
	}
	longest := lived / ended * (math.Log(float64(l.last)) + eulerGamma)
	return time.Duration(min(longest, 1e9) * float64(time.Second)), true
}
