package dataplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// mixed are a director with one service and one real server behind a tunnel, each of either family.
type mixed struct {
	*director
	inner6, outer6 bool
	server         *service.RealServer
}

func newMixed(t *testing.T, inner6, outer6 bool, e service.Encap) *mixed {
	d := newDirector(t, nil)
	v, rip := vip, packet.AddrFrom4(0x0a01000b)
	if inner6 {
		v = vip6
	}
	if outer6 {
		rip = server6(11)
	}
	key := service.Key{Proto: service.TCP, Addr: netip.AddrPortFrom(v, 80)}
	s, err := sched.New("rr", 0)
	if err != nil {
		t.Fatal(err)
	}
	rs := service.NewRealServer(key, netip.AddrPortFrom(rip.Netip(), 80), service.Tunnel, 1)
	rs.SetEncap(e)
	if err := d.servers.Add(rs); err != nil {
		t.Fatal(err)
	}
	vs := &service.VirtualService{Key: key, Scheduler: s, SchedulerName: "rr", Servers: []*service.RealServer{rs}}
	s.Changed(service.Change{Kind: service.ServerAdded, Server: rs, After: vs.Servers})
	s.Prepare(vs.Servers)
	d.plane.Publish(service.NewTable([]*service.VirtualService{vs}, d.servers, 1))
	d.hops.SetPrefix(netip.MustParsePrefix("2001:db8:c::/48"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
	d.narrow6(1500)
	d.run()
	m := &mixed{d, inner6, outer6, rs}
	one(t, d.inject(0, m.fromClient("S", 0))[1])
	return m
}

// fromClient is a TCP segment with n bytes of data.
func (m *mixed) fromClient(flags string, n int) []byte {
	if m.inner6 {
		return fromClient6(map[string]uint8{"S": packet.TCPSyn, "A": packet.TCPAck}[flags], bytes.Repeat([]byte("x"), n))
	}
	return unfragmented(m.t, flags, n)
}

// report is an ICMP error of the outer packet's family about it.
func (m *mixed) report(typ, code uint8, mtu int, outer []byte) []byte {
	if m.outer6 {
		msg := append([]byte{typ, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, outer...)
		return frame6(serverMAC(0xfa), rsMAC, server6(0xfa), server6(1), packet.ProtoICMPv6, msg, 2)
	}
	msg := append([]byte{typ, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, outer...)
	packet.SetWord(msg[2:], ^packet.Fold(packet.Sum(msg, 0)))
	b := make([]byte, packet.IPv4Len)
	packet.PutIPv4(b, len(b)+len(msg), packet.Header4{TTL: 60, Proto: packet.ProtoICMP, Src: 0x0a0100fa, Dst: 0x0a010001})
	eth := make([]byte, packet.EthLen)
	packet.PutEth(eth, rsMAC, serverMAC(0xfa), packet.EtherIPv4)
	return append(append(eth, b...), msg...)
}

// TestTunnelsBetweenTheFamilies: the outer packet is of the real server's family and kind, and what is said about it by ICMP of
// that family the client hears in its own.
func TestTunnelsBetweenTheFamilies(t *testing.T) {
	for _, k := range encaps {
		for i := range 4 {
			inner6, outer6 := i&1 != 0, i&2 != 0
			t.Run(fmt.Sprintf("%+v, IPv6 inside %v, outside %v", k.encap, inner6, outer6), func(t *testing.T) {
				m := newMixed(t, inner6, outer6, k.encap)
				in := m.fromClient("A", 700)
				sent := one(t, m.inject(0, in)[1])
				outer := sent[packet.VnetLen+packet.EthLen:]
				extra := k.extra
				if outer6 {
					extra += packet.IPv6Len - packet.IPv4Len
				}
				if got, want := len(outer), len(in)-packet.EthLen+extra; got != want || outer[0]>>4 == 6 != outer6 {
					t.Fatalf("outer packet of %d bytes, want %d: %x", got, want, outer[:60])
				}
				if innerAt := outer[extra:]; innerAt[0]>>4 == 6 != inner6 {
					t.Fatalf("inner packet %x", innerAt[:20])
				}
				for _, c := range []struct {
					typ4, code4, typ6, code6 uint8
					mtu                      int
					want4, want6             [2]uint8
				}{
					{3, 4, 2, 0, 1300, [2]uint8{3, 4}, [2]uint8{2, 0}},
					{3, 1, 1, 3, 0, [2]uint8{3, 1}, [2]uint8{1, 3}},
					{3, 13, 1, 1, 0, [2]uint8{3, 13}, [2]uint8{1, 1}},
					{11, 0, 3, 0, 0, [2]uint8{11, 0}, [2]uint8{3, 0}},
				} {
					typ, code := c.typ4, c.code4
					if outer6 {
						typ, code = c.typ6, c.code6
					}
					p := decodedICMP(t, one(t, m.inject(1, m.report(typ, code, c.mtu, outer[:min(len(outer), 500)]))[0]))
					want := c.want4
					if inner6 {
						want = c.want6
					}
					h := p.ICMP()
					if !p.IsICMP() || p.Is4() == inner6 || [2]uint8{h.Type(), h.Code()} != want {
						t.Errorf("%d/%d: the client gets %d/%d, want %v", typ, code, h.Type(), h.Code(), want)
					}
					if c.mtu == 0 {
						continue
					}
					said := h.MTU()
					if inner6 {
						said = h.MTU6()
					}
					if said != 1500-extra {
						t.Errorf("the client hears of MTU %d, want what the tunnel carried so far, %d", said, 1500-extra)
					}
				}
				if got := m.plane.mtus.limit(m.server.IP, 1500, m.now); got != 1300 {
					t.Errorf("path MTU remembered as %d, want 1300", got)
				}
				// From now on the client hears of the narrower way, but never of less than IPv6 has everywhere.
				p := decodedICMP(t, one(t, m.inject(0, m.fromClient("A", 1380))[0]))
				want := 1300 - extra
				said := p.ICMP().MTU()
				if inner6 {
					want, said = max(want, 1280), p.ICMP().MTU6()
				}
				if said != want {
					t.Errorf("then MTU %d, want %d", said, want)
				}
				if inner6 { // 1280 bytes pass, if need be in fragments of the outer packet
					want := 1
					if 1280+extra > 1300 {
						want = 2
					}
					if n := len(m.inject(0, m.fromClient("A", 1280-60))[1]); n != want {
						t.Errorf("a packet of 1280 bytes was sent in %d frames, want %d", n, want)
					}
				}
				m.accounted()
			})
		}
	}
}

// decodedICMP is decoded for ICMP alone, of IPv4 too, which has no pseudo-header.
func decodedICMP(t *testing.T, sent []byte) *packet.Packet {
	t.Helper()
	p := new(packet.Packet)
	if fault := packet.Decode(sent[packet.VnetLen:], p); fault != packet.NoFault || !p.IsICMP() {
		t.Fatalf("sent frame has fault %d: %x", fault, sent)
	}
	if p.Is4() {
		if packet.Fold(packet.Sum(p.L4Bytes(), 0)) != 0xffff {
			t.Fatalf("sent frame has a wrong checksum: %x", sent)
		}
		return p
	}
	return decoded(t, sent)
}

// TestAllocTunnelsBetweenTheFamilies: nothing is allocated for a packet through any tunnel.
func TestAllocTunnelsBetweenTheFamilies(t *testing.T) {
	for _, k := range encaps {
		for i := range 4 {
			m := newMixed(t, i&1 != 0, i&2 != 0, k.encap)
			in := m.fromClient("A", 100)
			w := m.plane.workers[0]
			f := received(bytes.Clone(in))
			var p packet.Packet
			send := func() {
				copy(f.Eth(), in)
				if fault := packet.Decode(f.Eth(), &p); fault != packet.NoFault {
					t.Fatal(fault)
				}
				w.aim(&w.conn)
				p.DecTTL()
				hop, _ := w.serverHop(&w.conn)
				if v := w.encapsulate(f, &p, &w.conn, hop); v != ForwardedTUN {
					t.Fatal(v)
				}
				w.nAnswers = 0
			}
			w.mu.Lock()
			w.tx[1] = new(noLink)
			send()
			if n := testing.AllocsPerRun(100, send); n != 0 {
				t.Errorf("%+v, IPv6 inside %v, outside %v: %v allocations", k.encap, m.inner6, m.outer6, n)
			}
			w.tx[1] = m.mem[1]
			w.mu.Unlock()
		}
	}
}

// TestNoAddressToTunnelFrom: without an address of the real server's family nothing can be tunnelled there.
func TestNoAddressToTunnelFrom(t *testing.T) {
	m := newMixed(t, false, true, service.Encap{})
	m.hops.Set(server6(11), &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready)
	if out := m.inject(0, m.fromClient("A", 10)); len(out[1]) != 0 {
		t.Errorf("sent %x", out[1])
	}
	if got := m.verdicts()[DropNoRoute]; got != 1 {
		t.Errorf("%d dropped for want of a way, want 1", got)
	}
}
