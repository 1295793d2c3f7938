package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"uvs/bench/result"
)

// startLoad has a child make load on r's web service from the client's host, as `uvsbench load` does. wait returns what it found.
func (b *Wire) startLoad(ctx context.Context, s *site, r *running, took time.Duration, args ...string) (wait func() (*result.File, error), err error) {
	file := filepath.Join(s.dir, "load.json")
	args = append([]string{"load", "--target", r.served(webPort).String(), "--requests", strconv.FormatFloat(b.Requests, 'g', -1, 64),
		"--time", took.String(), "--quiet", "--json", file}, args...)
	c := s.client.Command(ctx, b.Self, args...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() (*result.File, error) {
		err := c.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 3 { // that some of it failed is what is to be found out
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("load: %w: %s", err, tail(said.Bytes()))
		}
		return result.Read(file)
	}, nil
}

// found is a figure of a kind of load.
func found(f *result.File, kind, figure string) float64 {
	for _, s := range f.Scenarios {
		if s.Name == kind && len(s.Rows) > 0 {
			return s.Rows[0].Values[figure].Value
		}
	}
	return 0
}

// measureLoaded measures latency at a fixed rate of requests.
func measureLoaded(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
	if _, err := s.serveWeb(ctx, r); err != nil {
		return nil, err
	}
	wait, err := b.startLoad(ctx, s, r, b.Time)
	if err != nil {
		return nil, err
	}
	f, err := wait()
	if err != nil {
		return nil, err
	}
	const kind, micro = "requests", 1e6
	return map[string]float64{
		P50: found(f, kind, "p50") * micro, P99: found(f, kind, "p99") * micro, P999: found(f, kind, "p999") * micro, FailedShare: found(f, kind, "failed"),
	}, nil
}

// heldWhile is how many connections are held while a failure is measured.
const heldWhile = 50

// measureFailure lets requests come for three stretches, strikes after the first, and counts what fails.
func (b *Wire) measureFailure(ctx context.Context, s *site, r *running, strike func(context.Context, *site, *running) error) (map[string]float64, error) {
	if _, err := s.serveWeb(ctx, r); err != nil {
		return nil, err
	}
	took := 3 * b.Time
	if err := sleep(ctx, 4*checkInterval); err != nil { // until the directors have asked the servers
		return nil, err
	}
	wait, err := b.startLoad(ctx, s, r, took, "--hold", strconv.Itoa(heldWhile), "--hold-rate", "200", "--timeout", "2s")
	if err != nil {
		return nil, err
	}
	err = sleep(ctx, b.Time)
	if err == nil {
		err = strike(ctx, s, r)
	}
	f, loadErr := wait()
	if err = errors.Join(err, loadErr); err != nil {
		return nil, err
	}
	share := found(f, "requests", "failed")
	return map[string]float64{
		Failed: share / 100 * b.Requests * took.Seconds(), FailedShare: share, Longest: found(f, "requests", "max") * 1000, HeldLost: found(f, "held", "failed"),
	}, nil
}

// serverDies kills the first server's programs.
func serverDies(_ context.Context, s *site, _ *running) error {
	pid, err := os.ReadFile(filepath.Join(s.dir, "web0.pid"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(pid)))
	if err != nil {
		return err
	}
	pids, err := family(n)
	return errors.Join(err, kill(pids))
}

// serverMute lets the first server fall silent.
func serverMute(_ context.Context, s *site, _ *running) error {
	return s.servers[0].SetUp("eth0", false)
}

// serverRemoved takes the first server out of service.
func serverRemoved(ctx context.Context, s *site, r *running) error { return r.remove(ctx, s.rips[0]) }

// directorKilled kills the director and starts it again.
func directorKilled(ctx context.Context, _ *site, r *running) error { return r.restart(ctx) }

// kill kills processes and waits until they are gone.
func kill(pids []int) error {
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
		}
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		gone := true
		for _, pid := range pids {
			gone = gone && ended(pid)
		}
		if gone {
			return errors.Join(errs...)
		}
	}
	return errors.Join(append(errs, errors.New("killed processes don't end"))...)
}

// ended says that a process and all its threads have ended, be it that its parent hasn't asked for its status.
func ended(pid int) bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return true
	}
	if len(threads) > 1 {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && len(b) > i+2 && b[i+2] == 'Z'
}
