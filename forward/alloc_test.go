package forward

import (
	"testing"

	"uvs/packet"
)

// one is a function on the packet path.
type one struct {
	name string
	do   func()
}

// hot6 are functions on the packet path, done to IPv6.
func hot6(t testing.TB) []one {
	server, vip := addr("2001:db8:1::11"), addr("2001:db8:9::100")
	reply, heads := make([]byte, ReplyLen), make([]byte, 1<<18)
	tcp, tv := decode(t, frame(t, "syn6"))
	chain, hv := decode(t, frame(t, "syn6 behind headers"))
	part, pv := decode(t, frame(t, "syn6"))
	owe(part, pv)
	udp, uv := decode(t, frame(t, "udp6"))
	sctp, sv := decode(t, sctpFrame6(1400))
	toVIP, ev := decode(t, frame(t, "error6 with headers"))
	quoted := new(packet.Packet)
	packet.DecodeQuoted(toVIP.L4Bytes()[packet.ICMPLen:], quoted)
	big, _ := decode(t, onIPv6(t, tcpFrame(packet.TCPAck, 1440), 0))
	super, gv := decode(t, superFrame6(packet.ProtoTCP, 64000, 1428, nil))
	superUDP, guv := decode(t, superFrame6(packet.ProtoUDP, 64000, 1452, extensions))
	echo, cv := decode(t, frame(t, "echo6"))
	owedSCTP, osv := decode(t, sctpFrame6(1400))
	owe(owedSCTP, osv)
	ends := []int{800, len(big.L4Bytes())}
	emit := func(_, _ []byte) {}
	return []one{
		{"NATIn TCPv6", func() { NATIn(tcp, tv, server, 8080) }},
		{"NATOut TCPv6", func() { NATOut(tcp, tv, vip, 80) }},
		{"NATIn TCPv6 behind headers", func() { NATIn(chain, hv, server, 8080) }},
		{"NATIn TCPv6 partial", func() { NATIn(part, pv, server, 8080) }},
		{"NATIn UDPv6", func() { NATIn(udp, uv, server, 5353) }},
		{"NATIn UDPv6 without checksum", func() { udp.UDP().SetChecksum(0); NATIn(udp, uv, server, 5353) }},
		{"NATIn SCTPv6 1400", func() { NATIn(sctp, sv, server, sctp.DstPort^1) }},
		{"NATErrorIn v6", func() { NATErrorIn(toVIP, ev, quoted, server, 8080) }},
		{"NATErrorOut v6", func() { NATErrorOut(toVIP, ev, quoted, vip, 80) }},
		{"Reset v6", func() { Reset(reply, tcp) }},
		{"Unreachable v6", func() { Unreachable(reply, big, TooBig, 1400, vip) }},
		{"TimeExceeded v6", func() { TimeExceeded(reply, tcp, vip) }},
		{"EchoReply v6", func() { echo.ICMP().SetType(128, 0); cv.SetFlags(packet.VnetDataValid); EchoReply(echo, cv) }},
		{"Split v6 1500 to 1280", func() { Split(heads, big.Frame, 1280, emit) }},
		{"SplitAt v6", func() { SplitAt(heads, big.Frame, ends, Fragmentation{40, 7}, emit) }},
		{"Segment 64000 TCPv6", func() { Segment(heads, super, gv, nil, emit) }},
		{"Segment 64000 UDPv6 behind headers", func() { Segment(heads, superUDP, guv, nil, emit) }},
		{"ChecksumOK v6", func() { ChecksumOK(tcp, tv); ChecksumOK(toVIP, ev) }},
		{"CompleteChecksum SCTPv6", func() { osv.SetFlags(packet.VnetNeedsCsum); CompleteChecksum(owedSCTP.Frame, osv) }},
	}
}

// hot are the functions on the packet path, each done to a frame that stays as it is.
func hot(t testing.TB) []one {
	server, vip := addr("10.1.0.11"), addr("10.9.0.100")
	reply := make([]byte, ReplyLen)
	tcp, tv := decode(t, frame(t, "syn"))
	part, pv := decode(t, frame(t, "syn"))
	owe(part, pv)
	udp, uv := decode(t, frame(t, "udp"))
	sctp, sv := decode(t, sctpFrame(1400))
	toVIP, ev := decode(t, frame(t, "error to VIP"))
	quoted := new(packet.Packet)
	packet.DecodeQuoted(toVIP.L4Bytes()[packet.ICMPLen:], quoted)
	big, _ := decode(t, tcpFrame(packet.TCPAck, 1460))
	super, gv := decode(t, superFrame(packet.ProtoTCP, 64000, 1448))
	heads := make([]byte, max(SplitRoom, SegmentRoom(super, gv)))
	echo, cv := decode(t, frame(t, "echo"))
	emit := func(_, _ []byte) {}
	var limiter Limiter
	limiter.Set(1000, 50)
	now := int64(0)
	var wrap []one
	for _, tun := range tunnels() {
		in, v := decode(t, frame(t, "syn"))
		if tun.PMTUDisc {
			wrap = append(wrap, one{"Tunnel.Wrap " + tun.String(), func() { tun.Wrap(heads, in, v) }},
				one{"Segment 64000 " + tun.String(), func() { Segment(heads, super, gv, tun, emit) }})
		}
	}
	return append(append(wrap, hot6(t)...), []one{
		{"Ethernet", func() { Ethernet(tcp.Frame, packet.MAC{2, 1}, packet.MAC{2, 2}) }},
		{"NATIn TCP", func() { NATIn(tcp, tv, server, 8080) }},
		{"NATOut TCP", func() { NATOut(tcp, tv, vip, 80) }},
		{"NATIn TCP partial", func() { NATIn(part, pv, server, 8080) }},
		{"NATIn UDP", func() { NATIn(udp, uv, server, 5353) }},
		{"NATIn UDP without checksum", func() { udp.UDP().SetChecksum(0); NATIn(udp, uv, server, 5353) }},
		{"NATIn SCTP 1400", func() { NATIn(sctp, sv, server, sctp.DstPort^1) }},
		{"NATErrorIn", func() { NATErrorIn(toVIP, ev, quoted, server, 8080) }},
		{"NATErrorOut", func() { NATErrorOut(toVIP, ev, quoted, vip, 80) }},
		{"Reset", func() { Reset(reply, tcp) }},
		{"Unreachable", func() { Unreachable(reply, big, TooBig, 1400, vip) }},
		{"TimeExceeded", func() { TimeExceeded(reply, tcp, vip) }},
		{"EchoReply", func() { echo.ICMP().SetType(8, 0); cv.SetFlags(packet.VnetDataValid); EchoReply(echo, cv) }},
		{"ARPReply", func() { ARPReply(reply, packet.MAC{2}, 1, packet.MAC{2, 1}, 2) }},
		{"GratuitousARP", func() { GratuitousARP(reply, packet.MAC{2}, 1, packet.ARPRequest) }},
		{"Split 1500 to 1400", func() { Split(heads, big.Frame, 1400, emit) }},
		{"Segment 64000", func() { Segment(heads, super, gv, nil, emit) }},
		{"ChecksumOK", func() { ChecksumOK(tcp, tv) }},
		{"CompleteChecksum", func() { pv.SetFlags(packet.VnetNeedsCsum); CompleteChecksum(part.Frame, pv) }},
		{"Limiter.Allow", func() { now += 1000; limiter.Allow(now) }},
	}...)
}

func TestHotFunctionsAllocateNothing(t *testing.T) {
	for _, h := range hot(t) {
		if n := testing.AllocsPerRun(200, h.do); n != 0 {
			t.Errorf("%s allocates %v times", h.name, n)
		}
	}
}

func BenchmarkHot(b *testing.B) {
	for _, h := range hot(b) {
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.do()
			}
		})
	}
}
