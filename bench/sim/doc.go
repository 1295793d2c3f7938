// Package sim simulates directors: clients, real servers and time are numbers, the schedulers are package sched's own, the
// very code that decides on the wire, over the same service.RealServer with the counts that a connection table would keep.
//
// A run is one scheduler in one Scenario with one seed, and deterministic. A Study is many runs: every scheduler in every
// scenario with several seeds, in which every scheduler meets the same arrivals, clients and demands.
//
// Times are seconds in virtual time, as float64. Work is measured in seconds too: those that it takes alone on a processor of
// speed 1.
package sim
