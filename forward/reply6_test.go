package forward

import (
	"bytes"
	"testing"

	"uvs/packet"
)

// onIPv6 is the TCP or UDP packet f over IPv6 instead, with a right checksum and the given traffic class.
func onIPv6(t testing.TB, f []byte, class uint8) []byte {
	p, _ := decode(t, f)
	ip := make([]byte, packet.IPv6Len)
	packet.PutIPv6(ip, len(p.L4Bytes()), packet.Header6{TrafficClass: class, FlowLabel: 0x12345, NextHeader: p.Proto, HopLimit: 64,
		Src: addr("2001:db8:c::7"), Dst: addr("2001:db8:9::100")})
	out := onWire(append(ip, p.L4Bytes()...))
	q, _ := decode(t, out)
	l4 := q.L4Bytes()
	at := checksumAt(q)
	clear(l4[at : at+2])
	packet.SetWord(l4[at:], ^slowSum(pseudo(q, len(l4)), l4))
	return out
}

func TestResetIPv6(t *testing.T) {
	for _, tt := range []struct {
		name     string
		flags    uint8
		payload  int
		seq, ack uint32
		want     uint8
	}{
		{"SYN", packet.TCPSyn, 0, 0, 0xfffffff1, packet.TCPRst | packet.TCPAck},
		{"SYN with data, the sequence wraps", packet.TCPSyn, 20, 0, 5, packet.TCPRst | packet.TCPAck},
		{"ACK", packet.TCPAck, 100, 0x01020304, 0, packet.TCPRst},
	} {
		p, _ := decode(t, onIPv6(t, tcpFrame(tt.flags, tt.payload), 0xba))
		f := Reset(make([]byte, ReplyLen), p)
		r, v := decode(t, f)
		h := r.TCP()
		if r.Flow != p.Flow.Reverse() || h.Seq() != tt.seq || h.Ack() != tt.ack || h.Flags() != tt.want || !valid(r) || *v != (packet.Vnet{}) ||
			r.IPv6().TrafficClass() != 0xb8 || r.TTL != 64 {
			t.Errorf("%s: frame %x", tt.name, f)
		}
		if eth := (*packet.Eth)(r.Frame); eth.Dst() != (*packet.Eth)(p.Frame).Src() || eth.Src() != (*packet.Eth)(p.Frame).Dst() {
			t.Errorf("%s: goes from %v to %v, not back where it came from", tt.name, eth.Src(), eth.Dst())
		}
	}
	for _, name := range []string{"udp6", "echo6", "first fragment6"} {
		if p, _ := decode(t, frame(t, name)); Reset(make([]byte, ReplyLen), p) != nil {
			t.Errorf("Reset of %s is not nil", name)
		}
	}
	if p, _ := decode(t, onIPv6(t, tcpFrame(packet.TCPRst, 0), 0)); Reset(make([]byte, ReplyLen), p) != nil {
		t.Error("Reset of a RST is not nil")
	}
}

func TestICMPv6ErrorQuotesWhatFits(t *testing.T) {
	vip := addr("2001:db8:9::100")
	for _, n := range []int{0, 1, 1171, 1172, 1173, 1440, 60000} {
		p, _ := decode(t, onIPv6(t, tcpFrame(packet.TCPAck, n), 0x42))
		f := Unreachable(make([]byte, ReplyLen), p, TooBig, 70000, vip)
		r, _ := decode(t, f)
		want := min(len(p.Frame)-packet.EthLen, 1232)
		quote := r.L4Bytes()[packet.ICMPLen:]
		if len(quote) != want || !bytes.Equal(quote, p.Frame[packet.EthLen:][:want]) {
			t.Errorf("%d bytes of payload: %d bytes quoted, want %d", n, len(quote), want)
		}
		if !valid(r) || r.ICMP().MTU6() != 70000 || r.ICMP().Type() != 2 || r.ICMP().Code() != 0 || r.Src != vip || r.Dst != p.Src ||
			r.IPv6().TrafficClass() != 0 || r.TTL != 64 {
			t.Errorf("frame %x", f[:80])
		}
		if f := TimeExceeded(make([]byte, ReplyLen), p, vip); len(f) != FrameHead+48+want || f[FrameHead+40] != 3 || f[FrameHead+41] != 0 {
			t.Errorf("TimeExceeded %x", f[:80])
		}
	}
}

// TestReasons says what each code of ICMP becomes in ICMPv6 (RFC 7915 section 4.2).
func TestReasons(t *testing.T) {
	p4, _ := decode(t, frame(t, "udp"))
	p6, _ := decode(t, frame(t, "udp6"))
	for why, want := range map[Reason][2]uint8{
		0: {1, 0}, NoHost: {1, 3}, NoProtocol: {4, 1}, NoPort: {1, 4}, TooBig: {2, 0}, 5: {1, 0}, 9: {1, 1}, 10: {1, 1}, 11: {1, 0}, 13: {1, 1}, 15: {1, 1}, 99: {1, 0},
	} {
		f := Unreachable(make([]byte, ReplyLen), p6, why, 1400, addr("2001:db8:9::100"))
		if got := [2]uint8(f[FrameHead+40:]); got != want {
			t.Errorf("reason %d is %v in ICMPv6, want %v", why, got, want)
		}
		f = Unreachable(make([]byte, ReplyLen), p4, why, 1400, addr("10.9.0.100"))
		if got := [2]uint8(f[FrameHead+20:]); got != [2]uint8{3, uint8(why)} {
			t.Errorf("reason %d is %v in ICMP", why, got)
		}
	}
}

// TestWhatMustNotBeAnsweredInIPv6 is RFC 4443 section 2.4 (e).
func TestWhatMustNotBeAnsweredInIPv6(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		change      func(f []byte)
		want        bool
	}{
		{"a TCP packet", "syn6", func([]byte) {}, true},
		{"behind extension headers", "syn6 behind headers", func([]byte) {}, true},
		{"an ICMPv6 error", "error6 to VIP", func([]byte) {}, false},
		{"an ICMPv6 error behind extension headers", "error6 with headers", func([]byte) {}, false},
		{"an ICMPv6 error of unknown type", "echo6", func(f []byte) { f[FrameHead+40] = 100 }, false},
		{"a redirect", "echo6", func(f []byte) { f[FrameHead+40] = 137 }, false},
		{"an informational message of unknown type", "echo6", func(f []byte) { f[FrameHead+40] = 200 }, true},
		{"an echo request", "echo6", func([]byte) {}, true},
		{"a first fragment", "first fragment6", func([]byte) {}, true},
		{"a later fragment", "last fragment6", func([]byte) {}, false},
		{"a first fragment of ICMPv6, too short", "last fragment6", func(f []byte) {
			f[FrameHead+5] = 12
			packet.PutFragment(f[FrameHead+40:], packet.ProtoICMPv6, 0, true, 1)
		}, false},
		{"to a group", "udp6", func(f []byte) { f[FrameHead+24] = 0xff }, false},
		{"from nobody", "echo6", func(f []byte) { clear(f[FrameHead+8 : FrameHead+24]) }, false},
		{"in a frame to a group", "udp6", func(f []byte) { copy(f[packet.VnetLen:], "\x33\x33\x00\x00\x00\x01") }, false},
		{"in a frame from a group", "udp6", func(f []byte) { f[packet.VnetLen+6] = 1 }, false},
	} {
		f := frame(t, tt.frame)
		tt.change(f)
		p, _ := decode(t, f)
		if got := MayAnswer(p); got != tt.want {
			t.Errorf("%s: MayAnswer = %v, want %v", tt.name, got, tt.want)
		}
		buf := make([]byte, ReplyLen)
		if a, b := Unreachable(buf, p, NoPort, 0, p.Dst), TimeExceeded(buf, p, p.Dst); (a != nil) != tt.want || (b != nil) != tt.want {
			t.Errorf("%s: answered", tt.name)
		}
	}
}

func TestEchoReplyIPv6(t *testing.T) {
	message := frame(t, "echo6")[FrameHead+40:]
	behind := func(ext string) []byte {
		ip := make([]byte, packet.IPv6Len)
		packet.PutIPv6(ip, len(ext)+len(message), packet.Header6{TrafficClass: 0x5c, FlowLabel: 9, NextHeader: 0, HopLimit: 9,
			Src: addr("2001:db8:c::7"), Dst: addr("2001:db8:9::100")})
		return onWire(append(append(ip, ext...), message...))
	}
	for _, tt := range []struct {
		name   string
		frame  []byte
		change func(p *packet.Packet, v *packet.Vnet)
		class  uint8
		want   bool
	}{
		{"a request", frame(t, "echo6"), nil, 0, true},
		{"checksum owed", frame(t, "echo6"), owe, 0, true},
		{"checksum wrong", frame(t, "echo6"), func(p *packet.Packet, _ *packet.Vnet) { p.Frame[p.L4+9]++ }, 0, false},
		{"behind options and a fragment header", behind("\x2c\x00\x01\x04\x00\x00\x00\x00\x3a\x00\x00\x00\x00\x00\x00\x07"), nil, 0x5c, true},
		{"the same, checksum owed", behind("\x2c\x00\x01\x04\x00\x00\x00\x00\x3a\x00\x00\x00\x00\x00\x00\x07"), owe, 0x5c, true},
		{"a reply", frame(t, "echo6"), func(p *packet.Packet, v *packet.Vnet) { p.ICMP().SetType(129, 0); v.SetFlags(packet.VnetDataValid) }, 0, false},
		{"code 1", frame(t, "echo6"), func(p *packet.Packet, v *packet.Vnet) { p.ICMP().SetType(128, 1); v.SetFlags(packet.VnetDataValid) }, 0, false},
		{"to a group", frame(t, "echo6"), func(p *packet.Packet, _ *packet.Vnet) { p.Frame[1] = 0x33; p.Frame[0] = 0x33 }, 0, false},
		{"a fragment", frame(t, "first fragment6"), nil, 0, false},
		{"IPv4's echo request over IPv6", frame(t, "echo6"), func(p *packet.Packet, v *packet.Vnet) {
			p.Proto = packet.ProtoICMP
			p.ICMP().SetType(8, 0)
			v.SetFlags(packet.VnetDataValid)
		}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, v := decode(t, tt.frame)
			if tt.change != nil {
				tt.change(p, v)
			}
			before := bytes.Clone(tt.frame)
			if got := EchoReply(p, v); got != tt.want {
				t.Fatalf("EchoReply = %v, want %v", got, tt.want)
			}
			if !tt.want {
				if !bytes.Equal(tt.frame, before) {
					t.Error("the frame has changed")
				}
				return
			}
			r, v := decode(t, tt.frame[:packet.VnetLen+len(p.Frame)])
			if r.Flow != p.Flow || r.Src != addr("2001:db8:9::100") || r.Dst != addr("2001:db8:c::7") || r.TTL != 64 || v.NeedsCsum() ||
				r.L4 != packet.EthLen+40 || r.L4 != p.L4 || p.FragmentAt != 0 || r.IPv6().FlowLabel() != 0 || r.IPv6().TrafficClass() != tt.class {
				t.Errorf("%+v", r)
			}
			if !valid(r) || r.ICMP().Type() != 129 || !bytes.Equal(r.L4Bytes()[4:], message[4:]) {
				t.Errorf("ICMPv6 message %x", r.L4Bytes())
			}
		})
	}
}

// TestUnknownProtocolPointsAtTheFieldThatNamesIt is RFC 4443 section 3.4: with extension headers it is the last one's field.
func TestUnknownProtocolPointsAtTheFieldThatNamesIt(t *testing.T) {
	p, _ := decode(t, frame(t, "udp6"))
	for _, chain := range []struct {
		headers []byte // first their protocols, then themselves
		first   byte
		want    int
	}{
		{nil, packet.ProtoSCTP, 6},
		{[]byte{packet.ProtoSCTP, 0, 1, 4, 0, 0, 0, 0}, 60, 40},
		{[]byte{60, 0, 1, 4, 0, 0, 0, 0, packet.ProtoSCTP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 48},
		{[]byte{51, 0, 0, 0, 0, 0, 0, 9, packet.ProtoSCTP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 44, 48},
	} {
		sctp := make([]byte, packet.SCTPLen)
		f := append(append(append([]byte(nil), p.Frame[:packet.EthLen+packet.IPv6Len]...), chain.headers...), sctp...)
		ip := (*packet.IPv6)(f[packet.EthLen:])
		ip.SetNextHeader(chain.first)
		ip.SetPayloadLen(len(chain.headers) + len(sctp))
		var q packet.Packet
		if fault := packet.Decode(f, &q); fault != packet.NoFault || q.Proto != packet.ProtoSCTP {
			t.Fatalf("Decode = %v, protocol %d", fault, q.Proto)
		}
		b := Unreachable(make([]byte, ReplyLen), &q, NoProtocol, 0, addr("2001:db8:9::100"))
		if got := (*packet.ICMP)(b[FrameHead+packet.IPv6Len:]).MTU6(); got != chain.want { // the same four bytes
			t.Errorf("%x: points at %d, want %d", chain.headers, got, chain.want)
		}
	}
}
