package forward

import (
	"bytes"
	"fmt"
	"testing"

	"uvs/packet"
)

// collect gathers what Split, SplitAt and Segment emit: whole frames with virtio-net header, copied, and the heads
// themselves, which must stay as they were.
type collect struct {
	frames [][]byte
	heads  [][]byte
	copies [][]byte
}

func (c *collect) emit(head, body []byte) {
	c.frames = append(c.frames, append(bytes.Clone(head), body...))
	c.heads = append(c.heads, head)
	c.copies = append(c.copies, bytes.Clone(head))
}

func (c *collect) check(t *testing.T) {
	t.Helper()
	for i := range c.heads {
		if !bytes.Equal(c.heads[i], c.copies[i]) {
			t.Fatalf("head %d was overwritten by a later one", i)
		}
	}
}

// glue is a slow and trusting reassembly: it returns the frame that the fragments were cut from, offsets relative to the
// first's.
func glue(t *testing.T, pieces [][]byte, mtu int) []byte {
	t.Helper()
	var whole []byte
	for i, f := range pieces {
		if !bytes.Equal(f[:packet.VnetLen], make([]byte, packet.VnetLen)) {
			t.Fatalf("piece %d: virtio-net header %x", i, f[:packet.VnetLen])
		}
		b := f[FrameHead:]
		ip, data, ok := packet.ParseIPv4(b)
		if !ok || len(b) != ip.TotalLen() || ip.TotalLen() > mtu || slowSum(b[:ip.HeaderLen()]) != 0xffff {
			t.Fatalf("piece %d of %d bytes to mtu %d: %x", i, len(b), mtu, b[:min(len(b), 60)])
		}
		if i == 0 {
			whole = bytes.Clone(f[packet.VnetLen:])
			continue
		}
		first := (*packet.IPv4)(whole[packet.EthLen:])
		at := len(whole) - packet.EthLen - first.HeaderLen()
		if ip.FragOffset() != first.FragOffset()+at || ip.ID() != first.ID() || ip.HeaderLen() != first.HeaderLen() {
			t.Fatalf("piece %d begins at %d, want %d", i, ip.FragOffset(), first.FragOffset()+at)
		}
		if i < len(pieces)-1 && (!ip.MF() || len(data)%8 != 0) {
			t.Fatalf("piece %d of %d: MF %v, %d bytes", i, len(pieces), ip.MF(), len(data))
		}
		whole = append(whole, data...)
	}
	last := (*packet.IPv4)(pieces[len(pieces)-1][FrameHead:])
	ip := (*packet.IPv4)(whole[packet.EthLen:])
	ip.SetTotalLen(len(whole) - packet.EthLen)
	ip.SetFrag(ip.DF(), last.MF(), ip.FragOffset())
	packet.FixIPv4Checksum(whole[packet.EthLen:])
	return whole
}

// FuzzSplit cuts any frame to any MTU and wants the glued pieces to be the frame.
func FuzzSplit(f *testing.F) {
	for name := range frames {
		f.Add(frame(f, name)[packet.VnetLen:], 28)
		f.Add(frame(f, name)[packet.VnetLen:], 1500)
	}
	f.Add(tcpFrame(0x10, 1460)[packet.VnetLen:], 576)
	f.Add(tcpFrame(0x10, 9000)[packet.VnetLen:], 68)
	f.Add(superFrame6(packet.ProtoTCP, 9000, 1448, nil)[packet.VnetLen:], 1280)
	f.Add(superFrame6(packet.ProtoUDP, 3000, 1448, extensions)[packet.VnetLen:], 576)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		p := new(packet.Packet)
		if packet.Decode(b, p) != packet.NoFault {
			var c collect
			if Split(make([]byte, SplitRoom), b, mtu, c.emit) { // it checks for itself what it needs
				c.check(t)
			}
			return
		}
		if !p.Is4() {
			checkSplit6(t, p, b, mtu)
			return
		}
		before := bytes.Clone(p.Frame)
		var c collect
		buf := make([]byte, SplitRoom)
		if !Split(buf, b, mtu, c.emit) {
			header, n := p.L4-p.L3, len(p.L4Bytes())
			if len(c.frames) == 0 && header+p.IPv4().FragOffset()+n > 0xffff {
				return // a fragment that ends beyond the longest datagram
			}
			if len(c.frames) > 0 || mtu >= 576 || mtu >= header && n == 0 {
				t.Fatalf("Split of %d+%d bytes to %d = false, having emitted %d", header, n, mtu, len(c.frames))
			}
			return
		}
		c.check(t)
		if !bytes.Equal(before, p.Frame) {
			t.Fatal("the frame itself has changed")
		}
		if fits := p.IPLen() <= mtu; fits != (len(c.frames) == 1) && len(c.frames) > 0 && p.IPLen() > p.L4-p.L3 {
			t.Fatalf("%d bytes to mtu %d make %d frames", p.IPLen(), mtu, len(c.frames))
		}
		if ip := (*packet.IPv4)(before[packet.EthLen:]); before[packet.EthLen+6]&0x80 != 0 {
			ip.SetFrag(ip.DF(), ip.MF(), ip.FragOffset()) // the reserved bit is not passed on
			packet.FixIPv4Checksum(before[packet.EthLen:])
		}
		if got := glue(t, c.frames, max(mtu, p.L4-p.L3)); !bytes.Equal(got, before) {
			t.Fatalf("glued:\n%x\nwant:\n%x", got, before)
		}
	})
}

func TestSplitRefuses(t *testing.T) {
	big := tcpFrame(packet.TCPAck, 1460)[packet.VnetLen:]
	arp := ARPReply(make([]byte, ARPFrameLen), packet.MAC{2}, 1, packet.MAC{2}, 2)[packet.VnetLen:]
	bare := onWire(make([]byte, 20))
	packet.PutIPv4(bare[FrameHead:], 20, packet.Header4{TTL: 64, Proto: packet.ProtoUDP})
	bare = bare[packet.VnetLen:]
	for _, tt := range []struct {
		name  string
		buf   int
		frame []byte
		mtu   int
		want  bool
	}{
		{"room for two heads", 2 * (FrameHead + 20), big, 1400, true},
		{"a byte less", 2*(FrameHead+20) - 1, big, 1400, false},
		{"mtu of header and eight bytes", SplitRoom, big[:14+60], 28, false}, // cut short: total length lies
		{"mtu of header and seven bytes", SplitRoom, big, 27, false},
		{"mtu 0", SplitRoom, big, 0, false},
		{"mtu below 0", SplitRoom, big, -1, false},
		{"ARP", SplitRoom, arp, 1500, false},
		{"nothing", SplitRoom, nil, 1500, false},
		{"it fits", FrameHead + 20, big, 1500, true},
		{"it fits, but no room", FrameHead + 19, big, 1500, false},
		{"a bare header", FrameHead + 20, bare, 20, true},
		{"a bare header, but no room", 0, bare, 20, false},
		{"a bare header, longer than the mtu", SplitRoom, bare, 19, false},
	} {
		var c collect
		if got := Split(make([]byte, tt.buf), tt.frame, tt.mtu, c.emit); got != tt.want || !tt.want && len(c.frames) > 0 {
			t.Errorf("%s: Split = %v, %d emitted, want %v", tt.name, got, len(c.frames), tt.want)
		}
	}
}

func TestSplitRoomIsEnoughDownTo576(t *testing.T) {
	ip := make([]byte, 0xffff)
	packet.PutIPv4(ip, len(ip), packet.Header4{ID: 1, TTL: 64, Proto: packet.ProtoUDP, Src: 0xc0000207, Dst: 0x0a090064})
	ip[0] = 0x4f
	for i := 20; i < 60; i++ {
		ip[i] = 1
	}
	packet.FixIPv4Checksum(ip)
	f := onWire(ip)[packet.VnetLen:]
	for mtu := 576; mtu < 1600; mtu++ {
		var c collect
		if !Split(make([]byte, SplitRoom), f, mtu, c.emit) {
			t.Fatalf("Split of the longest datagram to %d = false", mtu)
		}
		c.check(t)
	}
}

func TestSplitOptions(t *testing.T) {
	ip := make([]byte, 28+64)
	packet.PutIPv4(ip, len(ip), packet.Header4{ID: 1, TTL: 64, Proto: packet.ProtoUDP, Src: 0xc0000207, Dst: 0x0a090064})
	ip[0] = 0x47
	copy(ip[20:], "\x07\x04\x04\x00\x94\x04\x00\x00") // record route, router alert
	packet.FixIPv4Checksum(ip)
	var c collect
	if !Split(make([]byte, SplitRoom), onWire(ip)[packet.VnetLen:], 28+24, c.emit) || len(c.frames) != 3 {
		t.Fatalf("%d frames, want 3", len(c.frames))
	}
	for i, want := range []string{"\x07\x04\x04\x00\x94\x04\x00\x00", "\x01\x01\x01\x01\x94\x04\x00\x00", "\x01\x01\x01\x01\x94\x04\x00\x00"} {
		if got := string(c.frames[i][FrameHead+20 : FrameHead+28]); got != want {
			t.Errorf("options of fragment %d are %x, want %x", i, got, want)
		}
	}
}

func TestSplitAt(t *testing.T) {
	f := tcpFrame(packet.TCPAck, 80)[packet.VnetLen:] // 100 bytes of IP payload
	for _, tt := range []struct {
		ends []int
		want bool
	}{
		{[]int{48, 96, 100}, true},
		{[]int{8, 96, 100}, true},
		{[]int{100}, true},
		{[]int{48, 96}, false},
		{[]int{48, 50, 100}, false},
		{[]int{48, 48, 100}, false},
		{[]int{48, 8, 100}, false},
		{[]int{100, 100}, false},
		{[]int{104}, false},
		{[]int{0, 100}, false},
		{nil, false},
	} {
		var c collect
		if got := SplitAt(make([]byte, 200), f, tt.ends, Fragmentation{}, c.emit); got != tt.want || !tt.want && len(c.frames) > 0 {
			t.Errorf("SplitAt %v = %v, %d emitted, want %v", tt.ends, got, len(c.frames), tt.want)
		} else if got {
			at := 0
			for i, end := range tt.ends {
				if n := len(c.frames[i]) - FrameHead - 20; n != end-at {
					t.Errorf("SplitAt %v: piece %d has %d bytes", tt.ends, i, n)
				}
				at = end
			}
			if got := glue(t, c.frames, 1500); !bytes.Equal(got, f) {
				t.Errorf("SplitAt %v: glued %x, want %x", tt.ends, got, f)
			}
		}
	}
	var c collect
	if SplitAt(make([]byte, 2*(FrameHead+20)), f, []int{48, 96, 100}, Fragmentation{}, c.emit) {
		t.Error("SplitAt three pieces with room for two heads = true")
	}
}

func TestTunnelTOS(t *testing.T) {
	for tos := range 256 {
		f := frame(t, "udp")
		ip := (*packet.IPv4)(f[FrameHead:])
		ip.SetTOS(uint8(tos))
		packet.FixIPv4Checksum(f[FrameHead:])
		p, v := decode(t, f)
		tun := Tunnel{Src: addr("10.1.0.1"), Dst: addr("10.1.0.11"), PMTUDisc: true}
		head, body := tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), p, v)
		want := uint8(tos)
		if tos&3 == 3 {
			want = uint8(tos) - 1 // congestion experienced becomes ECT(0)
		}
		if got := (*packet.IPv4)(head[FrameHead:]).TOS(); got != want {
			t.Fatalf("outer TOS of %#x is %#x, want %#x", tos, got, want)
		}
		unwrap(t, &tun, append(bytes.Clone(head), body...))
	}
}

func TestTunnelCompletesTheChecksum(t *testing.T) {
	for _, name := range []string{"syn", "udp"} {
		p, v := decode(t, frame(t, name))
		want := bytes.Clone(p.Frame[p.L3:])
		owe(p, v)
		tun := Tunnel{Src: addr("10.1.0.1"), Dst: addr("10.1.0.11")}
		head, body := tun.Wrap(make([]byte, FrameHead+MaxTunnelLen), p, v)
		if !bytes.Equal(body, want) || (*packet.Vnet)(head).NeedsCsum() {
			t.Errorf("%s: body %x, want %x", name, body, want)
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	sctp := sctpFrame(30)
	for _, tt := range []struct {
		name  string
		frame []byte
	}{{"tcp", frame(t, "syn")}, {"udp", frame(t, "udp")}, {"icmp", frame(t, "echo")}, {"sctp", sctp},
		{"tcp6", frame(t, "syn6 behind headers")}, {"udp6", frame(t, "udp6")}, {"icmp6", frame(t, "echo6")}, {"sctp6", sctpFrame6(30)},
	} {
		p, v := decode(t, tt.frame)
		want := bytes.Clone(p.Frame)
		owe(p, v)
		CompleteChecksum(p.Frame, v)
		if !bytes.Equal(p.Frame, want) || v.NeedsCsum() {
			t.Errorf("%s: %x, want %x", tt.name, p.Frame, want)
		}
		CompleteChecksum(p.Frame, v)
		if !bytes.Equal(p.Frame, want) {
			t.Errorf("%s: a checksum that isn't owed has changed", tt.name)
		}
	}
	for _, at := range [][2]int{{60, 0}, {58, 0}, {57, 0}, {0xffff, 0xffff}, {34, 8}, {34, 23}} {
		p, v := decode(t, frame(t, "syn"))
		v.SetFlags(packet.VnetNeedsCsum)
		v.SetCsumStart(at[0])
		v.SetCsumOffset(at[1])
		CompleteChecksum(p.Frame, v)
		if v.NeedsCsum() {
			t.Errorf("start %d offset %d: still owed", at[0], at[1])
		}
	}
	v := new(packet.Vnet)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumOffset(8)
	CompleteChecksum(make([]byte, 20), v) // no IP packet at all
}

func TestChecksumOK(t *testing.T) {
	for _, name := range []string{"syn", "udp", "udp without checksum", "echo", "error to VIP", "first fragment", "last fragment",
		"syn6", "syn6 behind headers", "udp6", "echo6", "error6 to VIP", "first fragment6", "last fragment6"} {
		p, v := decode(t, frame(t, name))
		if !ChecksumOK(p, v) {
			t.Errorf("%s: ChecksumOK = false", name)
		}
		p.Frame[len(p.Frame)-1]++
		if got, want := ChecksumOK(p, v), p.Fragment || name == "udp without checksum"; got != want {
			t.Errorf("%s spoilt: ChecksumOK = %v, want %v", name, got, want)
		}
		v.SetFlags(packet.VnetDataValid)
		if !ChecksumOK(p, v) {
			t.Errorf("%s verified by the device: ChecksumOK = false", name)
		}
	}
	p, v := decode(t, frame(t, "udp6 without checksum"))
	if ChecksumOK(p, v) {
		t.Error("UDP over IPv6 without checksum: ChecksumOK = true")
	}
	if p, v = decode(t, sctpFrame6(9)); !ChecksumOK(p, v) {
		t.Error("SCTP over IPv6: ChecksumOK = false")
	}
	p, v = decode(t, sctpFrame(9))
	if !ChecksumOK(p, v) {
		t.Error("SCTP: ChecksumOK = false")
	}
	p.SCTP().SetChecksum(0)
	if ChecksumOK(p, v) {
		t.Error("SCTP spoilt: ChecksumOK = true")
	}
	p.Proto = packet.ProtoGRE
	if !ChecksumOK(p, v) {
		t.Error("GRE: ChecksumOK = false, want true: nothing is known of it")
	}
}

func TestIDsDiffer(t *testing.T) {
	seen := map[uint16]bool{}
	for range 1000 {
		id := nextID(1, 2, packet.ProtoIPIP)
		if id == 0 || seen[id] {
			t.Fatalf("id %d: zero or repeated within a thousand", id)
		}
		seen[id] = true
	}
}

func ExampleSplit() {
	f := onWire(make([]byte, 120))
	packet.PutIPv4(f[FrameHead:], 120, packet.Header4{TTL: 64, Proto: packet.ProtoUDP})
	Split(make([]byte, SplitRoom), f[packet.VnetLen:], 68, func(head, body []byte) {
		ip := (*packet.IPv4)(head[FrameHead:])
		fmt.Println(ip.FragOffset(), len(body), ip.MF())
	})
	// Output:
	// 0 48 true
	// 48 48 true
	// 96 4 false
}
