package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// work is what a subject is made to do.
type work struct {
	name    string
	about   string
	needs   string // a program that must be there
	packets bool   // it is the generator's datagrams; else TCP
	pair    bool   // it wants two servers
	process bool   // it wants a director that is a process
	holds   bool   // it holds Wire.Conns connections
	// flows of the generator; conns is how many connections a subject that keeps them must hold.
	flows, conns int
	main         string   // the figure by which subjects are compared first
	figures      []string // in the order of print
	against      string   // the subject that the others are compared with
	do           func(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error)
}

var (
	packetColumns  = []string{Mpps, DirectorNs, ReceiveNs, TotalNs, PerCPUSecond}
	bulkColumns    = []string{Gbps, DirectorPerGB, WholePerGB}
	requestColumns = []string{PerSecond, DirectorPerK, WholePerK, RequestErrors}
	latencyColumns = []string{P50, P99, IdleCPU}
	loadedColumns  = []string{P50, P99, P999, FailedShare}
	memoryColumns  = []string{DirectorBytes, KernelBytes}
	failureColumns = []string{Failed, FailedShare, Longest, HeldLost}
)

// works are all.
var works = []work{
	packetWork("packets-4k", "60-byte datagrams of 4,096 flows, as fast as they come", 4096),
	packetWork("packets-1m", "60-byte datagrams of 1,048,576 flows", 1<<20),
	packetWork("new-flows", "60-byte datagrams, each of a new flow", maxFlows),
	bulkWork("up-1", "one TCP stream from the client", 1, false),
	bulkWork("up-8", "eight TCP streams from the client", 8, false),
	bulkWork("down-1", "one TCP stream to the client", 1, true),
	bulkWork("down-8", "eight TCP streams to the client", 8, true),
	requestWork("http-keepalive", "HTTP requests, 64 connections kept", true),
	requestWork("http-close", "HTTP requests, each on a connection of its own", false),
	{
		name: "latency", about: "one byte to the server and back, a request every 700 us; then nothing",
		main: P50, figures: latencyColumns, against: "bare", do: measureLatency,
	},
	{
		name: "latency-load", about: "HTTP requests at a fixed rate, each on a connection of its own; latency from when each was to begin", needs: "nginx",
		main: P50, figures: loadedColumns, against: "bare", do: measureLoaded,
	},
	{
		name: "memory", about: "TCP connections that are open and silent: what each takes", holds: true, main: DirectorBytes, figures: memoryColumns, against: "haproxy",
		do: measureMemory,
	},
	failureWork("server-dies", "the programs of one of two servers are killed while requests come", false, serverDies),
	failureWork("server-mute", "one of two servers falls silent", false, serverMute),
	failureWork("server-removed", "one of two servers is taken out of service by the director's own means", false, serverRemoved),
	failureWork("director-killed", "the director is killed and started again", true, directorKilled),
}

func failureWork(name, about string, process bool, strike func(context.Context, *site, *running) error) work {
	return work{
		name: name, about: about, needs: "nginx", pair: true, process: process, main: Failed, figures: failureColumns, against: "haproxy",
		do: func(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
			return b.measureFailure(ctx, s, r, strike)
		},
	}
}

func packetWork(name, about string, flows int) work {
	return work{
		name: name, about: about, packets: true, flows: flows, conns: flows, main: Mpps, figures: packetColumns, against: "bare",
		do: func(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
			return b.measurePackets(ctx, s, r, flows)
		},
	}
}

func bulkWork(name, about string, streams int, down bool) work {
	return work{
		name: name, about: about, needs: "iperf3", main: Gbps, figures: bulkColumns, against: "nft",
		do: func(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
			return b.measureBulk(ctx, s, r, streams, down)
		},
	}
}

func requestWork(name, about string, keep bool) work {
	return work{
		name: name, about: about, needs: "wrk", main: PerSecond, figures: requestColumns, against: "haproxy",
		do: func(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
			return b.measureRequests(ctx, s, r, keep)
		},
	}
}

// warmUp is how long a generator runs before what it causes is measured: long enough for all flows to be known.
func (b *Wire) warmUp(flows int) time.Duration {
	if flows == maxFlows { // new ones all the time
		return b.Time / 4
	}
	const slowest = 250_000 // flows a second that a subject takes in
	return b.Time/4 + time.Duration(float64(max(flows-1<<14, 0))/slowest*1e9)
}

// measurePackets has the generator send through r. r nil is the null receiver: the frames go to a MAC address that nobody has.
func (b *Wire) measurePackets(ctx context.Context, s *site, r *running, flows int) (map[string]float64, error) {
	null := r == nil
	if null {
		r = &running{target: s.vip, mac: ForeignMAC[0]}
	}
	senderCPU, directorCPU := b.cpus()
	if directorCPU >= 0 {
		for _, pid := range r.pids {
			if err := pin(pid, directorCPU); err != nil {
				return nil, err
			}
		}
	}
	softirq, err := softirqThreads()
	if err != nil {
		return nil, err
	}
	to := newStream(r.mac, s.clientMAC, netip.AddrPortFrom(r.target, packPort+r.offset), flows)
	g, err := generate(s.client, "eth0", to, senderCPU, b.Rate)
	if err != nil {
		return nil, err
	}
	u, err := b.stretch(ctx, s, r, g, softirq, b.warmUp(flows))
	if err = errors.Join(err, g.end()); err != nil {
		return nil, err
	}
	if null {
		return map[string]float64{nullNs: float64(u.sender.Nanoseconds()) / float64(max(u.offered, 1))}, nil
	}
	if u.arrived == 0 {
		return nil, errors.New("no frame arrived")
	}
	return packetFigures(u, b.null), nil
}

// nullNs is what the generator takes for a frame that nobody receives.
const nullNs = "null receiver ns/packet"

// stretch waits for the warm-up, and then measures for b.Time.
func (b *Wire) stretch(ctx context.Context, s *site, r *running, g *generator, softirq []int, warmUp time.Duration) (u usage, err error) {
	look := func() (l usage, at time.Time) {
		var errs [4]error
		var kernel time.Duration
		at, l.offered = time.Now(), g.sent.Load()
		l.arrived, errs[0] = received(s.server, "eth0")
		l.director, errs[1] = cpuOfAll(r.pids)
		l.sender, errs[2] = g.cpu()
		kernel, errs[3] = cpuOfAll(softirq)
		l.sender += kernel
		err = errors.Join(err, errors.Join(errs[:]...))
		return l, at
	}
	if err := sleep(ctx, warmUp); err != nil {
		return u, err
	}
	before, start := look()
	if err := sleep(ctx, b.Time); err != nil {
		return u, err
	}
	after, end := look()
	return usage{
		took: end.Sub(start), offered: after.offered - before.offered, arrived: after.arrived - before.arrived,
		director: after.director - before.director, sender: after.sender - before.sender,
	}, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpus are those that sender and director are bound to, so that neither takes the other's: the first and the last; -1 where
// there is but one.
func (b *Wire) cpus() (sender, director int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() < 2 {
		return -1, -1
	}
	sender, director = -1, -1
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			if sender < 0 {
				sender = i
			}
			director = i
		}
	}
	return sender, director
}

// served is r's address for a service, as the client calls it.
func (r *running) served(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(r.target, port+r.offset)
}

// errNoFigure says that a program's report lacks what it should say.
func errNoFigure(program string, out []byte) error {
	return fmt.Errorf("%s reports nothing to be read: %s", program, tail(out))
}
