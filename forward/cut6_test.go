package forward

import (
	"bytes"
	"encoding/binary"
	"testing"

	"uvs/packet"
)

// extensions are hop-by-hop options, then destination options of 16 bytes, leading to TCP or UDP, whose number is to be
// written to extensions[8].
var extensions = []byte{
	60, 0, 1, 4, 0, 0, 0, 0,
	0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
}

// superFrame6 is superFrame over IPv6, with extension headers if any are given.
func superFrame6(proto uint8, n, size int, ext []byte) []byte {
	in := superFrame(proto, n, size)
	l4 := in[FrameHead+packet.IPv4Len:]
	ext = bytes.Clone(ext)
	first := proto
	if len(ext) > 0 {
		first, ext[8] = 0, proto
	}
	ip := make([]byte, packet.IPv6Len, packet.IPv6Len+len(ext)+len(l4))
	packet.PutIPv6(ip, len(ext)+len(l4), packet.Header6{TrafficClass: 0x2e, FlowLabel: 0xabcde, NextHeader: first, HopLimit: 63,
		Src: addr("2001:db8:c::7"), Dst: addr("2001:db8:9::100")})
	f := onWire(append(append(ip, ext...), l4...))
	copy(f, in[:packet.VnetLen])
	v := (*packet.Vnet)(f)
	v.SetHdrLen(v.HdrLen() + 20 + len(ext))
	v.SetCsumStart(v.CsumStart() + 20 + len(ext))
	if proto == packet.ProtoTCP {
		v.SetGSOType(packet.GSOTCPv6 | packet.GSOECN)
	}
	return f
}

// glue6 is a slow and trusting reassembly: the frame that the fragments were cut from, behind fixed bytes of each.
func glue6(t *testing.T, pieces [][]byte, fixed, mtu int) []byte {
	t.Helper()
	var whole []byte
	for i, f := range pieces {
		if !bytes.Equal(f[:packet.VnetLen], make([]byte, packet.VnetLen)) {
			t.Fatalf("piece %d: virtio-net header %x", i, f[:packet.VnetLen])
		}
		b := f[FrameHead:]
		ip, _, ok := packet.ParseIPv6(b)
		if !ok || len(b) != packet.IPv6Len+ip.PayloadLen() || len(b) > mtu || len(b) < fixed+9 {
			t.Fatalf("piece %d of %d bytes to mtu %d: %x", i, len(b), mtu, b[:min(len(b), 60)])
		}
		h, data := (*packet.Fragment)(b[fixed:]), b[fixed+8:]
		if i == 0 {
			whole = append(bytes.Clone(f[packet.VnetLen:FrameHead+fixed]), data...)
		} else {
			first := pieces[0][FrameHead:]
			length := [2]int{4, 6}
			if !bytes.Equal(masked(first[:fixed], length), masked(b[:fixed], length)) || first[fixed] != b[fixed] ||
				!bytes.Equal(first[fixed+4:fixed+8], b[fixed+4:fixed+8]) {
				t.Fatalf("piece %d has other headers: %x", i, b[:fixed+8])
			}
			whole = append(whole, data...)
		}
		if at := len(whole) - len(data) - packet.EthLen - fixed; h.Offset() != at || h.MF() != (i < len(pieces)-1) || h.MF() && len(data)%8 != 0 {
			t.Fatalf("piece %d of %d at %d, want %d, MF %v, %d bytes", i, len(pieces), h.Offset(), at, h.MF(), len(data))
		}
	}
	b := whole[packet.EthLen:]
	(*packet.IPv6)(b).SetPayloadLen(len(b) - packet.IPv6Len)
	said := 6
	for h := packet.IPv6Len; h < fixed; h += 8 + 8*int(b[h+1]) {
		said = h
	}
	if b[said] != packet.ProtoFragment {
		t.Fatalf("next header %d, want a fragment header", b[said])
	}
	b[said] = pieces[0][FrameHead+fixed]
	return whole
}

// checkSplit6 cuts an IPv6 frame, which b begins with, and wants the glued pieces to be the frame.
func checkSplit6(t *testing.T, p *packet.Packet, b []byte, mtu int) {
	before := bytes.Clone(b)
	fixed, ok := packet.UnfragmentableLen(p.Frame[p.L3:])
	var c collect
	cut := Split(make([]byte, 1<<20), b, mtu, c.emit)
	c.check(t)
	if !bytes.Equal(before, b) {
		t.Fatal("the frame itself has changed")
	}
	switch whole := p.IPLen() <= mtu; {
	case cut != (whole || ok && (mtu-fixed-8)&^7 >= 8):
		t.Fatalf("Split of %d bytes, %d of them fixed, to %d = %v", p.IPLen(), fixed, mtu, cut)
	case !cut && len(c.frames) > 0 || cut && whole != (len(c.frames) == 1) && p.IPLen()-fixed > 8:
		t.Fatalf("%d bytes to mtu %d make %d frames", p.IPLen(), mtu, len(c.frames))
	case whole:
		if !bytes.Equal(c.frames[0][packet.VnetLen:], p.Frame) {
			t.Fatalf("whole %x, want %x", c.frames[0], p.Frame)
		}
	case cut:
		if got := glue6(t, c.frames, fixed, mtu); !bytes.Equal(got, p.Frame) {
			t.Fatalf("glued:\n%x\nwant:\n%x", got, p.Frame)
		}
	}
}

func TestSplitOfOurOwnIPv6(t *testing.T) {
	p, _ := decode(t, superFrame6(packet.ProtoUDP, 3000, 1448, nil))
	var ids []uint32
	for range 2 {
		var c collect
		if !Split(make([]byte, SplitRoom), p.Frame, 1280, c.emit) || len(c.frames) != 3 {
			t.Fatalf("%d pieces, want 3", len(c.frames))
		}
		ids = append(ids, binary.BigEndian.Uint32(c.frames[0][FrameHead+44:]))
	}
	if ids[0] == ids[1] || ids[0] == 0 {
		t.Errorf("two packets have the identifications %#x", ids)
	}
	var c collect
	if Split(make([]byte, 2*(FrameHead+48)), p.Frame, 1280, c.emit) || len(c.frames) > 0 {
		t.Error("Split into three pieces with room for two heads = true")
	}
	if Split(make([]byte, FrameHead+39), p.Frame, 9000, c.emit) || len(c.frames) > 0 {
		t.Error("Split of what fits, but no room for its head = true")
	}
}

func TestSplitRoomIsEnoughForIPv6(t *testing.T) {
	ip := make([]byte, packet.IPv6Len+0xffff)
	packet.PutIPv6(ip, 0xffff, packet.Header6{NextHeader: packet.ProtoIPv6, HopLimit: 64, Src: addr("2001:db8::1"), Dst: addr("2001:db8::2")})
	f := onWire(ip)[packet.VnetLen:]
	for mtu := 576; mtu < 1600; mtu++ {
		var c collect
		if !Split(make([]byte, SplitRoom), f, mtu, c.emit) {
			t.Fatalf("Split of the longest packet to %d = false", mtu)
		}
		c.check(t)
	}
}

func TestSplitAtOfIPv6(t *testing.T) {
	p, _ := decode(t, superFrame6(packet.ProtoUDP, 92, 1448, extensions)) // 100 bytes of UDP
	for _, tt := range []struct {
		fixed int
		ends  []int
		want  bool
	}{
		{64, []int{48, 96, 100}, true},
		{64, []int{100}, true},
		{48, []int{8, 16, 116}, true}, // with the destination options in the first two
		{40, []int{124}, true},
		{64, []int{48, 96}, false},
		{64, []int{50, 100}, false},
		{64, nil, false},
		{56, []int{108}, false}, // no header begins there
		{41, []int{123}, false},
		{0, []int{164}, false},
		{-1, []int{100}, false},
		{72, []int{92}, false},
		{900, []int{100}, false},
	} {
		var c collect
		if got := SplitAt(make([]byte, 400), p.Frame, tt.ends, Fragmentation{tt.fixed, 0xcafe}, c.emit); got != tt.want || !tt.want && len(c.frames) > 0 {
			t.Errorf("SplitAt %d, %v = %v, %d emitted, want %v", tt.fixed, tt.ends, got, len(c.frames), tt.want)
		} else if got && tt.fixed != 64 {
			if len(c.frames) != len(tt.ends) || binary.BigEndian.Uint32(c.frames[0][FrameHead+tt.fixed+4:]) != 0xcafe {
				t.Errorf("SplitAt %d, %v: %x", tt.fixed, tt.ends, c.frames[0])
			}
		} else if got {
			if whole := glue6(t, c.frames, tt.fixed, 1500); !bytes.Equal(whole, p.Frame) {
				t.Errorf("SplitAt %v: glued %x, want %x", tt.ends, whole, p.Frame)
			}
		}
	}
}
