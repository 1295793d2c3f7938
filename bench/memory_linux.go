package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// measureMemory opens connections that nothing is said on, and looks what became of the memory of the director's processes and of
// the kernel's (slab), in which both ends' sockets are too: what one subject takes more than another is its own.
func measureMemory(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
	if err := moreFiles(uint64(2*b.Conns + 1000)); err != nil {
		return nil, err
	}
	ln, err := s.server.Listen("tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), s.behind(r, echoPort)).String())
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var open []io.Closer // guarded by mu
	keep := func(c io.Closer) {
		mu.Lock()
		open = append(open, c)
		mu.Unlock()
	}
	var accepting sync.WaitGroup
	defer func() {
		ln.Close()
		accepting.Wait()
		for _, c := range open {
			c.Close()
		}
	}()
	accepting.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			keep(c)
		}
	})
	dial := func(n int) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(16)
		for range n {
			g.Go(func() error {
				c, err := s.client.DialContext(ctx, "tcp", r.served(echoPort).String())
				if err == nil {
					c.(*net.TCPConn).SetLinger(0) // a reset in the end: no port stays taken
					keep(c)
				}
				return err
			})
		}
		return g.Wait()
	}
	if err := dial(100); err != nil { // what the first ones cost once
		return nil, err
	}
	look := func() (director, kernel int, err error) {
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return 0, 0, err
		}
		if director, err = memoryOf(r.pids); err != nil {
			return 0, 0, err
		}
		kernel, err = slab()
		return director, kernel, err
	}
	before, kernelBefore, err := look()
	if err != nil {
		return nil, err
	}
	if err := dial(b.Conns); err != nil {
		return nil, fmt.Errorf("open %d connections: %w", b.Conns, err)
	}
	after, kernelAfter, err := look()
	figures := map[string]float64{KernelBytes: float64(kernelAfter-kernelBefore) / float64(b.Conns)}
	if len(r.pids) > 0 {
		figures[DirectorBytes] = float64(after-before) / float64(b.Conns)
	}
	return figures, err
}

// moreFiles lets this process and its children have so many files open.
func moreFiles(n uint64) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Cur >= n {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(l.Max, n)}); err != nil {
		return fmt.Errorf("have %d files open (the limit is %d): %w", n, l.Max, err)
	}
	return nil
}

// memoryOf is the memory of processes in bytes; what several share counts in part for each (Pss).
func memoryOf(pids []int) (sum int, err error) {
	for _, pid := range pids {
		n, err := readKB(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// slab is the kernel's memory for objects such as sockets, in bytes.
func slab() (int, error) { return readKB("/proc/meminfo", "Slab:") }

// readKB reads the line of a file that begins with a word, in kB; the result is in bytes.
func readKB(path, word string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == word {
			n, err := strconv.Atoi(f[1])
			return n << 10, err
		}
	}
	return 0, errors.New(path + " has no line " + word)
}
