package decap

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The addresses of the tests: a director, this server, a virtual address, a client.
const (
	dip = "10.0.0.1"
	rip = "10.0.0.11"
	vip = "192.0.2.100"
	cip = "198.51.100.7"

	dip6 = "2001:db8:a::1"
	rip6 = "2001:db8:a::11"
	vip6 = "2001:db8:2::100"
	cip6 = "2001:db8:51::7"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// rules allow 10.0.0.1, 10.0.1.0/24 and 2001:db8:a::1, to 192.0.2.100 and .101 and 2001:db8:2::100.
func rules(t testing.TB) *Rules {
	t.Helper()
	r, err := NewRules([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.1.0/24"),
		netip.MustParsePrefix("2001:db8:a::1/128")}, []netip.Addr{addr(vip), addr("192.0.2.101"), addr(vip6)}, DefaultGUEPort)
	must(t, err)
	return r
}

// here are this host's own addresses.
var here = Addresses{packet.AddrFrom(addr(rip)): {}, packet.AddrFrom(addr("127.0.0.1")): {}, packet.AddrFrom(addr(rip6)): {}}

// number is an IPv4 address in host order.
func number(a netip.Addr) uint32 { return packet.AddrFrom(a).V4() }

func ip4(src, dst string, p layers.IPProtocol, tos uint8) *layers.IPv4 {
	return &layers.IPv4{Version: 4, IHL: 5, TOS: tos, TTL: 64, Id: 7, Flags: layers.IPv4DontFragment, Protocol: p,
		SrcIP: addr(src).AsSlice(), DstIP: addr(dst).AsSlice()}
}

// serialize builds a frame with gopacket, which knows nothing of ours.
func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return b.Bytes()
}

var eth = &layers.Ethernet{SrcMAC: []byte{2, 0, 10, 0, 0, 1}, DstMAC: []byte{2, 0, 10, 0, 0, 11}, EthernetType: layers.EthernetTypeIPv4}

// tunnelled is a UDP datagram from inner.SrcIP behind outer, in an Ethernet frame.
func tunnelled(t testing.TB, outer, inner *layers.IPv4, payload string) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: 1234, DstPort: 53}
	must(t, udp.SetNetworkLayerForChecksum(inner))
	return serialize(t, eth, outer, inner, udp, gopacket.Payload(payload))
}

// segment is a TCP segment of payload bytes behind outer, its checksum left undone as GRO leaves it, and the virtio-net
// header that says so.
func segment(t testing.TB, outer, inner *layers.IPv4, payload int, gsoSize int) ([]byte, packet.Vnet) {
	t.Helper()
	tcp := &layers.TCP{SrcPort: 1234, DstPort: 80, Seq: 1000, ACK: true, Window: 500}
	must(t, tcp.SetNetworkLayerForChecksum(inner))
	b := serialize(t, eth, outer, inner, tcp, gopacket.Payload(make([]byte, payload)))
	l4 := b[54:]
	(*packet.TCP)(l4).SetChecksum(packet.Fold(packet.Pseudo4(number(addr(inner.SrcIP.String())), number(addr(inner.DstIP.String())), 6, len(l4))))
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(54)
	v.SetCsumOffset(16)
	if gsoSize > 0 {
		v.SetGSOType(packet.GSOTCPv4)
		v.SetGSOSize(gsoSize)
		v.SetHdrLen(len(b)) // what is linear in the kernel's buffer: no help
	}
	return b, v
}

// unhex reads bytes in hex with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	must(t, err)
	return b
}
