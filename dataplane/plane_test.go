package dataplane

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

func TestDRSendsTheFrameOnWithTheServersMAC(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80", "10.1.0.12:80")
	d.run()
	// rr begins with the server added last.
	for i, n := range []byte{12, 11, 12} {
		src := netip.AddrPortFrom(client.Addr(), uint16(40000+i))
		in := fromClient(t, src, "S", "")
		out := d.inject(0, in)
		sent := one(t, out[1])
		want := bytes.Clone(in)
		forwardedMACs(want, serverMAC(n), rsMAC)
		(*packet.IPv4)(want[packet.EthLen:]).DecTTL()
		if !bytes.Equal(sent[packet.VnetLen:], want) {
			t.Errorf("connection %d: sent\n%x\nwant\n%x", i, sent[packet.VnetLen:], want)
		}
		// Later packets stay with their server.
		out = d.inject(0, fromClient(t, src, "A", ""))
		if got := (*packet.Eth)(one(t, out[1])[packet.VnetLen:]).Dst(); got != serverMAC(n) {
			t.Errorf("connection %d went on to %v, want %v", i, got, serverMAC(n))
		}
	}
	d.accounted()
}

func forwardedMACs(frame []byte, dst, src packet.MAC) {
	(*packet.Eth)(frame).SetDst(dst)
	(*packet.Eth)(frame).SetSrc(src)
}

func TestNATTranslatesBothWays(t *testing.T) {
	d := newDirector(t, nil)
	vs := d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	out := d.inject(0, fromClient(t, client, "S", ""))
	p := parse(t, one(t, out[1]))
	ip, seg := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) || seg.DstPort != 8080 || ip.TTL != 63 {
		t.Errorf("to the server: %v:%d ttl %d", ip.DstIP, seg.DstPort, ip.TTL)
	}
	out = d.inject(1, fromServer(t, 11, client, "SA", ""))
	p = parse(t, one(t, out[0]))
	ip, seg = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ip.SrcIP.Equal(vip.AsSlice()) || seg.SrcPort != 80 || ip.TTL != 63 {
		t.Errorf("to the client: %v:%d ttl %d", ip.SrcIP, seg.SrcPort, ip.TTL)
	}
	eth := p.LinkLayer().(*layers.Ethernet)
	if packet.MAC(eth.DstMAC) != gatewayMAC || packet.MAC(eth.SrcMAC) != cliMAC {
		t.Errorf("to the client: MACs %v -> %v", eth.SrcMAC, eth.DstMAC)
	}
	services, servers := make([]service.Counters, 1), make([]service.Counters, 1)
	d.plane.AddCounters(services, servers)
	want := service.Counters{Conns: 1, InPkts: 1, OutPkts: 1, InBytes: 40, OutBytes: 40}
	if services[vs.Index] != want || servers[vs.Servers[0].Index] != want {
		t.Errorf("counters: service %+v server %+v, want %+v", services[vs.Index], servers[vs.Servers[0].Index], want)
	}
	d.accounted()
}

func TestNATLeavesPartialChecksumsPartial(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	in := fromClient(t, client, "S", "")
	// As a sender with checksum offload leaves it: only the pseudo-header is summed.
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(34)
	v.SetCsumOffset(16)
	l4 := in[34:]
	pseudo := packet.Fold(packet.Pseudo4(0xc0000207, 0x0a090064, packet.ProtoTCP, len(l4)))
	l4[16], l4[17] = byte(pseudo>>8), byte(pseudo)
	d.mem[0].InjectVnet(v, in)
	sent := one(t, d.run()[1])
	if !(*packet.Vnet)(sent).NeedsCsum() {
		t.Fatal("NEEDS_CSUM is gone")
	}
	want := packet.Fold(packet.Pseudo4(0xc0000207, 0x0a01000b, packet.ProtoTCP, len(l4)))
	if got := uint16(sent[packet.VnetLen+50])<<8 | uint16(sent[packet.VnetLen+51]); got != want {
		t.Errorf("partial checksum %04x, want %04x", got, want)
	}
}

func TestARPForAVirtualAddressIsAnsweredWithOurMAC(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run() // announcements
	ask := func(port int, target string) [][]byte {
		b := make([]byte, packet.EthLen+packet.ARPLen)
		eth := (*packet.Eth)(b)
		eth.SetDst(packet.Broadcast)
		eth.SetSrc(gatewayMAC)
		eth.SetType(packet.EtherARP)
		ip := packet.AddrFrom(netip.MustParseAddr(target))
		packet.PutARP(b[packet.EthLen:], packet.ARPRequest, gatewayMAC, 0x0a0900fe, packet.MAC{}, ip.V4())
		return d.inject(port, b)[port]
	}
	for _, tt := range []struct {
		port   int
		target string
		mac    packet.MAC
	}{
		{0, "10.9.0.100", cliMAC}, // the VIP
		{1, "10.9.0.100", rsMAC},  // the VIP, asked for on the servers' segment
		{1, "10.1.0.1", rsMAC},    // the gateway address on its segment
	} {
		a, ok := packet.ParseARP(one(t, ask(tt.port, tt.target))[packet.VnetLen+packet.EthLen:])
		if !ok || a.Op() != packet.ARPReply || a.SenderMAC() != tt.mac || a.TargetMAC() != gatewayMAC {
			t.Errorf("who has %s on port %d: %x", tt.target, tt.port, a)
		}
	}
	if got := ask(0, "10.1.0.1"); len(got) != 0 {
		t.Errorf("the gateway address was answered for on another segment: %x", got)
	}
	if got := ask(0, "10.9.0.1"); len(got) != 0 {
		t.Errorf("the host's own address was answered for: %x", got)
	}
	d.accounted()
}

func TestAddressesAreAnnouncedWhenTheyAppear(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	out := d.run()
	a, ok := packet.ParseARP(one(t, out[0])[packet.VnetLen+packet.EthLen:])
	if !ok || a.Sender() != 0x0a090064 || a.Target() != 0x0a090064 || a.SenderMAC() != cliMAC {
		t.Errorf("announcement of the VIP: %x", a)
	}
	a, ok = packet.ParseARP(one(t, out[1])[packet.VnetLen+packet.EthLen:])
	if !ok || a.Sender() != 0x0a010001 || a.SenderMAC() != rsMAC {
		t.Errorf("announcement of the gateway address: %x", a)
	}
	if out = d.run(); len(out[0])+len(out[1]) != 0 {
		t.Errorf("announced again at once: %x", out)
	}
	d.now += second
	if out = d.run(); len(out[0]) != 1 {
		t.Errorf("not announced again after a second: %x", out)
	}
}

func TestAConflictIsSeenByTheProbesAnswer(t *testing.T) {
	var seen []string
	d := newDirector(t, func(c *Config) {
		c.Conflict = func(port int, a netip.Addr, station packet.MAC) { seen = append(seen, a.String()+" "+station.String()) }
	})
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	for d.plane.Step(d.now) {
	}
	probe, ok := packet.ParseARP(d.slow[0].Sent()[0][packet.VnetLen+packet.EthLen:])
	if !ok || probe.Op() != packet.ARPRequest || probe.Sender() != 0 || probe.Target() != 0x0a090064 || probe.SenderMAC() != cliMAC {
		t.Fatalf("no probe goes before the announcement: %x", probe)
	}
	b := make([]byte, packet.EthLen+packet.ARPLen)
	forwardedMACs(b, cliMAC, serverMAC(11))
	(*packet.Eth)(b).SetType(packet.EtherARP)
	packet.PutARP(b[packet.EthLen:], packet.ARPReply, serverMAC(11), 0x0a090064, cliMAC, 0)
	d.inject(0, b)
	if len(seen) != 1 || seen[0] != "10.9.0.100 02:00:00:00:01:0b" {
		t.Errorf("conflicts seen: %v", seen)
	}
	d.accounted()
}

func TestEchoToTheVIPIsAnswered(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	in := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 7, Seq: 9}, gopacket.Payload("ping"))
	p := parse(t, one(t, d.inject(0, in)[0]))
	echo := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if echo.TypeCode.Type() != 0 || echo.Id != 7 || echo.Seq != 9 || string(echo.Payload) != "ping" {
		t.Errorf("answer %+v", echo)
	}
	d.accounted()
}

func TestWithoutServerAnICMPErrorRefusesAndWithoutServiceAReset(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route)
	d.run()
	p := parse(t, one(t, d.inject(0, fromClient(t, client, "S", ""))[0]))
	icmp := p.Layer(layers.LayerTypeICMPv4)
	if icmp == nil || icmp.(*layers.ICMPv4).TypeCode != layers.CreateICMPv4TypeCode(3, 3) {
		t.Errorf("SYN to a service without server got %v", p)
	}
	other := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, tcp(40001, 81, "S"))
	p = parse(t, one(t, d.inject(0, other)[0]))
	if rst, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || !rst.RST || rst.Ack != 1001 {
		t.Errorf("SYN to a port without service got %v", p)
	}
	d.accounted()
}

func TestAFirstPacketWaitsForItsNextHop(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	server := packet.AddrFrom4(0x0a01000b)
	d.hops.Set(server, nil, nexthop.Pending)
	if out := d.inject(0, fromClient(t, client, "S", "")); len(out[1]) != 0 {
		t.Fatalf("sent without next hop: %x", out[1])
	}
	if asked := d.hops.Asked(); len(asked) == 0 || asked[0] != server {
		t.Errorf("resolver was asked for %v", asked)
	}
	if s := d.plane.Stats(); s.Held != 1 {
		t.Errorf("held %d, want 1", s.Held)
	}
	d.accounted()
	d.hops.Set(server, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready)
	d.plane.Wake()
	one(t, d.run()[1])
	d.accounted()
	// The second time it waits in vain.
	d.hops.Set(server, nil, nexthop.Pending)
	d.inject(0, fromClient(t, client, "A", ""))
	d.now += 4 * second
	d.run()
	if got := d.verdicts()[DropHeldTimeout]; got != 1 {
		t.Errorf("%v: %d, want 1", DropHeldTimeout, got)
	}
	d.accounted()
}

func TestFragmentsGoToOneServerInThePiecesTheyCameIn(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.UDP, service.Masq, "10.1.0.11:5353")
	d.run()
	payload := bytes.Repeat([]byte("0123456789abcdef"), 100)
	whole := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 99},
		&layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload(payload))
	part := func(from, to int) []byte {
		ip := layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 99, FragOffset: uint16(from / 8), Protocol: layers.IPProtocolUDP}
		if to < len(whole)-34 {
			ip.Flags = layers.IPv4MoreFragments
		}
		return frame(t, gatewayMAC, cliMAC, &ip, gopacket.Payload(whole[34+from:34+to]))
	}
	l4 := len(whole) - 34
	if out := d.inject(0, part(800, l4)); len(out[1]) != 0 { // out of order
		t.Fatalf("a fragment passed before its datagram was whole: %x", out[1])
	}
	d.accounted()
	out := d.inject(0, part(0, 800))
	if len(out[1]) != 2 {
		t.Fatalf("%d frames sent, want 2", len(out[1]))
	}
	var sizes []int
	for _, f := range out[1] {
		ip := parse(t, f).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		sizes = append(sizes, int(ip.Length)-20)
		if !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) || ip.Id != 99 {
			t.Errorf("fragment to %v id %d", ip.DstIP, ip.Id)
		}
	}
	if sizes[0] != 800 || sizes[1] != l4-800 {
		t.Errorf("fragments of %v bytes, want 800 and %d", sizes, l4-800)
	}
	if got := d.verdicts()[ForwardedNAT]; got != 2 {
		t.Errorf("%v: %d, want one for each fragment", ForwardedNAT, got)
	}
	d.accounted()
}

func TestInnerTrafficByPolicy(t *testing.T) {
	toOutside := func(t *testing.T, flags string) []byte {
		return frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: net.IPv4(192, 0, 2, 80)}, tcp(33000, 443, flags))
	}
	for _, tt := range []struct {
		policy InnerPolicy
		src    net.IP // of what leaves; nil: nothing
	}{
		{DropInnerTraffic, nil},
		{ForwardInnerTraffic, net.IPv4(10, 1, 0, 11)},
		{MasqueradeInnerTraffic, vip.AsSlice()},
	} {
		d := newDirector(t, func(c *Config) { c.Inner = tt.policy })
		d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
		d.run()
		out := d.inject(1, toOutside(t, "S"))
		if tt.src == nil {
			if len(out[0]) != 0 || d.verdicts()[DropInner] != 1 {
				t.Errorf("policy %d: sent %x, verdicts %v", tt.policy, out[0], d.verdicts())
			}
			continue
		}
		p := parse(t, one(t, out[0]))
		ip, seg := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ip.SrcIP.Equal(tt.src) {
			t.Errorf("policy %d: left as from %v, want %v", tt.policy, ip.SrcIP, tt.src)
		}
		back := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: net.IPv4(192, 0, 2, 80), DstIP: tt.src}, tcp(443, uint16(seg.SrcPort), "SA"))
		p = parse(t, one(t, d.inject(0, back)[1]))
		ip, seg = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) || seg.DstPort != 33000 {
			t.Errorf("policy %d: answer went to %v:%d", tt.policy, ip.DstIP, seg.DstPort)
		}
		d.accounted()
	}
}

// TestEveryTruncationIsAccountedFor cuts frames of every kind at every byte.
func TestEveryTruncationIsAccountedFor(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.serve(service.UDP, service.Route, "10.1.0.11:53")
	arp := make([]byte, packet.EthLen+packet.ARPLen)
	forwardedMACs(arp, packet.Broadcast, gatewayMAC)
	(*packet.Eth)(arp).SetType(packet.EtherARP)
	packet.PutARP(arp[packet.EthLen:], packet.ARPRequest, gatewayMAC, 1, packet.MAC{}, 0x0a090064)
	frames := [][]byte{
		fromClient(t, client, "S", ""),
		fromClient(t, client, "PA", "some data"),
		fromServer(t, 11, client, "SA", ""),
		frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, &layers.UDP{SrcPort: 5, DstPort: 53}, gopacket.Payload("query")),
		frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}),
		icmpAbout(t, fromClient(t, client, "S", "")),
		arp,
	}
	for _, f := range frames {
		for n := 0; n <= len(f); n++ {
			for port := range 2 {
				d.inject(port, f[:n])
			}
		}
		for bit := range len(f) * 8 { // and with each bit flipped
			g := bytes.Clone(f)
			g[bit/8] ^= 1 << (bit % 8)
			d.inject(0, g)
		}
	}
	d.mem[0].InjectFrame(link.Frame{Buf: make([]byte, packet.VnetLen+60), Truncated: true})
	d.mem[0].InjectFrame(link.Frame{Buf: append(make([]byte, packet.VnetLen), frames[0]...), Tagged: true, VLAN: 5, TPID: packet.EtherVLAN})
	d.run()
	if v := d.verdicts(); v[DropTruncated] != 1 || v[PassVLAN] != 1 || v[DropShort] == 0 || v[DropIPHeader] == 0 || v[DropIPChecksum] == 0 {
		t.Errorf("verdicts %v", v)
	}
	d.accounted()
}

// The kernel takes the outermost tag out of a frame and tells it beside; QinQ's inner one stays where it was.
func TestTagsBesideAndWithinAFrame(t *testing.T) {
	within := func(f []byte, tpid uint16, tci uint16) []byte {
		tagged := slices.Clone(f[:12])
		tagged = binary.BigEndian.AppendUint16(tagged, tpid)
		tagged = binary.BigEndian.AppendUint16(tagged, tci)
		return append(tagged, f[12:]...)
	}
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run() // announcements
	syn := fromClient(t, client, "S", "")
	for _, tt := range []struct {
		name   string
		frame  link.Frame
		eth    []byte
		passed bool
	}{
		{"untagged", link.Frame{}, syn, false},
		{"a priority beside", link.Frame{Tagged: true, VLAN: 5 << 13, TPID: packet.EtherVLAN}, syn, false},
		{"802.1Q beside", link.Frame{Tagged: true, VLAN: 7, TPID: packet.EtherVLAN}, syn, true},
		{"QinQ", link.Frame{Tagged: true, VLAN: 7, TPID: packet.EtherQinQ}, within(syn, packet.EtherVLAN, 8), true},
		{"a VLAN within a priority", link.Frame{Tagged: true, TPID: packet.EtherQinQ}, within(syn, packet.EtherVLAN, 8), true},
		{"802.1ad within", link.Frame{}, within(syn, packet.EtherQinQ, 8), true},
		{"two within", link.Frame{}, within(within(syn, packet.EtherVLAN, 8), packet.EtherQinQ, 7), true},
	} {
		before := d.verdicts()[PassVLAN]
		f := tt.frame
		f.Buf = append(make([]byte, packet.VnetLen), tt.eth...)
		d.mem[0].InjectFrame(f)
		out := d.run()
		if passed := d.verdicts()[PassVLAN] - before; (passed == 1) != tt.passed || (len(out[1]) == 1) == tt.passed || len(out[0]) > 0 {
			t.Errorf("%s: passed over %d, sent %d and %d frames", tt.name, passed, len(out[0]), len(out[1]))
		}
	}
	d.accounted()
}

// icmpAbout is a port-unreachable message from a router about the answer to frame.
func icmpAbout(t testing.TB, about []byte) []byte {
	quoted := bytes.Clone(about[packet.EthLen : packet.EthLen+28])
	copy(quoted[12:16], about[packet.EthLen+16:])
	copy(quoted[16:20], about[packet.EthLen+12:])
	copy(quoted[20:22], about[packet.EthLen+22:])
	copy(quoted[22:24], about[packet.EthLen+20:])
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: net.IPv4(198, 51, 100, 1), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, gopacket.Payload(quoted))
}

func TestICMPErrorsFollowTheirConnection(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	syn := fromClient(t, client, "S", "")
	d.inject(0, syn)
	p := parse(t, one(t, d.inject(0, icmpAbout(t, syn))[1]))
	ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) {
		t.Errorf("error went to %v", ip.DstIP)
	}
	quoted := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4).Payload
	if src := net.IP(quoted[12:16]); !src.Equal(net.IPv4(10, 1, 0, 11)) {
		t.Errorf("quoted source is %v, want the server's", src)
	}
	if port := int(quoted[20])<<8 | int(quoted[21]); port != 8080 {
		t.Errorf("quoted source port is %d, want 8080", port)
	}
	d.accounted()
}
