package decap

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Stats count packets since the start. Received is the sum of Verdicts.
type Stats struct {
	Received    uint64              // tunnelled packets taken from the socket; what the card merged is one
	Verdicts    [numVerdicts]uint64 // how they ended
	Bytes       uint64              // of the inner packets delivered
	SuperFrames uint64              // delivered ones that are several segments merged
	QueueFull   uint64              // lost, not in Received: they found the socket's queue full
	Unreadable  uint64              // lost, not in Received: the kernel couldn't hand them over, or the interface went down
}

// add adds other counts.
func (s *Stats) add(o *Stats) {
	s.Received += o.Received
	for v := range o.Verdicts {
		s.Verdicts[v] += o.Verdicts[v]
	}
	s.Bytes += o.Bytes
	s.SuperFrames += o.SuperFrames
	s.QueueFull += o.QueueFull
	s.Unreadable += o.Unreadable
}

// MarshalLogObject writes what isn't zero, but for received and delivered packets, which it always writes.
func (s *Stats) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddUint64("received", s.Received)
	for v, n := range s.Verdicts {
		if n > 0 || Verdict(v) == Delivered {
			enc.AddUint64(Verdict(v).String(), n)
		}
	}
	enc.AddUint64("bytes", s.Bytes)
	for _, c := range []struct {
		name string
		n    uint64
	}{{"super-frames", s.SuperFrames}, {"queue-full", s.QueueFull}, {"unreadable", s.Unreadable}} {
		if c.n > 0 {
			enc.AddUint64(c.name, c.n)
		}
	}
	return nil
}

// noticeInterval is the least time between two lines in the log about refusals of one kind.
const noticeInterval = 10 * time.Second

// notices keeps refusals from flooding the log: whoever can send packets could otherwise fill the disk.
type notices struct {
	log  *zap.Logger
	last [numVerdicts]time.Time
	held [numVerdicts]uint64 // not told since then
}

// due says that a refusal of this kind should be told of, and counts it otherwise.
func (n *notices) due(now time.Time, v Verdict) bool {
	if t := n.last[v]; !t.IsZero() && now.Sub(t) < noticeInterval {
		n.held[v]++
		return false
	}
	n.last[v] = now
	return true
}

// tell writes the line that was due.
func (n *notices) tell(v Verdict, message string, fields ...zap.Field) {
	n.log.Warn(message, append(fields, zap.Uint64("more-since-last", n.held[v]))...)
	n.held[v] = 0
}
