package bench

import (
	"net/netip"
	"testing"

	"uvs/conntrack"
	"uvs/dataplane"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// ring is an in-memory link that hands out a stream's frames, each written anew into the next of many slots, as a real
// ring's memory is used. What is sent by it is counted and thrown away. A nil stream is silence.
type ring struct {
	s        *stream
	template []byte
	slots    [][]byte
	slot     int
	quiet    bool
	stats    link.Stats
}

func newRing(s *stream) *ring {
	const slots, slotSize = 4096, 2048
	r := &ring{s: s, template: append([]byte(nil), s.batch[0]...)}
	memory := make([]byte, slots*slotSize)
	for i := range slots {
		r.slots = append(r.slots, memory[i*slotSize:(i+1)*slotSize])
	}
	return r
}

// Recv implements link.Link.
func (r *ring) Recv(frames []link.Frame) int {
	if r.s == nil || r.quiet {
		return 0
	}
	for i := range frames {
		b := r.slots[r.slot][:len(r.template)]
		copy(b, r.template) // the last packet here was rewritten
		r.s.fill(b)
		frames[i] = link.Frame{Buf: b}
		r.slot = (r.slot + 1) % len(r.slots)
	}
	r.quiet = true // one batch for each step
	return len(frames)
}

// Release implements link.Link.
func (r *ring) Release() {}

// Send implements link.Link.
func (r *ring) Send(head, body []byte) { r.stats.TxFrames++ }

// Flush implements link.Link.
func (r *ring) Flush() {}

// FD implements link.Link.
func (r *ring) FD() int { return -1 }

// Stats implements link.Link.
func (r *ring) Stats() link.Stats { return r.stats }

// Close implements link.Link.
func (r *ring) Close() error { return nil }

// microPlane is a packet path between two such links.
type microPlane struct {
	*dataplane.Plane
	conns   *conntrack.Table
	in, out *ring // to the clients and to the servers
	now     int64
}

// newMicroPlane makes one with one service and one real server, which gets packets by a method.
func newMicroPlane(b *testing.B, m service.Method) *microPlane {
	b.Helper()
	servers := new(service.ServerIndex)
	conns, err := conntrack.New(conntrack.Config{Servers: servers})
	if err != nil {
		b.Fatal(err)
	}
	hops := new(nexthop.Static)
	hops.SetPrefix(netip.MustParsePrefix("198.18.0.0/15"), &nexthop.Hop{Iface: 0, Dst: clientSide, MTU: 1500}, nexthop.Ready)
	hops.Set(packet.AddrFrom(microServer.Addr()), &nexthop.Hop{Iface: 1, Dst: serverSide, MTU: 1500}, nexthop.Ready)
	p := &microPlane{conns: conns, in: new(ring), out: new(ring), now: 1000 * second}
	links := []link.Link{p.in, p.out}
	p.Plane, err = dataplane.New(dataplane.Config{
		Ports: []dataplane.Port{
			{Name: "eth0", MAC: microMAC[0]},
			{Name: "eth1", MAC: microMAC[1], Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.254/24")}},
		},
		OpenRx: func(_, port int) (link.Link, error) { return links[port], nil },
		OpenTx: func(int) (link.Link, error) { return new(ring), nil },
		Conns:  conns, NextHops: hops, AnnounceInterval: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	s, err := sched.New("wlc", 0)
	if err != nil {
		b.Fatal(err)
	}
	rs := service.NewRealServer(microService, microServer, m, 1)
	if err := servers.Add(rs); err != nil {
		b.Fatal(err)
	}
	vs := &service.VirtualService{Key: microService, Scheduler: s, SchedulerName: "wlc", Servers: []*service.RealServer{rs}}
	s.Prepare(vs.Servers)
	p.Publish(service.NewTable([]*service.VirtualService{vs}, servers, 1))
	return p
}

// step takes one batch.
func (p *microPlane) step() {
	p.in.quiet, p.out.quiet = false, false
	p.now += 50_000
	p.Step(p.now)
}

// batch is how many frames a step takes.
const batch = 64

// measure counts packets of a stream as iterations, after one of each flow has passed.
func (p *microPlane) measure(b *testing.B, established int) {
	for n := 0; n < established; n += batch {
		p.step()
	}
	before := p.Stats()
	left := 0
	for b.Loop() {
		if left == 0 {
			p.step()
			left = batch
		}
		left--
	}
	after := p.Stats()
	if forwarded := after.Forwarded - before.Forwarded; forwarded != after.Received-before.Received || forwarded == 0 {
		b.Fatalf("%d of %d packets forwarded", forwarded, after.Received-before.Received)
	}
}

// pathStages are the whole packet path, from a received frame to a sent one.
func pathStages(large bool) (all []stage) {
	methods := []struct {
		name   string
		method service.Method
	}{{"DR", service.Route}, {"TUN", service.Tunnel}, {"NAT", service.Masq}}
	for _, m := range methods {
		for _, z := range sizes(large) {
			all = append(all, stage{"Path/" + m.name + "/" + z.name, func(b *testing.B) {
				p := newMicroPlane(b, m.method)
				*p.in = *newRing(newStream(microMAC[0], clientSide, microService.Addr, z.n))
				p.measure(b, z.n)
			}})
		}
	}
	for _, z := range sizes(large) {
		all = append(all, stage{"Path/NATAnswer/" + z.name, func(b *testing.B) {
			p := newMicroPlane(b, service.Masq)
			*p.in = *newRing(newStream(microMAC[0], clientSide, microService.Addr, z.n))
			for n := 0; n < z.n; n += batch {
				p.step()
			}
			*p.in, *p.out = ring{}, *newRing(newAnswers(microMAC[1], serverSide, microServer, z.n))
			p.measure(b, z.n)
		}})
	}
	for _, m := range methods {
		all = append(all, stage{"Path/New" + m.name, func(b *testing.B) {
			p := newMicroPlane(b, m.method)
			*p.in = *newRing(newStream(microMAC[0], clientSide, microService.Addr, maxFlows))
			p.measure(b, 0)
		}})
	}
	return append(all, stage{"Path/Nothing", func(b *testing.B) { // the frames' own price, which the others contain
		r := newRing(newStream(microMAC[0], clientSide, microService.Addr, 1<<16))
		frames := make([]link.Frame, batch)
		left := 0
		for b.Loop() {
			if left == 0 {
				r.quiet = false
				r.Recv(frames)
				left = batch
			}
			left--
		}
	}})
}
