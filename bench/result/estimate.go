package result

import (
	"math"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Confidence is that of a Value's interval.
const Confidence = 0.95

// Estimate is the mean of independent runs' values with its confidence interval by Student's t, which holds for few runs too.
// Of no runs it is the zero Value.
func Estimate(runs []float64) Value { return EstimateAt(runs, Confidence) }

// EstimateAt is Estimate with another confidence, between 0 and 1.
func EstimateAt(runs []float64, confidence float64) Value {
	switch len(runs) {
	case 0:
		return Value{}
	case 1:
		return Single(runs[0])
	}
	n := float64(len(runs))
	mean, sd := stat.MeanStdDev(runs, nil)
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.5 + confidence/2)
	half := t * sd / math.Sqrt(n)
	return Value{Value: mean, Low: mean - half, High: mean + half, N: len(runs)}
}
