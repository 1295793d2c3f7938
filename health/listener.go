package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a raw socket that many probes share. It is opened for the first that uses it, together with the goroutine that
// receives, and closed when none has used it for idle.
type listener struct {
	open func() (pollable, error)
	idle time.Duration
	// heard is told each message: its bytes, its control messages and its sender. It keeps none of them.
	heard func(b, control []byte, sender unix.Sockaddr)

	mu    sync.Mutex // guards what follows
	conn  pollable
	raw   syscall.RawConn
	users int
	used  time.Time      // when the last user went
	over  sync.WaitGroup // the receivers
}

// listenerIdle is how long the process's own sockets stay open unused.
const listenerIdle = 10 * time.Second

// pollable is a socket that Go's runtime waits for: an *os.File or a net.PacketConn.
type pollable interface {
	syscall.Conn
	SetReadDeadline(t time.Time) error
	Close() error
}

// use returns the socket, for sending. Whoever is done with it, and with waiting for answers, calls release.
func (l *listener) use() (raw syscall.RawConn, release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		conn, err := l.open()
		if err != nil {
			return nil, nil, err
		}
		if l.raw, err = conn.SyscallConn(); err != nil {
			return nil, nil, errors.Join(err, conn.Close())
		}
		l.conn = conn
		raw := l.raw
		l.over.Go(func() { l.receive(conn, raw) })
	}
	l.users++
	return l.raw, l.release, nil
}

func (l *listener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	l.used = time.Now()
}

// receive tells what comes until the socket has been idle.
func (l *listener) receive(conn pollable, raw syscall.RawConn) {
	b, control := make([]byte, 64<<10), make([]byte, 256)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(l.idle))
		var n, nc int
		var sender unix.Sockaddr
		var err error
		waited := raw.Read(func(fd uintptr) bool {
			n, nc, _, sender, err = unix.Recvmsg(int(fd), b, control, unix.MSG_DONTWAIT)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		switch {
		case waited != nil: // nothing came for so long
			if l.retire(errors.Is(waited, net.ErrClosed)) {
				return
			}
		case err == nil:
			l.heard(b[:n], control[:nc], sender)
		}
	}
}

// retire closes a socket that nobody has used for a while.
func (l *listener) retire(closed bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !closed && (l.users > 0 || time.Since(l.used) < l.idle) {
		return false
	}
	_ = l.conn.Close()
	l.conn, l.raw = nil, nil
	return true
}

// send sends a message. Where the socket's buffer is full it is this sender that waits, not all.
func send(ctx context.Context, raw syscall.RawConn, b []byte, to unix.Sockaddr) error {
	for {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to) }); e != nil {
			return e
		}
		if err != unix.EAGAIN && err != unix.ENOBUFS && err != unix.EINTR {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// makeRoom asks for large buffers: an answer that finds no room would be a server down, and what is sent to hosts that don't
// answer neighbour discovery waits in the socket's send buffer.
func makeRoom(fd int) {
	const room = 8 << 20
	for _, option := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], room) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], room)
		}
	}
}

// icmpSocket opens a raw socket for the messages that filter lets through.
func icmpSocket(listen func(network, address string) (net.PacketConn, error), network, address string, filter func(fd int) error) (pollable, error) {
	conn, err := listen(network, address)
	if err != nil {
		return nil, err
	}
	s, ok := conn.(pollable)
	if !ok {
		return nil, errors.Join(errors.New("not a socket"), conn.Close())
	}
	raw, err := s.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) {
			makeRoom(int(fd))
			err = filter(int(fd))
		})
		err = errors.Join(err, e)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// Linux' names for the filter of raw ICMP sockets, which golang.org/x/sys hasn't.
const solRaw, icmpFilter = 255, 1

// filterICMP4 lets answers to echo requests through, and errors.
func filterICMP4(fd int) error {
	pass := uint32(1<<icmp4Reply | 1<<icmp4Unreachable | 1<<icmp4Exceeded)
	return unix.SetsockoptInt(fd, solRaw, icmpFilter, int(^pass))
}

// filterICMP6 lets some types of messages through.
func filterICMP6(types ...int) func(fd int) error {
	f := unix.ICMPv6Filter{}
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	for _, t := range types {
		f.Data[t/32] &^= 1 << (t % 32)
	}
	return func(fd int) error {
		return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	}
}

// sockaddr is an address as system calls have it; an IPv6 one's zone is its interface.
func sockaddr(addr netip.Addr) (unix.Sockaddr, error) {
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4()}, nil
	}
	to := &unix.SockaddrInet6{Addr: addr.As16()}
	if addr.Zone() != "" {
		l, err := net.InterfaceByName(addr.Zone())
		if err != nil {
			return nil, err
		}
		to.ZoneId = uint32(l.Index)
	}
	return to, nil
}

// addrOf is an IPv6 sender's address.
func addrOf(sender unix.Sockaddr) netip.Addr {
	if s, ok := sender.(*unix.SockaddrInet6); ok {
		return netip.AddrFrom16(s.Addr)
	}
	return netip.Addr{}
}
