package dataplane

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

var (
	ndpVIP     = packet.AddrFrom(netip.MustParseAddr("2001:db8:9::100"))
	ndpGateway = packet.AddrFrom(netip.MustParseAddr("fd00:1::1")) // on port 1
	ndpAsker   = packet.AddrFrom(netip.MustParseAddr("2001:db8:9::fe"))
)

// director6 has a VIP and, on port 1, a gateway address of IPv6; nothing else is announced any more.
func director6(t testing.TB, change func(*Config)) *director {
	t.Helper()
	d := newDirector(t, func(c *Config) {
		c.Ports[1].Gateways = []netip.Prefix{netip.MustParsePrefix("fd00:1::1/64")}
		if change != nil {
			change(c)
		}
	})
	d.publishVIPs(ndpVIP)
	d.quiet()
	return d
}

// publishVIPs makes one service on each address the configuration.
func (d *director) publishVIPs(addrs ...packet.Addr) {
	var list []*service.VirtualService
	for i, a := range addrs {
		key := service.Key{Proto: service.TCP, Addr: netip.AddrPortFrom(a.Netip(), 80)}
		list = append(list, &service.VirtualService{Key: key, Index: uint32(i)})
	}
	d.plane.Publish(service.NewTable(list, d.servers, d.plane.Table().Generation+1))
}

// quiet lets time pass until nothing is announced or reported any more.
func (d *director) quiet() {
	for range 2 * announceBurst {
		d.run()
		d.now += second
	}
	d.run()
}

// discovered are the messages of neighbour discovery in sent frames, which must be valid and as from their sender.
func discovered(t testing.TB, frames [][]byte) (list []packet.NDP) {
	t.Helper()
	for _, f := range frames {
		var p packet.Packet
		var n packet.NDP
		eth := (*packet.Eth)(f[packet.VnetLen:])
		if packet.Decode(f[packet.VnetLen:], &p) != packet.NoFault || !packet.ParseNDP(&p, &n) || n.MAC != (packet.MAC{}) && eth.Src() != n.MAC {
			continue
		}
		list = append(list, n)
	}
	return list
}

// onWire is a frame without its virtio-net header.
func onWire(f []byte) []byte { return slices.Clone(f[packet.VnetLen:]) }

// solicitation is the frame in which asker asks for target from gatewayMAC.
func solicitation(asker, target packet.Addr) []byte {
	return onWire(forward.NeighbourSolicit(make([]byte, forward.NDPFrameLen), gatewayMAC, asker, packet.MAC{}, target))
}

func TestSolicitationsForOurAddressesAreAnswered(t *testing.T) {
	probe := onWire(forward.NeighbourProbe(make([]byte, forward.NDPFrameLen), gatewayMAC, ndpVIP))
	unicast := onWire(forward.NeighbourSolicit(make([]byte, forward.NDPFrameLen), gatewayMAC, ndpAsker, cliMAC, ndpVIP))
	reply := packet.NDP{
		Type: packet.ICMP6NeighbourAdvert, Flags: packet.NDPSolicited | packet.NDPOverride, Src: ndpVIP, Dst: ndpAsker, Target: ndpVIP, MAC: cliMAC,
	}
	toAll, byRouter := reply, reply
	toAll.Flags, toAll.Dst = packet.NDPOverride, packet.AllNodes
	byRouter.Flags |= packet.NDPRouter
	byRouter.Src, byRouter.Target, byRouter.MAC = ndpGateway, ndpGateway, rsMAC
	for _, tt := range []struct {
		name  string
		port  int
		frame []byte
		want  packet.NDP
		to    packet.MAC
	}{
		{"to the group", 0, solicitation(ndpAsker, ndpVIP), reply, gatewayMAC},
		{"to our MAC alone, as a neighbour is verified", 0, unicast, reply, gatewayMAC},
		{"a probe, from no address", 0, probe, toAll, packet.GroupMAC(packet.AllNodes)},
		{"for the gateway address", 1, solicitation(ndpAsker, ndpGateway), byRouter, gatewayMAC},
	} {
		d := director6(t, nil)
		out := d.inject(tt.port, tt.frame)[tt.port]
		if got := discovered(t, out); len(got) != 1 || got[0] != tt.want || len(out) != 1 {
			t.Errorf("%s: answered\n%+v\nwant %+v", tt.name, got, tt.want)
		} else if to := (*packet.Eth)(out[0][packet.VnetLen:]).Dst(); to != tt.to {
			t.Errorf("%s: answered to %v, want %v", tt.name, to, tt.to)
		}
		if got := d.verdicts(); got[AnsweredNDP] != 1 {
			t.Errorf("%s: verdicts %v", tt.name, got)
		}
		d.accounted()
	}
}

func TestOtherNeighbourDiscovery(t *testing.T) {
	other := packet.AddrFrom(netip.MustParseAddr("2001:db8:9::77"))
	spoilt := func(f []byte, at int, v byte) []byte { f[at] = v; return f }
	ours := onWire(forward.NeighbourSolicit(make([]byte, forward.NDPFrameLen), rsMAC, ndpAsker, packet.MAC{}, ndpVIP))
	const ip, icmp = packet.EthLen, packet.EthLen + packet.IPv6Len
	group := solicitation(ndpAsker, other)
	(*packet.Eth)(group).SetSrc(packet.Broadcast)
	advert := onWire(forward.NeighbourAnnouncement(make([]byte, forward.NDPFrameLen), gatewayMAC, other, false))
	redirect := solicitation(ndpAsker, other)
	redirect[icmp] = packet.ICMP6Redirect
	udp := solicitation(ndpAsker, other)
	udp[ip+6] = packet.ProtoUDP
	for _, tt := range []struct {
		name  string
		port  int
		frame []byte
		want  Verdict
		heard int // by the resolver
	}{
		{"for another address", 0, solicitation(ndpAsker, other), PassNDP, 1},
		{"for the gateway address of another port", 0, solicitation(ndpAsker, ndpGateway), PassNDP, 1},
		{"another's announcement", 0, advert, PassNDP, 1},
		{"our own, come in by another port", 0, ours, PassNDP, 0},
		{"redirect", 0, redirect, PassNDP, 0},
		{"hop limit 254", 0, spoilt(solicitation(ndpAsker, ndpVIP), ip+7, 254), DropNDP, 0},
		{"option of length 0", 0, spoilt(solicitation(ndpAsker, ndpVIP), icmp+25, 0), DropNDP, 0},
		{"wrong checksum", 0, spoilt(solicitation(ndpAsker, ndpVIP), icmp+2, 0x77), DropNDP, 0},
		{"from everybody's MAC", 0, group, DropNDP, 0},
		{"another protocol to a group", 0, udp, PassGroup, 0},
	} {
		d := director6(t, nil)
		d.hops.Discovered()
		if out := d.inject(tt.port, tt.frame); len(out[0])+len(out[1]) != 0 {
			t.Errorf("%s: sent %x", tt.name, out)
		}
		if got := d.verdicts(); got[tt.want] != 1 || len(got) != 1 {
			t.Errorf("%s: verdicts %v, want %v", tt.name, got, tt.want)
		}
		if got := len(d.hops.Discovered()); got != tt.heard {
			t.Errorf("%s: the resolver heard %d packets, want %d", tt.name, got, tt.heard)
		}
		d.accounted()
	}
}

func TestAPartialChecksumOfNeighbourDiscoveryIsCompleted(t *testing.T) {
	d := director6(t, nil)
	f := received(solicitation(ndpAsker, ndpVIP))
	const icmp = packet.EthLen + packet.IPv6Len
	b := f.Eth()[icmp:]
	packet.SetWord(b[2:], packet.Fold(packet.Pseudo6(ndpAsker, packet.SolicitedNode(ndpVIP), packet.ProtoICMPv6, len(b))))
	v := f.Vnet()
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(icmp)
	v.SetCsumOffset(2)
	d.mem[0].InjectFrame(*f)
	if got := discovered(t, d.run()[0]); len(got) != 1 {
		t.Errorf("answered %+v, verdicts %v", got, d.verdicts())
	}
}

func TestAClaimToOurIPv6AddressIsLoggedAndContested(t *testing.T) {
	for name, claim := range map[string][]byte{
		"in an advertisement": onWire(forward.NeighbourAnnouncement(make([]byte, forward.NDPFrameLen), gatewayMAC, ndpVIP, false)),
		"in a solicitation":   solicitation(ndpVIP, ndpAsker),
	} {
		core, logs := observer.New(zap.WarnLevel)
		told := 0
		d := director6(t, func(c *Config) {
			c.Log = zap.New(core)
			c.Conflict = func(port int, a netip.Addr, station packet.MAC) {
				if told++; port != 0 || a != ndpVIP.Netip() || station != gatewayMAC {
					t.Errorf("%s: Conflict(%d, %v, %v)", name, port, a, station)
				}
			}
		})
		var got []packet.NDP
		for range 5 {
			got = append(got, discovered(t, d.inject(0, claim)[0])...)
		}
		n := 0
		for _, a := range got {
			if a.Type == packet.ICMP6NeighbourAdvert && a.Target == ndpVIP && a.MAC == cliMAC && a.Dst == packet.AllNodes && a.Flags == packet.NDPOverride {
				n++
			}
		}
		if n != 1 || logs.Len() != 1 || told != 1 {
			t.Errorf("%s: contested %d times, logged %d times, told %d times, want once each", name, n, logs.Len(), told)
		}
		d.accounted()
	}
}

// TestIPv6AddressesAreAnnounced wants each address probed and announced with override, and its group reported, on its port.
func TestIPv6AddressesAreAnnounced(t *testing.T) {
	d := newDirector(t, func(c *Config) { c.Ports[1].Gateways = []netip.Prefix{netip.MustParsePrefix("fd00:1::1/64")} })
	d.publishVIPs(ndpVIP)
	type seen struct{ probes, adverts int }
	got := map[announced]seen{}
	var reports [2][][]byte
	for range 2 * announceBurst {
		out := d.run()
		for port := range out {
			for i, n := range discovered(t, out[port]) {
				s := got[announced{n.Target, port}]
				if n.Type == packet.ICMP6NeighbourSolicit && n.Src.IsZero() {
					s.probes++
				} else if n.Flags&^packet.NDPRouter == packet.NDPOverride && (n.Flags != packet.NDPOverride) == (n.Target == ndpGateway) {
					s.adverts++
					if s.probes < s.adverts {
						t.Errorf("message %d announces %v before anybody was asked for it", i, n.Target)
					}
				}
				got[announced{n.Target, port}] = s
			}
			reports[port] = append(reports[port], reportsIn(out[port])...)
		}
		d.now += second
	}
	for k, want := range map[announced]seen{
		{ndpVIP, 0}: {announceBurst, announceBurst}, {ndpGateway, 1}: {announceBurst, announceBurst}, {ndpVIP, 1}: {}, {ndpGateway, 0}: {},
	} {
		if got[k] != want {
			t.Errorf("%v on port %d: %+v, want %+v", k.addr, k.port, got[k], want)
		}
	}
	groups := []packet.Addr{packet.SolicitedNode(ndpGateway), packet.SolicitedNode(ndpVIP)}
	for port, mac := range []packet.MAC{cliMAC, rsMAC} {
		want := onWire(forward.MLDReport(make([]byte, 2048), mac, packet.MLDJoins, groups[1-port:]))
		if len(reports[port]) != mldTimes || !slices.Equal(reports[port][0], want) {
			t.Errorf("port %d reports\n%x\nwant %d times %x", port, reports[port], mldTimes, want)
		}
	}

	// All are left when uvs ends,
	d.plane.slow.leave()
	for port, mac := range []packet.MAC{cliMAC, rsMAC} {
		want := onWire(forward.MLDReport(make([]byte, 2048), mac, packet.MLDLeaves, groups[1-port:]))
		if got := reportsIn(d.slow[port].Sent()); len(got) != 1 || !slices.Equal(got[0], want) {
			t.Errorf("port %d leaves by\n%x\nwant %x", port, got, want)
		}
	}

	// and those of addresses that go.
	d.publishVIPs()
	var left [][]byte
	for range 5 {
		left = append(left, reportsIn(d.run()[0])...)
		d.now += second
	}
	want := onWire(forward.MLDReport(make([]byte, 2048), cliMAC, packet.MLDLeaves, groups[1:]))
	if len(left) != mldTimes || !slices.Equal(left[0], want) {
		t.Errorf("left\n%x\nwant %d times %x", left, mldTimes, want)
	}
}

// reportsIn are the frames of listener discovery among those sent.
func reportsIn(frames [][]byte) (reports [][]byte) {
	for _, f := range frames {
		var p packet.Packet
		if packet.Decode(f[packet.VnetLen:], &p) == packet.NoFault && p.Proto == packet.ProtoICMPv6 {
			if typ := p.ICMP().Type(); typ == packet.ICMP6ListenerReport1 || typ == packet.ICMP6ListenerReport2 {
				reports = append(reports, onWire(f))
			}
		}
	}
	return reports
}

// listenerQuery is a querier's frame for a group, of all if it is zero.
func listenerQuery(version int, group packet.Addr) []byte {
	src := packet.AddrFrom(netip.MustParseAddr("fe80::1"))
	size := map[int]int{1: 24, 2: 28}[version]
	b := make([]byte, packet.EthLen+packet.IPv6Len+8+size)
	packet.PutEth(b, packet.GroupMAC(packet.AllNodes), gatewayMAC, packet.EtherIPv6)
	packet.PutIPv6(b[packet.EthLen:], 8+size, packet.Header6{NextHeader: 0, HopLimit: 1, Src: src, Dst: packet.AllNodes})
	copy(b[packet.EthLen+packet.IPv6Len:], []byte{packet.ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0})
	m := b[packet.EthLen+packet.IPv6Len+8:]
	m[0], m[4], m[5] = packet.ICMP6ListenerQuery, 0x07, 0xd0 // within 2 s
	a := group.As16()
	copy(m[8:], a[:])
	packet.SetWord(m[2:], ^packet.Fold(packet.Sum(m, packet.Pseudo6(src, packet.AllNodes, packet.ProtoICMPv6, len(m)))))
	return b
}

func TestListenerQueriesAreAnswered(t *testing.T) {
	group := packet.SolicitedNode(ndpVIP)
	listens := onWire(forward.MLDReport(make([]byte, 2048), cliMAC, packet.MLDListens, []packet.Addr{group}))
	version1 := onWire(forward.MLDReport1(make([]byte, 2048), cliMAC, group))
	for _, tt := range []struct {
		name    string
		query   []byte
		want    []byte
		verdict Verdict
	}{
		{"of all groups", listenerQuery(2, packet.Addr{}), listens, AnsweredNDP},
		{"of our group", listenerQuery(2, group), listens, AnsweredNDP},
		{"of all groups, version 1", listenerQuery(1, packet.Addr{}), version1, AnsweredNDP},
		{"of another group", listenerQuery(2, packet.SolicitedNode(ndpAsker)), nil, PassNDP},
		{"malformed", listenerQuery(2, ndpAsker), nil, DropNDP},
	} {
		d := director6(t, nil)
		d.inject(0, tt.query)
		var got [][]byte
		for range 25 {
			got = append(got, reportsIn(d.run()[0])...)
			d.now += int64(slowTick)
		}
		if (len(got) == 1) != (tt.want != nil) || len(got) == 1 && !slices.Equal(got[0], tt.want) {
			t.Errorf("%s: reported\n%x\nwant %x", tt.name, got, tt.want)
		}
		if v := d.verdicts(); v[tt.verdict] != 1 {
			t.Errorf("%s: verdicts %v, want %v", tt.name, v, tt.verdict)
		}
		d.accounted()
	}
}

// selective is a link that notes which groups its interface lets in.
type selective struct {
	*link.Mem
	groups map[packet.MAC]int
	refuse bool
}

func (s *selective) JoinMulticast(mac [6]byte) error {
	if s.refuse {
		return errors.New("no room")
	}
	s.groups[mac]++
	return nil
}

func (s *selective) LeaveMulticast(mac [6]byte) error {
	if s.groups[mac]--; s.groups[mac] == 0 {
		delete(s.groups, mac)
	}
	return nil
}

func TestTheInterfaceIsToldOfOurGroups(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	links := [2]*selective{}
	d := newDirector(t, func(c *Config) {
		c.Log = zap.New(core)
		c.OpenTx = func(port int) (link.Link, error) {
			links[port] = &selective{Mem: link.NewMem(link.MemConfig{}), groups: make(map[packet.MAC]int)}
			return links[port], nil
		}
	})
	d.run()
	if n := len(links[0].groups); n != 0 {
		t.Errorf("%d groups joined without an IPv6 address", n)
	}
	other := packet.AddrFrom(netip.MustParseAddr("2001:db8:77::100")) // the same group
	group, all := packet.GroupMAC(packet.SolicitedNode(ndpVIP)), packet.GroupMAC(packet.AllNodes)
	for i, vips := range [][]packet.Addr{{ndpVIP}, {ndpVIP, other}, {other}, {}} {
		d.publishVIPs(vips...)
		d.run()
		for _, l := range links {
			if want := min(len(vips), 1); l.groups[group] != want || l.groups[all] != want {
				t.Errorf("step %d: joined %v, want %v and %v %d times", i, l.groups, group, all, want)
			}
		}
	}
	links[0].refuse = true
	d.publishVIPs(ndpVIP, ndpAsker)
	d.run()
	if logs.Len() != 1 {
		t.Errorf("logged %d times that groups cannot be joined, want once", logs.Len())
	}
}

func FuzzNeighbourDiscovery(f *testing.F) {
	f.Add(solicitation(ndpAsker, ndpVIP))
	f.Add(solicitation(ndpVIP, ndpAsker))
	f.Add(onWire(forward.NeighbourProbe(make([]byte, forward.NDPFrameLen), gatewayMAC, ndpVIP)))
	f.Add(onWire(forward.NeighbourAnnouncement(make([]byte, forward.NDPFrameLen), gatewayMAC, ndpVIP, true)))
	f.Add(listenerQuery(1, packet.Addr{}))
	f.Add(listenerQuery(2, packet.SolicitedNode(ndpVIP)))
	d := director6(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 9000 {
			return
		}
		d.t = t
		d.inject(0, slices.Clone(b))
		d.now += int64(slowTick)
		d.run()
		d.accounted()
	})
}
