package dataplane

import (
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// passage opens one to the real server 10.1.0.11, and counts what comes back and what is said of it.
func (d *director) passage(m service.Method) (g *Passage, came *[][]byte, news *[]ProbeAnswer) {
	d.t.Helper()
	pr := probeOf(m)
	came, news = new([][]byte), new([]ProbeAnswer)
	g = d.plane.OpenPassage(&pr,
		func(ip []byte) { *came = append(*came, append([]byte(nil), ip...)) },
		func(a ProbeAnswer) { *news = append(*news, a) })
	if g == nil {
		d.t.Fatal("no port is free")
	}
	d.t.Cleanup(g.Close)
	return g, came, news
}

// syn is the IP packet of a SYN of the passage's.
func (g *Passage) syn() []byte {
	q := g.query
	q.Flags = packet.TCPSyn
	return q.Put(make([]byte, q.Size()))[forward.FrameHead:]
}

// answer is the SYN+ACK that a passage's server sends.
func (d *director) answer(g *Passage) []byte {
	f := g.answerFlow()
	return frame(d.t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: f.Src.Netip().AsSlice(), DstIP: f.Dst.Netip().AsSlice()},
		&layers.TCP{SrcPort: layers.TCPPort(f.SrcPort), DstPort: layers.TCPPort(f.DstPort), SYN: true, ACK: true})
}

func TestPassageGoesTheWayOfClientsAndHearsTheServerInTheVIPsName(t *testing.T) {
	d := probeBench(t)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	g, came, _ := d.passage(service.Masq)
	if !g.Send(g.syn()) {
		t.Fatal("an empty queue is full")
	}
	sent := parse(t, one(t, d.run()[1]))
	if ip, seg := sent.Layer(layers.LayerTypeIPv4).(*layers.IPv4), sent.Layer(layers.LayerTypeTCP).(*layers.TCP); ip.DstIP.String() != "10.1.0.11" || seg.DstPort != 8080 {
		t.Errorf("sent %v", sent)
	}
	d.inject(1, d.answer(g))
	if len(*came) != 1 {
		t.Fatalf("%d packets came back", len(*came))
	}
	h, rest, ok := packet.ParseIPv4((*came)[0])
	if !ok || packet.AddrFrom4(h.Src()).Netip() != vip || (*packet.Ports)(rest).Src() != 80 {
		t.Errorf("the answer is from %v, not from the virtual service", h)
	}
	// What comes back as it was sent is news, no answer.
	r, came2, news := d.passage(service.Route)
	d.inject(1, frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: prober.AsSlice(), DstIP: vip.AsSlice()},
		&layers.TCP{SrcPort: layers.TCPPort(r.Port()), DstPort: 80, SYN: true}))
	if len(*came2) != 0 || len(*news) != 1 || (*news)[0].Outcome != ProbeReturned {
		t.Errorf("%d packets, news %+v", len(*came2), *news)
	}
	r.Close()
	if s := d.conns.Stats(); s.Conns != 0 {
		t.Errorf("the passage left %+v", s)
	}
	d.accounted()
	g.Close()
	d.inject(1, d.answer(g))
	if len(*came) != 1 || d.plane.probes.out() {
		t.Error("it hears though it is closed")
	}
}

func TestFullQueuesOfPassagesLoseAndCount(t *testing.T) {
	d := probeBench(t)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	g, came, _ := d.passage(service.Route)
	for range departureQueue {
		if !g.Send(g.syn()) {
			t.Fatal("the queue is full too early")
		}
	}
	if g.Send(g.syn()) {
		t.Error("a full queue took a packet")
	}
	if out := d.run(); len(out[1]) != departureQueue {
		t.Errorf("%d packets left", len(out[1]))
	}
	f := received(d.answer(g))
	for range arrivalQueue + 1 {
		d.plane.arrivals.offer(g, f)
	}
	d.run()
	if n := len(*came); n != arrivalQueue {
		t.Errorf("%d packets came", n)
	}
	if n := d.plane.Stats().LostOfPassages; n != 2 {
		t.Errorf("%d packets counted as lost, want 2", n)
	}
}

func TestAllocAnswersOfPassagesAllocateNothing(t *testing.T) {
	d := probeBench(t)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	d.run()
	pr := probeOf(service.Route)
	came := 0
	g := d.plane.OpenPassage(&pr, func([]byte) { came++ }, func(ProbeAnswer) {})
	defer g.Close()
	a, f, p := &d.plane.arrivals, received(d.answer(g)), new(packet.Packet)
	pass := func(f *link.Frame) {
		a.offer(g, f)
		a.hand(<-a.full, p)
	}
	for range arrivalQueue {
		pass(f) // each place gets its memory
	}
	if n := testing.AllocsPerRun(1000, func() { pass(f) }); n != 0 || came != 1001+arrivalQueue {
		t.Errorf("%v allocations an answer, %d came", n, came)
	}
}
