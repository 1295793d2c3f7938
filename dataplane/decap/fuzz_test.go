package decap

import (
	"bytes"
	"net/netip"
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
	for _, k := range kinds {
		for i := range 4 {
			f.Add(k.pack(f, i&1 != 0, 0, query(f, i&2 != 0, i&1 == 0, 0, "payload")), 14, make([]byte, packet.VnetLen))
		}
	}
	r := rules(f)
	f.Fuzz(func(t *testing.T, frame []byte, l3 int, vnet []byte) {
		if len(vnet) < packet.VnetLen {
			return
		}
		before, was := bytes.Clone(frame), packet.Vnet(vnet)
		v := was
		start, end, verdict := r.Open(frame, l3, &v, here)
		offload := verdict == DropOffload || verdict == DropChecksum
		switch want := slowly(before, l3); {
		case verdict == want, want == Delivered && verdict == DropOffload:
		case (was.NeedsCsum() || was.GSOType() != packet.GSONone) && (want == DropChecksum || offload): // the header knows more
		default:
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
		// But for the congestion mark and IPv4's header checksum all is as it was.
		in := frame[start:end]
		if in[0]>>4 == 4 {
			frame[start+1], before[start+1] = 0, 0
			copy(frame[start+10:start+12], before[start+10:])
		} else {
			frame[start+1] = frame[start+1]&^0x30 | before[start+1]&0x30
		}
		if !bytes.Equal(frame, before) {
			t.Fatalf("changed %x to %x", before, frame)
		}
		if v.GSOType() != was.GSOType() {
			t.Fatalf("%x became %x", was, v)
		}
		if v.NeedsCsum() && (v.CsumStart() < 20 || v.CsumStart()+v.CsumOffset()+2 > len(in)) {
			t.Fatalf("%x became %x for %d bytes", was, v, len(in))
		}
		if v.NeedsCsum() && was.NeedsCsum() && v.CsumStart() != was.CsumStart()-start {
			t.Fatalf("%x became %x", was, v)
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
	o := slowIP(b[l3:])
	switch {
	case o == nil:
		return DropOuterHeader
	case o.dst != addr(rip) && o.dst != addr("127.0.0.1") && o.dst != addr(rip6):
		return PassNotLocal
	case o.fragment && !slowlyAllowed(o.src):
		return PassFragment
	case o.fragment:
		return DropFragment
	case !slowlyAllowed(o.src):
		return DropDirector
	}
	version, inner, verdict := slowTunnel(o)
	if verdict != Delivered {
		return verdict
	}
	in := slowIP(inner)
	if in == nil || inner[0]>>4 != version {
		return DropInnerHeader
	}
	own := []netip.Addr{addr(vip), addr("192.0.2.101"), addr(vip6), addr(rip), addr(rip6)}
	switch s := in.src; {
	case s.Is4() && (s.As4()[0] == 0 || s.As4()[0] == 127 || s.As4()[0] >= 224), s.Is4In6(), s.IsUnspecified(), s.IsLoopback(),
		s.IsMulticast(), s.IsLinkLocalUnicast() && s.Is6(), slices.Contains(own, s):
		return DropSource
	case !slices.Contains(own[:3], in.dst):
		return DropNotVIP
	case o.tos&3 == 3 && in.tos&3 == 0:
		return DropCongestion
	}
	return Delivered
}

func slowlyAllowed(src netip.Addr) bool {
	return src == addr(dip) || src == addr(dip6) || netip.MustParsePrefix("10.0.1.0/24").Contains(src)
}

// slowPacket is what an IP header says.
type slowPacket struct {
	src, dst   netip.Addr
	proto, tos uint8
	fragment   bool
	payload    []byte
}

func slowIP(b []byte) *slowPacket {
	if len(b) > 0 && b[0]>>4 == 6 {
		if len(b) < 40 {
			return nil
		}
		n := int(b[4])<<8 | int(b[5])
		if len(b) < 40+n || n == 0 && b[6] != 59 { // a jumbogram, else
			return nil
		}
		return &slowPacket{
			netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[0]<<4 | b[1]>>4, b[6] == 44, b[40 : 40+n],
		}
	}
	h, payload := header(b)
	if h == nil {
		return nil
	}
	return &slowPacket{
		netip.AddrFrom4([4]byte(h[12:16])), netip.AddrFrom4([4]byte(h[16:20])), h[9], h[1], h[6]&0x20 != 0 || h[6]&0x1f != 0 || h[7] != 0, payload,
	}
}

// slowTunnel opens a tunnel and returns the IP version that its header names.
func slowTunnel(o *slowPacket) (version uint8, inner []byte, verdict Verdict) {
	b := o.payload
	versions := map[uint8]uint8{4: 4, 41: 6}
	switch o.proto {
	case 4, 41:
		return versions[o.proto], b, Delivered
	case 47:
		if len(b) < 4 || b[0]&0x7f != 0 || b[1] != 0 {
			return 0, nil, DropTunnelHeader
		}
		n := 4 + int(b[0]>>7)*4
		version := map[string]uint8{"\x08\x00": 4, "\x86\xdd": 6}[string(b[2:4])]
		if len(b) < n || version == 0 {
			return 0, nil, DropTunnelHeader
		}
		if n == 8 && slowSum(b) != 0xffff {
			return 0, nil, DropChecksum
		}
		return version, b[n:], Delivered
	case 17:
		if len(b) < 8 || int(b[4])<<8|int(b[5]) < 8 || int(b[4])<<8|int(b[5]) > len(b) {
			return 0, nil, DropTunnelHeader
		}
		b = b[:int(b[4])<<8|int(b[5])]
		if int(b[2])<<8|int(b[3]) != 6080 {
			return 0, nil, DropProtocol
		}
		summed := b[6] != 0 || b[7] != 0
		if pseudo := slices.Concat(o.src.AsSlice(), o.dst.AsSlice(), []byte{0, 17, b[4], b[5]}, b); summed && slowSum(pseudo) != 0xffff {
			return 0, nil, DropChecksum
		}
		g, payload, ok := packet.ParseGUE(b[8:])
		if !ok || versions[g.Proto] == 0 {
			return 0, nil, DropTunnelHeader
		}
		if g.Remote && !summed {
			return 0, nil, DropChecksum
		}
		return versions[g.Proto], payload, Delivered
	}
	return 0, nil, DropProtocol
}

func slowSum(b []byte) int {
	sum := 0
	for i := range b {
		sum += int(b[i]) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
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
	if slowSum(b[:n]) != 0xffff {
		return nil, nil
	}
	return b[:n], b[n:total]
}
