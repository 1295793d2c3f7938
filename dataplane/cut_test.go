package dataplane

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/packet"
	"uvs/service"
)

// tcpOf is the TCP segment in a sent frame.
func tcpOf(t testing.TB, sent []byte) (*layers.IPv4, *layers.TCP) {
	t.Helper()
	p := parse(t, sent)
	h, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		t.Fatalf("sent %v, want a TCP segment", p)
	}
	return p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), h
}

// cutAll cuts every connection there is.
func (d *director) cutAll() {
	d.conns.Cut(func(*service.RealServer) bool { return true }, d.now)
}

// The next packet of a connection that was cut, from the client or in NAT from the server, resets both ends, each with a
// number that fits: its sender with the one that it acknowledged, the other with the one that the packet had.
func TestNextPacketOfWhatWasCutResetsBothEnds(t *testing.T) {
	for _, method := range []service.Method{service.Route, service.Masq} {
		for _, server := range []bool{false, true} {
			if server && method == service.Route {
				continue // doesn't come by here
			}
			d := newDirector(t, nil)
			d.serve(service.TCP, method, "10.1.0.11:8080")
			d.run()
			d.inject(0, fromClient(t, client, "S", ""))
			d.inject(0, fromClient(t, client, "A", ""))
			d.cutAll()
			var out [2][][]byte
			if server {
				out = d.inject(1, fromServer(t, 11, client, "PA", "data data data"))
			} else {
				out = d.inject(0, fromClient(t, client, "PA", "data data data"))
			}
			ip, h := tcpOf(t, one(t, out[0]))
			want := struct{ seq, ack uint32 }{5000, 0}
			if server {
				want.seq, want.ack = 1000, 5000
			}
			if !h.RST || h.Seq != want.seq || h.Ack != want.ack || ip.SrcIP.String() != vip.String() || h.SrcPort != 80 ||
				ip.DstIP.String() != client.Addr().String() || h.DstPort != layers.TCPPort(client.Port()) || len(h.Payload) > 0 {
				t.Errorf("method %v, server %v: the client gets %v %+v", method, server, ip, h)
			}
			ip, h = tcpOf(t, one(t, out[1]))
			to, port := vip.String(), layers.TCPPort(80)
			if method == service.Masq {
				to, port = "10.1.0.11", 8080
			}
			want.seq, want.ack = 1000, 5000
			if server {
				want.seq, want.ack = 5000, 0
			}
			if !h.RST || h.Seq != want.seq || h.Ack != want.ack || ip.DstIP.String() != to || h.DstPort != port ||
				ip.SrcIP.String() != client.Addr().String() || len(h.Payload) > 0 {
				t.Errorf("method %v, server %v: the server gets %v %+v", method, server, ip, h)
			}
			if n := d.verdicts()[AnsweredCut]; n != 1 {
				t.Errorf("method %v: verdicts %v", method, d.verdicts())
			}
			d.accounted()
		}
	}
}

// A reset from either end is no news to that end; a new connection from the same port is none of what was cut.
func TestAfterTheCut(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	d.inject(0, fromClient(t, client, "S", ""))
	d.cutAll()
	out := d.inject(0, fromClient(t, client, "R", ""))
	if len(out[0]) != 0 || len(out[1]) != 1 {
		t.Errorf("a reset from the client: %d frames back, %d on to the server", len(out[0]), len(out[1]))
	}
	wrong := fromClient(t, client, "A", "")
	wrong[len(wrong)-3] ^= 1 // the urgent pointer: the checksum is wrong
	if out := d.inject(0, wrong); len(out[0])+len(out[1]) != 0 {
		t.Errorf("a packet with a wrong checksum is answered")
	}
	if _, h := tcpOf(t, one(t, d.inject(0, fromClient(t, client, "S", ""))[1])); !h.SYN {
		t.Errorf("a new connection from the same port: %+v", h)
	}
	// UDP is scheduled afresh.
	d.serve(service.UDP, service.Masq, "10.1.0.12:53", "10.1.0.13:53")
	dns := netip.AddrPortFrom(vip, 53)
	to := func() packet.MAC {
		return (*packet.Eth)(one(t, d.inject(0, datagram(t, client, dns, "query"))[1])[packet.VnetLen:]).Dst()
	}
	first := to()
	d.cutAll()
	if again := to(); again == first {
		t.Errorf("the flow went to %v before and after the cut", first)
	}
	d.accounted()
}

func TestAllocCutConnectionsAllocateNothing(t *testing.T) {
	for _, way := range ways {
		w := established(t, way.method, way.fromServers, 1<<10)
		for _, l := range w.rx {
			if l, ok := l.(*traffic); ok {
				l.template[0] = packet.VnetDataValid // it changes ports without the checksum
			}
		}
		w.plane.cfg.Conns.Cut(func(*service.RealServer) bool { return true }, 1000*second)
		now := 1001 * second
		w.step(now)
		if n := testing.AllocsPerRun(50, func() { now += 1000; w.step(now) }); n != 0 {
			t.Errorf("%s: %v allocations per batch, want 0", way.name, n)
		}
		if w.verdicts[AnsweredCut] != w.received || w.received == 0 {
			t.Errorf("%s: frames took another way: %v", way.name, w.verdicts)
		}
	}
}

// By a tunnel, in IPv6 and with a server that is the host itself it is no different.
func TestCutByTheOtherWays(t *testing.T) {
	d := tunnelled(t)
	d.cutAll()
	out := d.inject(0, fromClient(t, client, "PA", "data"))
	if _, h := tcpOf(t, one(t, out[0])); !h.RST || h.Seq != 5000 {
		t.Errorf("tunnel: the client gets %+v", h)
	}
	_, in := inner(t, one(t, out[1]))
	if h, ok := in.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || !h.RST || h.Seq != 1000 || len(h.Payload) > 0 {
		t.Errorf("tunnel: the server gets %v", in)
	}
	d.accounted()

	d = newDirector(t, nil)
	d.serve6(service.TCP, 80, service.Masq)
	d.inject(0, fromClient6(packet.TCPSyn, nil))
	d.cutAll()
	out = d.inject(1, fromServer6(packet.TCPAck|packet.TCPPsh, []byte("data")))
	for i, p := range []*packet.Packet{decoded(t, one(t, out[0])), decoded(t, one(t, out[1]))} {
		if p.TCPFlags&packet.TCPRst == 0 || p.Payload != len(p.Frame) {
			t.Errorf("IPv6, port %d: %+v", i, p)
		}
		if i == 0 && (p.Src != packet.AddrFrom(vip6) || p.Dst != packet.AddrFrom(client6.Addr()) || p.TCP().Seq() != 1000) ||
			i == 1 && (p.Src != packet.AddrFrom(client6.Addr()) || p.Dst != server6(11) || p.TCP().Seq() != 0) {
			t.Errorf("IPv6, port %d: %v to %v, %d", i, p.Src, p.Dst, p.TCP().Seq())
		}
	}
	d.accounted()

	h := newHosted(t, nil)
	h.serve(service.TCP, service.Local, "10.9.0.1:8080")
	h.toHost(fromClient(t, client, "S", ""))
	h.cutAll()
	rs := netip.MustParseAddrPort("10.9.0.1:8080")
	p := wantIP(t, "to the client", one(t, h.fromHost(rs.Addr(), 64, tcp(8080, client.Port(), "PA"))), netip.AddrPortFrom(vip, 80), client, 64)
	if r := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !r.RST || r.Seq != 1000 {
		t.Errorf("Local: the client gets %+v", r)
	}
	p = wantIP(t, "to the host", one(t, append(h.stack[0].Sent(), h.stack[1].Sent()...)), client, rs, 64)
	if r := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !r.RST || r.Seq != 5000 {
		t.Errorf("Local: the host gets %+v", r)
	}
	h.accounted()
}
