package service

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

func timedServer() *RealServer {
	return NewRealServer(Key{}, netip.MustParseAddrPort("10.1.0.1:80"), Route, 1)
}

// boot is a time whose ticks are about to wrap around 32 bits.
const boot = (1<<32 - 100) << estimateTick

func near(d, want, slack time.Duration) bool { return d > want-slack && d < want+slack }

func TestLatencyFollowsItsSamples(t *testing.T) {
	rs, now := timedServer(), int64(boot)
	if d, age := rs.SetupLatency(now); d != 0 || age != 0 {
		t.Errorf("SetupLatency() = %v, %v before any sample, want 0, 0", d, age)
	}
	rs.ObserveSetup(3*time.Millisecond, now)
	if d, _ := rs.SetupLatency(now); !near(d, 3*time.Millisecond, time.Microsecond) {
		t.Errorf("SetupLatency() = %v after a first sample of 3ms", d)
	}
	for range 300 {
		now += int64(10 * time.Millisecond)
		rs.ObserveSetup(time.Second, now)
	}
	if d, _ := rs.SetupLatency(now); !near(d, time.Second, 10*time.Millisecond) {
		t.Errorf("SetupLatency() = %v after 300 samples of 1s", d)
	}
	for range 300 {
		now += int64(10 * time.Millisecond)
		rs.ObserveSetup(2*time.Millisecond, now)
	}
	if d, _ := rs.SetupLatency(now); d > 5*time.Millisecond {
		t.Errorf("SetupLatency() = %v after 300 samples of 2ms", d)
	}
	if d, _ := rs.ProbeLatency(now); d != 0 {
		t.Errorf("ProbeLatency() = %v, want 0: nothing probed", d)
	}
}

func TestOneLostPacketIsNoSlowServer(t *testing.T) {
	rs, now := timedServer(), int64(boot)
	for range 100 {
		rs.ObserveSetup(time.Millisecond, now)
	}
	rs.ObserveSetup(time.Second, now)
	if d, _ := rs.SetupLatency(now); d > 1300*time.Microsecond {
		t.Errorf("SetupLatency() = %v after one sample of 1s among a hundred of 1ms", d)
	}
}

func TestAfterAPauseTheNextSampleCountsForMore(t *testing.T) {
	rs, now := timedServer(), int64(boot)
	rs.ObserveSetup(time.Second, now)
	now += int64(averagePeriod)
	if d, age := rs.SetupLatency(now); d < 999*time.Millisecond || !near(age, averagePeriod, 20*time.Millisecond) {
		t.Errorf("SetupLatency() = %v, %v, want 1s, %v", d, age, averagePeriod)
	}
	rs.ObserveSetup(time.Millisecond, now)
	if d, _ := rs.SetupLatency(now); !near(d, 500*time.Millisecond, 10*time.Millisecond) {
		t.Errorf("SetupLatency() = %v half an average period after 1s, then 1ms; want half", d)
	}
	if _, age := rs.SetupLatency(now - int64(time.Second)); age != 0 {
		t.Errorf("age %v on a clock that is behind, want 0", age)
	}
}

func TestLatencyIsBounded(t *testing.T) {
	rs := timedServer()
	for _, d := range []time.Duration{-5, 0, 1, 1 << 62} {
		for range 50 {
			rs.ObserveProbe(d, 0)
		}
		if got, _ := rs.ProbeLatency(0); got <= 0 || got >= 5*time.Minute {
			t.Errorf("ProbeLatency() = %v after samples of %v", got, d)
		}
	}
}

func TestLatencyIsSharedByWorkers(t *testing.T) {
	rs := timedServer()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				rs.BeginSetup()
				rs.ObserveSetup(time.Duration(1+i%3)*time.Millisecond, int64(i)<<20)
				rs.EndSetup()
			}
		})
	}
	wg.Wait()
	if n := rs.SettingUp(); n != 0 {
		t.Errorf("SettingUp() = %d at the end, want 0", n)
	}
	if d, _ := rs.SetupLatency(1 << 31); d < time.Millisecond || d > 3*time.Millisecond {
		t.Errorf("SetupLatency() = %v of samples from 1ms to 3ms", d)
	}
	if n := testing.AllocsPerRun(100, func() { rs.ObserveSetup(time.Millisecond, 5); rs.SetupLatency(6) }); n != 0 {
		t.Errorf("%v allocations a sample, want 0", n)
	}
}
