package decap

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/packet"
)

// seeds are frames as they come off a wire: Ethernet, outer IPv4, inner packet.
var seeds = []struct{ vnet, frame string }{
	{ // DNS query of 5 bytes, tunnelled by 10.0.0.1 to 10.0.0.11
		"00 00 0000 0000 0000 0000",
		"02000a00000b 02000a000001 0800" + // Ethernet
			"4500 0035 0007 4000 40 04 26b3 0a000001 0a00000b" + // outer: 53 bytes, DF, TTL 64, protocol 4
			"4500 0021 0007 4000 40 11 4e26 c6336407 c0000264" + // inner: 33 bytes, UDP, 198.51.100.7 to 192.0.2.100
			"04d2 0035 000d ca5b 68656c6c6f", // ports 1234 and 53, 13 bytes, "hello"
	},
	{ // SYN, congestion met in the tunnel (outer CE), sender capable of marks (inner ECT(0))
		"02 00 0000 0000 0000 0000",
		"02000a00000b 02000a000001 0800" +
			"4503 003c 0000 4000 40 04 26b0 0a000001 0a00000b" +
			"4502 0028 0007 4000 40 06 4e28 c6336407 c0000264" +
			"04d2 0050 000003e8 00000000 5002 01f4 b845 0000",
	},
	{ // two TCP segments of 8 bytes that GRO merged: NEEDS_CSUM at 54+16, TCPv4 segments of 8, headers of 74
		"01 01 4a00 0800 3600 1000",
		"02000a00000b 02000a000001 0800" +
			"4500 004c 0000 4000 40 04 26a3 0a000001 0a00000b" +
			"4500 0038 0007 4000 40 06 4e1a c6336407 c0000264" +
			"04d2 0050 000003e8 00000001 5010 01f4 ecc9 0000" + // checksum: the pseudo-header's sum
			"61616161616161616262626262626262",
	},
	{ // the first fragment of a tunnelled packet
		"00 00 0000 0000 0000 0000",
		"02000a00000b 02000a000001 0800" +
			"4500 0030 0009 2000 40 04 46b6 0a000001 0a00000b" +
			"4500 0320 0007 4000 40 11 4b27 c6336407 c0000264 04d2 0035 030c 0000",
	},
	{ // a tunnel in the tunnel, to this server
		"00 00 0000 0000 0000 0000",
		"02000a00000b 02000a000001 0800" +
			"4500 003c 0000 4000 40 04 26b3 0a000001 0a00000b" +
			"4500 0028 0000 4000 40 04 26c7 0a000001 0a00000b" +
			"4500 0014 0007 4000 40 11 4e33 c6336407 c0000264",
	},
}

func TestSeedsAreWhatTheySay(t *testing.T) {
	for i, want := range []Verdict{Delivered, Delivered, Delivered, DropFragment, DropNotVIP} {
		v := packet.Vnet(unhex(t, seeds[i].vnet))
		if _, _, got := rules(t).Open(unhex(t, seeds[i].frame), 14, &v, here); got != want {
			t.Errorf("seed %d: %v, want %v", i, got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, s := range seeds {
		f.Add(unhex(f, s.frame), 14, unhex(f, s.vnet))
	}
	plain := tunnelled(f, ip4(dip, rip, layers.IPProtocolIPv4, 0), ip4(cip, vip, layers.IPProtocolUDP, 0), "x")
	f.Add(plain[14:], 0, make([]byte, packet.VnetLen))
	f.Add([]byte{}, -1, make([]byte, packet.VnetLen))
	r := rules(f)
	f.Fuzz(func(t *testing.T, frame []byte, l3 int, vnet []byte) {
		if len(vnet) < packet.VnetLen {
			return
		}
		before, was := bytes.Clone(frame), packet.Vnet(vnet)
		v := was
		start, end, verdict := r.Open(frame, l3, &v, here)
		if want := slowly(before, l3); verdict != want && (want != Delivered || verdict != DropOffload) {
			t.Fatalf("Open() = %v, want %v", verdict, want)
		}
		if verdict != Delivered {
			if !bytes.Equal(frame, before) && verdict != DropOffload {
				t.Fatal("refused and changed")
			}
			return
		}
		if start < l3+20 || end > len(frame) || end-start < 20 {
			t.Fatalf("Open() = %d, %d of %d", start, end, len(frame))
		}
		// But for the type of service and the header's checksum all is as it was.
		in := frame[start:end]
		frame[start+1], before[start+1] = 0, 0
		copy(frame[start+10:start+12], before[start+10:])
		if !bytes.Equal(frame, before) {
			t.Fatalf("changed %x to %x", before, frame)
		}
		if v.NeedsCsum() != was.NeedsCsum() || v.GSOType() != was.GSOType() {
			t.Fatalf("%x became %x", was, v)
		}
		if v.NeedsCsum() && (v.CsumStart() != was.CsumStart()-start || v.CsumStart() < 20 || v.CsumStart()+v.CsumOffset()+2 > len(in)) {
			t.Fatalf("%x became %x for %d bytes", was, v, len(in))
		}
		if v.GSOType() != packet.GSONone && (v.GSOSize() == 0 || v.GSOSize() != was.GSOSize() || v.HdrLen() > len(in)) {
			t.Fatalf("%x became %x for %d bytes", was, v, len(in))
		}
	})
}

// slowly judges as Open does, word by word from the RFCs, but for the virtio-net header.
func slowly(b []byte, l3 int) Verdict {
	if l3 < 0 || l3 > len(b) {
		return DropOuterHeader
	}
	outer, rest := header(b[l3:])
	switch {
	case outer == nil:
		return DropOuterHeader
	case !bytes.Equal(outer[16:20], []byte{10, 0, 0, 11}) && !bytes.Equal(outer[16:20], []byte{127, 0, 0, 1}):
		return PassNotLocal
	case outer[6]&0x20 != 0 || outer[6]&0x1f != 0 || outer[7] != 0:
		return DropFragment
	case !bytes.Equal(outer[12:16], []byte{10, 0, 0, 1}) && !bytes.Equal(outer[12:15], []byte{10, 0, 1}):
		return DropDirector
	case outer[9] != 4:
		return DropProtocol
	}
	inner, _ := header(rest)
	if inner == nil {
		return DropInnerHeader
	}
	src := inner[12:16]
	own := [][]byte{{192, 0, 2, 100}, {192, 0, 2, 101}, {10, 0, 0, 11}}
	switch {
	case src[0] == 0, src[0] == 127, src[0] >= 224, slices.ContainsFunc(own, func(a []byte) bool { return bytes.Equal(a, src) }):
		return DropSource
	case !bytes.Equal(inner[16:20], own[0]) && !bytes.Equal(inner[16:20], own[1]):
		return DropNotVIP
	case outer[1]&3 == 3 && inner[1]&3 == 0:
		return DropCongestion
	}
	return Delivered
}

// header is the IPv4 header at the start of b and its payload; nil if it is none.
func header(b []byte) (h, payload []byte) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return nil, nil
	}
	n, total := int(b[0]&15)*4, int(b[2])<<8|int(b[3])
	if n < 20 || total < n || total > len(b) {
		return nil, nil
	}
	sum := 0
	for i := 0; i < n; i += 2 {
		sum += int(b[i])<<8 | int(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum != 0xffff {
		return nil, nil
	}
	return b[:n], b[n:total]
}
