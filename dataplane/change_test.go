package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// withServers publishes the service with other servers in the place of its own.
func (d *director) withServers(vs *service.VirtualService, servers ...*service.RealServer) {
	d.t.Helper()
	next := *vs
	next.Servers = servers
	vs.Scheduler.Changed(service.Change{Kind: service.ServerAdded, Server: servers[0], Before: vs.Servers, After: servers})
	vs.Scheduler.Prepare(servers)
	d.plane.Publish(service.NewTable([]*service.VirtualService{&next}, d.servers, d.plane.Table().Generation+1))
}

// TestAServersSlotUsedAgainLeadsToTheNewServer has a new server take the number of one that is gone for good. No next hop
// changed meanwhile.
func TestAServersSlotUsedAgainLeadsToTheNewServer(t *testing.T) {
	d := newDirector(t, nil)
	vs := d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	old := vs.Servers[0]
	one(t, d.inject(0, fromClient(t, client, "S", ""))[1])
	old.SetAvailable(false)
	d.now += 1000 * second
	d.run() // its connection is gone
	if old.Refs() != 0 {
		t.Fatalf("%d entries still point at the server", old.Refs())
	}
	d.servers.Remove(old)
	rs := service.NewRealServer(vs.Key, netip.MustParseAddrPort("10.1.0.12:80"), service.Route, 1)
	if err := d.servers.Add(rs); err != nil || rs.Index != old.Index {
		t.Fatalf("the new server has number %d, error %v", rs.Index, err)
	}
	d.withServers(vs, rs)
	f := one(t, withoutARP(d.inject(0, fromClient(t, client, "S", ""))[1]))
	if got := (*packet.Eth)(f[packet.VnetLen:]).Dst(); got != serverMAC(12) {
		t.Errorf("the connection went to %v, want the new server's MAC", got)
	}
	d.accounted()
}

func TestAHeldPacketGoesToItsServerWhateverIsPublishedMeanwhile(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	d.hops.Set(server11, nil, nexthop.Pending)
	d.inject(0, fromClient(t, client, "S", ""))
	d.plane.Publish(service.NewTable(nil, d.servers, 99)) // everything is gone (ipvsadm -C)
	d.hops.Set(server11, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready)
	d.plane.Wake()
	p := parse(t, one(t, d.run()[1]))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) {
		t.Errorf("it went to %v", ip.DstIP)
	}
	// What comes now is none of a director's business that has no service.
	if out := d.inject(0, fromClient(t, client, "A", "")); len(out[0])+len(out[1]) != 0 || d.verdicts()[PassNotOurs] != 1 {
		t.Errorf("sent %x, verdicts %v", out, d.verdicts())
	}
	d.accounted()
}

// TestWorkersShareConnections has the packets of one connection come to different workers, as NAT's answers do: the kernel
// spreads frames by the addresses they bear.
func TestWorkersShareConnections(t *testing.T) {
	var rx [2][2]*link.Mem // by worker and port
	d := newDirector(t, func(c *Config) {
		c.Workers = 2
		c.OpenRx = func(worker, port int) (link.Link, error) {
			rx[worker][port] = link.NewMem(link.MemConfig{})
			return rx[worker][port], nil
		}
	})
	vs := d.serve(service.TCP, service.Masq, "10.1.0.11:8080", "10.1.0.12:8080")
	d.run()
	for _, step := range []struct {
		worker, port int
		frame        []byte
	}{
		{0, 0, fromClient(t, client, "S", "")},
		{1, 1, fromServer(t, 12, client, "SA", "")},
		{1, 0, fromClient(t, client, "A", "")},
		{0, 1, fromServer(t, 12, client, "A", "data")},
	} {
		rx[step.worker][step.port].Inject(step.frame)
		d.run()
		sent := one(t, rx[step.worker][1-step.port].Sent())
		if step.port == 0 {
			if got := (*packet.Eth)(sent[packet.VnetLen:]).Dst(); got != serverMAC(12) {
				t.Errorf("worker %d sent the client's packet to %v", step.worker, got)
			}
		} else if ip := parse(t, sent).Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.SrcIP.Equal(vip.AsSlice()) {
			t.Errorf("worker %d sent the answer as from %v", step.worker, ip.SrcIP)
		}
	}
	counts := make([]service.Counters, 1)
	d.plane.AddCounters(counts, nil)
	if c := counts[vs.Index]; c.Conns != 1 || c.InPkts != 2 || c.OutPkts != 2 {
		t.Errorf("both workers together counted %+v", c)
	}
	d.accounted()
}

func TestFragmentsThatWaitAreCountedOneByOne(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.UDP, service.Route, "10.1.0.11:53")
	d.run()
	d.hops.Set(server11, nil, nexthop.Pending)
	first, last := fragmented(t)
	d.inject(0, first)
	if s := d.plane.Stats(); s.Held != 1 {
		t.Errorf("held %d of one fragment", s.Held)
	}
	d.inject(0, last)
	if s := d.plane.Stats(); s.Held != 2 {
		t.Errorf("held %d of two fragments whose datagram waits for its next hop", s.Held)
	}
	d.hops.Set(server11, &nexthop.Hop{Iface: 1, Dst: serverMAC(11), MTU: 1500}, nexthop.Ready)
	d.plane.Wake()
	if out := d.run(); len(out[1]) != 2 || d.verdicts()[ForwardedDR] != 2 {
		t.Errorf("%d frames sent, verdicts %v", len(out[1]), d.verdicts())
	}
	d.inject(0, first)
	d.inject(0, first) // again
	d.now += 31 * second
	d.run()
	if got := d.verdicts()[DropFragment]; got != 2 {
		t.Errorf("%d fragments dropped, want the duplicate and the one that waited in vain", got)
	}
	d.accounted()
}

func TestASlowPathThatIsBehindDropsAndCounts(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	const more = 10
	for range slowQueue + more {
		d.mem[0].Inject(arpRequest(gatewayMAC, gateway4, vip4))
	}
	for w := d.plane.workers[0]; w.step(d.now); {
	}
	if v := d.verdicts(); v[DropSlowPathFull] != more {
		t.Errorf("verdicts %v, want %d %v", v, more, DropSlowPathFull)
	}
	if s := d.plane.Stats(); s.Held != slowQueue {
		t.Errorf("%d frames wait, want %d", s.Held, slowQueue)
	}
	if got := len(d.run()[0]); got != slowQueue {
		t.Errorf("%d requests answered, want %d", got, slowQueue)
	}
	d.accounted()
}
