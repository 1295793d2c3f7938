package dialer

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"uvs/conntrack"
	"uvs/dataplane"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// world is a director on one in-memory segment, and a real server there that is another stack:
//
//	Dialer -- Plane -- [port 0] -- world.pump -- server's stack, which has the VIPs
type world struct {
	t       testing.TB
	plane   *dataplane.Plane
	dialer  *Dialer
	hops    *nexthop.Static
	rx, tx  *link.Mem
	server  *channel.Endpoint
	stack   *stack.Stack
	inner   int          // where in the IP packets that come to the server the one for the VIP begins
	lose    atomic.Int64 // every so many frames one is lost, 0: none
	hostMAC bool         // answers go to the host's MAC address
	answer  func(eth []byte) [][]byte

	rs      *service.RealServer
	servers *service.ServerIndex
}

var (
	ourMAC, hostMAC, serverMAC = packet.MAC{2, 0, 0, 0, 0, 1}, packet.MAC{2, 0, 0, 0, 0, 2}, packet.MAC{2, 0, 0, 0, 0, 11}
	prober, prober6            = netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("2001:db8::50")
	vip, vip6                  = netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")
	rip, rip6                  = netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
)

// newWorld makes one whose real server has the addresses named.
func newWorld(t testing.TB, addrs ...netip.Addr) *world {
	t.Helper()
	w := &world{
		t: t, hops: new(nexthop.Static), servers: new(service.ServerIndex),
		rx: link.NewMem(link.MemConfig{MAC: hostMAC}), tx: link.NewMem(link.MemConfig{MAC: hostMAC}),
	}
	conns, err := conntrack.New(conntrack.Config{Servers: w.servers, Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	w.plane, err = dataplane.New(dataplane.Config{
		Ports:  []dataplane.Port{{Name: "eth", MAC: ourMAC}},
		OpenRx: func(_, _ int) (link.Link, error) { return w.rx, nil },
		OpenTx: func(int) (link.Link, error) { return w.tx, nil },
		Conns:  conns, NextHops: w.hops, AnnounceInterval: -1, ProbeAddrs: []netip.Addr{prober, prober6},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{rip, rip6} {
		w.hops.Set(packet.AddrFrom(a), &nexthop.Hop{Iface: 0, Dst: serverMAC, MTU: 1500, Source: packet.AddrFrom(netip.MustParseAddr("192.0.2.1")), Gateway: packet.AddrFrom(a)}, nexthop.Ready)
	}
	w.dialer, err = New(Config{Plane: w.plane, NextHops: w.hops, Source: func(to *Target, _ *nexthop.Hop) (Source, error) {
		if to.Address.Addr().Is4() {
			return Source{Addr: prober, Host: w.hostMAC}, nil
		}
		return Source{Addr: prober6, Host: w.hostMAC}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.server = channel.New(4096, 1500, "")
	w.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := w.stack.CreateNIC(1, w.server); err != nil {
		t.Fatal(err)
	}
	w.stack.SetRouteTable([]tcpip.Route{{Destination: everything(4), NIC: 1}, {Destination: everything(16), NIC: 1}})
	for _, a := range addrs {
		pa := tcpip.ProtocolAddress{Protocol: protocol(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
		if err := w.stack.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = w.dialer.Run(ctx) })
	all.Go(func() { w.pump(ctx) })
	t.Cleanup(func() {
		cancel()
		all.Wait()
		w.stack.Destroy()
		if err := w.plane.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// pump carries frames between the director and the server until ctx ends.
func (w *world) pump(ctx context.Context) {
	frames := 0
	lost := func() bool {
		frames++
		n := w.lose.Load()
		return n > 0 && int64(frames)%n == 0
	}
	for ctx.Err() == nil {
		busy := w.plane.Step(dataplane.BootTime())
		for _, f := range append(w.tx.Sent(), w.rx.Sent()...) {
			eth, ip, ok := packet.ParseEth(f[packet.VnetLen:])
			if !ok || eth.Dst() != serverMAC || lost() {
				continue
			}
			busy = true
			if w.answer != nil {
				for _, a := range w.answer(f[packet.VnetLen:]) {
					w.rx.Inject(a)
				}
				continue
			}
			proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
			if ip = ip[w.inner:]; ip[0]>>4 == 6 {
				proto = ipv6.ProtocolNumber
			}
			p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
			w.server.InjectInbound(proto, p)
			p.DecRef()
		}
		for p := w.server.Read(); p != nil; p = w.server.Read() {
			busy = true
			eth := make([]byte, packet.EthLen)
			to, etherType := ourMAC, uint16(packet.EtherIPv4)
			if w.hostMAC {
				to = hostMAC
			}
			if p.NetworkProtocolNumber == ipv6.ProtocolNumber {
				etherType = packet.EtherIPv6
			}
			packet.PutEth(eth, to, serverMAC, etherType)
			for _, piece := range p.AsSlices() {
				eth = append(eth, piece...)
			}
			p.DecRef()
			if !lost() {
				w.rx.Inject(eth)
			}
		}
		if !busy {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// listen has the server listen on TCP.
func (w *world) listen(a netip.AddrPort) *gonet.TCPListener {
	w.t.Helper()
	l, err := gonet.ListenTCP(w.stack, tcpip.FullAddress{Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}, protocol(a.Addr()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve publishes a service with a server, which targets then lead to.
func (w *world) serve(address, server netip.AddrPort, m service.Method, e service.Encap) Target {
	w.t.Helper()
	key := service.Key{Proto: service.TCP, Addr: address}
	s, err := sched.New("rr", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.rs = service.NewRealServer(key, server, m, 1)
	w.rs.SetEncap(e)
	if err := w.servers.Add(w.rs); err != nil {
		w.t.Fatal(err)
	}
	vs := &service.VirtualService{Key: key, Scheduler: s, SchedulerName: "rr", Servers: []*service.RealServer{w.rs}}
	s.Prepare(vs.Servers)
	go w.plane.Publish(service.NewTable([]*service.VirtualService{vs}, w.servers, 1))
	for w.plane.Table().Empty() {
		time.Sleep(time.Millisecond)
	}
	return Target{Address: address, Server: server, Method: m, RS: w.rs.Index}
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func patiently(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
