package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dial opens a connection from the n-th source.
func (g *generator) dial(ctx context.Context, n uint64) (net.Conn, error) {
	d := net.Dialer{Timeout: g.cfg.Timeout, Control: g.control, KeepAlive: -1}
	d.SetMultipathTCP(false)
	if a := g.from.at(n); a.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	return d.DialContext(ctx, "tcp", g.cfg.TCP.String())
}

// control lets a socket be bound to addresses that aren't there, and to a port only when it is connected: then the same port of an
// address serves for many targets.
func (g *generator) control(_, _ string, c syscall.RawConn) error {
	var err error
	wrong := c.Control(func(fd uintptr) {
		if len(g.cfg.Sources) == 0 {
			return
		}
		level, free, transparent := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TRANSPARENT
		if g.cfg.Sources[0].Addr().Is6() {
			level, free, transparent = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
		}
		if err = unix.SetsockoptInt(int(fd), level, free, 1); err == nil && g.cfg.Transparent {
			err = unix.SetsockoptInt(int(fd), level, transparent, 1)
		}
		if err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		}
	})
	return errors.Join(wrong, err)
}

// streams makes connections or requests.
type streams struct {
	g    *generator
	t    *tally
	rate float64
	do   func(ctx context.Context, n uint64) (why string)
}

func (s *streams) tally() *tally { return s.t }

func (s *streams) run(running, ctx context.Context) {
	var under sync.WaitGroup
	s.g.pace(running, s.rate, math.MaxUint64, func(n uint64, due time.Time) {
		s.t.begin(n, due)
		select {
		case s.g.slots <- struct{}{}:
		default:
			s.t.fail(n, due, Late)
			return
		}
		under.Go(func() {
			defer func() { <-s.g.slots }()
			if why := s.do(ctx, n); why != "" {
				if ctx.Err() == nil {
					s.t.fail(n, due, why)
				}
				return
			}
			s.t.succeed(n, due, time.Now())
		})
	})
	under.Wait()
}

// connect opens a connection and closes it.
func (g *generator) connect(ctx context.Context, n uint64) string {
	c, err := g.dial(ctx, n)
	if err != nil {
		return failure(err, false)
	}
	c.Close()
	return ""
}

// request asks for Path on a connection of its own.
func (g *generator) request(ctx context.Context, n uint64) string {
	c, err := g.dial(ctx, n)
	if err != nil {
		return failure(err, false)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(g.cfg.Timeout)); err != nil {
		return failure(err, true)
	}
	return g.ask(c, "close")
}

// ask asks for Path on a connection and reads the whole answer.
func (g *generator) ask(c net.Conn, connection string) string {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %v\r\nUser-Agent: uvsbench\r\nConnection: %s\r\n\r\n", g.cfg.Path, g.cfg.TCP, connection); err != nil {
		return failure(err, true)
	}
	reader := readers.Get().(*bufio.Reader)
	defer readers.Put(reader)
	reader.Reset(c)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		if why := failure(err, true); why != Other {
			return why
		}
		return Wrong // it is no HTTP
	}
	_, err = io.Copy(io.Discard, resp.Body)
	switch resp.Body.Close(); {
	case err != nil:
		return failure(err, true)
	case resp.StatusCode != http.StatusOK:
		return Wrong
	}
	return ""
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// held holds connections.
type held struct {
	g *generator
	t *tally
}

func (h *held) tally() *tally { return h.t }

// run opens the connections, and asks each at the end whether it is still there. Latency is that of opening.
func (h *held) run(running, ctx context.Context) {
	var mu sync.Mutex
	conns := make(map[uint64]net.Conn, h.g.cfg.Hold)
	due := make(map[uint64]time.Time, h.g.cfg.Hold)
	var opening sync.WaitGroup
	h.g.pace(running, h.g.cfg.HoldRate, uint64(h.g.cfg.Hold), func(n uint64, at time.Time) {
		h.t.begin(n, at)
		opening.Go(func() {
			c, err := h.g.dial(ctx, n)
			if err != nil {
				if ctx.Err() == nil {
					h.t.fail(n, at, failure(err, false))
				}
				return
			}
			now := time.Now()
			mu.Lock()
			conns[n], due[n] = c, at
			mu.Unlock()
			h.t.open(n, at, now)
		})
	})
	opening.Wait()
	<-running.Done()
	var asking sync.WaitGroup
	limit := make(chan struct{}, 256)
	for n, c := range conns {
		limit <- struct{}{}
		asking.Go(func() {
			defer func() { <-limit }()
			defer c.Close()
			if ctx.Err() != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(h.g.cfg.Timeout)) // the question fails on a closed connection
			if why := h.g.ask(c, "close"); why != "" {
				h.t.fail(n, due[n], why)
				return
			}
			h.t.kept(n, due[n])
		})
	}
	asking.Wait()
}

// open records how long a held connection took to open; whether it is done shows at the end.
func (t *tally) open(n uint64, due, now time.Time) {
	s := &t.shards[n%shards]
	s.Lock()
	_ = s.all.RecordValue(min(max(now.Sub(due).Microseconds(), 1), mostLatency)) // within its range
	s.Unlock()
}

// kept counts a held connection that was there to the end.
func (t *tally) kept(n uint64, due time.Time) {
	s := &t.shards[n%shards]
	s.Lock()
	s.done++
	t.in(int(n%shards), due).done++
	s.Unlock()
}
