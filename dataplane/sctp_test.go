package dataplane

import (
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/packet"
	"uvs/service"
)

// A container's veth leaves the CRC32c to whoever is behind it. A packet socket can ask the kernel for TCP's kind of checksum
// only, which would be written into the half of the CRC's field: on a network card that is a broken packet.
func TestSCTPLeavesWithItsChecksum(t *testing.T) {
	for _, m := range []service.Method{service.Route, service.Masq, service.Tunnel} {
		d := newDirector(t, nil)
		d.serve(service.SCTP, m, "10.1.0.11:701")
		d.run()
		in := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Protocol: layers.IPProtocolSCTP},
			&layers.SCTP{SrcPort: 40000, DstPort: 701}, &layers.SCTPInit{SCTPChunk: layers.SCTPChunk{Type: layers.SCTPChunkTypeInit, Length: 20},
				InitiateTag: 7, AdvertisedReceiverWindowCredit: 1 << 16, OutboundStreams: 10, InboundStreams: 10, InitialTSN: 9})
		l4 := in[packet.EthLen+packet.IPv4Len:]
		clear(l4[8:12])
		var v packet.Vnet
		v.SetFlags(packet.VnetNeedsCsum)
		v.SetCsumStart(len(in) - len(l4))
		v.SetCsumOffset(8)
		d.mem[0].InjectVnet(v, in)
		sent := one(t, d.run()[1])
		got := sent[len(sent)-len(l4):]
		if h := (*packet.SCTP)(got); (*packet.Vnet)(sent).NeedsCsum() || h.Checksum() != packet.CRC32c(got) {
			t.Errorf("%v: NEEDS_CSUM %v, checksum %08x, want %08x and no flag", m, (*packet.Vnet)(sent).NeedsCsum(), h.Checksum(), packet.CRC32c(got))
		}
		d.accounted()
	}
}
