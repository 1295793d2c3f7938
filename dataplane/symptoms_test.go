package dataplane

import (
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// symptoms are those of the only server.
func (d *director) symptoms() service.Symptoms {
	var s [1]service.Symptoms
	d.plane.AddSymptoms(s[:])
	return s[0]
}

func TestSymptomsOfConnectionsThatBegin(t *testing.T) {
	fromVIP := func(flags string) func(d *director) {
		return func(d *director) { d.inject(0, fromClient(t, client, flags, "")) }
	}
	answer := func(flags string) func(d *director) {
		return func(d *director) { d.inject(1, fromServer(t, 11, client, flags, "")) }
	}
	for _, tt := range []struct {
		name   string
		method service.Method
		steps  []func(d *director)
		want   service.Symptoms
	}{
		{"a handshake by DR", service.Route, []func(*director){fromVIP("S"), fromVIP("A"), fromVIP("PA"), fromVIP("PA"), fromVIP("PA")},
			service.Symptoms{Opened: 1, Answered: 1}},
		{"silence by DR", service.Route, []func(*director){fromVIP("S"), fromVIP("S"), fromVIP("S")}, service.Symptoms{Opened: 1, Repeated: 2}},
		{"a client that gives up", service.Route, []func(*director){fromVIP("S"), fromVIP("R")}, service.Symptoms{Opened: 1, Answered: 1}},
		{"silence after a handshake", service.Tunnel, []func(*director){fromVIP("S"), fromVIP("A"), fromVIP("PA"), fromVIP("PA")},
			service.Symptoms{Opened: 1, Answered: 1}},
		{"an answer by NAT", service.Masq, []func(*director){fromVIP("S"), answer("SA")}, service.Symptoms{Opened: 1, Answered: 1}},
		{"refused by NAT", service.Masq, []func(*director){fromVIP("S"), answer("RA")}, service.Symptoms{Opened: 1, Refused: 1}},
		{"unreachable by NAT", service.Masq, []func(*director){fromVIP("S"), func(d *director) {
			quoted := frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: []byte{10, 1, 0, 11}}, tcp(client.Port(), 8080, "S"))
			d.inject(1, frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: []byte{10, 1, 0, 11}, DstIP: client.Addr().AsSlice()},
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, bytesOf(quoted[packet.EthLen:])))
		}}, service.Symptoms{Opened: 1, Unreachable: 1}},
		{"next hop gone", service.Route, []func(*director){func(d *director) {
			d.hops.Set(packet.AddrFrom4(0x0a01000b), nil, nexthop.Unreachable)
		}, fromVIP("S")}, service.Symptoms{Opened: 1, Unreachable: 1}},
	} {
		d := newDirector(t, nil)
		d.serve(service.TCP, tt.method, "10.1.0.11:8080")
		for _, step := range tt.steps {
			step(d)
		}
		if got := d.symptoms(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		d.accounted()
	}
}

func TestSymptomsOfTunnels(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Tunnel, "10.1.0.11:80")
	d.run()
	out := d.inject(0, fromClient(t, client, "S", ""))
	outer := one(t, out[1])[packet.VnetLen+packet.EthLen:]
	src := packet.AddrFrom4((*packet.IPv4)(outer).Src()).Netip()
	d.inject(1, frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: []byte{10, 1, 0, 11}, DstIP: src.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 2)}, bytesOf(outer)))
	if got, want := d.symptoms(), (service.Symptoms{Opened: 1, Unreachable: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// BenchmarkAddSymptoms is what in-band detection pays for 5,000 servers' counts, 40 times a second.
func BenchmarkAddSymptoms(b *testing.B) {
	d := newDirector(b, nil)
	table := service.NewTable(nil, d.servers, 1)
	table.ServerSlots = 5000
	d.plane.Publish(table)
	symptoms, counters := make([]service.Symptoms, 5000), make([]service.Counters, 5000)
	for b.Loop() {
		d.plane.AddSymptoms(symptoms)
		d.plane.AddCounters(nil, counters)
	}
}
