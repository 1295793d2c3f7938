package guard

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	mdpacket "github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// host is a director that routes, as badly as a host can for uvs:
//
//	client 192.0.2.254 --- eth0 192.0.2.1 director 10.0.0.1 eth1 --- 10.0.0.2 server
//
// client and server send raw frames and see what the director's kernel sends.
type host struct {
	t                        *testing.T
	director, client, server *space
	toClient, toServer       *tap
}

var (
	vip      = netip.MustParseAddr("192.0.2.100") // of the client's segment
	vipFar   = netip.MustParseAddr("203.0.113.9") // routed to the director
	rip      = netip.MustParseAddr("10.0.0.2")
	clientIP = netip.MustParseAddr("192.0.2.254")
)

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, director: newSpace(t), client: newSpace(t), server: newSpace(t)}
	d := h.director
	wire(d, "eth0", h.client, "c0")
	wire(d, "eth1", h.server, "s0")
	d.addr("eth0", "192.0.2.1/24")
	d.addr("eth1", "10.0.0.1/24")
	h.client.addr("c0", "192.0.2.254/24")
	h.server.addr("s0", "10.0.0.2/24")
	d.defaultRoute("192.0.2.254")
	h.server.defaultRoute("10.0.0.1")
	for _, s := range []*space{d, h.client, h.server} {
		s.sysctl("ipv6/conf/all/disable_ipv6", "1") // no chatter
	}
	d.sysctl("ipv4/ip_forward", "1")
	d.sysctl("ipv4/icmp_ratelimit", "0")
	d.sysctl("ipv4/icmp_msgs_per_sec", "100000")
	h.toClient, h.toServer = h.client.tap("c0"), h.server.tap("s0")
	return h
}

// guard makes a Guard on the director with both interfaces in mode InterfaceMAC.
func (h *host) guard(edit ...func(*Config)) *Guard {
	h.t.Helper()
	cfg := Config{Interfaces: []Interface{{Name: "eth0", Mode: InterfaceMAC}, {Name: "eth1", Mode: InterfaceMAC}}}
	for _, f := range edit {
		f(&cfg)
	}
	var g *Guard
	h.director.in(func() (err error) {
		g, err = New(cfg)
		return err
	})
	h.t.Cleanup(func() { g.Close() })
	return g
}

func (h *host) update(g *Guard, d Desired) {
	h.t.Helper()
	if err := g.Update(d); err != nil {
		h.t.Fatalf("Update: %v", err)
	}
}

// tap sends and sees frames on an interface.
type tap struct {
	t    *testing.T
	conn *mdpacket.Conn
	mac  net.HardwareAddr
}

func (s *space) tap(dev string) *tap {
	s.t.Helper()
	tp := &tap{t: s.t}
	s.in(func() error {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		tp.mac = l.HardwareAddr
		tp.conn, err = mdpacket.Listen(l, mdpacket.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	s.t.Cleanup(func() { tp.conn.Close() })
	return tp
}

func (tp *tap) send(to packet.MAC, l ...gopacket.SerializableLayer) {
	tp.t.Helper()
	buf := gopacket.NewSerializeBuffer()
	eth := &layers.Ethernet{SrcMAC: tp.mac, DstMAC: to[:], EthernetType: layers.EthernetTypeIPv4}
	opt := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opt, append([]gopacket.SerializableLayer{eth}, l...)...); err != nil {
		tp.t.Fatal(err)
	}
	tp.write(to, buf.Bytes())
}

func (tp *tap) write(to packet.MAC, frame []byte) {
	tp.t.Helper()
	if _, err := tp.conn.WriteTo(frame, &mdpacket.Addr{HardwareAddr: to[:]}); err != nil {
		tp.t.Fatal(err)
	}
}

// drain forgets what has come so far.
func (tp *tap) drain() {
	_ = tp.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	for b := make([]byte, 65536); ; {
		if _, _, err := tp.conn.ReadFrom(b); err != nil {
			return
		}
	}
}

// about are the frames from the director's kernel that speak of an address anywhere, seen within a moment.
func (tp *tap) about(director packet.MAC, addrs ...netip.Addr) []string {
	var seen []string
	_ = tp.conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	for b := make([]byte, 65536); ; {
		n, _, err := tp.conn.ReadFrom(b)
		if err != nil {
			return seen
		}
		frame := b[:n]
		if n < 14 || packet.MAC(frame[6:12]) != director {
			continue
		}
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return strings.Contains(string(frame[14:]), string(a.AsSlice())) }) {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			seen = append(seen, p.String())
		}
	}
}

// leaks are the frames that the director's kernel sends to either side about the addresses.
func (h *host) leaks(addrs ...netip.Addr) []string {
	return append(h.toClient.about(h.director.mac("eth0"), addrs...), h.toServer.about(h.director.mac("eth1"), addrs...)...)
}

func ipv4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 77, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func tcp(ip *layers.IPv4, src, dst uint16, ack bool) *layers.TCP {
	t := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), SYN: true, ACK: ack, Window: 1000}
	_ = t.SetNetworkLayerForChecksum(ip)
	return t
}

func udp(ip *layers.IPv4, src, dst uint16) *layers.UDP {
	u := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return u
}

// knock sends everything to an address that a client may send.
func (h *host) knock(dst netip.Addr) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth0")
	ip := ipv4(clientIP, dst, layers.IPProtocolTCP)
	h.toClient.send(to, ip, tcp(ip, 40000, 80, false))
	ip = ipv4(clientIP, dst, layers.IPProtocolUDP)
	h.toClient.send(to, ip, udp(ip, 40000, 53), gopacket.Payload("query"))
	ip = ipv4(clientIP, dst, layers.IPProtocolICMPv4)
	h.toClient.send(to, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)})
	ip = ipv4(clientIP, dst, layers.IPProtocolUDP)
	ip.FragOffset = 100
	h.toClient.send(to, ip, gopacket.Payload("a later fragment"))
	ip = ipv4(clientIP, dst, layers.IPProtocolTCP)
	ip.TTL = 1
	h.toClient.send(to, ip, tcp(ip, 40001, 80, false))
}

// answer sends what a NAT real server sends about a connection, from a port, to a client.
func (h *host) answer(dst netip.Addr, port uint16) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth1")
	ip := ipv4(rip, dst, layers.IPProtocolTCP)
	h.toServer.send(to, ip, tcp(ip, port, 40000, true))
	ip = ipv4(rip, dst, layers.IPProtocolUDP)
	h.toServer.send(to, ip, udp(ip, port, 40000), gopacket.Payload("answer"))
	ip = ipv4(rip, dst, layers.IPProtocolUDP)
	ip.FragOffset = 100
	h.toServer.send(to, ip, gopacket.Payload("a later fragment"))
	ip = ipv4(rip, dst, layers.IPProtocolICMPv4)
	quoted := ipv4(dst, rip, layers.IPProtocolUDP)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, quoted, udp(quoted, 40000, port)); err != nil {
		h.t.Fatal(err)
	}
	unreachable := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)
	h.toServer.send(to, ip, &layers.ICMPv4{TypeCode: unreachable}, gopacket.Payload(buf.Bytes()))
}

func server(addr string, protos ...uint8) (list []Server) {
	for _, p := range protos {
		list = append(list, Server{netip.MustParseAddrPort(addr), p})
	}
	return list
}

// reach fails the test unless the server can connect from one address to another, which is the director's.
func (h *host) reach(from, to string) {
	h.t.Helper()
	var l net.Listener
	h.director.in(func() (err error) {
		l, err = net.Listen("tcp", to)
		return err
	})
	defer l.Close()
	h.server.in(func() error {
		dialer := net.Dialer{Timeout: 2 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), Control: reuse}
		c, err := dialer.Dial("tcp", to)
		if err != nil {
			h.t.Errorf("the server cannot talk to the host itself: %v", err)
			return nil
		}
		_ = c.(*net.TCPConn).SetLinger(0) // the same port again at once
		return c.Close()
	})
}

func (h *host) tables() (names []string) {
	h.t.Helper()
	h.director.in(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			names = append(names, t.Name)
		}
		return err
	})
	return names
}

// routes are the addresses of all blackhole routes.
func (h *host) routes() (addrs []string) {
	h.t.Helper()
	list, err := h.director.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	h.director.must(err)
	for _, r := range list {
		addrs = append(addrs, r.Dst.IP.String())
	}
	slices.Sort(addrs)
	return addrs
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// crash ends a Guard as a crash of its process would.
func (h *host) crash(g *Guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.release()
}

// watchNFT counts the transactions of nftables in the namespace until stopped.
func (s *space) watchNFT(n *atomic.Int32) (stop func()) {
	var nw *news
	s.in(func() (err error) {
		nw, err = openNews()
		return err
	})
	heard, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			select {
			case <-heard:
				return
			case <-time.After(5 * time.Millisecond):
			}
			for {
				k, _, err := unix.Recvfrom(nw.fds[1], buf, 0)
				if err != nil {
					break
				}
				for b := buf[:k]; len(b) >= 16; { // each transaction ends with a message of the new generation
					if typ := int(b[4]) | int(b[5])<<8; typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
						n.Add(1)
					}
					b = b[min(len(b), int(b[0])|int(b[1])<<8|int(b[2])<<16):]
				}
			}
		}
	}()
	return func() { close(heard); <-done; nw.close() }
}
