package sim

import "math"

// histogram counts times with a relative error below 0.4 %: 128 buckets for every doubling, from 15 ns to 194 days.
type histogram struct {
	counts []uint32
	n      uint64
	sum    float64
	most   float64
}

const (
	subBits  = 7
	leastExp = -26
	mostExp  = 24
	buckets  = (mostExp - leastExp) << subBits
	expBias  = 1023
)

func newHistogram() histogram { return histogram{counts: make([]uint32, buckets)} }

func (h *histogram) add(t float64) {
	i := int64(math.Float64bits(t)>>(52-subBits)) - (expBias+leastExp)<<subBits
	h.counts[max(0, min(i, buckets-1))]++
	h.n++
	h.sum += t
	h.most = max(h.most, t)
}

// bucketEnd is the upper end of bucket i.
func bucketEnd(i int) float64 {
	return math.Ldexp(1+float64(i&(1<<subBits-1)+1)/(1<<subBits), i>>subBits+leastExp)
}

// quantile is the value below which a share q of the others lie, 0 of none.
func (h *histogram) quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.n)))
	var seen uint64
	for i, c := range h.counts {
		if c == 0 {
			continue
		}
		if seen+uint64(c) >= rank {
			low := bucketEnd(i - 1)
			return min(low+(bucketEnd(i)-low)*float64(rank-seen)/float64(c), h.most)
		}
		seen += uint64(c)
	}
	return h.most
}

// mean is the average, 0 of none.
func (h *histogram) mean() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n)
}

// merge adds what o counted.
func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.most = max(h.most, o.most)
}

// tail is the share of values above a row of values that rise, for a plot: until nothing is above.
func (h *histogram) tail() (x, y []float64) {
	if h.n == 0 {
		return nil, nil
	}
	var below, drawn uint64
	for i, c := range h.counts {
		below += uint64(c)
		if i%4 != 3 || below == drawn || float64(below) < 0.02*float64(h.n) { // a point every 3 %
			continue
		}
		if below == h.n {
			break
		}
		x = append(x, bucketEnd(i))
		y = append(y, float64(h.n-below)/float64(h.n))
		drawn = below
	}
	return x, y
}
