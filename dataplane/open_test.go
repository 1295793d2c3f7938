package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/service"
)

// datagram is a UDP datagram from a client to the VIP.
func datagram(t testing.TB, src, dst netip.AddrPort, payload string) []byte {
	t.Helper()
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()},
		&layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(payload))
}

// icmpOf is the ICMP message in a sent frame.
func icmpOf(t testing.TB, sent []byte) (*layers.IPv4, *layers.ICMPv4) {
	t.Helper()
	p := parse(t, sent)
	m, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if !ok {
		t.Fatalf("sent %v, want an ICMP message", p)
	}
	return p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), m
}

var portUnreachable = layers.CreateICMPv4TypeCode(3, 3)

func TestSourcePort20IsNeverScheduled(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.serve(service.UDP, service.Route, "10.1.0.11:53")
	d.run()
	data := netip.AddrPortFrom(client.Addr(), 20)
	p := parse(t, one(t, d.inject(0, fromClient(t, data, "S", ""))[0]))
	if rst, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || !rst.RST {
		t.Errorf("SYN from port 20 got %v, want a reset", p)
	}
	_, m := icmpOf(t, one(t, d.inject(0, datagram(t, data, netip.AddrPortFrom(vip, 53), "query"))[0]))
	if m.TypeCode != portUnreachable {
		t.Errorf("datagram from port 20 got %v, want port unreachable", m.TypeCode)
	}
	if s := d.conns.Stats(); s.Conns != 0 {
		t.Errorf("%d connections, want 0", s.Conns)
	}
	d.accounted()
}

// add publishes a service of one server and a change to it.
func (d *director) add(port uint16, server string, change func(*service.VirtualService)) *service.VirtualService {
	d.t.Helper()
	vs := d.serve(service.TCP, service.Route)
	vs.Key.Addr = netip.AddrPortFrom(vip, port)
	vs.Netmask = ^uint32(0)
	rs := service.NewRealServer(vs.Key, netip.MustParseAddrPort(server), service.Route, 1)
	if err := d.servers.Add(rs); err != nil {
		d.t.Fatal(err)
	}
	vs.Scheduler.Changed(service.Change{Kind: service.ServerAdded, Server: rs, After: []*service.RealServer{rs}})
	vs.Servers = []*service.RealServer{rs}
	vs.Scheduler.Prepare(vs.Servers)
	change(vs)
	old := d.plane.Table()
	d.plane.Publish(service.NewTable(old.Services, d.servers, old.Generation+1))
	return vs
}

func TestServicesForOtherPortsNeedPersistence(t *testing.T) {
	to := func(port uint16) []byte {
		return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, tcp(40001, port, "S"))
	}
	persistent := func(vs *service.VirtualService) { vs.Persistence = 300 * time.Second }
	plain := func(*service.VirtualService) {}
	for _, tt := range []struct {
		name   string
		port   uint16 // of the service
		change func(*service.VirtualService)
		asked  uint16
		want   string
	}{
		{"port 0, persistent", 0, persistent, 5000, "forwarded"},
		{"port 0, not persistent", 0, plain, 5000, "unreachable"},
		{"FTP's data port, persistent", 21, persistent, 5000, "forwarded"},
		{"FTP's data port, not persistent", 21, plain, 5000, "reset"}, // none of IPVS's business
		{"FTP's own port", 21, plain, 21, "forwarded"},
	} {
		d := newDirector(t, nil)
		d.add(tt.port, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.11"), tt.port).String(), tt.change)
		d.run()
		out := d.inject(0, to(tt.asked))
		got := "nothing"
		switch {
		case len(out[1]) == 1:
			got = "forwarded"
		case len(out[0]) == 1:
			p := parse(t, out[0][0])
			if p.Layer(layers.LayerTypeICMPv4) != nil {
				got = "unreachable"
			} else if seg, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && seg.RST {
				got = "reset"
			}
		}
		if got != tt.want {
			t.Errorf("%s: SYN was %s, want %s", tt.name, got, tt.want)
		}
		d.accounted()
	}
}
