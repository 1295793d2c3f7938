package sched

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// stream is a sequence of random numbers that workers share without a lock: SplitMix64 (Steele, Lea and Flood 2014), whose
// state is a counter. Being all the state there is, it can be copied, so that what will be drawn next can be told ahead.
type stream struct{ state atomic.Uint64 }

// newStream is the sequence that begins with a seed, or if that is 0 anywhere.
func newStream(seed uint64) *stream {
	s := new(stream)
	if seed == 0 {
		seed = rand.Uint64()
	}
	s.state.Store(seed)
	return s
}

func (s *stream) fork() *stream {
	f := new(stream)
	f.state.Store(s.state.Load())
	return f
}

func (s *stream) next() uint64 {
	z := s.state.Add(0x9e3779b97f4a7c15)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is a number below n.
func (s *stream) below(n uint64) uint64 {
	hi, _ := bits.Mul64(s.next(), n)
	return hi
}

// unit is a number from 0 up to but not including 1.
func (s *stream) unit() float64 { return float64(s.next()>>11) / (1 << 53) }
