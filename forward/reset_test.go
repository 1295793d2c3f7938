package forward

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

// A segment of either family, with options and payload, becomes a reset for the one it was going to, which gopacket finds
// sound; what is no whole segment stays as it is.
func TestMakeReset(t *testing.T) {
	tcp := &layers.TCP{
		SrcPort: 40001, DstPort: 80, Seq: 1000, Ack: 5000, ACK: true, PSH: true, FIN: true, Window: 500,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}},
	}
	eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
	eth6 := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv6}
	ip4 := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{192, 0, 2, 7}, DstIP: net.IP{10, 9, 0, 100}}
	ip6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP("2001:db8::7"), DstIP: net.ParseIP("2001:db8::100")}
	for _, tt := range []struct {
		name string
		head []gopacket.SerializableLayer
		ip   gopacket.NetworkLayer
	}{{"IPv4", []gopacket.SerializableLayer{eth, ip4}, ip4}, {"IPv6", []gopacket.SerializableLayer{eth6, ip6}, ip6}} {
		if err := tcp.SetNetworkLayerForChecksum(tt.ip); err != nil {
			t.Fatal(err)
		}
		buf := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			append(tt.head, tcp, gopacket.Payload(make([]byte, 1000)))...)
		if err != nil {
			t.Fatal(err)
		}
		var p packet.Packet
		if fault := packet.Decode(buf.Bytes(), &p); fault != packet.NoFault {
			t.Fatalf("%s: fault %v", tt.name, fault)
		}
		v := new(packet.Vnet)
		v.SetGSOType(packet.GSOTCPv4)
		if !MakeReset(&p, v) || *v != (packet.Vnet{}) {
			t.Fatalf("%s: not made, or %v stays", tt.name, *v)
		}
		sent := gopacket.NewPacket(p.Frame, layers.LayerTypeEthernet, gopacket.Default)
		h, ok := sent.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || !h.RST || !h.ACK || h.FIN || h.PSH || h.Seq != 1000 || h.Ack != 5000 || len(h.Options) > 0 || len(h.Payload) > 0 {
			t.Errorf("%s: %v", tt.name, sent)
		}
		if !ChecksumOK(&p, v) || packet.Decode(p.Frame, &p) != packet.NoFault {
			t.Errorf("%s: not sound: %v", tt.name, sent)
		}
	}
	fragment := packet.Packet{Flow: packet.Flow{Proto: packet.ProtoTCP}, Fragment: true}
	datagram := packet.Packet{Flow: packet.Flow{Proto: packet.ProtoUDP}}
	if MakeReset(&fragment, new(packet.Vnet)) || MakeReset(&datagram, new(packet.Vnet)) {
		t.Error("what is no whole TCP segment became a reset")
	}
}
