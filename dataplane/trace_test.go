package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// trace starts a trace that ends with the test.
func (d *director) trace(f TraceFilter) *Trace {
	d.t.Helper()
	t, err := d.plane.Trace(f)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(t.Close)
	return t
}

// events are those that wait in t.
func events(t *Trace) (all []*Traced) {
	for {
		select {
		case e := <-t.Events():
			t.Took(e)
			all = append(all, e)
		default:
			return all
		}
	}
}

// anyPort is the filter that takes every frame.
var anyPort = TraceFilter{Port: -1}

func TestTraceHasFramesAsReceivedAndAsSent(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	trace := d.trace(anyPort)
	syn := fromClient(t, client, "S", "")
	toServer := one(t, withoutARP(d.inject(0, bytes.Clone(syn))[1]))
	answer := fromServer(t, 11, client, "SA", "")
	toClient := one(t, d.inject(1, bytes.Clone(answer))[0])
	got := events(trace)
	if len(got) != 2 {
		t.Fatalf("%d frames traced, want 2", len(got))
	}
	for i, want := range []struct {
		verdict  Verdict
		in, out  []byte
		inPort   int
		opened   bool
		outFrame int
	}{
		{verdict: ForwardedNAT, in: syn, out: toServer, inPort: 0, opened: true},
		{verdict: Replied, in: answer, out: toClient, inPort: 1},
	} {
		e := got[i]
		if e.Verdict != want.verdict || !e.Connected || e.Opened != want.opened || e.Waited || e.At != d.now {
			t.Errorf("frame %d: %v, connected %v, opened %v, waited %v at %d", i, e.Verdict, e.Connected, e.Opened, e.Waited, e.At)
		}
		if c := e.Conn; c.Client.Netip() != client.Addr() || c.ServerPort != 8080 {
			t.Errorf("frame %d: its connection is %+v", i, c)
		}
		if !bytes.Equal(e.In.Bytes, want.in) || e.In.Port != want.inPort {
			t.Errorf("frame %d came in by port %d as\n%x, want port %d,\n%x", i, e.In.Port, e.In.Bytes, want.inPort, want.in)
		}
		if len(e.Out) != 1 || !bytes.Equal(e.Out[0].Bytes, want.out[packet.VnetLen:]) || e.Out[0].Port != 1-want.inPort {
			t.Errorf("frame %d went out as %+v, want\n%x", i, e.Out, want.out[packet.VnetLen:])
		}
	}
	d.accounted()
}

func TestTraceChangesNothing(t *testing.T) {
	for _, way := range ways {
		var counts [2]map[Verdict]uint64
		for i := range counts {
			d := newDirector(t, nil)
			d.serve(service.TCP, way.method, "10.1.0.11:8080")
			if i == 1 {
				trace := d.trace(anyPort)
				defer func() {
					if s, n := d.plane.Stats(), len(events(trace)); uint64(n) != s.Received {
						t.Errorf("%s: %d of %d frames traced", way.name, n, s.Received)
					}
				}()
			}
			for _, flags := range []string{"S", "A", "PA", "FA", "A"} {
				d.inject(0, fromClient(t, client, flags, "x"))
				d.inject(1, fromServer(t, 11, client, flags, "x"))
			}
			d.inject(0, fromClient(t, netip.AddrPortFrom(client.Addr(), 7), "A", ""))
			d.accounted()
			counts[i] = d.verdicts()
		}
		for v := range numVerdicts {
			if counts[0][v] != counts[1][v] {
				t.Errorf("%s: %v %d times, %d times when traced", way.name, v, counts[0][v], counts[1][v])
			}
		}
	}
}

func TestTraceFilters(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	other := netip.MustParseAddrPort("192.0.2.8:40002")
	addr := func(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }
	verdicts := func(names ...string) *VerdictSet {
		s := new(VerdictSet)
		for _, n := range names {
			if !s.Add(n) {
				t.Fatalf("no verdict or class %q", n)
			}
		}
		return s
	}
	key := func(s string) *service.Key { return &service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort(s)} }
	rows := []struct {
		name string
		f    TraceFilter
		want []int // which of the frames below
	}{
		{"all", TraceFilter{Port: -1}, []int{0, 1, 2, 3, 4}},
		{"a client", TraceFilter{Port: -1, Client: addr("192.0.2.7")}, []int{0, 1, 3}},
		{"a client's port", TraceFilter{Port: -1, Client: addr("192.0.2.7"), ClientPort: 40001}, []int{0, 1}},
		{"another client", TraceFilter{Port: -1, Client: addr("192.0.2.8")}, []int{2}},
		{"no such client", TraceFilter{Port: -1, Client: addr("192.0.2.9")}, nil},
		{"an ARP asker", TraceFilter{Port: -1, Client: addr("10.9.0.254")}, []int{4}},
		{"a service", TraceFilter{Port: -1, Service: key("10.9.0.100:80")}, []int{0, 1, 2}},
		{"a service that isn't there", TraceFilter{Port: -1, Service: key("10.9.0.100:81")}, []int{3}},
		{"all ports of an address", TraceFilter{Port: -1, Service: key("10.9.0.100:0")}, []int{0, 1, 2, 3}},
		{"a service of another protocol", TraceFilter{Port: -1, Service: &service.Key{Proto: service.UDP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}}, nil},
		{"a server", TraceFilter{Port: -1, Server: addr("10.1.0.11")}, []int{0, 1, 2}},
		{"a server's port", TraceFilter{Port: -1, Server: addr("10.1.0.11"), ServerPort: 8081}, nil},
		{"a port", TraceFilter{Port: 1}, []int{1}},
		{"a verdict", TraceFilter{Port: -1, Verdicts: verdicts("replied")}, []int{1}},
		{"classes", TraceFilter{Port: -1, Verdicts: verdicts("answered", "dropped")}, []int{3, 4}},
		{"all conditions", TraceFilter{Port: 0, Client: addr("192.0.2.7"), Server: addr("10.1.0.11"), Service: key("10.9.0.100:80"),
			Verdicts: verdicts("forwarded")}, []int{0}},
	}
	for _, r := range rows { // one after the other: no more than maxTraces at once
		trace, err := d.plane.Trace(r.f)
		if err != nil {
			t.Fatal(err)
		}
		frames := []struct {
			port  int
			frame []byte
		}{
			{0, fromClient(t, client, "S", "")},
			{1, fromServer(t, 11, client, "SA", "")},
			{0, fromClient(t, other, "S", "")},
			{0, frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()}, tcp(7, 81, "S"))},
			{0, arpRequestFor(t, vip)},
		}
		var got []int
		for i, f := range frames {
			d.inject(f.port, f.frame)
			if n := len(events(trace)); n > 1 {
				t.Fatalf("%s: %d events of one frame", r.name, n)
			} else if n == 1 {
				got = append(got, i)
			}
		}
		trace.Close()
		if len(got) != len(r.want) {
			t.Errorf("%s: took frames %v, want %v", r.name, got, r.want)
			continue
		}
		for i := range got {
			if got[i] != r.want[i] {
				t.Errorf("%s: took frames %v, want %v", r.name, got, r.want)
			}
		}
	}
	if new(VerdictSet).Add("nonsense") || new(VerdictSet).Add("") {
		t.Error("VerdictSet.Add takes names that there are not")
	}
}

// arpRequestFor is the gateway's question for an address.
func arpRequestFor(t *testing.T, a netip.Addr) []byte {
	t.Helper()
	b := make([]byte, packet.EthLen+packet.ARPLen)
	packet.PutEth(b, packet.Broadcast, gatewayMAC, packet.EtherARP)
	packet.PutARP(b[packet.EthLen:], packet.ARPRequest, gatewayMAC, packet.AddrFrom(netip.MustParseAddr("10.9.0.254")).V4(), packet.MAC{}, packet.AddrFrom(a).V4())
	return b
}

func TestTraceOfFirewallMark(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	trace := d.trace(TraceFilter{Port: -1, Service: &service.Key{Mark: 7, Addr: netip.MustParseAddrPort("0.0.0.0:0")}})
	d.inject(0, fromClient(t, client, "S", ""))
	if got := events(trace); len(got) != 0 {
		t.Errorf("%d frames of a mark that nothing has", len(got))
	}
}

func TestTraceTellsOfHeldFramesWhenTheyEnd(t *testing.T) {
	for _, found := range []bool{true, false} {
		d := newDirector(t, nil)
		d.serve(service.TCP, service.Masq, "10.1.0.31:8080") // whose next hop nobody knows
		server := packet.AddrFrom(netip.MustParseAddr("10.1.0.31"))
		d.hops.Set(server, nil, nexthop.Pending)
		trace := d.trace(anyPort)
		syn := fromClient(t, client, "S", "")
		d.inject(0, bytes.Clone(syn))
		if got := events(trace); len(got) != 0 {
			t.Fatalf("%v was told while the frame waits", got[0].Verdict)
		}
		want, sent := DropHeldTimeout, 0
		if found {
			d.hops.Set(server, &nexthop.Hop{Iface: 1, Dst: serverMAC(31), MTU: 1500}, nexthop.Ready)
			want, sent = ForwardedNAT, 1
		}
		began := d.now
		d.now += 4 * second
		d.plane.Wake()
		d.run()
		got := events(trace)
		if len(got) != 1 {
			t.Fatalf("%d events of a frame that was held, want 1", len(got))
		}
		e := got[0]
		if e.Verdict != want || !e.Waited || !e.Connected || !e.Opened || e.At != began || !bytes.Equal(e.In.Bytes, syn) {
			t.Errorf("next hop found %v: %v, waited %v, connected %v, opened %v", found, e.Verdict, e.Waited, e.Connected, e.Opened)
		}
		if found && (len(e.Out) != sent || e.Out[0].Port != 1) {
			t.Errorf("sent %+v", e.Out)
		}
		d.accounted()
	}
}

func TestTraceOfFragments(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.UDP, service.Masq, "10.1.0.11:53")
	trace := d.trace(anyPort)
	whole := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 9},
		&layers.UDP{SrcPort: 5000, DstPort: 53}, payload(1000))
	ip := whole[packet.EthLen:]
	for i, part := range [][]byte{ip[20:516], ip[516:]} {
		flags, offset := layers.IPv4Flag(layers.IPv4MoreFragments), 0
		if i == 1 {
			flags, offset = 0, 496/8
		}
		d.inject(0, frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice(), Id: 9,
			Protocol: layers.IPProtocolUDP, Flags: flags, FragOffset: uint16(offset)}, bytesOf(part)))
	}
	got := events(trace)
	if len(got) != 2 || got[0].Verdict != verdictNone || got[1].Verdict != ForwardedNAT || len(got[1].Out) != 2 {
		t.Fatalf("traced %d events: %+v", len(got), got)
	}
	d.accounted()
}

func TestTraceShowsVLANTags(t *testing.T) {
	d := newDirector(t, nil)
	trace := d.trace(anyPort)
	f := received(fromClient(t, client, "S", ""))
	f.Tagged, f.TPID, f.VLAN = true, packet.EtherVLAN, 0x6005
	d.mem[0].InjectFrame(*f)
	d.run()
	got := events(trace)
	if len(got) != 1 || got[0].Verdict != PassVLAN {
		t.Fatalf("traced %+v", got)
	}
	eth := f.Eth()
	want := append(append(bytes.Clone(eth[:12]), 0x81, 0, 0x60, 5), eth[12:]...)
	if !bytes.Equal(got[0].In.Bytes, want) {
		t.Errorf("received as\n%x, want\n%x", got[0].In.Bytes, want)
	}
}

func TestTraceIsBounded(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	slow := d.trace(anyPort) // nobody reads it
	const n = traceQueue + 3*traceBurst
	for i := range n {
		d.mem[0].Inject(fromClient(t, client, "A", ""))
		if i%batchSize == 0 {
			d.now += second / 10 // within the rate, but for the last
			d.run()
		}
	}
	d.run()
	if got, missed := len(slow.events), slow.Missed(); got != traceQueue || uint64(got)+missed != n {
		t.Errorf("%d frames wait and %d were missed, of %d; want %d to wait", got, missed, n, traceQueue)
	}
	events(slow)
	if b := slow.bytes.Load(); b != 0 {
		t.Errorf("%d bytes counted in an empty queue", b)
	}
	long := payload(1 << 20)
	for range 2 * traceBytes >> 20 {
		slow.offer(&Traced{sizeOf: len(long)})
	}
	if b := slow.bytes.Load(); b > traceBytes {
		t.Errorf("%d bytes wait, more than %d", b, traceBytes)
	}
	rate := d.trace(anyPort)
	for range 2 * traceBurst { // all at once
		d.mem[0].Inject(fromClient(t, client, "A", ""))
	}
	d.run()
	if got, missed := len(rate.events), rate.Missed(); got != traceBurst || missed != traceBurst {
		t.Errorf("of %d frames at once %d were traced and %d missed, want half", 2*traceBurst, got, missed)
	}
	d.accounted()
}

func TestTracesAreFewAndLeaveNothingBehind(t *testing.T) {
	d := newDirector(t, nil)
	var all []*Trace
	for range maxTraces {
		trace, err := d.plane.Trace(anyPort)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, trace)
	}
	if _, err := d.plane.Trace(anyPort); err != ErrTooManyTraces {
		t.Errorf("trace %d: %v, want %v", maxTraces+1, err, ErrTooManyTraces)
	}
	d.inject(0, fromClient(t, client, "S", ""))
	for i, trace := range all {
		if n := len(events(trace)); n != 1 {
			t.Errorf("trace %d has %d events, want 1", i, n)
		}
		trace.Close()
	}
	d.inject(0, fromClient(t, client, "S", ""))
	d.plane.eachPath(func(w *path) {
		if w.tap != nil {
			t.Error("a path still listens")
		}
		for _, l := range w.tx {
			if _, ok := l.(*link.Mem); !ok {
				t.Errorf("a path sends by %T", l)
			}
		}
	})
}

func TestVerdictsHaveMeanings(t *testing.T) {
	for v := range numVerdicts {
		if v.Meaning() == "" {
			t.Errorf("%v has no meaning", v)
		}
	}
}
