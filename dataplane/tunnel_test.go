package dataplane

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// inner returns the encapsulated packet of a sent frame, having checked the outer header.
func inner(t *testing.T, sent []byte) (outer *layers.IPv4, in gopacket.Packet) {
	t.Helper()
	p := parse(t, sent)
	outer = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if outer.Protocol != layers.IPProtocolIPv4 || !outer.DstIP.Equal(net.IPv4(10, 1, 0, 11)) || !outer.SrcIP.Equal(net.IPv4(10, 1, 0, 1)) {
		t.Fatalf("outer header %v", outer)
	}
	return outer, gopacket.NewPacket(outer.Payload, layers.LayerTypeIPv4, gopacket.Default)
}

func tunnelled(t *testing.T) *director {
	d := tunnelledBy(t, service.Encap{})
	inner(t, one(t, d.inject(0, fromClient(t, client, "A", ""))[1]))
	return d
}

// tunnelledBy is a director with a connection through a tunnel of that kind.
func tunnelledBy(t *testing.T, e service.Encap) *director {
	d := newDirector(t, nil)
	vs := d.serve(service.TCP, service.Tunnel, "10.1.0.11:80")
	vs.Servers[0].SetEncap(e)
	d.run()
	one(t, d.inject(0, fromClient(t, client, "S", ""))[1])
	return d
}

// unfragmented is a TCP segment with n bytes of data from the client, who wishes to know path MTUs.
func unfragmented(t testing.TB, flags string, n int) []byte {
	t.Helper()
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Flags: layers.IPv4DontFragment},
		tcp(client.Port(), 80, flags), gopacket.Payload(bytes.Repeat([]byte("x"), n)))
}

// encaps are the kinds of tunnel, with the bytes that each puts in front of an IPv4 packet, outer IPv4 header included, and more
// if the packet's checksum was left to the device.
var encaps = []struct {
	encap       service.Encap
	extra, more int
}{
	{service.Encap{}, 20, 0},
	{service.Encap{Kind: service.GRE}, 24, 0},
	{service.Encap{Kind: service.GRE, Checksum: service.FullChecksum}, 28, 0},
	{service.Encap{Kind: service.GUE, Port: 6080}, 32, 0},
	{service.Encap{Kind: service.GUE, Port: 5555, Checksum: service.FullChecksum}, 32, 0},
	{service.Encap{Kind: service.GUE, Port: 6080, Checksum: service.RemoteChecksum}, 32, 8},
}

// TestTunnelsTakeTheirRoom: the largest packet that fits goes, one that is a byte longer is refused with that size, and the
// same holds for the segments of a super-frame.
func TestTunnelsTakeTheirRoom(t *testing.T) {
	for _, k := range encaps {
		for _, gso := range []bool{false, true} {
			d := tunnelledBy(t, k.encap)
			room := 1500 - k.extra
			var v packet.Vnet
			if gso {
				room -= k.more
				v.SetFlags(packet.VnetNeedsCsum)
				v.SetGSOType(packet.GSOTCPv4)
				v.SetHdrLen(54)
				v.SetCsumStart(34)
				v.SetCsumOffset(16)
			}
			for _, over := range []int{0, 1} {
				n := room - 40 + over
				payload := make([]byte, n)
				if gso {
					v.SetGSOSize(n)
					payload = make([]byte, 3*n)
				}
				in := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Flags: layers.IPv4DontFragment},
					tcp(client.Port(), 80, "PA"), gopacket.Payload(payload))
				d.mem[0].InjectVnet(v, in)
				sent := d.run()
				if over == 0 {
					want := 1
					if gso {
						want = 3
					}
					if len(sent[1]) != want || len(sent[1][0]) != packet.VnetLen+packet.EthLen+1500 {
						t.Errorf("%+v, super-frame %v: %d frames sent, want %d, filling the MTU", k.encap, gso, len(sent[1]), want)
					}
					continue
				}
				icmp := parse(t, one(t, sent[0])).Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
				if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || int(icmp.Seq) != room {
					t.Errorf("%+v, super-frame %v: answer %v mtu %d, want fragmentation needed, %d", k.encap, gso, icmp.TypeCode, icmp.Seq, room)
				}
			}
			d.accounted()
		}
	}
}

// TestTunnelErrorsOfEveryKind: what a router says about an outer packet the client hears about its own, if the outer packet is
// one that this connection's tunnel sends.
func TestTunnelErrorsOfEveryKind(t *testing.T) {
	for _, k := range encaps {
		for _, lie := range []bool{false, true} {
			d := tunnelledBy(t, k.encap)
			sent := one(t, d.inject(0, unfragmented(t, "PA", 100))[1])
			outer := sent[packet.VnetLen+packet.EthLen:]
			if lie { // another kind of tunnel, or another port
				switch k.encap.Kind {
				case service.GUE:
					outer[23]++
				case service.GRE:
					outer[23]++ // of neither IPv4 nor IPv6
				default:
					outer[9] = packet.ProtoGRE
				}
			}
			report := frame(t, serverMAC(0xfa), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 250), DstIP: net.IPv4(10, 1, 0, 1)},
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1300}, gopacket.Payload(outer[:100]))
			got := d.inject(1, report)[0]
			want := 1300
			if lie {
				want = 1500
			}
			if mtu := d.plane.mtus.limit(packet.AddrFrom4(0x0a01000b), 1500, d.now); mtu != want {
				t.Errorf("%+v: path MTU remembered as %d, want %d", k.encap, mtu, want)
			}
			if lie {
				if len(got) != 0 {
					t.Errorf("%+v: a report about a packet that isn't ours went on", k.encap)
				}
				continue
			}
			p := parse(t, one(t, got))
			icmp, ip := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4), p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || int(icmp.Seq) != 1500-k.extra || !ip.DstIP.Equal(client.Addr().AsSlice()) {
				t.Errorf("%+v: relayed %v mtu %d to %v", k.encap, icmp.TypeCode, icmp.Seq, ip.DstIP)
			}
			quoted := gopacket.NewPacket(icmp.Payload, layers.LayerTypeIPv4, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if !quoted.SrcIP.Equal(client.Addr().AsSlice()) || !quoted.DstIP.Equal(vip.AsSlice()) {
				t.Errorf("%+v: the report quotes %v -> %v", k.encap, quoted.SrcIP, quoted.DstIP)
			}
			d.accounted()
		}
	}
}

// TestClientThatIsCutIsNotTold: who sends without DF doesn't ask for path MTUs; what is too long is cut for it here.
func TestClientThatIsCutIsNotTold(t *testing.T) {
	d := tunnelledBy(t, service.Encap{})
	long := fromClient(t, client, "PA", strings.Repeat("x", 1400))
	sent := one(t, d.inject(0, long)[1])
	report := frame(t, serverMAC(0xfa), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 250), DstIP: net.IPv4(10, 1, 0, 1)},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1300}, gopacket.Payload(sent[packet.VnetLen+packet.EthLen:][:100]))
	if got := d.inject(1, report)[0]; len(got) != 0 {
		t.Errorf("the client was told: %x", got)
	}
	if n := len(d.inject(0, long)[1]); n != 2 {
		t.Errorf("the next long packet was sent in %d frames, want 2", n)
	}
	d.accounted()
}

// TestTunnelOfTheServer: how a connection is encapsulated follows its server's settings at once.
func TestTunnelOfTheServer(t *testing.T) {
	d := newDirector(t, nil)
	vs := d.serve(service.TCP, service.Tunnel, "10.1.0.11:80")
	d.run()
	one(t, d.inject(0, fromClient(t, client, "S", ""))[1])
	for _, k := range encaps {
		vs.Servers[0].SetEncap(k.encap)
		sent := one(t, d.inject(0, fromClient(t, client, "A", ""))[1])
		if got, want := len(sent), packet.VnetLen+packet.EthLen+k.extra+40; got != want {
			t.Errorf("%+v: frame of %d bytes, want %d", k.encap, got, want)
		}
	}
}

func TestTunnelSegmentsSuperFrames(t *testing.T) {
	d := tunnelled(t)
	payload := strings.Repeat("0123456789", 500)
	in := fromClient(t, client, "PA", payload)
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetGSOType(packet.GSOTCPv4)
	v.SetGSOSize(1400)
	v.SetHdrLen(54)
	v.SetCsumStart(34)
	v.SetCsumOffset(16)
	d.mem[0].InjectVnet(v, in)
	var got bytes.Buffer
	frames := d.run()[1]
	if len(frames) != 4 {
		t.Fatalf("%d frames sent, want 4", len(frames))
	}
	for i, f := range frames {
		if v := (*packet.Vnet)(f); v.NeedsCsum() || v.GSOType() != packet.GSONone {
			t.Errorf("segment %d leaves work to the device: % x", i, v[:])
		}
		_, p := inner(t, f)
		ip, seg := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if seg.Seq != 1000+uint32(got.Len()) || seg.PSH != (i == 3) || ip.TTL != 63 {
			t.Errorf("segment %d: seq %d psh %v ttl %d", i, seg.Seq, seg.PSH, ip.TTL)
		}
		if sum := packet.Pseudo4(0xc0000207, 0x0a090064, 6, len(ip.Payload)); packet.Fold(packet.Sum(ip.Payload, sum)) != 0xffff {
			t.Errorf("segment %d: wrong checksum", i)
		}
		got.Write(seg.Payload)
	}
	if got.String() != payload {
		t.Error("the segments don't make up the payload")
	}
	d.accounted()
}

func TestTunnelTooSmallIsSaidToTheClient(t *testing.T) {
	d := tunnelled(t)
	big := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Flags: layers.IPv4DontFragment},
		tcp(client.Port(), 80, "PA"), gopacket.Payload(make([]byte, 1450)))
	p := parse(t, one(t, d.inject(0, big)[0]))
	icmp := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != 1480 {
		t.Errorf("answer %v mtu %d, want fragmentation needed, 1480", icmp.TypeCode, icmp.Seq)
	}
	d.accounted()
}

// TestTunnelErrorAtTheHostsAddressIsOurs: the outer source is the host's own address, so errors about outer packets come to the
// host's MAC, not to ours.
func TestTunnelErrorAtTheHostsAddressIsOurs(t *testing.T) {
	d := tunnelled(t)
	server := packet.AddrFrom4(0x0a01000b)
	d.hops.Set(server, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500, Source: packet.AddrFrom4(0x0a010005)}, nexthop.Ready)
	d.inject(0, fromClient(t, client, "A", ""))
	data := unfragmented(t, "PA", 100)
	outer := frame(t, serverMAC(1), serverMAC(2), &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 5), DstIP: net.IPv4(10, 1, 0, 11), Protocol: 4},
		gopacket.Payload(data[packet.EthLen:]))
	hostMAC := packet.MAC{2, 9, 9, 9, 9, 9}
	report := frame(t, serverMAC(0xfa), hostMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 250), DstIP: net.IPv4(10, 1, 0, 5)},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1300}, gopacket.Payload(outer[packet.EthLen:][:80]))
	d.mem[1] = nil
	w := d.plane.workers[0]
	w.mu.Lock()
	w.begin(d.now)
	if v := w.toHost(received(report)); v != ForwardedICMP {
		t.Errorf("verdict %v, want %v", v, ForwardedICMP)
	}
	if v := w.toHost(received(fromClient(t, client, "S", ""))); v != PassForeignMAC {
		t.Errorf("another packet for the host: verdict %v", v)
	}
	w.mu.Unlock()
	w.flush()
	p := parse(t, one(t, d.mem[0].Sent()))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.SrcIP.Equal(vip.AsSlice()) || !ip.DstIP.Equal(client.Addr().AsSlice()) {
		t.Errorf("relayed %v -> %v", ip.SrcIP, ip.DstIP)
	}
	if got := d.plane.mtus.limit(server, 1500, d.now); got != 1300 {
		t.Errorf("path MTU remembered as %d, want 1300", got)
	}
	if got := d.plane.mtus.limit(server, 1500, d.now+int64(pathMTULife)); got != 1500 {
		t.Errorf("path MTU after its life: %d", got)
	}
}
