package dataplane

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// TestARunningPlaneLosesCountOfNothing lets workers, slow path, configuration, resolver and readers loose on each other.
func TestARunningPlaneLosesCountOfNothing(t *testing.T) {
	mem := func() (link.Link, error) { return link.NewMem(link.MemConfig{}), nil }
	d := newDirector(t, func(c *Config) {
		c.Workers, c.Inner, c.AnnounceInterval = 2, MasqueradeInnerTraffic, 10*time.Millisecond
		c.OpenRx = func(int, int) (link.Link, error) { return mem() }
		c.OpenTx = func(int) (link.Link, error) { return mem() }
	})
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080", "10.1.0.12:8080")
	d.serve(service.UDP, service.Tunnel, "10.1.0.13:53", "10.1.0.14:53")
	tables := [2]*service.Table{d.plane.Table(), service.NewTable(d.plane.Table().Services[:1], d.servers, 99)}
	rx := func(worker, port int) *link.Mem { return d.plane.workers[worker].rx[port].(*link.Mem) }

	first, last := fragmented(t)
	frames := [2][][]byte{
		{
			fromClient(t, client, "S", ""), fromClient(t, client, "A", ""), fromClient(t, client, "R", ""),
			datagram(t, client, netip.AddrPortFrom(vip, 53), "query"), ping(t), first, last,
			arpRequest(gatewayMAC, gateway4, vip4), arpRequest(serverMAC(11), vip4, gateway4),
			datagram(t, client, netip.AddrPortFrom(vip, 99), "nobody"), icmpAbout(t, fromClient(t, client, "S", "")),
		},
		{fromServer(t, 11, client, "SA", ""), fromServer(t, 12, client, "FA", ""), fromInside(t, 15, 33000, 443, "S"), fromInside(t, 16, 33000, 443, "A")},
	}
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() { running <- d.plane.Run(ctx) }()

	var wg sync.WaitGroup
	var injected atomic.Uint64
	end := time.Now().Add(700 * time.Millisecond)
	loop := func(pause time.Duration, f func(round int)) {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				f(n)
				time.Sleep(pause)
			}
		})
	}
	for worker := range 2 {
		loop(50*time.Microsecond, func(n int) {
			for port := range frames {
				f := bytes.Clone(frames[port][n%len(frames[port])])
				if (*packet.Eth)(f).Type() == packet.EtherIPv4 && f[packet.EthLen+9] == packet.ProtoTCP {
					f[packet.EthLen+packet.IPv4Len+port*2+1] = byte(n / 16) // another client port; nobody looks at the checksum
				}
				rx(worker, port).Inject(f)
				injected.Add(1)
			}
		})
	}
	loop(time.Millisecond, func(n int) { d.plane.Publish(tables[n%2]) })
	loop(time.Millisecond, func(n int) {
		hop := &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500 - n%2*1000}
		d.hops.Set(server11, hop, []nexthop.Status{nexthop.Ready, nexthop.Pending, nexthop.Unreachable}[n%3])
		d.plane.Wake()
	})
	loop(time.Millisecond, func(int) {
		d.plane.Ask(0, nexthop.Question{Sender: packet.AddrFrom4(0x0a090001), Target: packet.AddrFrom4(gateway4)})
	})
	loop(time.Millisecond, func(n int) {
		trace, err := d.plane.Trace(TraceFilter{Port: n%3 - 1})
		if err != nil {
			t.Error(err)
			return
		}
		time.Sleep(time.Millisecond)
		for _, e := range events(trace) {
			if len(e.In.Bytes) < packet.EthLen || n%3 > 0 && e.In.Port != n%3-1 {
				t.Errorf("traced %+v", e)
			}
		}
		trace.Close()
	})
	loop(time.Millisecond, func(int) {
		if s := d.plane.Stats(); s.Forwarded+s.Answered+s.Passed+s.Dropped+s.Held != s.Received {
			t.Errorf("received %d frames, accounted for %d", s.Received, s.Forwarded+s.Answered+s.Passed+s.Dropped+s.Held)
		}
		d.plane.WorkerStats(1)
		d.plane.LinkStats(0)
		d.plane.AddCounters(make([]service.Counters, 2), make([]service.Counters, 4))
	})
	wg.Wait()
	d.hops.Set(server11, nil, nexthop.Unreachable)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		d.plane.Wake()
		if s := d.plane.Stats(); s.Received == injected.Load() && s.Held <= 4 { // fragments without the other half
			break
		}
	}
	cancel()
	if err := <-running; err != nil {
		t.Error(err)
	}
	if s := d.plane.Stats(); s.Received != injected.Load() || s.Held > 4 || s.Verdicts[verdictNone] != 0 {
		t.Errorf("of %d frames %d were received, %d are still held: %v", injected.Load(), s.Received, s.Held, d.verdicts())
	}
	d.accounted()
}
