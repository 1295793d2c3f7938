package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

var (
	server11        = packet.AddrFrom4(0x0a01000b)
	hostUnreachable = layers.CreateICMPv4TypeCode(3, 1)
)

// watchedHops are next hops that a test looks on.
type watchedHops struct {
	*nexthop.Static
	lookups int                                   // of server11
	answer  func() (*nexthop.Hop, nexthop.Status) // for server11, if not nil
}

func (h *watchedHops) Lookup(dst packet.Addr) (*nexthop.Hop, nexthop.Status) {
	if dst == server11 {
		h.lookups++
		if h.answer != nil {
			return h.answer()
		}
	}
	return h.Static.Lookup(dst)
}

func watched(t *testing.T) (*director, *watchedHops) {
	h := new(watchedHops)
	d := newDirector(t, func(c *Config) {
		h.Static = c.NextHops.(*nexthop.Static)
		c.NextHops = h
	})
	return d, h
}

func TestAHeldPacketWhoseWayIsLostAgainIsCountedOnce(t *testing.T) {
	d, hops := watched(t)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	d.hops.Set(server11, nil, nexthop.Pending)
	d.inject(0, fromClient(t, client, "S", ""))
	// Ready for whoever looks first, lost for the next.
	n := 0
	hops.answer = func() (*nexthop.Hop, nexthop.Status) {
		if n++; n == 1 {
			return &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready
		}
		return nil, nexthop.Pending
	}
	d.now += 2 * second
	d.plane.Wake()
	d.run()
	if s := d.plane.Stats(); s.Held != 1 || s.Forwarded != 0 {
		t.Errorf("held %d, forwarded %d, want 1 and 0", s.Held, s.Forwarded)
	}
	d.now += second + 1 // three seconds since it came
	d.run()
	if s := d.plane.Stats(); s.Held != 0 || s.Dropped != 1 || s.Verdicts[DropHeldTimeout] != 1 {
		t.Errorf("after its time was up: %+v", s)
	}
	d.accounted()
}

func TestHeldPacketsAreLeftAloneUntilSomethingChanged(t *testing.T) {
	d, hops := watched(t)
	d.serve(service.TCP, service.Route, "10.1.0.11:80", "10.1.0.12:80")
	d.run()
	d.hops.Set(server11, nil, nexthop.Pending)
	for i := range 2 {
		d.inject(0, fromClient(t, netip.AddrPortFrom(client.Addr(), uint16(40000+i)), "S", ""))
	}
	hops.lookups = 0
	for range 10 { // packets of the other server's connection
		one(t, d.inject(0, fromClient(t, netip.AddrPortFrom(client.Addr(), 40000), "A", ""))[1])
	}
	if hops.lookups != 0 {
		t.Errorf("%d looks at the held packet's next hop, want none", hops.lookups)
	}
	d.hops.Set(server11, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready)
	d.plane.Wake()
	one(t, d.run()[1])
	d.accounted()
}

func TestSendersAreToldThatThereIsNoWay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*director) // sets the way before the packet comes
		after  func(*director) // and what becomes of it while it is held
		reason Verdict
	}{
		{"no route", func(d *director) { d.hops.Set(server11, nil, nexthop.NoRoute) }, nil, DropNoRoute},
		{"a next hop known to be dead", func(d *director) { d.hops.Set(server11, nil, nexthop.Unreachable) }, nil, DropUnreachable},
		{"a next hop found to be dead", func(d *director) { d.hops.Set(server11, nil, nexthop.Pending) }, func(d *director) {
			d.hops.Set(server11, nil, nexthop.Unreachable)
			d.plane.Wake()
		}, DropUnreachable},
		{"a next hop that nobody finds", func(d *director) { d.hops.Set(server11, nil, nexthop.Pending) },
			func(d *director) { d.now += 3 * second }, DropHeldTimeout},
	} {
		for _, m := range []service.Method{service.Route, service.Masq} {
			d := newDirector(t, nil)
			d.serve(service.TCP, m, "10.1.0.11:80")
			d.run()
			tt.before(d)
			out := d.inject(0, fromClient(t, client, "S", ""))
			if tt.after != nil {
				if len(out[0]) != 0 {
					t.Fatalf("%s, %v: answered at once", tt.name, m)
				}
				tt.after(d)
				out = d.run()
			}
			ip, msg := icmpOf(t, one(t, withoutARP(out[0])))
			if msg.TypeCode != hostUnreachable || !ip.SrcIP.Equal(vip.AsSlice()) || !ip.DstIP.Equal(client.Addr().AsSlice()) {
				t.Errorf("%s, %v: client was told %v by %v", tt.name, m, msg.TypeCode, ip.SrcIP)
			}
			if !net.IP(msg.Payload[16:20]).Equal(vip.AsSlice()) {
				t.Errorf("%s, %v: the quoted packet went to %v", tt.name, m, net.IP(msg.Payload[16:20]))
			}
			if got := d.verdicts()[tt.reason]; got != 1 {
				t.Errorf("%s, %v: verdicts %v, want %v", tt.name, m, d.verdicts(), tt.reason)
			}
			d.accounted()
		}
	}
}

func TestAFirstPacketOfInnerTrafficWaitsForItsNextHop(t *testing.T) {
	d := newDirector(t, func(c *Config) { c.Inner = ForwardInnerTraffic })
	d.run()
	outside := packet.AddrFrom4(0xc0000250)
	d.hops.Set(outside, nil, nexthop.Pending)
	in := frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: net.IPv4(192, 0, 2, 80)}, tcp(33000, 443, "S"))
	if out := d.inject(1, in); len(out[0])+len(out[1]) != 0 {
		t.Fatalf("sent without next hop: %x", out)
	}
	if asked := d.hops.Asked(); len(asked) != 1 || asked[0] != outside {
		t.Errorf("resolver was asked for %v", asked)
	}
	d.hops.Set(outside, &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
	d.plane.Wake()
	p := parse(t, one(t, d.run()[0]))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ip.TTL != 63 {
		t.Errorf("sent with TTL %d, want 63", ip.TTL)
	}
	d.accounted()
}

func TestARouterThatWeMerelyAreSaysSoUnderItsOwnAddress(t *testing.T) {
	d := newDirector(t, func(c *Config) { c.Inner = ForwardInnerTraffic })
	d.run()
	in := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: net.IPv4(10, 1, 0, 11), TTL: 1},
		&layers.UDP{SrcPort: 5, DstPort: 33434}, gopacket.Payload("traceroute"))
	ip, _ := icmpOf(t, one(t, d.inject(0, in)[0]))
	if !ip.SrcIP.Equal(net.IPv4(10, 1, 0, 1)) {
		t.Errorf("time exceeded came from %v, want our gateway address", ip.SrcIP)
	}
}

// The first datagram to a closed port must be refused although nobody has looked for its sender yet.
func TestICMPErrorsWaitForTheirNextHop(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	syn := fromClient(t, client, "S", "")
	one(t, d.inject(0, syn)[1])
	for _, tt := range []struct {
		name   string
		port   int
		frame  []byte
		dst    packet.Addr
		hop    *nexthop.Hop
		wantIP net.IP
		quoted [2]net.IP
	}{
		{"to the server", 0, icmpAbout(t, syn), server11, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500},
			net.IPv4(10, 1, 0, 11), [2]net.IP{net.IPv4(10, 1, 0, 11), net.IP(client.Addr().AsSlice())}},
		{"to the client", 1, refusal(t, client), packet.AddrFrom(client.Addr()), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500},
			net.IP(client.Addr().AsSlice()), [2]net.IP{net.IP(client.Addr().AsSlice()), net.IP(vip.AsSlice())}},
	} {
		d.hops.Set(tt.dst, nil, nexthop.Pending)
		if out := d.inject(tt.port, tt.frame); len(out[0])+len(out[1]) > 0 || d.plane.Stats().Held != 1 {
			t.Errorf("%s: sent %x, held %d; want it held", tt.name, out, d.plane.Stats().Held)
		}
		d.hops.Set(tt.dst, tt.hop, nexthop.Ready)
		d.plane.Wake()
		p := parse(t, one(t, d.run()[1-tt.port]))
		if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.DstIP.Equal(tt.wantIP) {
			t.Errorf("%s: it went to %v", tt.name, ip.DstIP)
		}
		quoted := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4).Payload
		if src, dst := net.IP(quoted[12:16]), net.IP(quoted[16:20]); !src.Equal(tt.quoted[0]) || !dst.Equal(tt.quoted[1]) {
			t.Errorf("%s: it quotes a packet from %v to %v, want %v", tt.name, src, dst, tt.quoted)
		}
	}
	d.accounted()
}

// refusal is what server 11 says about the client's translated SYN: that its port is closed.
func refusal(t *testing.T, to netip.AddrPort) []byte {
	about := frame(t, cliMAC, cliMAC, &layers.IPv4{SrcIP: to.Addr().AsSlice(), DstIP: net.IPv4(10, 1, 0, 11)},
		&layers.TCP{SrcPort: layers.TCPPort(to.Port()), DstPort: 8080, SYN: true})
	return frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: to.Addr().AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(about[packet.EthLen:packet.EthLen+28]))
}
