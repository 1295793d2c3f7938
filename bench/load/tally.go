package load

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The kinds of load.
const (
	Connections = "connections" // opened and closed
	Requests    = "requests"    // HTTP, each on a connection of its own
	Held        = "held"        // opened, held, and asked at the end
	Datagrams   = "datagrams"   // echoed
)

// Failures, by what the client saw.
const (
	Refused     = "refused"     // by a reset or an ICMP error
	Reset       = "reset"       // after it was open
	Timeout     = "timeout"     // no answer in time
	Unreachable = "unreachable" // no way, as a router or the own host says
	Ended       = "ended early" // closed before the answer was whole
	Wrong       = "wrong"       // an answer that isn't what was asked for
	Local       = "local"       // the generator's own host had no port, file or buffer for it
	Late        = "not begun"   // too many were under way: Config.Most
	Lost        = "lost"        // a datagram without an answer
	Corrupt     = "corrupt"     // a datagram came back changed
	Other       = "other"
)

const (
	shards      = 8
	mostLatency = int64(2 * time.Minute / time.Microsecond)
	digits      = 3
)

// tally counts one kind of load. Latencies are in microseconds.
type tally struct {
	kind   string
	shards [shards]struct {
		sync.Mutex
		all     *hdrhistogram.Histogram
		seconds []second // by time of the intended start
		counts
		failed map[string]uint64
		_      [64]byte
	}
	began time.Time
}

// counts count things that were begun, and how they ended.
type counts struct {
	begun, done           uint64
	duplicates, reordered uint64 // datagrams
}

// second is what was begun in one second.
type second struct {
	begun, done, failed uint64
	latencies           *hdrhistogram.Histogram
}

func newTally(kind string) *tally {
	t := &tally{kind: kind, began: time.Now()}
	for i := range t.shards {
		t.shards[i].all = hdrhistogram.New(1, mostLatency, digits)
		t.shards[i].failed = map[string]uint64{}
	}
	return t
}

// mostSeconds is for how long figures by second are kept.
const mostSeconds = 3600

// in returns the second of a time, under the shard's lock.
func (t *tally) in(shard int, due time.Time) *second {
	s := &t.shards[shard]
	i := min(max(int(due.Sub(t.began)/time.Second), 0), mostSeconds-1)
	for len(s.seconds) <= i {
		s.seconds = append(s.seconds, second{})
	}
	return &s.seconds[i]
}

func (t *tally) begin(n uint64, due time.Time) {
	s := &t.shards[n%shards]
	s.Lock()
	s.begun++
	t.in(int(n%shards), due).begun++
	s.Unlock()
}

// succeed counts something that was to begin at due and is done now.
func (t *tally) succeed(n uint64, due, now time.Time) {
	took := min(max(now.Sub(due).Microseconds(), 1), mostLatency)
	s := &t.shards[n%shards]
	s.Lock()
	defer s.Unlock()
	s.done++
	_ = s.all.RecordValue(took) // within its range
	sec := t.in(int(n%shards), due)
	sec.done++
	if sec.latencies == nil {
		sec.latencies = hdrhistogram.New(1, mostLatency, 2)
	}
	_ = sec.latencies.RecordValue(took)
}

func (t *tally) fail(n uint64, due time.Time, why string) {
	s := &t.shards[n%shards]
	s.Lock()
	defer s.Unlock()
	s.failed[why]++
	t.in(int(n%shards), due).failed++
}

// count adds to the counters of datagrams.
func (t *tally) count(n uint64, c counts) {
	s := &t.shards[n%shards]
	s.Lock()
	s.duplicates += c.duplicates
	s.reordered += c.reordered
	s.Unlock()
}

// Snapshot is how it goes.
type Snapshot struct {
	Elapsed, Of time.Duration
	Kinds       []Progress
}

// Progress is how one kind of load goes.
type Progress struct {
	Kind                string
	Begun, Done, Failed uint64
}

func (t *tally) snapshot() Progress {
	p := Progress{Kind: t.kind}
	for i := range t.shards {
		s := &t.shards[i]
		s.Lock()
		p.Begun += s.begun
		p.Done += s.done
		for _, n := range s.failed {
			p.Failed += n
		}
		s.Unlock()
	}
	return p
}

// failure names an error. open says that the connection was open by then.
func failure(err error, open bool) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if !open {
			return Refused
		}
		return Reset
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Unreachable
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Ended
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EINVAL):
		return Local
	}
	return Other
}
