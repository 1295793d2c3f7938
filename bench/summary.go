package bench

import (
	"math"
	"slices"
)

// Summary is what is left of one figure's values of several rounds. Low and High are the extremes; N is how many rounds gave
// one. Of none, all are 0.
type Summary struct {
	N                 int
	Median, Low, High float64
}

// Summarise summarises values; those that are not numbers are rounds that gave none.
func Summarise(values []float64) Summary {
	var v []float64
	for _, x := range values {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	if len(v) == 0 {
		return Summary{}
	}
	slices.Sort(v)
	half := len(v) / 2
	median := v[half]
	if len(v)%2 == 0 {
		median = (v[half-1] + v[half]) / 2
	}
	return Summary{len(v), median, v[0], v[len(v)-1]}
}

// Ratios are values over references of the same round, NaN for rounds in which one of the two is missing or the reference
// is 0.
func Ratios(values, references []float64) []float64 {
	ratios := make([]float64, min(len(values), len(references)))
	for i := range ratios {
		ratios[i] = math.NaN()
		if references[i] != 0 {
			ratios[i] = values[i] / references[i]
		}
	}
	return ratios
}

// Quantile is the value in sorted below which a share q (0 to 1) of the others lie, by the nearest rank; 0 of none.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(0, min(rank, len(sorted)-1))]
}
