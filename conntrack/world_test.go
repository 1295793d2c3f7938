package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// world is a table with real servers around it, for tests.
type world struct {
	*Table
	servers service.ServerIndex
	now     int64
}

// newWorld returns a world whose clock is somewhere in the second month after boot.
func newWorld(t testing.TB, c Config) *world {
	t.Helper()
	w := &world{now: int64(40 * 24 * time.Hour)}
	c.Servers = &w.servers
	table, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.Table = table
	return w
}

func (w *world) server(t testing.TB, addr string, m service.Method) *service.RealServer {
	t.Helper()
	vip := service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}
	rs := service.NewRealServer(vip, netip.MustParseAddrPort(addr), m, 1)
	if err := w.servers.Add(rs); err != nil {
		t.Fatal(err)
	}
	return rs
}

// pass lets time go by, with the expiry work that workers would do.
func (w *world) pass(d time.Duration) {
	for end := w.now + int64(d); w.now < end; {
		w.now = min(w.now+int64(250*time.Millisecond), end)
		w.settle()
	}
}

func (w *world) settle() {
	for w.Advance(w.now, 1000) {
	}
}

// open makes the connection of a SYN or datagram to rs.
func (w *world) open(f packet.Flow, rs *service.RealServer, c *Conn) Outcome {
	return w.Insert(newConn(f, rs, packet.TCPSyn, w.now), c)
}

func newConn(f packet.Flow, rs *service.RealServer, tcpFlags uint8, now int64) *NewConn {
	return &NewConn{
		Flow: f, Server: rs.IP, ServerPort: rs.Addr.Port(), Method: rs.Method(), RS: rs, Event: tcpFlags, Now: now,
	}
}

// flow is a packet from client to VIP, such as flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80").
func flow(proto service.Proto, src, dst string) packet.Flow {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return packet.Flow{
		Src: packet.AddrFrom(s.Addr()), SrcPort: s.Port(), Dst: packet.AddrFrom(d.Addr()), DstPort: d.Port(),
		Proto: uint8(proto),
	}
}

// numbered is the n-th of many flows to one VIP.
func numbered(proto service.Proto, n int) packet.Flow {
	return packet.Flow{
		Src: packet.AddrFrom4(0xc0000000 + uint32(n>>14)), SrcPort: uint16(1024 + n&(1<<14-1)),
		Dst: packet.AddrFrom4(0x0a090064), DstPort: 80, Proto: uint8(proto),
	}
}

// numbered6 is the n-th of many flows to one VIP, for IPv6.
func numbered6(proto service.Proto, n int) packet.Flow {
	f := numbered(proto, n)
	f.Src = packet.AddrFromWords(0x20010db8_000c0000+uint64(n>>20), uint64(f.Src.V4()))
	f.Dst = packet.AddrFromWords(0x20010db8_00090000, 0x100)
	return f
}

// families are what to run a test or benchmark for: flows and the address of a server, without the port.
var families = []struct {
	name     string
	numbered func(service.Proto, int) packet.Flow
	server   string
	bytes    int // that a connection may take
}{{"ipv4", numbered, "10.1.0.11:80", 110}, {"ipv6", numbered6, "[2001:db8:1::11]:80", 176}}

// answer is the flow of the server's packets in a connection.
func answer(f packet.Flow, rs *service.RealServer) packet.Flow {
	return packet.Flow{Src: rs.IP, SrcPort: rs.Addr.Port(), Dst: f.Src, DstPort: f.SrcPort, Proto: f.Proto}
}

func counts(rs *service.RealServer) [3]int32 {
	return [3]int32{rs.Active(), rs.Inactive(), rs.Persistent()}
}
