package dataplane

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

var prober = netip.MustParseAddr("10.9.0.50")

// probeBench is a director whose probes are answered by hand.
func probeBench(t *testing.T) *director {
	return newDirector(t, func(c *Config) { c.ProbeAddrs = []netip.Addr{prober} })
}

// probing starts a probe and returns what it sent out of the ports, and where its result will be.
func (d *director) probing(pr Probe) (out [2][][]byte, result chan ProbeResult) {
	d.t.Helper()
	result = make(chan ProbeResult, 1)
	pr.Interval = time.Minute
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	go func() {
		defer cancel()
		result <- d.plane.Probe(ctx, &pr)
	}()
	for range 5000 {
		if out = d.runQuietly(); len(out[0])+len(out[1]) > 0 {
			return out, result
		}
		if len(result) > 0 {
			return out, result
		}
		time.Sleep(time.Millisecond)
	}
	d.t.Fatal("the probe isn't sent")
	return out, nil
}

// runQuietly is run without ARP.
func (d *director) runQuietly() (out [2][][]byte) {
	out = d.run()
	for i := range out {
		out[i] = withoutARP(out[i])
	}
	return out
}

// result runs the director until a probe is over.
func (d *director) result(c chan ProbeResult) (r ProbeResult, out [2][][]byte) {
	d.t.Helper()
	for range 5000 {
		o := d.runQuietly()
		for i := range out {
			out[i] = append(out[i], o[i]...)
		}
		select {
		case r = <-c:
			return r, out
		default:
			time.Sleep(time.Millisecond)
		}
	}
	d.t.Fatal("the probe doesn't end")
	return r, out
}

func probeOf(m service.Method) Probe {
	return Probe{
		Kind: ProbeConnect, From: packet.AddrFrom(prober), To: packet.AddrFrom(vip), Port: 80,
		Server: packet.AddrFrom4(0x0a01000b), ServerPort: 8080, Method: m, RS: service.NoServer,
	}
}

func TestProbeGoesTheWayOfClientsAndLeavesNoTrace(t *testing.T) {
	d := probeBench(t)
	vs := d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	out, result := d.probing(probeOf(service.Masq))
	sent := parse(t, one(t, out[1]))
	ip, seg := sent.Layer(layers.LayerTypeIPv4).(*layers.IPv4), sent.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if ip.DstIP.String() != "10.1.0.11" || ip.SrcIP.String() != prober.String() || seg.DstPort != 8080 || !seg.SYN || ip.TTL != 64 {
		t.Errorf("the probe is %v", sent)
	}
	answer := &layers.TCP{SrcPort: 8080, DstPort: seg.SrcPort, Seq: 77, Ack: seg.Seq + 1, SYN: true, ACK: true}
	// Another flow, and the right one.
	other := *answer
	other.SrcPort = 8081
	var early [][]byte
	for i, a := range []*layers.TCP{&other, answer} {
		d.mem[1].Inject(frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: []byte{10, 1, 0, 11}, DstIP: prober.AsSlice()}, a))
		early = append(early, d.runQuietly()[1]...)
		if d.verdicts()[AnsweredProbe] != uint64(i) {
			t.Errorf("after answer %d the verdicts are %v", i, d.verdicts())
		}
	}
	r, out := d.result(result)
	if r.Outcome != ProbeAccepted || r.Station != serverMAC(11) || r.Port != 1 || r.Verdict != ForwardedNAT {
		t.Errorf("the result is %+v", r)
	}
	reset := false
	for _, f := range append(early, out[1]...) {
		s := parse(t, f).Layer(layers.LayerTypeTCP).(*layers.TCP)
		reset = reset || s.RST && s.Seq == seg.Seq+1 && s.DstPort == 8080 && s.SrcPort == seg.SrcPort
	}
	if !reset {
		t.Errorf("the server is not told that the probe is over: %v", out)
	}
	services, servers := make([]service.Counters, 1), make([]service.Counters, 1)
	d.plane.AddCounters(services, servers)
	if s := d.conns.Stats(); s.Conns != 0 || services[0] != (service.Counters{}) || servers[0] != (service.Counters{}) || vs.Servers[0].Refs() != 0 {
		t.Errorf("the probe left %+v, %+v, %+v", s, services, servers)
	}
	d.accounted()
	if n := len(d.plane.probes.flows); n != 0 || d.plane.probes.out() {
		t.Errorf("%d probes wait", n)
	}
}

func TestProbeHearsOfItsFate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(seg *layers.TCP, ip *layers.IPv4) []byte
		port   int
		want   ProbeOutcome
	}{
		{"reset", func(seg *layers.TCP, _ *layers.IPv4) []byte {
			return frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: vip.AsSlice(), DstIP: prober.AsSlice()},
				&layers.TCP{SrcPort: 80, DstPort: seg.SrcPort, Ack: seg.Seq + 1, RST: true, ACK: true})
		}, 1, ProbeRefused},
		{"unreachable", func(seg *layers.TCP, ip *layers.IPv4) []byte {
			quote := append(append([]byte(nil), ip.Contents...), seg.Contents[:8]...)
			return frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: []byte{10, 1, 0, 11}, DstIP: prober.AsSlice()},
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, bytesOf(quote))
		}, 1, ProbeError},
		{"sent back", func(seg *layers.TCP, _ *layers.IPv4) []byte {
			return frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: prober.AsSlice(), DstIP: vip.AsSlice()},
				&layers.TCP{SrcPort: seg.SrcPort, DstPort: 80, Seq: seg.Seq, SYN: true})
		}, 1, ProbeReturned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := probeBench(t)
			d.serve(service.TCP, service.Route, "10.1.0.11:80")
			pr := probeOf(service.Route)
			pr.Tries = 1
			out, result := d.probing(pr)
			sent := parse(t, one(t, out[1]))
			ip, seg := sent.Layer(layers.LayerTypeIPv4).(*layers.IPv4), sent.Layer(layers.LayerTypeTCP).(*layers.TCP)
			if ip.DstIP.String() != vip.String() {
				t.Errorf("the probe is %v", sent)
			}
			d.mem[tt.port].Inject(tt.answer(seg, ip))
			d.run()
			if d.verdicts()[AnsweredProbe] != 1 {
				t.Errorf("the verdicts are %v", d.verdicts())
			}
			if tt.want == ProbeReturned {
				return // it goes on waiting for a better answer
			}
			if r, _ := d.result(result); r.Outcome != tt.want {
				t.Errorf("the result is %+v, want outcome %v", r, tt.want)
			}
			d.accounted()
		})
	}
}

func TestProbeWithoutWay(t *testing.T) {
	d := probeBench(t)
	pr := probeOf(service.Route)
	pr.Server, pr.Tries = packet.AddrFrom4(0x0a0100c8), 1
	d.hops.Set(pr.Server, nil, nexthop.Unreachable)
	result := make(chan ProbeResult, 1)
	pr.Interval = 10 * time.Millisecond
	go func() { result <- d.plane.Probe(t.Context(), &pr) }()
	if r, _ := d.result(result); r.Outcome != ProbeNoWay || r.Way != nexthop.Unreachable {
		t.Errorf("the result is %+v", r)
	}
}

func TestWhoHasOurAddresses(t *testing.T) {
	d := probeBench(t)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	type found struct {
		claims []Claim
		asked  int
	}
	result := make(chan found, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d.run()
	go func() {
		c, n := d.plane.Claims(ctx)
		result <- found{c, n}
	}()
	thief, other := packet.MAC{2, 0, 0, 0, 9, 11}, packet.MAC{2, 0, 0, 0, 9, 12}
	for {
		asked := false
		for d.now += second / 10; d.plane.Step(d.now); {
		}
		for _, f := range append(d.mem[0].Sent(), d.slow[0].Sent()...) {
			eth, payload, _ := packet.ParseEth(f[packet.VnetLen:])
			if a, ok := packet.ParseARP(payload); ok && eth.Type() == packet.EtherARP && a.Sender() == 0 && packet.AddrFrom4(a.Target()) == packet.AddrFrom(vip) {
				asked = true
			}
		}
		if asked {
			d.mem[0].Inject(arpFrom(thief, cliMAC, packet.ARPReply, packet.AddrFrom(vip).V4(), 0))
			d.mem[0].Inject(arpFrom(other, packet.Broadcast, packet.ARPRequest, packet.AddrFrom(vip).V4(), packet.AddrFrom(vip).V4()))
		}
		select {
		case r := <-result:
			want := map[Claim]bool{
				{Addr: packet.AddrFrom(vip), Port: 0, Station: thief}:                  true,
				{Addr: packet.AddrFrom(vip), Port: 0, Station: other, Announces: true}: true,
			}
			for _, c := range r.claims {
				if !want[c] {
					t.Errorf("claim %+v", c)
				}
				delete(want, c)
			}
			if len(want) > 0 || r.asked != 3 { // the VIP, the prober's, the gateway's
				t.Errorf("%d addresses asked for; not found: %+v", r.asked, want)
			}
			return
		case <-ctx.Done():
			t.Fatal("it takes too long")
		case <-time.After(time.Millisecond):
		}
	}
}

// arpFrom is an ARP frame.
func arpFrom(src, dst packet.MAC, op uint16, sender, target uint32) []byte {
	b := make([]byte, 60)
	packet.PutEth(b, dst, src, packet.EtherARP)
	packet.PutARP(b[packet.EthLen:packet.EthLen+packet.ARPLen], op, src, sender, packet.MAC{}, target)
	return b
}

// BenchmarkProbesOut is what clients' packets pay while probes are out, of whose local ports clients have a third themselves.
func BenchmarkProbesOut(b *testing.B) {
	for _, n := range []int{0, 1, 5000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			w := established(b, service.Route, false, 1<<12)
			ps := &w.plane.probes
			for i := range n {
				pr := probeOf(service.Route)
				ps.mu.Lock()
				ps.enter(newProbe(&pr), uint16(1024+3*i)) // where newTraffic's clients have theirs
				ps.mu.Unlock()
			}
			steps(b, w, ForwardedDR)
		})
	}
}
