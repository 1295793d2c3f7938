package scale

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uvs/control/api"
	"uvs/dataplane/link"
)

// Changes prints how long packets of established connections take through the packet path, with so many services and while
// so many changes a second are made to them, beside the same without changes, in turn.
func Changes(ctx context.Context, out io.Writer, services, perSecond, rounds int, length time.Duration) error {
	const flows, interval = 4096, 20 * time.Microsecond
	fd, err := alwaysReadable()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p := &pace{}
	r, err := newRig(1, func(_, leg int) link.Link {
		if leg == 1 {
			return &sink{fd: -1, flushed: func() { p.flushed() }}
		}
		s := newSource(func(n int) (int, int, uint8, bool) {
			if n < flows {
				return n % services, n, 0x02, true
			}
			n %= flows
			return n % services, n, 0x10, p.due()
		})
		s.fd = fd
		return s
	})
	if err != nil {
		return err
	}
	if err := r.configure(services, api.Masq); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	running := make(chan error, 1)
	go func() { running <- r.plane.Run(ctx) }()
	defer func() { cancel(); <-running; r.plane.Close() }()
	for s := r.plane.Stats(); s.Received < flows; s = r.plane.Stats() {
		time.Sleep(time.Millisecond)
	}

	var figures [2][][]time.Duration // without and with changes: p50, p99, p99.9, most
	var spent time.Duration
	made := 0
	for round := range 2 * rounds {
		with := round%2 == 1
		p.begin(interval, int(length/interval))
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
			if with {
				begin := time.Now()
				if err := r.change(change(made, services)...); err != nil {
					return err
				}
				spent += time.Since(begin)
				made++
			}
		}
		tick.Stop()
		time.Sleep(20 * time.Millisecond) // what was due is on its way
		late := p.lateness()
		slices.Sort(late)
		at := func(q float64) time.Duration { return late[int(q*float64(len(late)-1))] }
		figures[round%2] = append(figures[round%2], []time.Duration{at(0.5), at(0.99), at(0.999), late[len(late)-1]})
	}
	for i, name := range []string{"without changes", "with changes"} {
		for j, q := range []string{"p50", "p99", "p99.9", "most"} {
			var all []time.Duration
			for _, f := range figures[i] {
				all = append(all, f[j])
			}
			slices.Sort(all)
			fmt.Fprintf(out, "changes/%d\tlatency %s, %s, least and median of %d rounds\t%v %v\n", services, name, q, rounds, all[0], all[len(all)/2])
		}
	}
	fmt.Fprintf(out, "changes/%d\tone change\t%v\n", services, spent/time.Duration(max(made, 1)))
	return nil
}

// change is the n-th change: mostly of a weight, now and then a service comes with its server, or goes again.
func change(n, services int) []api.Op {
	i := n * prime % services
	switch n % 6 {
	case 4:
		return []api.Op{
			{Kind: api.AddService, Service: serviceKey(services), ServiceConfig: &api.ServiceConfig{Scheduler: "wlc"}},
			serverOp(api.AddServer, services, services, 1, api.Masq),
		}
	case 5:
		return []api.Op{{Kind: api.DeleteService, Service: serviceKey(services)}}
	}
	return []api.Op{serverOp(api.EditServer, i, i, 1+n%9, api.Masq)}
}
