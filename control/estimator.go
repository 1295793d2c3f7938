package control

import (
	"time"

	"uvs/control/api"
	"uvs/service"
)

// estimateInterval is the time between two looks at the counters.
const estimateInterval = 2 * time.Second

// estimator turns what the packet path counted since it began into what is shown: counts since the last zeroing and
// rates, both as of the last tick, as ip_vs_est.c does.
type estimator struct {
	services, servers []slotStats // by Index

	rawServices, rawServers []service.Counters // scratch
}

// slotStats is one virtual service or real server.
type slotStats struct {
	base service.Counters // what doesn't show: before the slot was given, or zeroed
	last service.Counters // at the last tick
	rate rates
}

// rates are moving averages in fractions of what is counted per second: 1/1024 of connections and packets, 1/32 of bytes.
type rates struct{ conns, inPkts, outPkts, inBytes, outBytes int64 }

const (
	pktShift  = 10
	byteShift = 5
)

// tick takes the counters as they are two seconds after the last tick.
func (s *slotStats) tick(now service.Counters) {
	d := now
	d.Sub(s.last)
	s.last = now
	s.rate.conns = smooth(s.rate.conns, d.Conns, pktShift)
	s.rate.inPkts = smooth(s.rate.inPkts, d.InPkts, pktShift)
	s.rate.outPkts = smooth(s.rate.outPkts, d.OutPkts, pktShift)
	s.rate.inBytes = smooth(s.rate.inBytes, d.InBytes, byteShift)
	s.rate.outBytes = smooth(s.rate.outBytes, d.OutBytes, byteShift)
}

// smooth moves an average a quarter of the way to what was counted in the last two seconds.
func smooth(average int64, counted uint64, shift uint) int64 {
	perSecond := int64(counted << (shift - 1))
	return average + (perSecond-average)>>2
}

// zero makes counts and rates start again.
func (s *slotStats) zero() { s.base, s.rate = s.last, rates{} }

// shown is what listings say.
func (s *slotStats) shown() (api.Stats, api.Rates) {
	c := s.last
	c.Sub(s.base)
	packets := func(v int64) uint64 { return uint64(v+1<<(pktShift-1)-1) >> pktShift }
	bytes := func(v int64) uint64 { return uint64(v+1<<(byteShift-1)-1) >> byteShift }
	return api.Stats{Conns: c.Conns, InPackets: c.InPkts, OutPackets: c.OutPkts, InBytes: c.InBytes, OutBytes: c.OutBytes},
		api.Rates{
			Conns: packets(s.rate.conns), InPackets: packets(s.rate.inPkts), OutPackets: packets(s.rate.outPkts),
			InBytes: bytes(s.rate.inBytes), OutBytes: bytes(s.rate.outBytes),
		}
}

// assignService makes a service slot start from zero. Nobody counts under it: the last tick's count is its last.
func (e *estimator) assignService(index uint32) {
	e.services = grown(e.services, index)
	e.services[index].zero()
}

// assignServer is assignService for a server slot.
func (e *estimator) assignServer(index uint32) {
	e.servers = grown(e.servers, index)
	e.servers[index].zero()
}

func (e *estimator) zeroServer(index uint32) { e.servers[index].zero() }

func grown(s []slotStats, index uint32) []slotStats {
	if n := int(index) + 1 - len(s); n > 0 {
		s = append(s, make([]slotStats, n)...)
	}
	return s
}

// read brings the raw counters up to date.
func (e *estimator) read(c Counters) {
	e.rawServices = cleared(e.rawServices, len(e.services))
	e.rawServers = cleared(e.rawServers, len(e.servers))
	c.AddCounters(e.rawServices, e.rawServers)
}

func cleared(s []service.Counters, n int) []service.Counters {
	if n > cap(s) {
		return make([]service.Counters, n, n+n/4)
	}
	s = s[:n]
	clear(s)
	return s
}

// estimateLocked is one tick.
func (d *Director) estimateLocked() {
	e := &d.stats
	e.read(d.cfg.Counters)
	for i := range e.services {
		e.services[i].tick(e.rawServices[i])
	}
	for i := range e.servers {
		e.servers[i].tick(e.rawServers[i])
	}
}

// estimateFreshLocked makes service slots start from zero under which connections still count.
func (d *Director) estimateFreshLocked(slots []uint32) {
	d.stats.read(d.cfg.Counters)
	for _, i := range slots {
		s := &d.stats.services[i]
		s.last = d.stats.rawServices[i]
		s.zero()
	}
}

// zeroLocked zeroes a service's counters and those of its servers. What was counted since the last tick isn't shown yet
// and will be.
func (d *Director) zeroLocked(v *virtual) {
	d.stats.services[v.index].zero()
	for _, s := range v.servers {
		d.stats.servers[s.rs.Index].zero()
	}
}
