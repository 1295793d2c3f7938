package dataplane

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/packet"
	"uvs/service"
)

func TestScansAndPingsDoNotKeepClientsFromLearningOfMTUs(t *testing.T) {
	d := newDirector(t, func(c *Config) { c.AnswersPerSecond = 2 })
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	d.inject(0, fromClient(t, client, "S", ""))
	for i := range 10 {
		scan := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, tcp(uint16(50000+i), 81, "S"))
		d.inject(0, scan)
		one(t, d.inject(0, ping(t))[0])
		if out := d.inject(0, fromClient(t, netip.AddrPortFrom(client.Addr(), uint16(51000+i)), "R", "")); len(out[0]) != 0 {
			t.Fatalf("a reset was answered: %x", out[0])
		}
	}
	v := d.verdicts()
	if v[AnsweredReset] != 2 || v[DropRateLimit] != 8 || v[AnsweredEcho] != 10 || v[DropNoConn] != 10 {
		t.Errorf("verdicts %v, want 2 resets, 8 limited, 10 echoes and 10 resets dropped", v)
	}
	big := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Flags: layers.IPv4DontFragment},
		tcp(client.Port(), 80, "A"), payload(1600))
	if _, m := icmpOf(t, one(t, d.inject(0, big)[0])); m.TypeCode != layers.CreateICMPv4TypeCode(3, 4) {
		t.Errorf("a packet too long for the way was answered by %v", m.TypeCode)
	}
	d.accounted()
}

// TestICMPErrorsWithAWrongChecksumAreDropped holds for every method and both ways, as on the recorded kernel.
func TestICMPErrorsWithAWrongChecksumAreDropped(t *testing.T) {
	for _, m := range []service.Method{service.Route, service.Masq} {
		d := newDirector(t, nil)
		d.serve(service.TCP, m, "10.1.0.11:80")
		d.run()
		syn := fromClient(t, client, "S", "")
		d.inject(0, bytes.Clone(syn))
		about := icmpAbout(t, syn)
		one(t, d.inject(0, bytes.Clone(about))[1])
		about[packet.EthLen+packet.IPv4Len+2] ^= 0x55
		if out := d.inject(0, about); len(out[1]) != 0 {
			t.Errorf("%v: an error with a wrong checksum went to the server", m)
		}
		if m != service.Masq {
			continue
		}
		quoted := bytes.Clone(syn[packet.EthLen : packet.EthLen+28])
		copy(quoted[16:20], net.IPv4(10, 1, 0, 11).To4())
		packet.FixIPv4Checksum(quoted)
		fromServer := frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: client.Addr().AsSlice()},
			&layers.ICMPv4{TypeCode: portUnreachable}, bytesOf(quoted))
		one(t, d.inject(1, bytes.Clone(fromServer))[0])
		fromServer[packet.EthLen+packet.IPv4Len+2] ^= 0x55
		if out := d.inject(1, fromServer); len(out[0]) != 0 {
			t.Errorf("an error with a wrong checksum went to the client")
		}
		d.accounted()
	}
}
