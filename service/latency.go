package service

import (
	"sync/atomic"
	"time"
)

// latency is what a real server knows of how quickly it answers. It costs nothing unless a scheduler asks for it.
type latency struct {
	setup, probe estimate
	settingUp    atomic.Int32
	timed        atomic.Bool
}

// TimeSetups asks for connection set-ups to this server to be timed from now on. A scheduler that goes by SetupLatency
// calls it in Prepare.
func (rs *RealServer) TimeSetups() { rs.latency.timed.Store(true) }

// SetupsTimed says that TimeSetups was called.
func (rs *RealServer) SetupsTimed() bool { return rs.latency.timed.Load() }

// BeginSetup counts a connection whose set-up is being timed; EndSetup counts it off, however it ended.
func (rs *RealServer) BeginSetup() { rs.latency.settingUp.Add(1) }

// EndSetup counts off what BeginSetup counted.
func (rs *RealServer) EndSetup() { rs.latency.settingUp.Add(-1) }

// SettingUp is the number of connections whose set-up is being timed: clients that wait for this server.
func (rs *RealServer) SettingUp() int32 { return rs.latency.settingUp.Load() }

// ObserveSetup takes one sample: the time from a client's SYN to its first ACK, both as they passed the director. It
// holds the server's time and that of the way to the client and back. now is on the clock of Request.Now.
func (rs *RealServer) ObserveSetup(d time.Duration, now int64) { rs.latency.setup.observe(d, now) }

// SetupLatency is the recent average of ObserveSetup's samples and the age of the last one. It is 0 if there was none.
func (rs *RealServer) SetupLatency(now int64) (d, age time.Duration) { return rs.latency.setup.at(now) }

// ObserveProbe takes one sample: how long the answer to a health check took.
func (rs *RealServer) ObserveProbe(d time.Duration, now int64) { rs.latency.probe.observe(d, now) }

// ProbeLatency is the recent average of ObserveProbe's samples and the age of the last one. It is 0 if there was none.
func (rs *RealServer) ProbeLatency(now int64) (d, age time.Duration) { return rs.latency.probe.at(now) }

// FollowLatency gives rs what of knows of how quickly it answers, and how many clients wait for it: for a server that stands
// for another one, so that a scheduler can be tried out.
func (rs *RealServer) FollowLatency(of *RealServer) {
	rs.latency.setup.v.Store(of.latency.setup.v.Load())
	rs.latency.probe.v.Store(of.latency.probe.v.Load())
	rs.latency.settingUp.Store(of.latency.settingUp.Load())
}

// estimate is a moving average in one word, so that average and age are read and written together: above the time of
// the last sample (16.8 ms), below the average (64 ns, up to 4.5 minutes). 0 is no sample yet.
//
// A sample counts for 1/32, as many samples share one client's whims; after a pause for more, as the old average says less
// (half after averagePeriod). It counts as no more than eight times the average, so that one lost packet, which costs a
// client a second, isn't taken for a server become slow; ten such samples still raise the average sevenfold.
type estimate struct{ v atomic.Uint64 }

const (
	estimateTick  = 24 // shifts of nanoseconds
	estimateUnit  = 6
	averagePeriod = 10 * time.Second
	sampleCap     = 8
	gainShift     = 8 // gains are in units of 1/256
	leastGain     = 1 << gainShift / 32
)

func (e *estimate) observe(d time.Duration, now int64) {
	sample := min(max(int64(d)>>estimateUnit, 1), 1<<32-1)
	for {
		old := e.v.Load()
		average := sample
		if old != 0 {
			average = int64(uint32(old))
			age := int64(elapsedTicks(old, now))
			gain := max(age<<gainShift/(age+int64(averagePeriod)>>estimateTick), leastGain)
			average += (min(sample, sampleCap*average) - average) * gain >> gainShift
		}
		if e.v.CompareAndSwap(old, uint64(now>>estimateTick)<<32|uint64(max(average, 1))) {
			return
		}
	}
}

func (e *estimate) at(now int64) (d, age time.Duration) {
	v := e.v.Load()
	if v == 0 {
		return 0, 0
	}
	return time.Duration(uint32(v)) << estimateUnit, time.Duration(elapsedTicks(v, now)) << estimateTick
}

// elapsedTicks is the age of a sample. Workers' clocks may be a batch apart: never negative. It is right for a year.
func elapsedTicks(v uint64, now int64) int32 {
	return max(int32(uint32(now>>estimateTick)-uint32(v>>32)), 0)
}
