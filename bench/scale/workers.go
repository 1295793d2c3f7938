package scale

import (
	"context"
	"fmt"
	"io"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"uvs/control/api"
	"uvs/dataplane/link"
)

// Workers prints how long workers wait for each other's locks: all get packets of the same connections as fast as they can take
// them, now and then of a new one.
func Workers(ctx context.Context, out io.Writer, workers int, length time.Duration) error {
	const flows = 4096
	fd, err := alwaysReadable()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := newRig(workers, func(worker, leg int) link.Link {
		if leg == 1 {
			return &sink{fd: -1}
		}
		s := newSource(func(n int) (int, int, uint8, bool) {
			if n < flows || n%100 == 0 {
				return 0, n*workers + worker, 0x02, true
			}
			return 0, n * prime % flows, 0x10, true
		})
		s.fd = fd
		return s
	})
	if err != nil {
		return err
	}
	if err := r.configure(1, api.Masq); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	running := make(chan error, 1)
	waited, contended := lockWait(), r.conns.Stats().LockWaits
	begin := time.Now()
	go func() { running <- r.plane.Run(ctx) }()
	time.Sleep(length)
	cancel()
	if err := <-running; err != nil {
		return err
	}
	took, packets := time.Since(begin), r.plane.Stats().Received
	fmt.Fprintf(out, "workers/%d\tpackets\t%d\nworkers/%d\tlocks found taken\t%.5f\tof a packet's\n", workers, packets,
		workers, float64(r.conns.Stats().LockWaits-contended)/float64(packets))
	fmt.Fprintf(out, "workers/%d\twaited for locks, all workers together\t%.3f\t%% of their time\t%v\ta packet\n", workers,
		100*(lockWait()-waited).Seconds()/took.Seconds()/float64(workers), (lockWait()-waited)/time.Duration(packets))
	return r.plane.Close()
}

// lockWait is how long goroutines have waited for mutexes since the process began, as the runtime's samples have it.
func lockWait() time.Duration {
	s := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(s)
	return time.Duration(s[0].Value.Float64() * 1e9)
}
