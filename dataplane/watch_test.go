package dataplane

import (
	"net/netip"
	"testing"

	"uvs/conntrack"
	"uvs/service"
)

func TestOnlyAWatchedServicesConnectionsAreTold(t *testing.T) {
	d := newDirector(t, nil)
	vs := d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	d.conns.Watch()
	d.inject(0, fromClient(t, client, "S", ""))
	if e := d.conns.Events(nil); len(e) != 0 {
		t.Errorf("nobody watches the service: %+v", e)
	}
	vs.Watched = true
	src := netip.AddrPortFrom(client.Addr(), 41001)
	d.inject(0, fromClient(t, src, "S", ""))
	e := d.conns.Events(nil)
	if len(e) != 2 || e[0].Kind != conntrack.Opened || e[1].Kind != conntrack.Activated || e[0].Service != vs.Index ||
		e[0].RS != vs.Servers[0].Index || e[0].Flow.SrcPort != 41001 {
		t.Errorf("events of a SYN: %+v", e)
	}
	d.inject(0, fromClient(t, src, "A", "data"))
	if e := d.conns.Events(nil); len(e) != 0 {
		t.Errorf("events of a packet that changes nothing: %+v", e)
	}
	vs.Servers[0].SetWeight(0)
	d.inject(0, fromClient(t, netip.AddrPortFrom(client.Addr(), 41002), "S", ""))
	if e := d.conns.Events(nil); len(e) != 1 || e[0].Kind != conntrack.Refused || e[0].Flow.SrcPort != 41002 {
		t.Errorf("events of a SYN without a server: %+v", e)
	}
	d.accounted()
}
