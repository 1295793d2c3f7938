package health

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"
)

// Latency is the kind "latency": servers that answer slowly get less. A server's latency is the time that it takes to accept a
// connection of the director's; and where clients' own connections are timed (scheduler rt, or clients=yes) the average of those
// from SYN to first ACK beside it. The quickest server of the check gets all of its weight, one that takes twice as long half of
// it. The server is down when it doesn't accept the connection.
type Latency struct {
	// Noise is added to all latencies before they are compared, so that small ones don't differ for nothing; default 2ms.
	Noise Duration `json:"noise,omitempty"`
	// Clients has clients' connections timed and counted; they hold the way to the client as well, which is the same for all.
	Clients bool `json:"clients,omitempty"`
	Weighing

	comparing sync.Mutex
	known     map[netip.AddrPort]latencySample // guarded by comparing
}

type latencySample struct {
	at   time.Time
	took time.Duration
}

const (
	defaultNoise = 2 * time.Millisecond
	// latencyAge is how long a server is compared with that hasn't been asked again.
	latencyAge = time.Minute
)

// Kind implements Prober.
func (*Latency) Kind() string { return "latency" }

// DirectOnly implements DirectOnly.
func (*Latency) DirectOnly() {}

// Prepare implements Prober.
func (l *Latency) Prepare() error {
	if l.Noise == 0 {
		l.Noise = Duration(defaultNoise)
	}
	if l.Noise < 0 || time.Duration(l.Noise) > time.Minute {
		return fmt.Errorf("noise: %v: it is from 0s to 1m", l.Noise)
	}
	return l.prepareWeighing()
}

// Probe implements Prober.
func (l *Latency) Probe(ctx context.Context, to *Target) (string, error) {
	began := time.Now()
	c, err := to.Dial(ctx, "tcp")
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	_ = c.Close()
	if l.Clients && to.Setup != nil {
		took += to.Setup()
	}
	least := l.least(to.Server, took, time.Now())
	asked := float64(least+time.Duration(l.Noise)) / float64(took+time.Duration(l.Noise))
	return fmt.Sprintf("accepts in %v, the quickest in %v: gets %s", took.Round(10*time.Microsecond), least.Round(10*time.Microsecond),
		percent(l.weigh(to, asked))), nil
}

// least notes a latency and returns that of the quickest server.
func (l *Latency) least(server netip.AddrPort, took time.Duration, now time.Time) time.Duration {
	l.comparing.Lock()
	defer l.comparing.Unlock()
	if l.known == nil || len(l.known) >= maxWeighed {
		l.known = map[netip.AddrPort]latencySample{}
	}
	l.known[server] = latencySample{now, took}
	least := time.Duration(math.MaxInt64)
	for a, s := range l.known {
		if now.Sub(s.at) > latencyAge {
			delete(l.known, a)
			continue
		}
		least = min(least, s.took)
	}
	return least
}
