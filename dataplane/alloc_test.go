package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// traffic is a link that hands out packets of many flows in turn, a batch with each call, each written into the next slot of a
// ring, as a real ring's memory is used. What is sent by it is thrown away.
type traffic struct {
	noLink
	slots        [][]byte
	template     []byte // virtio-net header and frame
	client, port int    // where in the frame the client's address and port lie
	v6           bool
	flows        int
	slot, next   int
}

func newTraffic(frame []byte, fromServer bool, flows int) *traffic {
	const slots, size = 4096, 2048
	t := &traffic{template: append(make([]byte, packet.VnetLen), frame...), flows: flows, client: 26, port: 34}
	if fromServer {
		t.client, t.port = 30, 36
	}
	mem := make([]byte, slots*size)
	for i := range slots {
		t.slots = append(t.slots, mem[i*size:(i+1)*size])
	}
	return t
}

// Recv implements link.Link.
func (t *traffic) Recv(frames []link.Frame) int {
	for i := range frames {
		buf := t.slots[t.slot][:len(t.template)]
		copy(buf, t.template)
		eth := buf[packet.VnetLen:]
		binary.BigEndian.PutUint32(eth[t.client:], 0xc6120000+uint32(t.next>>14)) // 198.18/15
		binary.BigEndian.PutUint16(eth[t.port:], uint16(1024+t.next&0x3fff))
		if !t.v6 {
			packet.FixIPv4Checksum(eth[packet.EthLen:])
		}
		frames[i] = link.Frame{Buf: buf}
		t.slot, t.next = (t.slot+1)%len(t.slots), (t.next+1)%t.flows
	}
	return len(frames)
}

// Send implements link.Link.
func (*traffic) Send(_, _ []byte) {}

// established returns a worker that receives a batch of packets of established connections with each step, from clients or
// from servers.
func established(t testing.TB, m service.Method, fromServers bool, flows int) *worker {
	t.Helper()
	d := newDirector(t, nil)
	d.serve(service.TCP, m, "10.1.0.11:8080")
	d.hops.SetPrefix(netip.MustParsePrefix("198.18.0.0/15"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
	d.run()
	w := d.plane.workers[0]
	w.setTx([]link.Link{new(traffic), new(traffic)})
	for _, flags := range []string{"S", "A"} {
		w.rx = []link.Link{newTraffic(fromClient(t, client, flags, ""), false, flows), new(noLink)}
		for n := 0; n < flows; n += batchSize {
			w.step(d.now)
		}
	}
	if fromServers {
		w.rx = []link.Link{new(noLink), newTraffic(fromServer(t, 11, client, "A", ""), true, flows)}
	}
	if s := d.conns.Stats(); s.Conns != flows {
		t.Fatalf("%d connections established, want %d", s.Conns, flows)
	}
	w.verdicts, w.received = [numVerdicts]uint64{}, 0
	return w
}

// ways are the ways that packets of established connections take.
var ways = []struct {
	name        string
	method      service.Method
	fromServers bool
	verdict     Verdict
	encap       service.Encap
}{
	{"DR", service.Route, false, ForwardedDR, service.Encap{}},
	{"NAT", service.Masq, false, ForwardedNAT, service.Encap{}},
	{"NATAnswer", service.Masq, true, Replied, service.Encap{}},
	{"TUN", service.Tunnel, false, ForwardedTUN, service.Encap{}},
	{"GRE", service.Tunnel, false, ForwardedTUN, service.Encap{Kind: service.GRE}},
	{"GREChecksum", service.Tunnel, false, ForwardedTUN, service.Encap{Kind: service.GRE, Checksum: service.FullChecksum}},
	{"GUE", service.Tunnel, false, ForwardedTUN, service.Encap{Kind: service.GUE, Port: 6080}},
	{"GUEChecksum", service.Tunnel, false, ForwardedTUN, service.Encap{Kind: service.GUE, Port: 6080, Checksum: service.FullChecksum}},
	{"GUERemote", service.Tunnel, false, ForwardedTUN, service.Encap{Kind: service.GUE, Port: 6080, Checksum: service.RemoteChecksum}},
}

func TestAllocEstablishedConnectionsAllocateNothing(t *testing.T) {
	for _, way := range ways {
		w := established(t, way.method, way.fromServers, 1<<10)
		w.table.Servers.At(0).SetEncap(way.encap)
		now := 1001 * second
		pr := probeOf(way.method)
		w.plane.probes.open(newProbe(&pr)) // while a probe is out, too
		w.step(now)
		if n := testing.AllocsPerRun(100, func() { now += 1000; w.step(now) }); n != 0 {
			t.Errorf("%s: %v allocations per batch, want 0", way.name, n)
		}
		if w.verdicts[way.verdict] != w.received || w.received == 0 {
			t.Errorf("%s: frames took another way: %v", way.name, w.verdicts)
		}
	}
}

func BenchmarkEstablished(b *testing.B) {
	for _, way := range ways {
		for _, flows := range []int{1 << 12, 1 << 16, 1 << 20} {
			b.Run(fmt.Sprintf("%s/flows=%d", way.name, flows), func(b *testing.B) {
				w := established(b, way.method, way.fromServers, flows)
				w.table.Servers.At(0).SetEncap(way.encap)
				steps(b, w, way.verdict)
			})
		}
	}
}

// steps has w take a packet in each iteration, a batch of them at a time.
func steps(b *testing.B, w *worker, verdict Verdict) {
	now := 1001 * second
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n == 0 {
			now += 50_000
			w.step(now)
			n = batchSize
		}
		n--
	}
	if done := w.verdicts[verdict]; done != w.received {
		b.Fatalf("%d of %d frames forwarded", done, w.received)
	}
}

// BenchmarkTraffic is what the benchmark itself costs.
func BenchmarkTraffic(b *testing.B) {
	t := newTraffic(fromClient(b, client, "A", ""), false, 1<<20)
	frames := make([]link.Frame, batchSize)
	n := 0
	for b.Loop() {
		if n == 0 {
			t.Recv(frames)
			n = batchSize
		}
		n--
	}
}
