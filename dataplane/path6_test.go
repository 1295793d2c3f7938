package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// The director's legs in IPv6:
//
//	clients 2001:db8:c::/48 -- gateway -- [port 0: cli | director | port 1: rs] -- servers 2001:db8:1::N
var (
	vip6    = netip.MustParseAddr("2001:db8:9::100")
	client6 = netip.MustParseAddrPort("[2001:db8:c::7]:40001")
)

func server6(n uint64) packet.Addr { return packet.AddrFromWords(0x20010db8_00010000, n) }

// serve6 publishes a service of the VIP with one server, by method m to its port 8080, or to the VIP's own.
func (d *director) serve6(proto service.Proto, port uint16, m service.Method) {
	d.t.Helper()
	key := service.Key{Proto: proto, Addr: netip.AddrPortFrom(vip6, port)}
	s, err := sched.New("rr", 0)
	if err != nil {
		d.t.Fatal(err)
	}
	if m == service.Masq {
		port = 8080
	}
	rs := service.NewRealServer(key, netip.AddrPortFrom(server6(11).Netip(), port), m, 1)
	if err := d.servers.Add(rs); err != nil {
		d.t.Fatal(err)
	}
	old := d.plane.Table()
	vs := &service.VirtualService{Key: key, Scheduler: s, SchedulerName: "rr", Index: uint32(len(old.Services)), Servers: []*service.RealServer{rs}}
	s.Changed(service.Change{Kind: service.ServerAdded, Server: rs, After: vs.Servers})
	s.Prepare(vs.Servers)
	d.plane.Publish(service.NewTable(append(append([]*service.VirtualService(nil), old.Services...), vs), d.servers, old.Generation+1))
	d.hops.SetPrefix(netip.MustParsePrefix("2001:db8:c::/48"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
	d.narrow6(1500)
	d.run()
}

// narrow6 makes the way to the server one of that MTU.
func (d *director) narrow6(mtu int) {
	d.hops.Set(server6(11), &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: mtu, Source: server6(1)}, nexthop.Ready)
}

// frame6 is an IPv6 packet of protocol proto with the given bytes, whose checksum field at sum is filled in.
func frame6(src, dst packet.MAC, from, to packet.Addr, proto uint8, l4 []byte, sum int) []byte {
	b := make([]byte, packet.EthLen+packet.IPv6Len, packet.EthLen+packet.IPv6Len+len(l4))
	packet.PutEth(b, dst, src, packet.EtherIPv6)
	packet.PutIPv6(b[packet.EthLen:], len(l4), packet.Header6{FlowLabel: 0x12345, NextHeader: proto, HopLimit: 64, Src: from, Dst: to})
	b = append(b, l4...)
	l4 = b[packet.EthLen+packet.IPv6Len:]
	packet.SetWord(l4[sum:], 0)
	packet.SetWord(l4[sum:], ^packet.Fold(packet.Sum(l4, packet.Pseudo6(from, to, proto, len(l4)))))
	return b
}

func tcp6(src, dst uint16, flags uint8, payload []byte) []byte {
	b := make([]byte, packet.TCPLen, packet.TCPLen+len(payload))
	(*packet.Ports)(b).SetSrc(src)
	(*packet.Ports)(b).SetDst(dst)
	h := (*packet.TCP)(b)
	h.SetSeq(1000)
	h.SetHeaderLen(packet.TCPLen)
	h.SetFlags(flags)
	return append(b, payload...)
}

// fromClient6 is a TCP segment to the VIP, fromServer6 one of the server's to the client.
func fromClient6(flags uint8, payload []byte) []byte {
	return frame6(gatewayMAC, cliMAC, packet.AddrFrom(client6.Addr()), packet.AddrFrom(vip6), packet.ProtoTCP,
		tcp6(client6.Port(), 80, flags, payload), 16)
}

func fromServer6(flags uint8, payload []byte) []byte {
	return frame6(serverMAC(11), rsMAC, server6(11), packet.AddrFrom(client6.Addr()), packet.ProtoTCP,
		tcp6(8080, client6.Port(), flags, payload), 16)
}

// decoded reads a sent frame and fails the test if its checksum is wrong.
func decoded(t testing.TB, sent []byte) *packet.Packet {
	t.Helper()
	p := new(packet.Packet)
	if fault := packet.Decode(sent[packet.VnetLen:], p); fault != packet.NoFault {
		t.Fatalf("sent frame has fault %d: %x", fault, sent)
	}
	if b := p.L4Bytes(); !p.Fragment && !(*packet.Vnet)(sent).NeedsCsum() && packet.Fold(packet.Sum(b, p.Pseudo(p.Proto, len(b)))) != 0xffff {
		t.Fatalf("sent frame has a wrong checksum: %x", sent)
	}
	return p
}

func TestNATOfIPv6BothWays(t *testing.T) {
	d := newDirector(t, nil)
	d.serve6(service.TCP, 80, service.Masq)
	p := decoded(t, one(t, d.inject(0, fromClient6(packet.TCPSyn, nil))[1]))
	if p.Dst != server6(11) || p.DstPort != 8080 || p.TTL != 63 || p.IPv6().FlowLabel() != 0x12345 {
		t.Errorf("to the server: %+v", p)
	}
	p = decoded(t, one(t, d.inject(1, fromServer6(packet.TCPSyn|packet.TCPAck, nil))[0]))
	if p.Src != packet.AddrFrom(vip6) || p.SrcPort != 80 || p.TTL != 63 {
		t.Errorf("to the client: %+v", p)
	}
	d.accounted()
}

func TestFragmentsOfIPv6GoOnInThePiecesTheyCameIn(t *testing.T) {
	udp := make([]byte, packet.UDPLen+1600)
	(*packet.Ports)(udp).SetSrc(4000)
	(*packet.Ports)(udp).SetDst(53)
	(*packet.UDP)(udp).SetLen(len(udp))
	whole := frame6(gatewayMAC, cliMAC, packet.AddrFrom(client6.Addr()), packet.AddrFrom(vip6), packet.ProtoUDP, udp, 6)
	udp = whole[packet.EthLen+packet.IPv6Len:]
	part := func(from, to int) []byte {
		b := append(bytes.Clone(whole[:packet.EthLen+packet.IPv6Len]), make([]byte, packet.FragmentLen)...)
		packet.PutFragment(b[packet.EthLen+packet.IPv6Len:], packet.ProtoUDP, from, to < len(udp), 0xcafe)
		b = append(b, udp[from:to]...)
		ip := (*packet.IPv6)(b[packet.EthLen:])
		ip.SetNextHeader(packet.ProtoFragment)
		ip.SetPayloadLen(len(b) - packet.EthLen - packet.IPv6Len)
		return b
	}
	for _, m := range []service.Method{service.Route, service.Masq} {
		d := newDirector(t, nil)
		d.serve6(service.UDP, 53, m)
		if out := d.inject(0, part(800, len(udp))); len(out[1]) != 0 {
			t.Fatalf("a fragment passed before its datagram was whole: %x", out[1])
		}
		out := d.inject(0, part(0, 800))
		if len(out[1]) != 2 {
			t.Fatalf("%v: %d frames sent, want 2: %v", m, len(out[1]), d.verdicts())
		}
		for i, size := range []int{800, len(udp) - 800} {
			p := decoded(t, out[1][i])
			if h := p.FragmentHeader(); !p.Fragment || h.ID() != 0xcafe || len(p.L4Bytes()) != size || h.Offset() != 800*i || p.TTL != 63 {
				t.Errorf("%v: fragment %x", m, out[1][i])
			}
		}
		got := gathered(t, out[1], 1500)
		p := decoded(t, one(t, got))
		if want := map[service.Method]uint16{service.Route: 53, service.Masq: 8080}[m]; p.DstPort != want {
			t.Errorf("%v: the datagram goes to port %d, want %d", m, p.DstPort, want)
		}
		// The pieces are what must fit a way, and the sender is told of a narrower one.
		d.narrow6(840)
		d.inject(0, part(0, 800))
		out = d.inject(0, part(800, len(udp)))
		p = decoded(t, one(t, out[0]))
		if h := p.ICMP(); len(out[1]) != 0 || !p.IsICMP() || h.Type() != packet.ICMP6TooBig || h.MTU6() != 840 || p.IPLen() != 1280 {
			t.Errorf("%v: answer %x", m, out[0])
		}
		d.accounted()
	}
}

func TestErrorOfANATServerInIPv6ReachesTheClient(t *testing.T) {
	d := newDirector(t, nil)
	d.serve6(service.TCP, 80, service.Masq)
	in := decoded(t, one(t, d.inject(0, fromClient6(packet.TCPSyn, nil))[1]))
	icmp := append([]byte{packet.ICMP6TooBig, 0, 0, 0, 0, 0, 5, 20}, in.Frame[in.L3:]...)
	router := server6(0xfe)
	p := decoded(t, one(t, d.inject(1, frame6(serverMAC(99), rsMAC, router, in.Src, packet.ProtoICMPv6, icmp, 2))[0]))
	var q packet.Packet
	if !packet.DecodeQuoted(p.L4Bytes()[packet.ICMPLen:], &q) || p.Src != packet.AddrFrom(vip6) || p.ICMP().MTU6() != 1300 ||
		q.Dst != packet.AddrFrom(vip6) || q.DstPort != 80 || q.Src != in.Src {
		t.Errorf("the client gets %x", p.Frame)
	}
	d.accounted()
}

func TestSuperFramesOfIPv6(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	f := fromClient6(packet.TCPAck|packet.TCPPsh, data)
	l4 := f[packet.EthLen+packet.IPv6Len:]
	packet.SetWord(l4[16:], packet.Fold(packet.Pseudo6(packet.AddrFrom(client6.Addr()), packet.AddrFrom(vip6), packet.ProtoTCP, len(l4))))
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetGSOType(packet.GSOTCPv6)
	v.SetGSOSize(1440)
	v.SetHdrLen(74)
	v.SetCsumStart(54)
	v.SetCsumOffset(16)
	for _, tt := range []struct {
		method service.Method
		mtu    int
		sent   int // frames to the server; 0: the client is told
	}{
		{service.Route, 1500, 1}, {service.Masq, 1500, 1}, {service.Tunnel, 1540, 12},
		{service.Route, 1400, 0}, {service.Masq, 1400, 0}, {service.Tunnel, 1500, 0},
	} {
		d := newDirector(t, nil)
		d.serve6(service.TCP, 80, tt.method)
		d.inject(0, fromClient6(packet.TCPSyn, nil))
		d.narrow6(tt.mtu)
		d.mem[0].InjectVnet(v, f)
		out := d.run()
		if len(out[1]) != tt.sent {
			t.Errorf("%v by %d: %d frames sent, want %d: %v", tt.method, tt.mtu, len(out[1]), tt.sent, d.verdicts())
			continue
		}
		if tt.sent == 0 {
			p, want := decoded(t, one(t, out[0])), tt.mtu
			if tt.method == service.Tunnel {
				want -= packet.IPv6Len
			}
			if !p.IsICMP() || p.ICMP().Type() != packet.ICMP6TooBig || p.ICMP().MTU6() != want {
				t.Errorf("%v by %d: answer %x", tt.method, tt.mtu, p.Frame)
			}
			continue
		}
		if tt.method == service.Tunnel {
			continue // conformance and tunnel tests look inside
		}
		p, got := decoded(t, out[1][0]), (*packet.Vnet)(out[1][0])
		if *got != v || !bytes.Equal(p.Frame[p.Payload:], data) || binary.BigEndian.Uint16(p.L4Bytes()[16:]) != packet.Fold(p.Pseudo(packet.ProtoTCP, len(l4))) {
			t.Errorf("%v: virtio-net header %x, frame %x", tt.method, *got, p.Frame[:80])
		}
		d.accounted()
	}
}

// TestIPv6IsNeverFragmentedForATunnel has pmtu_disc off, with which IPv4 would be: the client is told all the same.
func TestIPv6IsNeverFragmentedForATunnel(t *testing.T) {
	d := newDirector(t, nil)
	d.serve6(service.TCP, 80, service.Tunnel)
	d.plane.Table().Settings.PMTUDisc = false
	if out := d.inject(0, fromClient6(packet.TCPSyn, nil)); len(out[1]) != 1 {
		t.Fatalf("%d frames sent, want 1: %v", len(out[1]), d.verdicts())
	}
	out := d.inject(0, fromClient6(packet.TCPAck, make([]byte, 1401)))
	if p := decoded(t, one(t, out[0])); len(out[1]) != 0 || !p.IsICMP() || p.ICMP().Type() != packet.ICMP6TooBig || p.ICMP().MTU6() != 1460 {
		t.Errorf("answer %x", p.Frame)
	}
	if out := d.inject(0, fromClient6(packet.TCPAck, make([]byte, 1400))); len(out[1]) != 1 {
		t.Errorf("%d frames of what fits, want 1", len(out[1]))
	}
	d.accounted()
}

// newTraffic6 is newTraffic for IPv6.
func newTraffic6(frame []byte, fromServer bool, flows int) *traffic {
	t := newTraffic(frame, fromServer, flows)
	t.client, t.port = packet.EthLen+20, packet.EthLen+packet.IPv6Len
	if fromServer {
		t.client, t.port = packet.EthLen+36, packet.EthLen+packet.IPv6Len+2
	}
	t.v6 = true
	return t
}

// established6 is established for IPv6.
func established6(t testing.TB, m service.Method, fromServers bool, flows int) *worker {
	t.Helper()
	d := newDirector(t, nil)
	d.serve6(service.TCP, 80, m)
	w := d.plane.workers[0]
	w.setTx([]link.Link{new(traffic), new(traffic)})
	for _, flags := range []uint8{packet.TCPSyn, packet.TCPAck} {
		w.rx = []link.Link{newTraffic6(fromClient6(flags, nil), false, flows), new(noLink)}
		for n := 0; n < flows; n += batchSize {
			w.step(d.now)
		}
	}
	if fromServers {
		w.rx = []link.Link{new(noLink), newTraffic6(fromServer6(packet.TCPAck, nil), true, flows)}
	}
	if s := d.conns.Stats(); s.Conns != flows {
		t.Fatalf("%d connections established, want %d: %v", s.Conns, flows, d.verdicts())
	}
	w.verdicts, w.received = [numVerdicts]uint64{}, 0
	return w
}

func TestAllocEstablishedConnectionsOfIPv6AllocateNothing(t *testing.T) {
	for _, way := range ways {
		w := established6(t, way.method, way.fromServers, 1<<10)
		w.table.Servers.At(0).SetEncap(way.encap)
		now := 1001 * second
		w.step(now)
		if n := testing.AllocsPerRun(100, func() { now += 1000; w.step(now) }); n != 0 {
			t.Errorf("%s: %v allocations per batch, want 0", way.name, n)
		}
		if w.verdicts[way.verdict] != w.received || w.received == 0 {
			t.Errorf("%s: frames took another way: %v", way.name, w.verdicts)
		}
	}
}

// BenchmarkEstablished6 is BenchmarkEstablished for IPv6: at most 1.25 times its cost.
func BenchmarkEstablished6(b *testing.B) {
	for _, way := range ways {
		for _, flows := range []int{1 << 12, 1 << 16, 1 << 20} {
			b.Run(fmt.Sprintf("%s/flows=%d", way.name, flows), func(b *testing.B) {
				w := established6(b, way.method, way.fromServers, flows)
				w.table.Servers.At(0).SetEncap(way.encap)
				steps(b, w, way.verdict)
			})
		}
	}
}
