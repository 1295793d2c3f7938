package forward

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/packet"
)

var (
	ndpMAC   = packet.MAC{2, 0, 0, 0, 1, 0x0b}
	askerMAC = packet.MAC{2, 0, 0, 0, 9, 0xfe}
	vip6     = packet.AddrFrom(netip.MustParseAddr("2001:db8:9::100"))
	asker6   = packet.AddrFrom(netip.MustParseAddr("2001:db8:9::fe"))
)

// TestNeighbourFrames compares with what Linux sent in the same situation.
func TestNeighbourFrames(t *testing.T) {
	buf := make([]byte, NDPFrameLen)
	ask := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: asker6, Dst: packet.SolicitedNode(vip6), Target: vip6, MAC: askerMAC}
	for _, tt := range []struct {
		name, want string
		frame      []byte
	}{
		{"reply", "0200000009fe02000000010b86dd6000000000203aff20010db800090000000000000000010020010db80009000000000000000000fe880086546000000020010db8000900000000000000000100020102000000010b",
			NeighbourReply(buf, ndpMAC, &ask, askerMAC, false)},
		{"question", "3333ff0001000200000009fe86dd6000000000203aff20010db80009000000000000000000feff0200000000000000000001ff00010087000f1f0000000020010db800090000000000000000010001010200000009fe",
			NeighbourSolicit(make([]byte, NDPFrameLen), askerMAC, asker6, packet.MAC{}, vip6)},
		{"joining", "3333000000160200000009fe86dd600000000024000100000000000000000000000000000000ff0200000000000000000000000000163a000502000001008f00658c0000000104000000ff0200000000000000000001ff0009fe",
			MLDReport(make([]byte, MLDFrameLen(1)), askerMAC, packet.MLDJoins, []packet.Addr{packet.SolicitedNode(packet.AddrFrom(netip.MustParseAddr("::9fe")))})},
	} {
		if got := hex.EncodeToString(tt.frame[packet.VnetLen:]); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s, as Linux", tt.name, got, tt.want)
		}
	}
}

// TestNeighbourFramesToGroups looks at the frames that Linux never sends quite so by gopacket.
func TestNeighbourFramesToGroups(t *testing.T) {
	buf := make([]byte, MLDFrameLen(MLDGroups))
	probe := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Dst: packet.SolicitedNode(vip6), Target: vip6}
	for _, tt := range []struct {
		name     string
		build    func() []byte
		mac      string
		src, dst string
		typ      uint8
		flags    uint8
	}{
		{"reply to a probe", func() []byte { return NeighbourReply(buf, ndpMAC, &probe, askerMAC, true) },
			"33:33:00:00:00:01", "2001:db8:9::100", "ff02::1", packet.ICMP6NeighbourAdvert, packet.NDPOverride | packet.NDPRouter},
		{"announcement", func() []byte { return NeighbourAnnouncement(buf, ndpMAC, vip6, false) },
			"33:33:00:00:00:01", "2001:db8:9::100", "ff02::1", packet.ICMP6NeighbourAdvert, packet.NDPOverride},
		{"probe", func() []byte { return NeighbourProbe(buf, ndpMAC, vip6) },
			"33:33:ff:00:01:00", "::", "ff02::1:ff00:100", packet.ICMP6NeighbourSolicit, 0},
		{"verification", func() []byte { return NeighbourSolicit(buf, ndpMAC, asker6, askerMAC, vip6) },
			"02:00:00:00:09:fe", "2001:db8:9::fe", "2001:db8:9::100", packet.ICMP6NeighbourSolicit, 0},
	} {
		f := tt.build()
		g := gopacket.NewPacket(f[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
		eth, ip := g.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), g.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if eth.DstMAC.String() != tt.mac || !ip.SrcIP.Equal(net.ParseIP(tt.src)) || !ip.DstIP.Equal(net.ParseIP(tt.dst)) || ip.HopLimit != 255 {
			t.Errorf("%s:\n%v", tt.name, g)
		}
		p := new(packet.Packet)
		var n packet.NDP
		if packet.Decode(f[packet.VnetLen:], p) != packet.NoFault || !packet.ParseNDP(p, &n) || n.Target != vip6 || n.Type != tt.typ || n.Flags != tt.flags {
			t.Errorf("%s: read as %+v", tt.name, n)
		}
	}
}

func TestNDPBuildersAllocateNothing(t *testing.T) {
	buf := make([]byte, MLDFrameLen(MLDGroups))
	groups := make([]packet.Addr, MLDGroups)
	ask := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: asker6, Target: vip6, MAC: askerMAC}
	if n := testing.AllocsPerRun(100, func() {
		NeighbourReply(buf, ndpMAC, &ask, askerMAC, false)
		NeighbourAnnouncement(buf, ndpMAC, vip6, false)
		NeighbourProbe(buf, ndpMAC, vip6)
		NeighbourSolicit(buf, ndpMAC, asker6, askerMAC, vip6)
		MLDReport(buf, ndpMAC, packet.MLDListens, groups)
		MLDReport1(buf, ndpMAC, groups[0])
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if got := MLDFrameLen(MLDGroups) - FrameHead; got > 1280 {
		t.Errorf("a full report has %d bytes, longer than the smallest MTU", got)
	}
}
