package dialer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"

	"uvs/dataplane"
	"uvs/packet"
)

// connect binds and connects the endpoint.
func (f *flow) connect(ctx context.Context, from, to tcpip.FullAddress) error {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	f.queue.EventRegister(&entry)
	defer f.queue.EventUnregister(&entry)
	if err := f.ep.Bind(from); err != nil {
		return systemError(err)
	}
	err := f.ep.Connect(to)
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer to a SYN: %w", ctx.Err())
		case <-f.over:
			return f.why
		case <-ready:
		}
		err = f.ep.LastError()
	}
	if err != nil {
		return systemError(err)
	}
	return nil
}

// failed takes what the network says of the flow. An error about a packet in the middle of a connection is not its end.
func (f *flow) failed(a dataplane.ProbeAnswer) {
	why := verdict(a)
	if why == nil {
		return
	}
	f.once.Do(func() {
		f.why = why
		close(f.over)
		if u := f.udp.Load(); u != nil {
			_ = u.SetReadDeadline(past)
		}
	})
}

// verdict is what an answer that is no packet of the flow means, nil if nothing.
func verdict(a dataplane.ProbeAnswer) error {
	from := a.From.Netip()
	switch a.Outcome {
	case dataplane.ProbeReturned:
		return fmt.Errorf("the real server doesn't have the virtual address: it sent the packet back (from %v)", a.Station)
	case dataplane.ProbeAstray:
		return fmt.Errorf("the real server answers to the host's own MAC address, not by way of uvsd")
	case dataplane.ProbeError:
		is4 := a.From.Is4()
		switch {
		case a.MTU > 0:
			return nil
		case is4 && a.Type == packet.ICMPUnreachable && a.Code == packet.ICMPCodePort, !is4 && a.Type == packet.ICMP6Unreachable && a.Code == packet.ICMP6CodePort:
			return fmt.Errorf("%v says by ICMP that the port is unreachable: %w", from, syscall.ECONNREFUSED)
		case is4 && a.Type == packet.ICMPUnreachable && a.Code == packet.ICMPCodeProtocol, !is4 && a.Type == packet.ICMP6ParameterProblem:
			return fmt.Errorf("%v says by ICMP that it doesn't know the tunnel's protocol: %w", from, syscall.EPROTONOSUPPORT)
		case is4 && a.Type == packet.ICMPUnreachable, !is4 && a.Type == packet.ICMP6Unreachable:
			return fmt.Errorf("%v says by ICMP that the server is unreachable (code %d): %w", from, a.Code, syscall.EHOSTUNREACH)
		}
	}
	return nil
}

// systemErrors are the stack's errors as the operating system would have them, so that errors.Is finds them.
var systemErrors = map[string]error{
	(&tcpip.ErrConnectionRefused{}).String():    syscall.ECONNREFUSED,
	(&tcpip.ErrConnectionReset{}).String():      syscall.ECONNRESET,
	(&tcpip.ErrConnectionAborted{}).String():    syscall.ECONNABORTED,
	(&tcpip.ErrTimeout{}).String():              syscall.ETIMEDOUT,
	(&tcpip.ErrHostUnreachable{}).String():      syscall.EHOSTUNREACH,
	(&tcpip.ErrNetworkUnreachable{}).String():   syscall.ENETUNREACH,
	(&tcpip.ErrClosedForSend{}).String():        syscall.EPIPE,
	(&tcpip.ErrMessageTooLong{}).String():       syscall.EMSGSIZE,
	(&tcpip.ErrPortInUse{}).String():            syscall.EADDRINUSE,
	(&tcpip.ErrBadLocalAddress{}).String():      syscall.EADDRNOTAVAIL,
	(&tcpip.ErrInvalidEndpointState{}).String(): net.ErrClosed,
	(&tcpip.ErrDestinationRequired{}).String():  syscall.EDESTADDRREQ,
	(&tcpip.ErrNoBufferSpace{}).String():        syscall.ENOBUFS,
}

func systemError(e tcpip.Error) error {
	if err, ok := systemErrors[e.String()]; ok {
		return err
	}
	return errors.New(e.String())
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// ends is what both kinds of connections share.
type ends struct {
	f      *flow
	closed atomic.Bool
}

// conn is the connection for whoever dialled.
func (f *flow) conn() net.Conn {
	if f.network == "udp" {
		c := &udpConn{UDPConn: gonet.NewUDPConn(&f.queue, f.ep), ends: ends{f: f}}
		f.udp.Store(c.UDPConn)
		return c
	}
	f.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true})
	return &tcpConn{TCPConn: gonet.NewTCPConn(&f.queue, f.ep), ends: ends{f: f}}
}

// translate makes a gonet error one that a socket would return.
func (e *ends) translate(err error) error {
	var op *net.OpError
	if err == nil || !errors.As(err, &op) {
		return err
	}
	switch known, ok := systemErrors[op.Err.Error()]; {
	case e.closed.Load():
		op.Err = net.ErrClosed
	case e.f.network == "udp" && e.f.told():
		op.Err = e.f.why
	case ok:
		op.Err = known
	case op.Timeout():
		op.Err = os.ErrDeadlineExceeded
	}
	return err
}

// told says that the network has said that there is no way.
func (f *flow) told() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// tcpConn is a TCP connection.
type tcpConn struct {
	*gonet.TCPConn
	ends
}

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.translate(err)
}

// Write implements net.Conn.
func (c *tcpConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.translate(err)
}

// Close implements net.Conn. The server gets a reset, as from health.DialDirect's, and forgets the connection at once.
func (c *tcpConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = c.SetDeadline(past) // for those who read and write now
	err := c.TCPConn.Close()
	c.f.dialer.leave(c.f)
	return err
}

// udpConn is a connected UDP socket, a net.PacketConn too: by that libraries tell it from TCP.
type udpConn struct {
	*gonet.UDPConn
	ends
}

// Read implements net.Conn.
func (c *udpConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.f.told() {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: c.f.why}
	}
	n, from, err := c.UDPConn.ReadFrom(b)
	return n, from, c.translate(err)
}

// Write implements net.Conn.
func (c *udpConn) Write(b []byte) (int, error) {
	n, err := c.UDPConn.Write(b)
	return n, c.translate(err)
}

// Close implements net.Conn.
func (c *udpConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = c.SetDeadline(past)
	err := c.UDPConn.Close()
	c.f.dialer.leave(c.f)
	return err
}
