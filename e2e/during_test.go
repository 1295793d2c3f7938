package e2e

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"uvs/lab"
)

// during keeps traffic going while something happens to the network: requests on new connections, transfers in both
// directions, and a connection that lives on. None of it may fail: TCP repeats what is lost meanwhile, however long that
// takes it.
func (r *rig) during(event func()) {
	r.t.Helper()
	r.keepOn(event, false)
}

// duringOutage is during for what leaves the servers without a way for a while: who asks just then is told so by ICMP, as
// the kernel's IPVS would, which ends a connection that isn't open yet. Clients then try again.
func (r *rig) duringOutage(event func()) {
	r.t.Helper()
	r.keepOn(event, true)
}

func (r *rig) keepOn(event func(), outage bool) {
	r.t.Helper()
	const patience = 40 * time.Second
	long := r.hold(r.Clients[0])
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	over := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // if event ends the test
	var mu sync.Mutex
	rounds := map[string]int{}
	keep := func(what string, pause time.Duration, f func(context.Context) error) {
		all.Go(func() {
			for {
				once, cancel := context.WithTimeout(ctx, patience)
				start := time.Now()
				err := f(once)
				cancel()
				if ctx.Err() != nil {
					return
				}
				if outage && (errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)) {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				if err != nil {
					r.t.Errorf("%s, begun %v before it failed: %v", what, time.Since(start), err)
					return
				}
				mu.Lock()
				rounds[what]++
				mu.Unlock()
				select {
				case <-over:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	keep("a request", time.Millisecond, func(ctx context.Context) error {
		_, _, err := lab.AskHTTP(ctx, r.client(), r.url()+"/")
		return err
	})
	keep("a request on a connection that lives on", 10*time.Millisecond, func(ctx context.Context) error {
		_, _, err := lab.AskHTTP(ctx, long.client, r.url()+"/")
		return err
	})
	keep("a download", 0, func(ctx context.Context) error {
		_, err := lab.Download(ctx, r.client(), r.url(), 4<<20)
		return err
	})
	keep("an upload", 0, func(ctx context.Context) error {
		_, err := lab.Upload(ctx, r.client(), r.url(), 4<<20)
		return err
	})
	time.Sleep(100 * time.Millisecond)
	event()
	close(over)
	all.Wait()
	if server, err := long.ask(r); err != nil {
		r.t.Errorf("the connection that lives on, to %s: %v", server, err)
	}
	r.t.Logf("went on meanwhile: %v", rounds)
}
