package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pingInterval is the time between two requests: long enough for everybody to fall asleep.
const pingInterval = 700 * time.Microsecond

// measureLatency sends a byte to and fro over TCP with blocking calls, so that the ends add as little as they can, and then
// looks what the director uses while nothing happens.
func measureLatency(ctx context.Context, b *Wire, s *site, r *running) (map[string]float64, error) {
	ln, err := s.server.Listen("tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), s.behind(r, echoPort)).String())
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	var echo sync.WaitGroup
	defer echo.Wait()
	defer ln.Close()
	echo.Go(func() { echoAll(ln) })
	conn, err := s.client.DialContext(ctx, "tcp", r.served(echoPort).String())
	if err != nil {
		return nil, err
	}
	f, err := blocking(conn)
	if err != nil {
		return nil, err
	}
	times, err := pingPong(ctx, f, b.Time)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	slices.Sort(times)
	figures := map[string]float64{P50: Quantile(times, 0.5), P99: Quantile(times, 0.99)}
	if len(r.pids) == 0 {
		return figures, nil
	}
	if err := sleep(ctx, 100*time.Millisecond); err != nil { // whatever the end of the connection causes
		return nil, err
	}
	before, err := cpuOfAll(r.pids)
	start := time.Now()
	err = errors.Join(err, sleep(ctx, b.Time))
	after, afterErr := cpuOfAll(r.pids)
	figures[IdleCPU] = 100 * (after - before).Seconds() / time.Since(start).Seconds()
	return figures, errors.Join(err, afterErr)
}

// blocking takes the socket out of a connection, whose calls then block their thread instead of asking Go's poller.
func blocking(c net.Conn) (*os.File, error) {
	defer c.Close()
	f, err := c.(*net.TCPConn).File() // a duplicate
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	err = errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}))
	return f, err
}

// echoAll answers what comes, one connection after another, until the listener is closed.
func echoAll(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		f, err := blocking(conn)
		if err != nil {
			continue
		}
		var b [1]byte
		for {
			if readByte(f, b[:]) != nil {
				break
			}
			if _, err := unix.Write(int(f.Fd()), b[:]); err != nil {
				break
			}
		}
		f.Close()
	}
}

// readByte waits for a byte. Go's own signals interrupt a read that has a time limit.
func readByte(f *os.File, b []byte) error {
	for {
		switch n, err := unix.Read(int(f.Fd()), b); {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		default:
			return nil
		}
	}
}

// pingPong measures round trips in microseconds for some time.
func pingPong(ctx context.Context, f *os.File, d time.Duration) ([]float64, error) {
	var times []float64
	var b [1]byte
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(pingInterval) {
		start := time.Now()
		if _, err := unix.Write(int(f.Fd()), b[:]); err != nil {
			return nil, fmt.Errorf("ask: %w", err)
		}
		if err := readByte(f, b[:]); err != nil {
			return nil, fmt.Errorf("no answer after %d round trips: %w", len(times), err)
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
	}
	return times, ctx.Err()
}
