package dataplane

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
	"uvs/service"
)

// ping is an echo request from a client to the VIP.
func ping(t testing.TB) []byte {
	t.Helper()
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 7, Seq: 9}, gopacket.Payload("ping"))
}

// TestALyingVirtioHeaderHarmsNobody sends what a guest behind a tap may put in front of its frames: a checksum to be
// completed anywhere, in the IP header too.
func TestALyingVirtioHeaderHarmsNobody(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.serve(service.UDP, service.Tunnel, "10.1.0.12:53")
	d.run()
	big := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.UDP{SrcPort: 5, DstPort: 53}, gopacket.Payload(make([]byte, 3000)))
	for _, f := range [][]byte{ping(t), fromClient(t, client, "S", ""), big} {
		for _, start := range []int{0, 12, 13, 14, 16, 23, 33, 34, 40, len(f) - 2, len(f), 0xffff} {
			for _, offset := range []int{0, 1, 2, 16, 0xffff} {
				for _, gso := range []uint8{packet.GSONone, packet.GSOTCPv4, packet.GSOUDPL4, 0x7f} {
					var v packet.Vnet
					v.SetFlags(packet.VnetNeedsCsum)
					v.SetCsumStart(start)
					v.SetCsumOffset(offset)
					v.SetGSOType(gso)
					v.SetGSOSize(start & 0xff)
					d.mem[0].InjectVnet(v, f)
					d.run()
				}
			}
		}
	}
	if got := d.verdicts()[DropOffload]; got == 0 {
		t.Error("no lie was noticed")
	}
	d.accounted()
}
