package forward

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

// The slow twins: checksums as the RFCs describe them, word by word, over copies.

func slowSum(parts ...[]byte) uint16 {
	b := bytes.Join(parts, nil)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	s := uint32(0)
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// pseudo is the pseudo-header of p with the L4 length n.
func pseudo(p *packet.Packet, n int) []byte {
	ip := p.Frame[p.L3:]
	if ip[0]>>4 == 6 {
		return append(append(bytes.Clone(ip[8:40]), 0, 0, byte(n>>8), byte(n)), 0, 0, 0, p.Proto)
	}
	return append(append(bytes.Clone(ip[12:20]), 0, ip[9]), byte(n>>8), byte(n))
}

// valid says that p's L4 checksum is right, none at all counting as right for UDP over IPv4.
func valid(p *packet.Packet) bool {
	b := p.L4Bytes()
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoICMPv6:
		return slowSum(pseudo(p, len(b)), b) == 0xffff
	case packet.ProtoUDP:
		n := int(binary.BigEndian.Uint16(b[4:]))
		if b[6] == 0 && b[7] == 0 {
			return p.Is4()
		}
		return slowSum(pseudo(p, n), b[:n]) == 0xffff
	case packet.ProtoSCTP:
		c := bytes.Clone(b)
		clear(c[8:12])
		return binary.LittleEndian.Uint32(b[8:]) == crc32.Checksum(c, crc32.MakeTable(crc32.Castagnoli))
	case packet.ProtoICMP:
		return slowSum(b) == 0xffff
	}
	return true
}

// gopacketAgrees recomputes p's TCP or UDP checksum with gopacket and compares.
func gopacketAgrees(t *testing.T, p *packet.Packet) {
	t.Helper()
	g := gopacket.NewPacket(p.Frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	ip := g.NetworkLayer()
	if ip == nil {
		if !p.Is4() && p.L4 > p.L3+packet.IPv6Len {
			return // it reads what is in extension headers, and may dislike it
		}
		t.Fatalf("gopacket sees no IP packet in %x", p.Frame)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{ComputeChecksums: true}
	switch l4 := g.TransportLayer().(type) {
	case *layers.TCP:
		if len(l4.Contents) != 20 || l4.Contents[12]&0xe != 0 {
			return // it writes options its own way, and no reserved bits
		}
		want := l4.Checksum
		l4.SetNetworkLayerForChecksum(ip)
		if err := gopacket.SerializeLayers(buf, opts, l4, gopacket.Payload(l4.Payload)); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint16(buf.Bytes()[16:]); got != want {
			t.Errorf("TCP checksum %#x, gopacket computes %#x: %x", want, got, p.Frame)
		}
	case *layers.UDP:
		want := l4.Checksum
		if want == 0 || int(l4.Length) != len(p.L4Bytes()) {
			return
		}
		l4.SetNetworkLayerForChecksum(ip)
		if err := gopacket.SerializeLayers(buf, opts, l4, gopacket.Payload(l4.Payload)); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint16(buf.Bytes()[6:]); got != want && got != 0 {
			t.Errorf("UDP checksum %#x, gopacket computes %#x: %x", want, got, p.Frame)
		}
	}
}

// Frames to start from. Spaces part the headers.
var frames = map[string]string{
	// 192.0.2.7:40001 > 10.9.0.100:80 SYN seq 1000 win 64240 mss 1460, ttl 64 id 1 DF
	"syn": "0200000009010200000009fe0800 4500002c0001400040066e57c00002070a090064 9c410050000003e8000000006002faf030480000 020405b4",
	// the same with four NOP options in the IP header, from 192.0.2.8:40004
	"syn options": "0200000009010200000009fe0800 46000030003640004 0066b1bc00002080a090064 01010101 9c440050000003e8000000006002faf030440000020405b4",
	// 10.1.0.11:8080 > 192.0.2.99:1234 PSH ACK, 18 bytes
	"data": "02000000010102000000010b0800 4500003a0030400040066e1f0a01000bc0000263 1f9004d2000003e9000013895018faf0cde60000 474554202f20485454502f312e300d0a0d0a",
	// 192.0.2.1:1 > 10.9.0.100:81 UDP, 32 bytes
	"udp": "0200000009010200000009fe0800 4500003c000400004011ae3fc00002010a090064 0001005100288bc7 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
	// 192.0.2.7:40001 > 10.9.0.100:53 UDP, 32 bytes, no checksum
	"udp without checksum": "0200000009010200000009fe0800 4500003c001400004011ae29c00002070a090064 9c41003500280000 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
	// 192.0.2.7 > 10.9.0.100 ICMP echo request
	"echo": "0200000009010200000009fe0800 4500003c002100004001ae2cc00002070a090064 0800b15b004d0001 6162636465666768616263646566676861626364656667686162636465666768",
	// 203.0.113.1 > 10.9.0.100 ICMP 3/4 mtu 1400 about 10.9.0.100:80 > 192.0.2.7:40001, 28 bytes quoted
	"error to VIP": "0200000009010200000009fe0800 45000038000b00004001344ccb0071010a090064 0304570900000578 4500003a000940003e0670410a090064c0000207 00509c41000003e9",
	// 10.1.0.250 > 192.0.2.7 ICMP 3/4 mtu 1300 about 192.0.2.7:40001 > 10.1.0.11:8080, 58 bytes quoted
	"error from router": "0200000001010200000001fa0800 45000056001000004001ad950a0100fac0000207 0304c42700000514 4500003a000940003e0670a2c00002070a01000b 9c411f90000003e9000013895018faf036d30000 474554202f20485454502f312e300d0a0d0a",
	// 192.0.2.9:50001 > 10.9.0.100:53 UDP, first 48 of 108 bytes, id 503 MF
	"first fragment": "0200000009010200000009fe0800 4500004401f7200040118c3cc00002090a090064 c3510035006c2874 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3dae1e8eff6fd040b12",
	// the same, the last 12 bytes, at offset 96
	"last fragment": "0200000009010200000009fe0800 4500002001f7000c4011ac54c00002090a090064 6970777e858c939aa1a8afb6",
	// [2001:db8:c::7]:40001 > [2001:db8:9::100]:80 SYN seq 1000 win 64240 mss 1460, hop limit 64
	"syn6": "0200000009010200000009fe86dd 6000000000180640 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c410050000003e8000000006002faf0a02e0000 020405b4",
	// the same behind hop-by-hop options, destination options and an atomic fragment's header
	"syn6 behind headers": "0200000009010200000009fe86dd 6000000000300040 20010db8000c00000000000000000007 20010db8000900000000000000000100 3c00010400000000 2c00010400000000 06000000000001f4 9c410050000003e8000000006002faf0a02e0000 020405b4",
	// [2001:db8:c::7]:40001 > [2001:db8:9::100]:53 UDP, 32 bytes, traffic class 0xb8, flow label 0x12345
	"udp6": "0200000009010200000009fe86dd 6b81234500281140 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c41003500285f83 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
	// the same without a checksum, which no sender of IPv6 may leave out
	"udp6 without checksum": "0200000009010200000009fe86dd 6b81234500281140 20010db8000c00000000000000000007 20010db8000900000000000000000100 9c41003500280000 01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
	// 2001:db8:c::9 > 2001:db8:9::100 the first 16 bytes of a UDP datagram, id 0x1f4
	"first fragment6": "0200000009010200000009fe86dd 6000000000182c40 20010db8000c00000000000000000009 20010db8000900000000000000000100 11000001000001f4 1389003507d84054 01080f161d242b32",
	// the same, 8 bytes at offset 1448, the last
	"last fragment6": "0200000009010200000009fe86dd 6000000000102c40 20010db8000c00000000000000000009 20010db8000900000000000000000100 110005a8000001f4 61686f767d848b92",
	// 2001:db8:c::7 > 2001:db8:9::100 ICMPv6 echo request
	"echo6": "0200000009010200000009fe86dd 6000000000283a40 20010db8000c00000000000000000007 20010db8000900000000000000000100 8000dc6a004d0001 6162636465666768616263646566676861626364656667686162636465666768",
	// 2001:db8:f::1 > 2001:db8:9::100 packet too big, mtu 1300, about [2001:db8:9::100]:80 > [2001:db8:c::7]:40001
	"error6 to VIP": "0200000009010200000009fe86dd 6000000000563a40 20010db8000f00000000000000000001 20010db8000900000000000000000100 0200359800000514 600000000026063e 20010db8000900000000000000000100 20010db8000c00000000000000000007 00509c41000003e9000013895018faf0c5980000 474554202f20485454502f312e300d0a0d0a",
	// 2001:db8:1::fe > 2001:db8:c::7 packet too big, mtu 1300, about [2001:db8:c::7]:40001 > [2001:db8:1::11]:8080
	"error6 from router": "0200000001010200000001fa86dd 6000000000563a40 20010db80001000000000000000000fe 20010db8000c00000000000000000007 0200359f00000514 600000000026063e 20010db8000c00000000000000000007 20010db8000100000000000000000011 9c411f90000003e9000013895018faf0a74f0000 474554202f20485454502f312e300d0a0d0a",
	// 2001:db8:f::1 > 2001:db8:9::100 no route, about [2001:db8:9::100]:53 > [2001:db8:c::7]:40001 UDP behind destination options and
	// in a first fragment, the error itself behind hop-by-hop options
	"error6 with headers": "0200000009010200000009fe86dd 6000000000500040 20010db8000f00000000000000000001 20010db8000900000000000000000100 3a00010400000000 01008b2a00000000 6000000005783c3e 20010db8000900000000000000000100 20010db8000c00000000000000000007 2c00010400000000 11000001000001f4 00359c4105600000",
}

// frame returns a recorded frame with an empty virtio-net header in front.
func frame(t testing.TB, name string) []byte {
	t.Helper()
	s, ok := frames[name]
	if !ok {
		t.Fatalf("no frame %q", name)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("frame %q: %v", name, err)
	}
	return append(make([]byte, packet.VnetLen), b...)
}

// sctpFrame6 is sctpFrame over IPv6.
func sctpFrame6(n int) []byte {
	b := make([]byte, packet.IPv6Len, packet.IPv6Len+packet.SCTPLen+n)
	packet.PutIPv6(b, packet.SCTPLen+n, packet.Header6{NextHeader: packet.ProtoSCTP, HopLimit: 64,
		Src: addr("2001:db8:c::7"), Dst: addr("2001:db8:9::100")})
	return onWire(append(b, sctpFrame(n)[FrameHead+packet.IPv4Len:]...))
}

// sctpFrame is an INIT-like packet from 192.0.2.7:5000 to 10.9.0.100:80 with a right CRC.
func sctpFrame(n int) []byte {
	b := make([]byte, packet.IPv4Len+packet.SCTPLen+n)
	packet.PutIPv4(b, len(b), packet.Header4{ID: 7, DF: true, TTL: 64, Proto: packet.ProtoSCTP, Src: 0xc0000207, Dst: 0x0a090064})
	l4 := b[packet.IPv4Len:]
	ports := (*packet.Ports)(l4)
	ports.SetSrc(5000)
	ports.SetDst(80)
	for i := range n {
		l4[packet.SCTPLen+i] = byte(i)
	}
	(*packet.SCTP)(l4).SetChecksum(packet.CRC32c(l4))
	return onWire(b)
}

// onWire puts virtio-net and Ethernet header in front of an IP packet.
func onWire(ip []byte) []byte {
	f := make([]byte, FrameHead, FrameHead+len(ip))
	etherType := uint16(packet.EtherIPv4)
	if len(ip) > 0 && ip[0]>>4 == 6 {
		etherType = packet.EtherIPv6
	}
	putHead(f, packet.MAC{2, 0, 0, 0, 9, 1}, packet.MAC{2, 0, 0, 0, 9, 0xfe}, etherType)
	return append(f, ip...)
}

// decode decodes a frame with virtio-net header.
func decode(t testing.TB, f []byte) (*packet.Packet, *packet.Vnet) {
	t.Helper()
	p := new(packet.Packet)
	if fault := packet.Decode(f[packet.VnetLen:], p); fault != packet.NoFault {
		t.Fatalf("Decode = %v", fault)
	}
	return p, (*packet.Vnet)(f)
}

// checksumAt is where p's protocol has its checksum, or 0 if it has none that a device could complete.
func checksumAt(p *packet.Packet) int {
	switch p.Proto {
	case packet.ProtoTCP:
		return 16
	case packet.ProtoUDP:
		return 6
	case packet.ProtoSCTP:
		return 8
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return 2
	}
	return 0
}

// owe makes p's checksum one that the device is to complete.
func owe(p *packet.Packet, v *packet.Vnet) {
	at := checksumAt(p)
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(p.L4)
	v.SetCsumOffset(at)
	b := p.L4Bytes()
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		n := len(b)
		if p.Proto == packet.ProtoUDP {
			n = p.UDP().Len()
		}
		binary.BigEndian.PutUint16(b[at:], slowSum(pseudo(p, n)))
	case packet.ProtoICMPv6:
		binary.BigEndian.PutUint16(b[at:], slowSum(pseudo(p, len(b))))
	case packet.ProtoICMP:
		b[2], b[3] = 0, 0
	}
}

// masked is f with the given parts zeroed, to compare what must not have changed.
func masked(f []byte, parts ...[2]int) []byte {
	f = bytes.Clone(f)
	for _, p := range parts {
		clear(f[p[0]:p[1]])
	}
	return f
}
