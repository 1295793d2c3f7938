package bench

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"uvs/dataplane/link"
	"uvs/lab"
)

// generator sends a stream from an interface as fast as it goes, or at a rate, in a thread of its own.
type generator struct {
	sent atomic.Uint64
	tid  int
	stop atomic.Bool
	done chan error
}

// generate starts one. cpu is the CPU that its thread is bound to, -1 for any; rate is in frames a second, 0 for no limit.
func generate(ns *lab.Namespace, ifname string, s *stream, cpu int, rate float64) (*generator, error) {
	var out *link.Socket
	err := ns.Do(func() (err error) {
		out, err = link.OpenTx(link.Config{Interface: ifname})
		return err
	})
	if err != nil {
		return nil, err
	}
	g := &generator{done: make(chan error, 1)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, its CPU mask with it
		g.tid = unix.Gettid()
		var err error
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			err = unix.SchedSetaffinity(0, &set)
		}
		started <- err
		g.run(out, s, rate)
		g.done <- out.Close()
	}()
	if err := <-started; err != nil {
		g.end()
		return nil, fmt.Errorf("bind the generator to CPU %d: %w", cpu, err)
	}
	return g, nil
}

func (g *generator) run(out *link.Socket, s *stream, rate float64) {
	begin, n := time.Now(), 0
	for !g.stop.Load() {
		if rate > 0 {
			if ahead := time.Duration(float64(n)/rate*1e9) - time.Since(begin); ahead > 0 {
				time.Sleep(ahead)
			}
		}
		for _, b := range s.batch {
			s.fill(b)
			out.Send(b, nil)
		}
		out.Flush()
		n += len(s.batch)
		g.sent.Store(uint64(n))
	}
}

// cpu is the CPU time that it has used so far.
func (g *generator) cpu() (time.Duration, error) { return cpuOfThread(g.tid) }

// end stops it and waits until it has.
func (g *generator) end() error {
	g.stop.Store(true)
	return <-g.done
}
