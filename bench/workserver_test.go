package bench

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorkServerShares: on two processors, three equal requests take half as long again as one, whatever came before.
func TestWorkServerShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &workServer{speed: 2, processors: 2}
		s.timer = time.AfterFunc(time.Hour, s.due)
		defer s.timer.Stop()
		takes := func(demand float64) <-chan float64 {
			begun, over, c := time.Now(), s.work(demand), make(chan float64, 1)
			go func() {
				<-over
				c <- time.Since(begun).Seconds()
			}()
			return c
		}
		check := func(what string, c <-chan float64, want float64) {
			t.Helper()
			if got := <-c; math.Abs(got-want) > 1e-4 {
				t.Errorf("%s took %v s, want %v", what, got, want)
			}
		}
		check("one", takes(1), 0.5)
		time.Sleep(time.Second)
		a, b, c := takes(1), takes(1), takes(1)
		check("the first of three", a, 0.75)
		check("the second of three", b, 0.75)
		check("the third of three", c, 0.75)
		// One more comes when half is done: 0.25 s for half at full speed, then three share: 0.375 s for the other half.
		a, b = takes(1), takes(1)
		time.Sleep(250 * time.Millisecond)
		c = takes(2)
		check("an early one", a, 0.625)
		check("another early one", b, 0.625)
		check("the late one", c, 0.375+(2-0.5)/2)
	})
}
