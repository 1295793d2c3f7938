package dataplane

import (
	"context"
	"testing"
	"time"

	"uvs/service"
)

// TestABusyPlaneNeedsNoWaking has nobody tell the worker of a frame: one that sleeps would find it after idleWait, this one at once,
// and goes on finding them.
func TestABusyPlaneNeedsNoWaking(t *testing.T) {
	d := newDirector(t, func(c *Config) { c.BusyPoll = true })
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() { running <- d.plane.Run(ctx) }()
	const frames = 200
	begin := time.Now()
	for n := range uint64(frames) {
		d.mem[0].Inject(fromClient(t, client, "S", ""))
		for d.plane.Stats().Received <= n {
			time.Sleep(50 * time.Microsecond)
		}
	}
	if took := time.Since(begin); took > frames*idleWait/2 { // twenty times what a busy machine needs
		t.Errorf("%d frames took %v: the worker sleeps", frames, took)
	}
	cancel()
	if err := <-running; err != nil {
		t.Error(err)
	}
	d.accounted()
}
