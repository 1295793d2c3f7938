package decap

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"uvs/dataplane/tun"
	"uvs/lab"
	"uvs/packet"
)

// TestMain runs the tests in a user namespace where the user isn't root.
func TestMain(m *testing.M) {
	if err := lab.Reexec(false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// network is a client, a director that a test tunnels from, another host that is none, and a real server without the
// VIP, whose kernel is as careless about ARP and as strict about reverse paths as some are:
//
//	client1 10.9.0.201 --+-- bridge --+-- director1 10.9.0.1, director2 10.9.0.2
//	                                  +-- rs1 10.9.0.11
type network struct {
	*lab.Topology
	client, director, stranger, rs *lab.Host
}

func newNetwork(t testing.TB, cfg lab.Config) *network {
	t.Helper()
	cfg.Clients, cfg.Directors, cfg.RealServers = 1, 2, 1
	topo := lab.DR(t, cfg)
	n := &network{topo, topo.Clients[0], topo.Directors[0], topo.Directors[1], topo.RealServers[0]}
	must(t, n.rs.RemoveAddr("lo", netip.PrefixFrom(n.VIP(), 32)))
	for name, value := range map[string]string{"arp_ignore": "0", "arp_announce": "0", "rp_filter": "1"} {
		must(t, n.rs.Sysctl("net/ipv4/conf/all/"+name, value))
	}
	return n
}

// running is a Decapsulator at work.
type running struct {
	*Decapsulator
	logs *observer.ObservedLogs
	end  func() error // stops and closes it; harmless when called again
}

// start runs a Decapsulator on the real server; but for what cfg says, it allows director1.
func (n *network) start(t testing.TB, cfg Config) *running {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg.Log = zap.New(core)
	if cfg.Directors == nil {
		cfg.Directors = []netip.Prefix{netip.PrefixFrom(n.director.Addr(), 32)}
	}
	cfg.VIPs = n.VIPs
	r := &running{logs: logs}
	must(t, n.rs.Do(func() (err error) {
		r.Decapsulator, err = New(cfg)
		return err
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	closed := false
	r.end = func() error {
		if closed {
			return nil
		}
		closed = true
		cancel()
		err := <-ended
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
		return err
	}
	t.Cleanup(func() { _ = r.end() })
	return r
}

// count waits until a verdict has the given count, and returns all counts.
func (r *running) count(t testing.TB, v Verdict, want uint64) Stats {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s := r.Stats()
		if s.Verdicts[v] == want {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%v is %d, want %d: %+v", v, s.Verdicts[v], want, s)
		}
	}
}

// tunnel sends IP packets from a host to the real server, each behind an outer header that the host's kernel writes. It
// fragments those that are too long.
func (n *network) tunnel(t testing.TB, from *lab.Host, inner ...[]byte) {
	t.Helper()
	must(t, from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, packet.ProtoIPIP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
			return err
		}
		for _, b := range inner {
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: n.rs.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// inject sends a frame to the real server's MAC out of a host's eth0, behind a virtio-net header.
func (n *network) inject(t testing.TB, from *lab.Host, v packet.Vnet, ip []byte) {
	t.Helper()
	must(t, from.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		index, err := from.Index("eth0")
		if err != nil {
			return err
		}
		frame := append(v[:], make([]byte, packet.EthLen)...)
		packet.PutEth(frame[packet.VnetLen:], packet.MAC(n.rs.Legs[0].MAC), packet.MAC(from.Legs[0].MAC), packet.EtherIPv4)
		return unix.Sendto(fd, append(frame, ip...), 0, &unix.SockaddrLinklayer{Ifindex: index})
	}))
}

// datagram is a UDP datagram from the client's port to the VIP's, as an IP packet.
func (n *network) datagram(from, to uint16, payload []byte) []byte {
	b := append(make([]byte, packet.IPv4Len+packet.UDPLen), payload...)
	src, dst := number(n.client.Addr()), number(n.VIP())
	packet.PutIPv4(b, len(b), packet.Header4{ID: 1, TTL: 60, Proto: packet.ProtoUDP, Src: src, Dst: dst})
	l4 := b[packet.IPv4Len:]
	(*packet.Ports)(l4).SetSrc(from)
	(*packet.Ports)(l4).SetDst(to)
	(*packet.UDP)(l4).SetLen(len(l4))
	(*packet.UDP)(l4).SetChecksum(^packet.Fold(packet.Sum(l4, packet.Pseudo4(src, dst, packet.ProtoUDP, len(l4)))))
	return b
}

// wrap puts an outer header in front of an IP packet.
func wrap(inner []byte, src, dst netip.Addr) []byte {
	b := append(make([]byte, packet.IPv4Len), inner...)
	packet.PutIPv4(b, len(b), packet.Header4{TTL: 64, DF: true, Proto: packet.ProtoIPIP, Src: number(src), Dst: number(dst)})
	return b
}

// udpPort opens a port on the client.
func (n *network) udpPort(t testing.TB) (c net.PacketConn, port uint16) {
	t.Helper()
	c, err := n.client.ListenPacket("udp4", netip.AddrPortFrom(n.client.Addr(), 0).String())
	must(t, err)
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// serveUDP starts the real server's echo server on the VIP's port 53.
func (n *network) serveUDP(t testing.TB) {
	t.Helper()
	_, err := lab.ServeUDPEcho(n.rs.Namespace, "rs1", netip.AddrPortFrom(n.VIP(), 53))
	must(t, err)
}

// answered waits for the echo of payload from the VIP.
func (n *network) answered(t testing.TB, c net.PacketConn, payload string) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	b := make([]byte, 1<<16)
	k, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if got, want := string(b[:k]), "rs1: "+payload; got != want || from.String() != netip.AddrPortFrom(n.VIP(), 53).String() {
		t.Fatalf("%d bytes from %v, want the %d of the VIP's echo", k, from, len(want))
	}
}

// encapsulate makes director1 a simple one: it answers ARP for the VIP, and whatever is sent there it tunnels to the real
// server.
func (n *network) encapsulate(t testing.TB) {
	t.Helper()
	var d *tun.Device
	var fd int
	must(t, n.director.Do(func() (err error) {
		if d, err = tun.Open(tun.Config{Name: "enc0", MTU: n.Config.MTU - packet.IPv4Len}); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, packet.ProtoIPIP)
		return err
	}))
	must(t, n.director.AddRoute(netip.PrefixFrom(n.VIP(), 32), netip.Addr{}, "enc0"))
	must(t, n.director.Sysctl("net/ipv4/conf/eth0/proxy_arp", "1"))
	must(t, n.director.Sysctl("net/ipv4/ip_forward", "1"))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		to := &unix.SockaddrInet4{Addr: n.rs.Addr().As4()}
		for b := make([]byte, tun.MaxPacket); ; {
			k, err := d.Read(b)
			if err != nil {
				return
			}
			_ = unix.Sendto(fd, b[packet.VnetLen:k], 0, to) // what is lost is sent again
		}
	}()
	t.Cleanup(func() {
		_ = d.Close()
		<-ended
		_ = unix.Close(fd)
	})
}

// shortly is a context for what takes milliseconds, with room for a busy machine.
func shortly(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// etherType is that of a captured frame.
func etherType(f lab.CapturedFrame) uint16 { return binary.BigEndian.Uint16(f.Data[12:]) }

// isRefusal says that a captured frame is an ICMP destination unreachable from the real server.
func (n *network) isRefusal(f lab.CapturedFrame) bool {
	if etherType(f) != packet.EtherIPv4 {
		return false
	}
	h, l4, ok := packet.ParseIPv4(f.Data[packet.EthLen:])
	return ok && h.Proto() == packet.ProtoICMP && h.Src() == number(n.rs.Addr()) && l4[0] == packet.ICMPUnreachable
}

// sendFrame sends an Ethernet frame out of a host's eth0.
func sendFrame(t testing.TB, from *lab.Host, frame []byte) {
	t.Helper()
	must(t, from.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := from.Index("eth0")
		if err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	}))
}
