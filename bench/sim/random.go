package sim

import (
	"math"
	"math/bits"
)

// random is a sequence of random numbers: SplitMix64 (Steele, Lea and Flood 2014), which is one word and quick. A run has
// several, for arrivals, demands and so on, so that no scheduler's decisions change what the next client asks for.
type random uint64

// newRandom is the n-th sequence of a seed.
func newRandom(seed, n uint64) random {
	r := random(seed*0x9e3779b97f4a7c15 + n*0xd1342543de82ef95 + 0x632be59bd9b4e019)
	return random(r.next()) // seeds that differ by one lie on the same sequence
}

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is a number above 0 and up to 1, of which a logarithm can be taken.
func (r *random) unit() float64 { return float64(r.next()>>11+1) / (1 << 53) }

// below is a number below n.
func (r *random) below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.next(), n)
	return hi
}

// exponential is a number with that distribution and the mean 1.
func (r *random) exponential() float64 { return -math.Log(r.unit()) }

// normal is a number with that distribution, the mean 0 and the variance 1 (Box and Muller 1958).
func (r *random) normal() float64 {
	return math.Sqrt(-2*math.Log(r.unit())) * math.Cos(2*math.Pi*r.unit())
}

// alias draws from a discrete distribution with one look (Walker 1977, Vose 1991).
type alias struct {
	limit []float64
	other []int32
}

// newAlias makes one of weights that are not negative and not all 0.
func newAlias(weights []float64) alias {
	n := len(weights)
	a := alias{make([]float64, n), make([]int32, n)}
	var sum float64
	for _, w := range weights {
		sum += w
	}
	var small, large []int32
	for i, w := range weights {
		a.limit[i] = w * float64(n) / sum
		if a.limit[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.other[s] = l
		if a.limit[l] -= 1 - a.limit[s]; a.limit[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) { // what rounding left over
		a.limit[i] = 1
	}
	return a
}

// newZipf is a population of n of which the i-th most popular (from 1) has the weight i^-s.
func newZipf(n int, s float64) alias {
	w := make([]float64, n)
	for i := range w {
		w[i] = math.Pow(float64(i+1), -s)
	}
	return newAlias(w)
}

func (a *alias) draw(r *random) int32 {
	i := r.below(uint64(len(a.limit)))
	if r.unit() > a.limit[i] {
		return a.other[i]
	}
	return int32(i)
}
