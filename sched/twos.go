package sched

import "uvs/service"

// twos is the power of two choices as ip_vs_twos.c decides it: two eligible servers drawn at random by weight, of which
// the one with the least overhead per unit of weight is picked, the first drawn on a tie. The two draws may fall on the
// same server. A draw is a number from 0 to the sum of the weights, both included, so that the first of the list has one
// ticket more than its weight.
//
// A decision reads every server of the list twice; its state is that of its random numbers, one atomic addition for each.
type twos struct {
	stateless
	numbers *stream
	random  func(n uint64) uint64 // a number below n
}

func twosWith(s *stream) *twos { return &twos{numbers: s, random: s.below} }

// Fork implements service.Forker.
func (t *twos) Fork(*service.Request) service.Scheduler { return twosWith(t.numbers.fork()) }

// Pick implements service.Scheduler.
func (t *twos) Pick(_ *service.Request, servers []*service.RealServer) *service.RealServer {
	var total uint64
	for _, rs := range servers {
		if rs.Eligible() {
			total += uint64(rs.Weight())
		}
	}
	if total == 0 {
		return nil
	}
	draw1, draw2 := t.random(total+1), t.random(total+1)
	// Weights may change between the two walks: the last eligible server then takes a draw that finds no other.
	var one, two, last *service.RealServer
	var sum uint64
	for _, rs := range servers {
		if !rs.Eligible() {
			continue
		}
		last = rs
		sum += uint64(rs.Weight())
		if one == nil && sum >= draw1 {
			one = rs
		}
		if two == nil && sum >= draw2 {
			two = rs
		}
		if one != nil && two != nil {
			break
		}
	}
	if one == nil {
		one = last
	}
	if two == nil {
		two = last
	}
	if one == nil {
		return nil
	}
	if overhead(one)*int64(two.Weight()) > overhead(two)*int64(one.Weight()) {
		return two
	}
	return one
}
