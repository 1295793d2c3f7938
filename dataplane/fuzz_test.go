package dataplane

import (
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/packet"
	"uvs/service"
)

// FuzzReceive sends any bytes, as single frames cut at the given length, through the whole receive path: nothing may crash
// it, and each frame must be accounted for. The virtio-net header says what the fuzzer wants, as a guest's may.
func FuzzReceive(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, gso, flags uint8, start uint16) {
		receive(t, data, cut, gso, flags, start, nil)
	})
}

// FuzzTrace does the same while somebody traces: every frame must end as it does otherwise, and be told once.
func FuzzTrace(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, gso, flags uint8, start uint16) {
		alone := receive(t, data, cut, gso, flags, start, nil).verdicts()
		var trace *Trace
		d := receive(t, data, cut, gso, flags, start, func(d *director) { trace = d.trace(anyPort) })
		for v, n := range d.verdicts() {
			if n != alone[v] {
				t.Errorf("%v: %d frames, %d while they are traced", v, alone[v], n)
			}
		}
		if told, s := uint64(len(events(trace))), d.plane.Stats(); told != s.Received {
			t.Errorf("%d of %d frames told", told, s.Received)
		}
	})
}

func seedFrames(f *testing.F) {
	syn := fromClient(f, client, "S", "")
	query := frame(f, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.UDP{SrcPort: 5, DstPort: 53}, gopacket.Payload("a query to a server behind a tunnel"))
	first, last := fragmented(f)
	f.Add(syn, uint16(0), uint8(0), uint8(0), uint16(0))
	f.Add(append(fromClient(f, client, "S", ""), fromClient(f, client, "PA", "data")...), uint16(len(syn)), uint8(1), uint8(1), uint16(0))
	f.Add(fromServer(f, 11, client, "SA", ""), uint16(20), uint8(0), uint8(3), uint16(0))
	f.Add(icmpAbout(f, syn), uint16(0), uint8(5), uint8(0), uint16(0))
	f.Add(ping(f), uint16(0), uint8(0), uint8(1), uint16(14))                        // a checksum to be completed in the IP header
	f.Add(query, uint16(0), uint8(packet.GSOUDPL4), uint8(1), uint16(34))            // a super-frame into a tunnel
	f.Add(append(first, last...), uint16(len(first)), uint8(0), uint8(0), uint16(0)) // a datagram in two fragments
	f.Add(arpRequest(gatewayMAC, gateway4, vip4), uint16(0), uint8(0), uint8(0), uint16(0))
	f.Add(fromInside(f, 11, 33000, 443, "S"), uint16(0), uint8(0), uint8(2|2<<2), uint16(0)) // to be masqueraded
	seg := &layers.TCP{SrcPort: 8080, SYN: true, ACK: true}
	for _, port := range []layers.TCPPort{fuzzPort, fuzzPort + 1} {
		seg.DstPort = port
		f.Add(frame(f, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: []byte{10, 1, 0, 11}, DstIP: prober.AsSlice()}, seg), uint16(0), uint8(0), uint8(2), uint16(0))
	}
}

// receive is a director that has received what a fuzzer says. before, if it is there, is called with it first.
func receive(t *testing.T, data []byte, cut uint16, gso, flags uint8, start uint16, before func(*director)) *director {
	t.Helper()
	d := newDirector(t, func(c *Config) { c.Inner = InnerPolicy(flags >> 2 % 3) })
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.serve(service.UDP, service.Tunnel, "10.1.0.12:53")
	d.add(0, "10.1.0.13:0", func(vs *service.VirtualService) { vs.Persistence = 300 * time.Second })
	if flags&0x40 != 0 {
		d.narrow(int(start))
	}
	p := probeOf(service.Masq) // waits for an answer that may be among this
	d.plane.probes.enter(newProbe(&p), fuzzPort)
	if g := d.plane.OpenPassage(&p, func([]byte) {}, func(ProbeAnswer) {}); g != nil { // and one for a passage
		d.plane.probes.close(&g.probe)
		d.plane.probes.enter(&g.probe, fuzzPort+1)
	}
	if before != nil {
		before(d)
	}
	for i := 0; len(data) > 0 && i < 64; i++ {
		n := len(data)
		if cut > 0 && int(cut) < n {
			n = int(cut)
		}
		fr := link.Frame{Buf: append(make([]byte, packet.VnetLen, packet.VnetLen+n), data[:n]...), Type: flags >> 4 & 3}
		if flags&0x80 == 0 {
			mendIPv4(fr.Eth())
		}
		v := fr.Vnet()
		v.SetGSOType(gso)
		v.SetGSOSize(int(cut))
		v.SetFlags(flags & 1)
		v.SetCsumStart(int(start))
		v.SetCsumOffset(int(gso))
		d.mem[int(flags>>1&1)].InjectFrame(fr)
		data = data[n:]
	}
	d.run()
	d.accounted()
	d.now += 60 * second
	d.run()
	if s := d.plane.Stats(); s.Held != 0 {
		t.Errorf("%d frames still held after a minute", s.Held)
	}
	return d
}

// fuzzPort is the local port of the probe that FuzzReceive has waiting.
const fuzzPort = 40000

// mendIPv4 gives a frame the IP checksum that gets it past the first gate.
func mendIPv4(eth []byte) {
	if h, b, ok := packet.ParseEth(eth); ok && h.Type() == packet.EtherIPv4 {
		if ip, _, ok := packet.ParseIPv4(b); ok && len(b) >= ip.HeaderLen() {
			packet.FixIPv4Checksum(b)
		}
	}
}

// fragmented is a datagram from a client to the VIP in two fragments, the same length each.
func fragmented(t testing.TB) (first, last []byte) {
	t.Helper()
	whole := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 99},
		&layers.UDP{SrcPort: 4000, DstPort: 53}, payload(40))
	part := func(at int, more bool) []byte {
		ip := layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 99, FragOffset: uint16(at / 8), Protocol: layers.IPProtocolUDP}
		if more {
			ip.Flags = layers.IPv4MoreFragments
		}
		return frame(t, gatewayMAC, cliMAC, &ip, bytesOf(whole[34+at:34+at+24]))
	}
	return part(0, true), part(24, false)
}
