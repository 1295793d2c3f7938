// Package dialer opens connections of uvsd's own to a virtual address at one chosen real server: net.Conns whose packets go by
// the code that forwards clients' packets, and whose answers are taken out of the packet path. So a health check of any kind
// finds what a client would find there.
//
// The host's stack can't do that: it knows neither the way by DR or TUN, nor would it let go of the virtual address. The packets
// are those of a stack in this process (gVisor's), of which every connection is a dataplane.Passage.
package dialer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"uvs/dataplane"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// Plane is the packet path: *dataplane.Plane.
type Plane interface {
	OpenPassage(pr *dataplane.Probe, receive func(ip []byte), failed func(dataplane.ProbeAnswer)) *dataplane.Passage
}

// NextHops knows the ways to real servers: *nexthop.Resolver.
type NextHops interface {
	Lookup(dst packet.Addr) (*nexthop.Hop, nexthop.Status)
	Resolve(dst packet.Addr)
}

// Source is an address to connect from.
type Source struct {
	Addr netip.Addr
	// Host says that it is the host's own, not uvsd's: the host's stack must be kept off the answers.
	Host bool
}

// Config is what a Dialer is made of.
type Config struct {
	Plane    Plane
	NextHops NextHops
	// Source returns an address to connect from, of the virtual address's family, by the way to the server. Its error says what
	// the operator can do about it that there is none.
	Source func(to *Target, hop *nexthop.Hop) (Source, error)
}

// Target is whom to connect to.
type Target struct {
	// Address is the virtual address and port.
	Address netip.AddrPort
	// Server is the real server that is to have the connection, and its port, which is Address's but with NAT.
	Server netip.AddrPort
	Method service.Method // Route, Tunnel or Masq
	// RS is the server's slot in the table's ServerIndex, which says how a tunnel encapsulates.
	RS uint32
}

// ErrNoSource is wrapped by Dial's error if there is no address to connect from.
var ErrNoSource = errors.New("no address to connect from")

// Dialer opens connections. Its methods may be called from any goroutine.
type Dialer struct {
	cfg   Config
	stack *stack.Stack
	link  *endpoint

	mu      sync.Mutex // guards the rest
	sources map[packet.Addr]bool
	leaving []leaving // in the order that they were closed

	someLeave chan struct{} // leaving isn't empty any more
	closed    bool
}

const (
	nic         = 1
	receiveRoom = 64 << 10 // of a connection: what it may hold of what a server sent and nobody has read
	linger      = 50 * time.Millisecond
	sweep       = 25 * time.Millisecond
	resolveTick = 10 * time.Millisecond // between two looks at a next hop that is being resolved
)

// New makes a Dialer. Run must be running for closed connections to be forgotten.
func New(cfg Config) (*Dialer, error) {
	d := &Dialer{cfg: cfg, link: newEndpoint(), sources: make(map[packet.Addr]bool), someLeave: make(chan struct{}, 1)}
	d.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := d.stack.CreateNIC(nic, d.link); err != nil {
		return nil, fmt.Errorf("prepare connections to virtual addresses: %s", err)
	}
	d.stack.SetRouteTable([]tcpip.Route{
		{Destination: everything(4), NIC: nic},
		{Destination: everything(16), NIC: nic},
	})
	ttl := tcpip.DefaultTTLOption(65) // one for the forwarding code to take away
	quiet := tcpip.TCPTimeWaitTimeoutOption(0)
	room := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: receiveRoom, Max: receiveRoom}
	for _, err := range []tcpip.Error{
		d.stack.SetNetworkProtocolOption(ipv4.ProtocolNumber, &ttl),
		d.stack.SetNetworkProtocolOption(ipv6.ProtocolNumber, &ttl),
		d.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &quiet), // linger keeps the port long enough
		d.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &room),
	} {
		if err != nil {
			return nil, fmt.Errorf("prepare connections to virtual addresses: %s", err)
		}
	}
	return d, nil
}

// everything is the prefix of all addresses of n bytes.
func everything(n int) tcpip.Subnet {
	return tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(make([]byte, n))}.Subnet()
}

// Dial connects; network is "tcp" or "udp". It fails when ctx ends.
func (d *Dialer) Dial(ctx context.Context, network string, to Target) (net.Conn, error) {
	c, err := d.dial(ctx, network, to)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: address(network, to.Address), Err: err}
	}
	return c, nil
}

func address(network string, a netip.AddrPort) net.Addr {
	if network == "udp" {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

func (d *Dialer) dial(ctx context.Context, network string, to Target) (net.Conn, error) {
	if to.Method != service.Route && to.Method != service.Tunnel && to.Method != service.Masq {
		return nil, errors.New("the forwarding method has no way for a connection to one real server")
	}
	kind, transport := dataplane.ProbeConnect, tcp.ProtocolNumber
	switch network {
	case "tcp":
	case "udp":
		kind, transport = dataplane.ProbeDatagram, udp.ProtocolNumber
	default:
		return nil, net.UnknownNetworkError(network)
	}
	vip := to.Address.Addr().Unmap()
	hop, err := d.way(ctx, to.Server.Addr())
	if err != nil {
		return nil, err
	}
	from, err := d.cfg.Source(&to, hop)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSource, err)
	}
	if err := d.own(from.Addr); err != nil {
		return nil, err
	}
	f := &flow{dialer: d, network: network, over: make(chan struct{})}
	f.passage = d.cfg.Plane.OpenPassage(&dataplane.Probe{
		Kind: kind, From: packet.AddrFrom(from.Addr), FromHost: from.Host,
		To: packet.AddrFrom(vip), Port: to.Address.Port(),
		Server: packet.AddrFrom(to.Server.Addr()), ServerPort: to.Server.Port(), Method: to.Method, RS: to.RS,
	}, d.link.receive, f.failed)
	if f.passage == nil {
		return nil, fmt.Errorf("no local port is free: %w", syscall.EADDRNOTAVAIL)
	}
	d.link.enter(f.passage)
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if !vip.Is4() {
		proto = ipv6.ProtocolNumber
	}
	var terr tcpip.Error
	if f.ep, terr = d.stack.NewEndpoint(transport, proto, &f.queue); terr != nil {
		d.forget(f)
		return nil, systemError(terr)
	}
	if err := f.connect(ctx, full(from.Addr, f.passage.Port()), full(vip, to.Address.Port())); err != nil {
		f.ep.Close()
		d.leave(f)
		return nil, err
	}
	return f.conn(), nil
}

func full(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.AsSlice()), Port: port}
}

// way is the way to a server, waiting for it to be resolved.
func (d *Dialer) way(ctx context.Context, server netip.Addr) (*nexthop.Hop, error) {
	to := packet.AddrFrom(server)
	for {
		hop, status := d.cfg.NextHops.Lookup(to)
		switch status {
		case nexthop.Ready:
			return hop, nil
		case nexthop.Pending:
			d.cfg.NextHops.Resolve(to)
		case nexthop.Unreachable:
			return nil, fmt.Errorf("%v, or the router to it, doesn't answer ARP or neighbour discovery", server)
		case nexthop.NotAttached:
			return nil, fmt.Errorf("the route to %v leaves by an interface that uvsd is not attached to", server)
		default:
			return nil, fmt.Errorf("there is no route to %v", server)
		}
		timer := time.NewTimer(resolveTick)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%v, or the router to it, has not answered ARP or neighbour discovery yet: %w", server, ctx.Err())
		}
	}
}

// own gives the stack an address.
func (d *Dialer) own(a netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	addr := packet.AddrFrom(a)
	switch {
	case d.closed:
		return net.ErrClosed
	case d.sources[addr]:
		return nil
	}
	pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
	if !a.Is4() {
		pa.Protocol = ipv6.ProtocolNumber
	}
	if err := d.stack.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("connect from %v: %s", a, err)
	}
	d.sources[addr] = true
	return nil
}

// leaving is a connection that was closed and keeps its port for a while: what the server still says is to be answered by a reset,
// and not to meet another connection.
type leaving struct {
	*flow
	until time.Time
}

// leave lets a connection that was closed come to its end.
func (d *Dialer) leave(f *flow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		if len(d.leaving) == 0 {
			select {
			case d.someLeave <- struct{}{}:
			default: // Run hasn't taken the last one yet
			}
		}
		d.leaving = append(d.leaving, leaving{f, time.Now().Add(linger)})
		return
	}
	d.forget(f)
}

// forget gives a connection's port back.
func (d *Dialer) forget(f *flow) {
	d.link.leave(f.passage)
	f.passage.Close()
}

// Run forgets closed connections until ctx ends; then it ends all others and returns nil.
func (d *Dialer) Run(ctx context.Context) error {
	timer := time.NewTimer(sweep)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			d.mu.Lock()
			rest := d.leaving
			d.leaving, d.closed = nil, true
			d.mu.Unlock()
			for _, l := range rest {
				d.forget(l.flow)
			}
			d.stack.Destroy()
			return nil
		case <-d.someLeave:
			timer.Reset(sweep)
		case now := <-timer.C:
			if d.sweep(now) {
				timer.Reset(sweep)
			}
		}
	}
}

// sweep forgets those whose time is up, and says whether others are left.
func (d *Dialer) sweep(now time.Time) (more bool) {
	d.mu.Lock()
	n := 0
	for n < len(d.leaving) && now.After(d.leaving[n].until) {
		n++
	}
	gone := d.leaving[:n:n]
	if d.leaving = d.leaving[n:]; len(d.leaving) == 0 {
		d.leaving = nil // and the array with it
	}
	more = len(d.leaving) > 0
	d.mu.Unlock()
	for _, l := range gone {
		l.ep.Abort() // if a UDP socket or a SYN is left
		d.forget(l.flow)
	}
	return more
}

// flow is one connection.
type flow struct {
	dialer  *Dialer
	network string
	passage *dataplane.Passage
	queue   waiter.Queue
	ep      tcpip.Endpoint

	once sync.Once
	over chan struct{} // closed once why is set
	why  error         // the network said that there is no way
	udp  atomic.Pointer[gonet.UDPConn]
}
