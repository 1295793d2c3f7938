package result

import (
	"math"
	"testing"
)

func TestEstimateIsStudents(t *testing.T) {
	// Of 1 to 5 the mean is 3, the standard error sqrt(2.5/5), and t of four degrees of freedom at 95 % is 2.7764.
	v := Estimate([]float64{1, 2, 3, 4, 5})
	if half := 2.7764451 * math.Sqrt(0.5); v.Value != 3 || math.Abs(v.High-3-half) > 1e-6 || math.Abs(3-v.Low-half) > 1e-6 || v.N != 5 {
		t.Errorf("Estimate = %+v, want 3 ± %v", v, half)
	}
	if v := Estimate([]float64{7}); v != Single(7) {
		t.Errorf("of one run: %+v", v)
	}
	if v := Estimate(nil); v != (Value{}) {
		t.Errorf("of none: %+v", v)
	}
}
