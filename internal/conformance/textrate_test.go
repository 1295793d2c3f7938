package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// inject sends a client's packet.
func (m *textMachine) inject(b *Builder, s *Step) {
	m.t.Helper()
	wire, frame, err := b.Frame(s)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Inject(wire, frame)
}

// checkSteadyRate sends 283 SYNs at some 20 a second to the service that has connections already. The recording doesn't have
// the times of the packets: one every 47 ms, the first 1.4 s before a tick of the estimator, gives the rates that it shows, and
// which server gets how many of them and when is the scheduler's.
func checkSteadyRate(t *testing.T, file string) {
	m := busyMachine(t, nil)
	m.must("-A -t 10.9.0.100:8000 -s rr")
	m.must("-Z")
	const gap, beforeTick = 47 * time.Millisecond, 1400 * time.Millisecond
	m.Pass(time.Duration(m.tick-m.now) - beforeTick + 2*time.Second)
	b := NewBuilder(new(Trace))
	for n := range 283 {
		m.inject(b, &Step{Pkt: "syn", C: fmt.Sprintf("192.0.2.%d:%d", 10+n%200, 3000+n), V: "10.9.0.100:80"})
		m.Pass(gap)
	}
	m.Pass(time.Duration(m.tick - m.now)) // they are all counted with the next tick
	m.play(file)
}

// largeNumbers is a machine that all the files of large numbers are read from.
var largeNumbers func() *textMachine

func checkLargeNumbers(t *testing.T, file string) {
	m := *largeNumbers()
	m.t = t
	m.play(file)
}

// newLargeNumbers sends 78000 datagrams of 1400 bytes of one client. The rates that the recording shows, byte for byte, come
// about when 72180 of them came before one tick of the estimator and 5820 before the next, and they are read after another.
func newLargeNumbers(t *testing.T) *textMachine {
	m := newTextMachine(t)
	m.must("-A -u 10.9.0.100:9 -s rr")
	m.must("-a -u 10.9.0.100:9 -r 10.1.0.11:9 -m")
	length := 1400 - 28
	wire, frame, err := NewBuilder(new(Trace)).Frame(&Step{Pkt: "udp", C: "192.0.2.1:999", V: "10.9.0.100:9", Len: &length})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{72180, 5820, 0} {
		for i := range n {
			m.links[wire].Inject(slices.Clone(frame))
			if i%64 == 0 {
				m.drain()
			}
		}
		m.drain()
		m.Pass(time.Duration(m.tick - m.now))
	}
	return m
}
