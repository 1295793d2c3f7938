package sched

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"uvs/service"
)

// kernelList is a service's list as the kernel has it, with rr's and wrr's cursor as a pointer to an element: the slow
// and obvious twin of the arithmetic in rr.go and wrr.go.
type kernelList struct {
	list   servers
	cursor *service.RealServer // nil is the head

	bar, top, step int64 // wrr's
}

func (k *kernelList) index(rs *service.RealServer) int { return slices.Index(k.list, rs) } // -1 for the head

func (k *kernelList) rr() *service.RealServer {
	at := k.index(k.cursor)
	for _, rs := range append(slices.Clone(k.list[at+1:]), k.list[:at+1]...) {
		if rs.Eligible() {
			k.cursor = rs
			return rs
		}
	}
	return nil
}

// wrr sweeps step by step, giving up when two whole rounds of the bar found nobody.
func (k *kernelList) wrr() *service.RealServer {
	if k.top == 0 {
		return nil
	}
	at, bar := k.index(k.cursor), k.bar
	for falls := int64(0); falls <= 2*(k.top/k.step+2); falls++ {
		for i := at + 1; i < len(k.list); i++ {
			if rs := k.list[i]; !rs.Overloaded() && int64(rs.Weight()) >= bar {
				k.cursor, k.bar = rs, bar
				return rs
			}
		}
		at = -1
		if bar -= k.step; bar <= 0 {
			bar = k.top
		}
	}
	if k.cursor == nil || k.bar > k.step {
		k.cursor, k.bar = nil, k.top
	}
	return nil
}

func (k *kernelList) wrrChanged(fresh bool) {
	k.cursor = nil
	k.step = 0
	var heaviest int64
	for _, rs := range k.list {
		if w := int64(rs.Weight()); w > 0 {
			k.step, heaviest = gcd(k.step, w), max(heaviest, w)
		}
	}
	k.step = max(k.step, 1)
	k.top = heaviest - (k.step - 1)
	if fresh || k.bar > k.top || k.bar == 0 {
		k.bar = k.top
	} else if k.step > 1 {
		k.bar = k.bar/k.step*k.step + 1
	}
}

// change makes one random change to the list and returns it as the scheduler is told.
func (k *kernelList) change(r *rand.Rand, fresh *int) service.Change {
	c := service.Change{Before: k.list}
	switch x := r.IntN(4); {
	case x < 2 && len(k.list) < 12 || len(k.list) == 0:
		c.Kind = service.ServerAdded
		*fresh++
		c.Server = server(*fresh, int32(r.IntN(9)), 0, 0)
		k.list = append(servers{c.Server}, k.list...)
	case x == 2:
		c.Kind = service.ServerEdited
		c.Server = k.list[r.IntN(len(k.list))]
		c.Server.SetWeight(int32(r.IntN(3)) * int32(1+r.IntN(6)))
	default:
		c.Kind = service.ServerRemoved
		i := r.IntN(len(k.list))
		c.Server = k.list[i]
		if k.cursor == c.Server {
			k.cursor = nil
			if i > 0 {
				k.cursor = k.list[i-1]
			}
		}
		k.list = slices.Delete(slices.Clone(k.list), i, i+1)
	}
	c.After = k.list
	return c
}

func TestRoundRobinFollowsTheKernelThroughChanges(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		k, s, fresh := &kernelList{}, new(rr), 0
		for step := range 200 {
			for r.IntN(3) == 0 {
				s.Changed(k.change(r, &fresh))
			}
			if got, want := s.Pick(nil, k.list), k.rr(); got != want {
				t.Fatalf("seed %d, step %d: picked %v, want %v", seed, step, got, want)
			}
		}
	}
}

func TestWeightedRoundRobinFollowsTheKernelThroughChanges(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		k, s, fresh := &kernelList{}, newWRR(), 0
		for range r.IntN(5) {
			k.change(r, &fresh)
		}
		s.Prepare(k.list)
		k.wrrChanged(true)
		for step := range 200 {
			for r.IntN(8) == 0 {
				s.Changed(k.change(r, &fresh))
				s.Prepare(k.list)
				k.wrrChanged(false)
			}
			if len(k.list) > 0 && r.IntN(6) == 0 { // overload comes and goes without telling the scheduler
				if rs := k.list[r.IntN(len(k.list))]; rs.Overloaded() {
					rs.SetThresholds(0, 0)
				} else {
					overloaded(rs)
				}
			}
			got, want := s.Pick(nil, k.list), k.wrr()
			if got != want {
				t.Fatalf("seed %d, step %d: picked %v, want %v (bar %d of %d-%d)", seed, step, got, want, k.bar, k.top, k.step)
			}
		}
	}
}

func TestWeightedRoundRobinSequence(t *testing.T) {
	for _, c := range []struct {
		weights []int32
		want    []int // index in the list
	}{
		{[]int32{4, 1}, []int{0, 0, 0, 0, 1, 0, 0, 0, 0, 1}},
		{[]int32{1, 2, 4}, []int{2, 2, 1, 2, 0, 1, 2, 2, 2}},
		{[]int32{2, 4, 6}, []int{2, 1, 2, 0, 1, 2, 2}},
		{[]int32{0, 3}, []int{1, 1, 1}},
	} {
		var list servers
		for i, w := range c.weights {
			list = append(list, server(i+1, w, 0, 0))
		}
		s := prepared(t, "wrr", 0, list)
		for i, want := range c.want {
			if rs := s.Pick(nil, list); rs != list[want] {
				t.Errorf("weights %v: pick %d went to %v, want %v", c.weights, i, rs, list[want])
			}
		}
	}
}

// A heavy server that is overloaded must not make each decision sweep once for each unit of its weight.
func TestWeightedRoundRobinWithHugeWeightOverloaded(t *testing.T) {
	small := server(2, 1, 0, 0)
	list := servers{overloaded(server(1, 1<<31-1, 0, 0)), small, server(3, 0, 0, 0)}
	s := prepared(t, "wrr", 0, list)
	for i := range 1000 {
		if rs := s.Pick(nil, list); rs != small {
			t.Fatalf("pick %d went to %v, want %v", i, rs, small)
		}
	}
}

// TestWorkersShareOneCursor lets workers race: together they make as many picks of each server as one would alone.
func TestWorkersShareOneCursor(t *testing.T) {
	const workers, picks = 8, 1500
	for _, c := range []struct {
		scheduler string
		weights   []int32
		want      []int
	}{
		{"rr", []int32{1, 5, 0, 1}, []int{4000, 4000, 0, 4000}},
		{"wrr", []int32{1, 2, 0, 3}, []int{2000, 4000, 0, 6000}},
	} {
		var list servers
		for i, w := range c.weights {
			list = append(list, server(i+1, w, 0, 0))
		}
		s := prepared(t, c.scheduler, 0, list)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range picks {
					s.Pick(nil, list).Bind(true)
				}
			})
		}
		wg.Wait()
		for i, rs := range list {
			if int(rs.Active()) != c.want[i] {
				t.Errorf("%s: server %d was picked %d times, want %d", c.scheduler, i, rs.Active(), c.want[i])
			}
		}
	}
}

// Workers may hold an older, longer or shorter list while control changes it; nothing may panic.
func TestPickBesideChanges(t *testing.T) {
	for _, name := range Names() {
		s := prepared(t, name, service.SchedFlag1, nil)
		k, fresh := &kernelList{}, 0
		r := rand.New(rand.NewPCG(7, 7))
		lists := make(chan servers, 100)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				n := 0
				for list := range lists {
					for range 50 {
						n++
						s.Pick(request(n%20), list)
					}
				}
			})
		}
		for range 200 {
			c := k.change(r, &fresh)
			c.Server.SetAvailable(c.Kind != service.ServerRemoved)
			s.Changed(c)
			s.Prepare(k.list)
			lists <- k.list
		}
		close(lists)
		wg.Wait()
	}
}
