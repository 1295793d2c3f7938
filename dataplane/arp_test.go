package dataplane

import (
	"net/netip"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

const (
	vip4     = 0x0a090064
	gateway4 = 0x0a0900fe
)

// arpsFrom are the ARP packets in sent frames.
func arpsFrom(t testing.TB, frames [][]byte) (list []packet.ARP) {
	t.Helper()
	for _, f := range frames {
		eth, payload, ok := packet.ParseEth(f[packet.VnetLen:])
		a, isARP := packet.ParseARP(payload)
		if !ok || !isARP || eth.Type() != packet.EtherARP || eth.Src() != a.SenderMAC() {
			t.Fatalf("sent %x, want ARP as from its sender", f)
		}
		list = append(list, *a)
	}
	return list
}

func TestOddARP(t *testing.T) {
	broadcastSender := arpRequest(gatewayMAC, gateway4, vip4)
	(*packet.ARP)(broadcastSender[packet.EthLen:]).SetSenderMAC(packet.Broadcast)
	noSender := arpRequest(gatewayMAC, gateway4, vip4)
	(*packet.ARP)(noSender[packet.EthLen:]).SetSenderMAC(packet.MAC{})
	unicast := arpRequest(gatewayMAC, gateway4, vip4)
	(*packet.Eth)(unicast).SetDst(cliMAC)
	tagged := func(vid uint16) link.Frame {
		f := *received(arpRequest(gatewayMAC, gateway4, vip4))
		f.Tagged, f.VLAN, f.TPID = true, 5<<13|vid, packet.EtherVLAN
		return f
	}
	for _, tt := range []struct {
		name string
		in   link.Frame
		want Verdict
	}{
		{"probe, from no address (RFC 5227)", *received(arpRequest(gatewayMAC, 0, vip4)), AnsweredARP},
		{"to our MAC alone, as a neighbour is verified", *received(unicast), AnsweredARP},
		{"priority tag", tagged(0), AnsweredARP},
		{"VLAN tag", tagged(7), PassVLAN},
		{"sender's MAC is everybody's", *received(broadcastSender), DropARP},
		{"sender has no MAC", *received(noSender), DropARP},
		{"from one of our ports, about ourselves", *received(arpRequest(rsMAC, vip4, vip4)), PassARP},
		{"truncated", *received(arpRequest(gatewayMAC, gateway4, vip4)[:packet.EthLen+27]), DropARP},
	} {
		core, logs := observer.New(zap.WarnLevel)
		d := newDirector(t, func(c *Config) { c.Log = zap.New(core) })
		d.serve(service.TCP, service.Route, "10.1.0.11:80")
		d.run()
		d.mem[0].InjectFrame(tt.in)
		answers := arpsFrom(t, d.run()[0])
		if got := d.verdicts()[tt.want]; got != 1 {
			t.Errorf("%s: verdicts %v, want %v", tt.name, d.verdicts(), tt.want)
		}
		if (tt.want == AnsweredARP) != (len(answers) == 1) {
			t.Errorf("%s: %d answers", tt.name, len(answers))
		}
		if logs.Len() != 0 {
			t.Errorf("%s: logged %v", tt.name, logs.All())
		}
		d.accounted()
	}
}

func TestAClaimToOurAddressIsLoggedAndContested(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	d := newDirector(t, func(c *Config) { c.Log = zap.New(core) })
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	for range 6 {
		d.run()
		d.now += second
	}
	claim := arpRequest(serverMAC(11), vip4, gateway4) // a real server that names the VIP in a request of its own
	for range 5 {
		d.inject(0, claim)
	}
	d.inject(0, claim)
	if logs.Len() != 1 {
		t.Errorf("logged %d times, want once", logs.Len())
	}
	count := func() (n int) {
		for range 9 {
			d.now += second
			for _, a := range arpsFrom(t, d.inject(0, claim)[0]) {
				if a.Sender() == vip4 && a.Target() == vip4 && a.SenderMAC() == cliMAC {
					n++
				}
			}
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("contested %d times more within ten seconds, want 0", n)
	}
	d.now += second
	if n := count(); n != 1 {
		t.Errorf("contested %d times in the next ten seconds, want 1", n)
	}
	d.accounted()
}

// Real servers on a network that isn't the address's own may claim it there: that's one of the remedies of the ARP problem.
func TestAClaimWhereTheAddressIsNotAtHomeIsNone(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	d := newDirector(t, func(c *Config) {
		c.Log, c.Ports[1].Gateways = zap.New(core), nil
		c.AnnounceOn = func(packet.Addr) (int, bool) { return 0, true }
	})
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	for range 6 {
		d.run()
		d.now += second
	}
	claim := arpRequest(serverMAC(11), vip4, gateway4)
	for range 3 {
		if out := d.inject(1, claim); len(arpsFrom(t, out[0]))+len(arpsFrom(t, out[1])) != 0 {
			t.Errorf("contested on the other network: %x", out)
		}
		d.now += second
	}
	if logs.Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}
	if d.inject(0, claim); logs.Len() != 1 {
		t.Errorf("at home a claim is logged %d times, want once", logs.Len())
	}
	d.accounted()
}

func TestManyAddressesAreAnnouncedAFewAtATime(t *testing.T) {
	d := newDirector(t, nil)
	const n = 1000
	var list []*service.VirtualService
	for i := range uint32(n) {
		a := netip.AddrPortFrom(packet.AddrFrom4(0x0a640000+i).Netip(), 80)
		list = append(list, &service.VirtualService{Key: service.Key{Proto: service.TCP, Addr: a}, Index: i})
	}
	d.plane.Publish(service.NewTable(list, d.servers, 1))
	seen := make(map[uint32]int)
	for tick := range 6 {
		frames := 0
		for range 20 { // whatever else there is to do in this tick
			for _, a := range arpsFrom(t, d.inject(0, arpRequest(gatewayMAC, gateway4, gateway4+1))[0]) {
				seen[a.Sender()]++
				frames++
			}
		}
		if frames > announcePerTick {
			t.Errorf("%d announcements in tick %d, want at most %d", frames, tick, announcePerTick)
		}
		d.now += int64(slowTick)
	}
	for i := range uint32(n) {
		if seen[0x0a640000+i] != 1 {
			t.Fatalf("%v was announced %d times in half a second, want once", packet.AddrFrom4(0x0a640000+i), seen[0x0a640000+i])
		}
	}
	// Those that go are not announced again.
	d.plane.Publish(service.NewTable(list[:1], d.servers, 2))
	d.now += second
	d.run()
	for range 5 {
		d.now += second
		for _, a := range arpsFrom(t, d.run()[0]) {
			if a.Sender() != 0x0a640000 {
				t.Fatalf("%v was announced after it had gone", packet.AddrFrom4(a.Sender()))
			}
		}
	}
	d.accounted()
}

func TestAQuestionThatFindsTheQueueFullIsCounted(t *testing.T) {
	d := newDirector(t, nil)
	for range askQueue + 3 {
		d.plane.Ask(0, nexthop.Question{Sender: packet.AddrFrom4(1), Target: packet.AddrFrom4(2)})
	}
	if got := d.plane.Stats().Unsent; got != 3 {
		t.Errorf("%d unsent, want 3", got)
	}
	if got := len(d.run()[0]); got != askQueue {
		t.Errorf("%d sent, want %d", got, askQueue)
	}
}

func BenchmarkSlowPathWithManyAddresses(b *testing.B) {
	d := newDirector(b, nil)
	var list []*service.VirtualService
	for i := range uint32(10_000) {
		a := netip.AddrPortFrom(packet.AddrFrom4(0x0a640000+i).Netip(), 80)
		list = append(list, &service.VirtualService{Key: service.Key{Proto: service.TCP, Addr: a}, Index: i})
	}
	d.plane.Publish(service.NewTable(list, d.servers, 1))
	for range 1000 {
		d.now += int64(slowTick)
		d.run()
	}
	b.ReportAllocs()
	for b.Loop() {
		d.plane.slow.step(d.now, nil)
	}
}
