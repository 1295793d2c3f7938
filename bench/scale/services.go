package scale

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/link"
)

// Services prints what a packet and a new connection cost with each number of services, and how long it takes to configure
// that many in one change: for packets to ten of the services, and to all in turn, of which each then comes with counters and
// a server that no cache has. When ctx ends it ends before the next.
func Services(ctx context.Context, out io.Writer, numbers []int) error {
	runtime.LockOSThread() // the processor time is the thread's
	defer runtime.UnlockOSThread()
	for _, n := range numbers {
		for _, busy := range []int{10, n} {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := services(out, n, busy); err != nil {
				return err
			}
		}
	}
	return nil
}

func services(out io.Writer, n, busy int) error {
	var src *source
	flags, flows := uint8(0x02), 0
	r, err := newRig(1, func(_, leg int) link.Link {
		if leg == 1 {
			return &sink{fd: -1}
		}
		src = newSource(func(i int) (int, int, uint8, bool) {
			if flags == 0x10 {
				i %= flows
			}
			return i * prime % n % busy * (n / busy), i, flags, true
		})
		return src
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.configure(n, api.Masq); err != nil {
		return err
	}
	fmt.Fprintf(out, "services/%d\t%d busy, configured in one change after\t%v\n", n, busy, time.Since(begin))
	// The slow path looks at the table once, not in what is measured.
	now := dataplane.BootTime()
	r.plane.Step(now)
	const steps = 2000
	const rounds = 20
	per := func() time.Duration {
		begin := used()
		for range steps / rounds {
			now += 1000
			r.plane.Step(now)
		}
		return (used() - begin) / (steps / rounds * batch)
	}
	fmt.Fprintf(out, "services/%d\t%d busy, new connection, least of %d stretches\t%v\n", n, busy, rounds, least(rounds, per))
	flags, flows = 0x10, src.next
	src.next = 0
	least(rounds, per) // every connection once
	fmt.Fprintf(out, "services/%d\t%d busy, packet of %d established connections, least of %d stretches\t%v\n", n, busy, flows, rounds, least(rounds, per))
	if s := r.plane.Stats(); s.Forwarded != s.Received {
		return fmt.Errorf("%d of %d packets were forwarded", s.Forwarded, s.Received)
	}
	return r.plane.Close()
}

// Listing prints how long a listing of so many connections takes through the API's socket, how much memory it takes, and how
// long packets take meanwhile and before.
func Listing(ctx context.Context, out io.Writer, conns int, length time.Duration) error {
	const flows, interval = 1024, 50 * time.Microsecond
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
		s := newSource(func(n int) (int, int, uint8, bool) { return 0, n % flows, 0x10, p.due() })
		s.fd = fd
		return s
	})
	if err != nil {
		return err
	}
	if err := r.configure(1, api.Masq); err != nil {
		return err
	}
	if err := r.fill(conns); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "uvsbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "api")
	ln, err := api.Listen(socket, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	running := make(chan error, 2)
	go func() { running <- r.plane.Run(ctx) }()
	go func() { running <- api.Serve(ctx, ln, r.director) }()
	defer func() { cancel(); <-running; <-running; r.plane.Close() }()

	watch := func(what string, f func() error) error {
		p.begin(interval, int(time.Minute/interval))
		err := f()
		fmt.Fprintf(out, "listing/%d\tlatency %s\t%s\n", conns, what, quantiles(p.lateness()))
		return err
	}
	time.Sleep(length) // what filling has left to do
	if err := watch("before", func() error { time.Sleep(length); return nil }); err != nil {
		return err
	}
	return watch("while listing", func() error {
		before, begin := resident(), time.Now()
		lines, most, err := list(ctx, socket)
		fmt.Fprintf(out, "listing/%d\ttook\t%v\nlisting/%d\tmemory more than before\t%d\tKiB\n",
			conns, time.Since(begin), conns, max(0, most-before)/1024)
		if err == nil && lines != conns {
			err = fmt.Errorf("%d of %d connections were listed", lines, conns)
		}
		return err
	})
}

// list reads a listing of all connections; most is the most memory that this process had meanwhile.
func list(ctx context.Context, socket string) (lines, most int, err error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://uvsd/v1/connections", nil)
	if err != nil {
		return 0, 0, err
	}
	reply, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer reply.Body.Close()
	for s := bufio.NewScanner(reply.Body); ; lines++ {
		if !s.Scan() {
			return lines, most, s.Err()
		}
		if lines%100_000 == 0 {
			most = max(most, residentNow())
		}
	}
}
