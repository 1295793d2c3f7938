package bench

import (
	"math"
	"slices"
	"testing"
)

func TestSummarise(t *testing.T) {
	none := math.NaN()
	for _, tt := range []struct {
		name   string
		values []float64
		want   Summary
	}{
		{"nothing", nil, Summary{}},
		{"no round gave a figure", []float64{none, none}, Summary{}},
		{"one", []float64{7}, Summary{1, 7, 7, 7}},
		{"odd, in disorder", []float64{3, 1, 2, 9, 4}, Summary{5, 3, 1, 9}},
		{"even: between the two in the middle", []float64{4, 1, 2, 9}, Summary{4, 3, 1, 9}},
		{"an outlier doesn't move the median", []float64{2, 2.1, 1.9, 2, 100}, Summary{5, 2, 1.9, 100}},
		{"rounds that failed don't count", []float64{none, 5, 1, none, 3}, Summary{3, 3, 1, 5}},
		{"a division by zero is no figure", []float64{math.Inf(1), 2}, Summary{1, 2, 2, 2}},
	} {
		before := slices.Clone(tt.values)
		if got := Summarise(tt.values); got != tt.want {
			t.Errorf("%s: Summarise(%v) = %+v, want %+v", tt.name, tt.values, got, tt.want)
		}
		if !slices.EqualFunc(before, tt.values, func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
			t.Errorf("%s: the values are in another order now: %v", tt.name, tt.values)
		}
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	none := math.NaN()
	// The machine got twice as slow in the second round: the ratios don't show it.
	got := Summarise(Ratios([]float64{8, 4, 9, none, 5}, []float64{10, 5, 10, 10, 0}))
	if want := (Summary{3, 0.8, 0.8, 0.9}); got != want {
		t.Errorf("ratios %+v, want %+v", got, want)
	}
	if got := Ratios([]float64{1, 2, 3}, []float64{1}); len(got) != 1 {
		t.Errorf("Ratios of 3 and 1 rounds = %v", got)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, tt := range []struct {
		sorted []float64
		q      float64
		want   float64
	}{{hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1}, {[]float64{3}, 0.99, 3}, {nil, 0.5, 0}, {[]float64{1, 2, 3}, 0.5, 2}} {
		if got := Quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("Quantile(%d values, %v) = %v, want %v", len(tt.sorted), tt.q, got, tt.want)
		}
	}
}
