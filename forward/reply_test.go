package forward

import (
	"bytes"
	"testing"

	"uvs/packet"
)

func tcpFrame(flags uint8, n int) []byte {
	b := make([]byte, packet.IPv4Len+packet.TCPLen+n)
	packet.PutIPv4(b, len(b), packet.Header4{TOS: 0x10, ID: 9, DF: true, TTL: 64, Proto: packet.ProtoTCP, Src: 0xc0000207, Dst: 0x0a090064})
	l4 := b[packet.IPv4Len:]
	ports := (*packet.Ports)(l4)
	ports.SetSrc(40001)
	ports.SetDst(80)
	h := (*packet.TCP)(l4)
	h.SetSeq(0xfffffff0)
	h.SetAck(0x01020304)
	h.SetHeaderLen(packet.TCPLen)
	h.SetFlags(flags)
	for i := range n {
		l4[packet.TCPLen+i] = byte(i * 7)
	}
	ip := (*packet.IPv4)(b)
	h.SetChecksum(^packet.Fold(packet.Sum(l4, packet.Pseudo4(ip.Src(), ip.Dst(), packet.ProtoTCP, len(l4)))))
	return onWire(b)
}

func TestReset(t *testing.T) {
	for _, tt := range []struct {
		name     string
		flags    uint8
		payload  int
		seq, ack uint32
		want     uint8
	}{
		{"SYN", packet.TCPSyn, 0, 0, 0xfffffff1, packet.TCPRst | packet.TCPAck},
		{"SYN with data, the sequence wraps", packet.TCPSyn, 20, 0, 5, packet.TCPRst | packet.TCPAck},
		{"FIN", packet.TCPFin, 0, 0, 0xfffffff1, packet.TCPRst | packet.TCPAck},
		{"no flags", 0, 3, 0, 0xfffffff3, packet.TCPRst | packet.TCPAck},
		{"ACK", packet.TCPAck, 100, 0x01020304, 0, packet.TCPRst},
		{"SYN ACK", packet.TCPSyn | packet.TCPAck, 0, 0x01020304, 0, packet.TCPRst},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := decode(t, tcpFrame(tt.flags, tt.payload))
			p.IPv4().SetTOS(0x10 | 2)
			f := Reset(make([]byte, ReplyLen), p)
			r, v := decode(t, f)
			h := r.TCP()
			if r.Flow != p.Flow.Reverse() || h.Seq() != tt.seq || h.Ack() != tt.ack || h.Flags() != tt.want {
				t.Errorf("%v seq %#x ack %#x flags %#x, want seq %#x ack %#x flags %#x", r.Flow, h.Seq(), h.Ack(),
					h.Flags(), tt.seq, tt.ack, tt.want)
			}
			if !valid(r) || *v != (packet.Vnet{}) || r.IPv4().TOS() != 0x10 || !r.IPv4().DF() || r.TTL != 64 {
				t.Errorf("frame %x", f)
			}
			eth := (*packet.Eth)(r.Frame)
			if eth.Dst() != (*packet.Eth)(p.Frame).Src() || eth.Src() != (*packet.Eth)(p.Frame).Dst() {
				t.Errorf("goes from %v to %v, not back where it came from", eth.Src(), eth.Dst())
			}
		})
	}
	for _, name := range []string{"udp", "echo"} {
		p, _ := decode(t, frame(t, name))
		if Reset(make([]byte, ReplyLen), p) != nil {
			t.Errorf("Reset of %s is not nil", name)
		}
	}
	p, _ := decode(t, tcpFrame(packet.TCPRst|packet.TCPAck, 0))
	if Reset(make([]byte, ReplyLen), p) != nil {
		t.Error("Reset of a RST is not nil: two directors would never stop")
	}
}

func TestICMPErrorQuotesWhatFits(t *testing.T) {
	for _, n := range []int{0, 1, 507, 508, 509, 1460, 60000} {
		in := tcpFrame(packet.TCPAck, n)
		p, _ := decode(t, in)
		f := Unreachable(make([]byte, ReplyLen), p, TooBig, 1400, addr("10.9.0.100"))
		r, _ := decode(t, f)
		want := min(len(p.Frame)-packet.EthLen, 548)
		quote := r.L4Bytes()[packet.ICMPLen:]
		if len(quote) != want || !bytes.Equal(quote, p.Frame[packet.EthLen:][:want]) {
			t.Errorf("%d bytes of payload: %d bytes quoted, want %d", n, len(quote), want)
		}
		if !valid(r) || r.ICMP().MTU() != 1400 || r.ICMP().Type() != 3 || r.ICMP().Code() != 4 ||
			r.Src != addr("10.9.0.100") || r.Dst != p.Src || r.IPv4().TOS() != 0xd0 || r.IPv4().DF() || r.TTL != 64 {
			t.Errorf("frame %x", f[:80])
		}
		if f := TimeExceeded(make([]byte, ReplyLen), p, addr("10.9.0.100")); len(f) != FrameHead+packet.IPv4Len+packet.ICMPLen+want {
			t.Errorf("TimeExceeded has %d bytes", len(f))
		}
	}
}

// TestWhatMustNotBeAnswered is RFC 1122 section 3.2.2.
func TestWhatMustNotBeAnswered(t *testing.T) {
	fix := func(f []byte) { packet.FixIPv4Checksum(f[FrameHead:]) }
	for _, tt := range []struct {
		name, frame string
		change      func(f []byte)
		want        bool
	}{
		{"a TCP packet", "syn", func(f []byte) {}, true},
		{"an ICMP error", "error to VIP", func(f []byte) {}, false},
		{"a redirect", "echo", func(f []byte) { f[FrameHead+20] = 5 }, false},
		{"an ICMP message of unknown type", "echo", func(f []byte) { f[FrameHead+20] = 99 }, false},
		{"an echo request", "echo", func(f []byte) {}, true},
		{"an echo reply", "echo", func(f []byte) { f[FrameHead+20] = 0 }, true},
		{"a first fragment", "first fragment", func(f []byte) {}, true},
		{"a later fragment", "last fragment", func(f []byte) {}, false},
		{"a first fragment of ICMP, too short", "last fragment", func(f []byte) {
			ip := (*packet.IPv4)(f[FrameHead:])
			ip.SetTotalLen(24)
			ip.SetFrag(false, true, 0)
			f[FrameHead+9] = packet.ProtoICMP
			fix(f)
		}, false},
		{"to a multicast address", "udp", func(f []byte) { f[FrameHead+16] = 224; fix(f) }, false},
		{"to the limited broadcast", "udp", func(f []byte) { copy(f[FrameHead+16:], "\xff\xff\xff\xff"); fix(f) }, false},
		{"to this network", "udp", func(f []byte) { f[FrameHead+16] = 0; fix(f) }, false},
		{"from class E", "udp", func(f []byte) { f[FrameHead+12] = 250; fix(f) }, false},
		{"in a frame to everybody", "udp", func(f []byte) { copy(f[packet.VnetLen:], packet.Broadcast[:]) }, false},
		{"in a frame from a group", "udp", func(f []byte) { f[packet.VnetLen+6] = 1 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := frame(t, tt.frame)
			tt.change(f)
			p := new(packet.Packet)
			got := packet.Decode(f[packet.VnetLen:], p) == packet.NoFault && MayAnswer(p)
			if got != tt.want {
				t.Fatalf("MayAnswer = %v, want %v", got, tt.want)
			}
			if p.Frame == nil {
				return // it isn't even decoded
			}
			buf := make([]byte, ReplyLen)
			if got := Unreachable(buf, p, 3, 0, p.Dst) != nil; got != tt.want {
				t.Errorf("Unreachable answers: %v, want %v", got, tt.want)
			}
			if got := TimeExceeded(buf, p, p.Dst) != nil; got != tt.want {
				t.Errorf("TimeExceeded answers: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestEchoReply(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *packet.Packet, v *packet.Vnet)
		want   bool
	}{
		{"a request", func(*packet.Packet, *packet.Vnet) {}, true},
		{"checksum owed", owe, true},
		{"checksum wrong", func(p *packet.Packet, _ *packet.Vnet) { p.Frame[p.L4+9]++ }, false},
		{"checksum verified by the device", func(_ *packet.Packet, v *packet.Vnet) { v.SetFlags(packet.VnetDataValid) }, true},
		{"a reply", func(p *packet.Packet, _ *packet.Vnet) { p.ICMP().SetType(0, 0) }, false},
		{"code 1", func(p *packet.Packet, v *packet.Vnet) { p.ICMP().SetType(8, 1); v.SetFlags(packet.VnetDataValid) }, false},
		{"to everybody", func(p *packet.Packet, _ *packet.Vnet) { copy(p.Frame, packet.Broadcast[:]) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := frame(t, "echo")
			p, v := decode(t, f)
			tt.change(p, v)
			before := bytes.Clone(f)
			if got := EchoReply(p, v); got != tt.want {
				t.Fatalf("EchoReply = %v, want %v", got, tt.want)
			}
			if !tt.want {
				if !bytes.Equal(f, before) {
					t.Error("the frame has changed")
				}
				return
			}
			r, v := decode(t, f)
			if r.Flow != p.Flow || r.Src != addr("10.9.0.100") || r.Dst != addr("192.0.2.7") || r.TTL != 64 || v.NeedsCsum() {
				t.Errorf("%+v", r)
			}
			if !valid(r) || r.ICMP().Type() != 0 || !bytes.Equal(r.L4Bytes()[4:], before[len(before)-len(r.L4Bytes())+4:]) {
				t.Errorf("ICMP message %x", r.L4Bytes())
			}
		})
	}
	p, v := decode(t, frame(t, "syn"))
	if EchoReply(p, v) {
		t.Error("EchoReply of TCP = true")
	}
}

func TestEchoReplyDropsOptions(t *testing.T) {
	in := frame(t, "echo")
	ip := append(bytes.Clone(in[FrameHead:FrameHead+20]), 7, 7, 4, 1, 2, 3, 4, 0)
	ip = append(ip, in[FrameHead+20:]...)
	ip[0] = 0x47
	(*packet.IPv4)(ip).SetTotalLen(len(ip))
	packet.FixIPv4Checksum(ip)
	p, v := decode(t, onWire(ip))
	if !EchoReply(p, v) {
		t.Fatal("EchoReply = false")
	}
	r, _ := decode(t, append(make([]byte, packet.VnetLen), p.Frame...))
	if got := r.Frame[34:42]; !bytes.Equal(got, bytes.Repeat([]byte{1}, 8)) {
		t.Errorf("options %x", got)
	}
}

func TestARPFrames(t *testing.T) {
	mac, asker := packet.MAC{0, 0, 0x5e, 0, 1, 7}, packet.MAC{2, 0, 0, 0, 9, 0xfe}
	vip, host := uint32(0x0a090064), uint32(0x0a0900fe)
	buf := make([]byte, ARPFrameLen)
	for i := range buf {
		buf[i] = 0xee
	}
	for _, tt := range []struct {
		name                string
		frame               []byte
		dst                 packet.MAC
		op                  uint16
		sender, target      uint32
		targetMAC, fromThis packet.MAC
	}{
		{"reply", ARPReply(bytes.Clone(buf), mac, vip, asker, host), asker, 2, vip, host, asker, mac},
		{"request", ARPRequest(bytes.Clone(buf), mac, vip, packet.Broadcast, host), packet.Broadcast, 1, vip, host, packet.MAC{}, mac},
		{"probe", ARPRequest(bytes.Clone(buf), mac, 0, packet.Broadcast, vip), packet.Broadcast, 1, 0, vip, packet.MAC{}, mac},
		{"announcement", GratuitousARP(bytes.Clone(buf), mac, vip, packet.ARPRequest), packet.Broadcast, 1, vip, vip, packet.MAC{}, mac},
		{"gratuitous reply", GratuitousARP(bytes.Clone(buf), mac, vip, packet.ARPReply), packet.Broadcast, 2, vip, vip, packet.Broadcast, mac},
	} {
		eth, b, _ := packet.ParseEth(tt.frame[packet.VnetLen:])
		a, ok := packet.ParseARP(b)
		if !ok || eth.Type() != packet.EtherARP || eth.Dst() != tt.dst || eth.Src() != mac || a.Op() != tt.op ||
			a.SenderMAC() != mac || a.Sender() != tt.sender || a.TargetMAC() != tt.targetMAC || a.Target() != tt.target ||
			!bytes.Equal(tt.frame[:packet.VnetLen], make([]byte, packet.VnetLen)) {
			t.Errorf("%s: %x", tt.name, tt.frame)
		}
	}
}

// FuzzReply wants answers to be well-formed and addressed back, whatever they answer.
func FuzzReply(f *testing.F) {
	for name := range frames {
		f.Add(frame(f, name)[packet.VnetLen:], uint8(3), 1400)
	}
	f.Fuzz(func(t *testing.T, b []byte, code uint8, mtu int) {
		buf := append(make([]byte, packet.VnetLen), b...)
		p, v := new(packet.Packet), (*packet.Vnet)(buf)
		if packet.Decode(buf[packet.VnetLen:], p) != packet.NoFault {
			return
		}
		own := addr("10.9.0.100")
		if !p.Is4() {
			own = addr("2001:db8:9::100")
		}
		for _, out := range [][]byte{
			Reset(make([]byte, ReplyLen), p),
			Unreachable(make([]byte, ReplyLen), p, Reason(code), mtu, own),
			TimeExceeded(make([]byte, ReplyLen), p, p.Dst),
		} {
			if out == nil {
				continue
			}
			r, _ := decode(t, out)
			if r.Dst != p.Src || !valid(r) || len(r.Frame) != len(out)-packet.VnetLen || len(out) > ReplyLen {
				t.Fatalf("answer %x to %x", out, p.Frame)
			}
			if r.Is4() != p.Is4() || r.IsICMP() && MayAnswer(r) {
				t.Fatalf("an ICMP error may be answered: %x", out)
			}
			if r.Proto == packet.ProtoTCP && Reset(make([]byte, ReplyLen), r) != nil {
				t.Fatalf("a RST may be answered: %x", out)
			}
		}
		if EchoReply(p, v) {
			r, _ := decode(t, buf[:packet.VnetLen+len(p.Frame)])
			if !valid(r) || r.Flow != p.Flow || EchoReply(r, v) {
				t.Fatalf("echo reply %x", r.Frame)
			}
		}
	})
}
