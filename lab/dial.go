package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
)

// Listen is net.Listen inside the namespace. The listener itself works from any goroutine. It speaks plain TCP:
// Go's default of multipath TCP would put another protocol on the wire than the servers people run.
func (n *Namespace) Listen(network, address string) (ln net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err = n.Do(func() error {
		ln, err = lc.Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", n, err)
	}
	return ln, nil
}

// ListenPacket is net.ListenPacket inside the namespace.
func (n *Namespace) ListenPacket(network, address string) (pc net.PacketConn, err error) {
	err = n.Do(func() error {
		pc, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", n, err)
	}
	return pc, nil
}

// Dial is net.Dial inside the namespace, to a literal address.
func (n *Namespace) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// Local ports of DialContext, below those that the kernel gives to programs. A director remembers a connection for minutes
// after the client has forgotten it, and the kernel would soon take some port again: that connection would go to the same server
// as the one before, or nowhere if that was removed.
const (
	firstDialPort = 10000
	dialPorts     = 22000
)

// DialContext is net.Dialer.DialContext inside the namespace, to a literal address and port, and from a port that it has not
// dialled from for 22,000 connections.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	for tried := 0; ; tried++ {
		port := firstDialPort + int(n.dials.Add(1)-1)%dialPorts
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{Port: port}
		}
		if conn, err := n.DialWith(ctx, &d, network, address); !errors.Is(err, syscall.EADDRINUSE) || tried == dialPorts {
			return conn, err
		}
	}
}

// DialWith dials inside the namespace with the settings of d, such as its LocalAddr, to a literal address and port.
func (n *Namespace) DialWith(ctx context.Context, d *net.Dialer, network, address string) (conn net.Conn, err error) {
	// A name would be resolved, and a name with two addresses dialled, by goroutines outside the namespace.
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial in %s: %q is not a literal address and port", n, address)
	}
	err = n.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", n, err)
	}
	return conn, nil
}

// HTTPClient is an HTTP client inside the namespace, for URLs with literal addresses. It opens a connection for each
// request: a director schedules connections, not requests. For persistent ones clear DisableKeepAlives on its
// Transport, an *http.Transport. It has no timeout but the request's context.
func (n *Namespace) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:        n.DialContext, // the transport dials on its own goroutines, so each dial visits
		DisableKeepAlives:  true,
		DisableCompression: true,
	}}
}
