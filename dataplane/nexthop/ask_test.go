package nexthop

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdpacket "github.com/mdlayher/packet"

	"uvs/packet"
)

// gatewayConfig attaches to eth1 as the gateway 10.0.0.1 of its segment.
func gatewayConfig() Config {
	cfg := attach("eth1")
	cfg.Gateways = []Gateway{{Prefix: netip.MustParsePrefix("10.0.0.1/24")}}
	return cfg
}

// gateway6Config attaches to eth1 as the gateway fd00:a::1 of its segment, beside 10.0.0.1.
func gateway6Config() Config {
	cfg := gatewayConfig()
	cfg.Gateways = append(cfg.Gateways, Gateway{Prefix: netip.MustParsePrefix("fd00:a::1/64")})
	return cfg
}

// frame is the Ethernet frame that asks a question from a MAC address.
func (q Question) frame(mac packet.MAC) []byte {
	if q.Target.Is4() {
		b := make([]byte, 60)
		if q.To == (packet.MAC{}) {
			q.To = packet.Broadcast
		}
		packet.PutEth(b, q.To, mac, packet.EtherARP)
		packet.PutARP(b[packet.EthLen:packet.EthLen+packet.ARPLen], packet.ARPRequest, mac, q.Sender.V4(), packet.MAC{}, q.Target.V4())
		return b
	}
	n := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: q.Sender, Dst: q.Target, Target: q.Target, MAC: mac}
	if q.To == (packet.MAC{}) {
		n.Dst = packet.SolicitedNode(q.Target)
		q.To = packet.GroupMAC(n.Dst)
	}
	const size = packet.NDPLen + packet.NDPMACLen
	b := make([]byte, packet.EthLen+packet.IPv6Len+size)
	packet.PutEth(b, q.To, mac, packet.EtherIPv6)
	packet.PutIPv6(b[packet.EthLen:], size, packet.Header6{NextHeader: packet.ProtoICMPv6, HopLimit: 255, Src: n.Src, Dst: n.Dst})
	packet.PutNDP(b[packet.EthLen+packet.IPv6Len:], &n)
	return b
}

// wireSegment makes a Resolver with a gateway ask and hear on an interface, as the dataplane does.
func (s *space) wireSegment(cfg *Config, dev string) (start func(*Resolver)) {
	s.t.Helper()
	var conn *mdpacket.Conn
	s.in(func() error {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		conn, err = mdpacket.Listen(l, mdpacket.Raw, 0x0003, nil) // ETH_P_ALL
		if err != nil {
			return err
		}
		return conn.SetPromiscuous(true)
	})
	mac := cfg.Interfaces[0].MAC
	cfg.Ask = func(_ int, q Question) {
		frame := q.frame(mac)
		_, _ = conn.WriteTo(frame, &mdpacket.Addr{HardwareAddr: frame[:6]})
	}
	return func(r *Resolver) {
		var closed atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b := make([]byte, 2048); ; {
				n, _, err := conn.ReadFrom(b)
				if closed.Load() {
					return
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // the interface is down
					continue
				}
				var p packet.Packet
				var ndp packet.NDP
				if a, ok := packet.ParseARP(b[packet.EthLen:n]); ok {
					r.HandleARP(0, a)
				} else if packet.Decode(b[:n], &p) == packet.NoFault && packet.ParseNDP(&p, &ndp) {
					r.HandleNDP(0, &ndp)
				}
			}
		}()
		s.t.Cleanup(func() { closed.Store(true); conn.Close(); <-done })
	}
}

func TestGatewaySegmentIsResolvedWithoutAnAddressOfTheHost(t *testing.T) {
	t.Parallel()
	d, server := newSpace(t), newSpace(t)
	wire(d, "eth1", server, "s0")
	server.addr("s0", "10.0.0.2/24")
	cfg := gatewayConfig()
	start := d.wireSegment(&cfg, "eth1")
	r := d.resolver(cfg)
	start(r)

	want := Hop{Iface: 0, Dst: server.mac("s0"), MTU: 1500, Source: ip("10.0.0.1"), Gateway: ip("10.0.0.2")}
	awaitHop(t, r, soon, "10.0.0.2", want)
	awaitStatus(t, r, soon, "10.0.0.1", NoRoute) // ours, but no next hop
	awaitStatus(t, r, soon, "10.1.0.1", NoRoute)
	awaitStatus(t, r, 6*time.Second, "10.0.0.99", Unreachable)

	r.SetPinned([]packet.Addr{ip("10.0.0.2")})
	time.Sleep(2 * tick)
	server.delAddr("s0", "10.0.0.2/24")
	died := time.Now()
	awaitStatus(t, r, 12*time.Second, "10.0.0.2", Unreachable)
	t.Logf("unreachable after %v", time.Since(died))
	server.sysctl("ipv4/conf/s0/arp_notify", "1")
	server.must(server.LinkSetHardwareAddr(server.link("s0"), net.HardwareAddr{2, 1, 1, 1, 1, 1}))
	server.addr("s0", "10.0.0.2/24")
	want.Dst = packet.MAC{2, 1, 1, 1, 1, 1}
	awaitHop(t, r, 12*time.Second, "10.0.0.2", want)

	d.down("eth1")
	awaitStatus(t, r, soon, "10.0.0.2", Unreachable)
	d.up("eth1")
	awaitHop(t, r, 2*soon, "10.0.0.2", want)
}

// TestTheHostsAddressOnAGatewaysSegmentIsLocal has a host with an address of its own beside the gateway's: what the servers
// send there is for the host, and nobody is to be asked who has it.
func TestTheHostsAddressOnAGatewaysSegmentIsLocal(t *testing.T) {
	t.Parallel()
	d, server := newSpace(t), newSpace(t)
	wire(d, "eth1", server, "s0")
	d.addr("eth1", "10.0.0.9/24")
	var out sent
	cfg := gatewayConfig()
	cfg.Ask = out.send
	r := d.resolver(cfg)
	if _, status := r.Lookup(ip("10.0.0.9")); status != Local {
		t.Errorf("Lookup of the host's own address = %v, want %v", status, Local)
	}
	if _, ok := r.OnLink(ip("10.0.0.9")); ok {
		t.Error("OnLink takes the host's own address for a neighbour's")
	}
	awaitStatus(t, r, soon, "10.0.0.9", Local) // however often it is asked for
	if asked := out.take(); len(asked) != 0 {
		t.Errorf("asked for the host's own address: %+v", asked)
	}
	d.addr("eth1", "10.0.0.10/24")
	awaitStatus(t, r, soon, "10.0.0.10", Local)
	d.delAddr("eth1", "10.0.0.9/24")
	await(t, soon, "an address that the host gave up is looked for on the segment", func() bool {
		r.Resolve(ip("10.0.0.9"))
		_, status := r.Lookup(ip("10.0.0.9"))
		return status == Pending && len(out.take()) > 0
	})
}

// sent gathers the questions that a Resolver under test asks.
type sent struct {
	mu        sync.Mutex // guards questions
	questions []Question
}

func (s *sent) send(_ int, q Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.questions = append(s.questions, q)
}

func (s *sent) take() []Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.questions
	s.questions = nil
	return q
}

// stillNet is a director whose Resolver doesn't run: the test turns its clock.
func stillNet(t *testing.T) (*Resolver, *sent) {
	t.Helper()
	d, server := newSpace(t), newSpace(t)
	wire(d, "eth1", server, "s0")
	s := new(sent)
	cfg := gatewayConfig()
	cfg.Ask = s.send
	return d.idle(cfg, eventBuffer), s
}

func (r *Resolver) turn(now *time.Time, ticks int) {
	for range ticks {
		*now = now.Add(tick)
		r.tick(*now)
		r.finish()
	}
}

// hearAll takes in what HandleARP and HandleNDP kept.
func (r *Resolver) hearAll(now time.Time) {
	for len(r.heard) > 0 {
		r.hear(<-r.heard, now)
	}
}

func arpFrom(mac packet.MAC, sender, target string) *packet.ARP {
	b := make([]byte, packet.ARPLen)
	packet.PutARP(b, packet.ARPReply, mac, ip(sender).V4(), packet.MAC{}, ip(target).V4())
	return (*packet.ARP)(b)
}

func TestARPAsksThreeTimesThenByUnicastWhenKnown(t *testing.T) {
	t.Parallel()
	r, s := stillNet(t)
	now := time.Now()
	r.Resolve(ip("10.0.0.2"))
	r.answerAsked(now)
	asked := s.take()
	if want := (Question{Sender: ip("10.0.0.1"), Target: ip("10.0.0.2")}); len(asked) != 1 || asked[0] != want {
		t.Fatalf("asked %+v, want %+v", asked, want)
	}
	r.Resolve(ip("10.0.0.2")) // again, by another worker
	r.answerAsked(now)
	if n := len(s.take()); n != 0 {
		t.Errorf("%d questions asked though one is out, want 0", n)
	}
	for i, want := range []int{1, 1, 0} {
		r.turn(&now, 1)
		if n := len(s.take()); n != want {
			t.Errorf("%d questions after %d s, want %d", n, i+1, want)
		}
	}
	if _, status := r.Lookup(ip("10.0.0.2")); status != Unreachable {
		t.Fatalf("Lookup = %v after three tries, want %v", status, Unreachable)
	}

	server := packet.MAC{2, 8, 8, 8, 8, 8}
	r.HandleARP(0, arpFrom(server, "10.0.0.2", "10.0.0.77")) // to somebody else: we know the sender all the same
	r.hearAll(now)
	if hop, status := r.Lookup(ip("10.0.0.2")); status != Ready || hop.Dst != server {
		t.Fatalf("Lookup = %+v, %v after the server spoke, want its MAC", hop, status)
	}
	r.turn(&now, keepTicks-1)
	if n := len(s.take()); n != 0 {
		t.Errorf("%d questions about a fresh neighbour that isn't pinned, want 0", n)
	}
	r.pinned = []packet.Addr{ip("10.0.0.2")}
	r.turn(&now, keepTicks)
	asked = s.take()
	if len(asked) == 0 || asked[0].To != server {
		t.Fatalf("asked %+v, want a unicast probe of the pinned server", asked)
	}
	r.turn(&now, 4)
	if _, status := r.Lookup(ip("10.0.0.2")); status != Unreachable {
		t.Errorf("Lookup = %v after its probes went unanswered, want %v", status, Unreachable)
	}
}

func TestARPLearnsOnlyFromWhoMayBeMeant(t *testing.T) {
	t.Parallel()
	mac := packet.MAC{2, 8, 8, 8, 8, 8}
	for _, c := range []struct {
		name   string
		arp    *packet.ARP
		status Status
	}{
		{"a request for the gateway", arpFrom(mac, "10.0.0.2", "10.0.0.1"), Ready},
		{"a stranger to another stranger", arpFrom(mac, "10.0.0.2", "10.0.0.3"), Pending},
		{"a group address as MAC", arpFrom(packet.Broadcast, "10.0.0.2", "10.0.0.1"), Pending},
		{"no MAC", arpFrom(packet.MAC{}, "10.0.0.2", "10.0.0.1"), Pending},
		{"our own frame", arpFrom(packet.MAC{2, 0x75}, "10.0.0.2", "10.0.0.1"), Pending},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := stillNet(t)
			r.HandleARP(0, c.arp)
			r.hearAll(time.Now())
			if _, status := r.Lookup(ip("10.0.0.2")); status != c.status {
				t.Errorf("Lookup = %v, want %v", status, c.status)
			}
		})
	}
	r, _ := stillNet(t)
	r.HandleARP(0, arpFrom(mac, "10.0.0.1", "10.0.0.1")) // claims the gateway's address
	r.HandleARP(0, arpFrom(mac, "192.0.2.2", "10.0.0.1"))
	if n := len(r.heard); n != 0 {
		t.Errorf("%d ARP packets of no gateway's neighbour taken, want 0", n)
	}
}

// solicit and advert are messages of neighbour discovery from a station at mac.
func solicit(mac packet.MAC, src, target string) *packet.NDP {
	return &packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: ip(src), Dst: packet.SolicitedNode(ip(target)), Target: ip(target), MAC: mac}
}

func advert(mac packet.MAC, target, dst string, flags uint8) *packet.NDP {
	return &packet.NDP{Type: packet.ICMP6NeighbourAdvert, Flags: flags, Src: ip(target), Dst: ip(dst), Target: ip(target), MAC: mac}
}

func TestNeighbourDiscoveryTellsOfWhoMayBeMeant(t *testing.T) {
	t.Parallel()
	server, other := packet.MAC{2, 8, 8, 8, 8, 8}, packet.MAC{2, 9, 9, 9, 9, 9}
	const solicited, override = packet.NDPSolicited, packet.NDPOverride
	newResolver := func() *Resolver {
		d, s := newSpace(t), newSpace(t)
		wire(d, "eth1", s, "s0")
		return d.idle(gateway6Config(), eventBuffer)
	}
	for _, c := range []struct {
		name  string
		known packet.MAC // Ready so before
		ndp   *packet.NDP
		want  packet.MAC // zero: not Ready
	}{
		{"a question for the gateway", packet.MAC{}, solicit(server, "fd00:a::2", "fd00:a::1"), server},
		{"a stranger asks for another", packet.MAC{}, solicit(server, "fd00:a::2", "fd00:a::3"), packet.MAC{}},
		{"who is known asks for another", other, solicit(server, "fd00:a::2", "fd00:a::3"), server},
		{"an answer to us", packet.MAC{}, advert(server, "fd00:a::2", "fd00:a::1", solicited|override), server},
		{"a stranger announces itself", packet.MAC{}, advert(server, "fd00:a::2", "ff02::1", override), packet.MAC{}},
		{"who is known announces another MAC", other, advert(server, "fd00:a::2", "ff02::1", override), server},
		{"the same without override", other, advert(server, "fd00:a::2", "ff02::1", 0), other},
		{"an answer without its MAC from who isn't known", packet.MAC{}, advert(packet.MAC{}, "fd00:a::2", "fd00:a::1", solicited), packet.MAC{}},
		{"an answer without its MAC from who is", other, advert(packet.MAC{}, "fd00:a::2", "fd00:a::1", solicited), other},
		{"our own frame", packet.MAC{}, solicit(packet.MAC{2, 0x75}, "fd00:a::2", "fd00:a::1"), packet.MAC{}},
		{"of another segment", packet.MAC{}, solicit(server, "fd00:b::2", "fd00:a::1"), packet.MAC{}},
		{"a claim to the gateway's address", packet.MAC{}, advert(server, "fd00:a::1", "ff02::1", override), packet.MAC{}},
		{"a probe", packet.MAC{}, &packet.NDP{Type: packet.ICMP6NeighbourSolicit, Target: ip("fd00:a::1")}, packet.MAC{}},
	} {
		r, now := newResolver(), time.Now()
		if c.known != (packet.MAC{}) {
			r.HandleNDP(0, solicit(c.known, "fd00:a::2", "fd00:a::1"))
			r.hearAll(now)
		}
		r.HandleNDP(0, c.ndp)
		r.HandleNDP(7, c.ndp) // on an interface without gateway
		r.hearAll(now)
		hop, status := r.Lookup(ip("fd00:a::2"))
		switch {
		case c.want == packet.MAC{} && status != Pending:
			t.Errorf("%s: Lookup = %v, %v, want %v", c.name, hop, status, Pending)
		case c.want != packet.MAC{} && (hop == nil || hop.Dst != c.want):
			t.Errorf("%s: Lookup = %v, %v, want %v", c.name, hop, status, c.want)
		}
	}
}

func TestGatewaysOfBothFamiliesAreResolved(t *testing.T) {
	t.Parallel()
	d, server := newSpace(t), newSpace(t)
	wire(d, "eth1", server, "s0")
	server.addr("s0", "10.0.0.2/24")
	server.addr("s0", "fd00:a::2/64")
	cfg := gateway6Config()
	start := d.wireSegment(&cfg, "eth1")
	r := d.resolver(cfg)
	start(r)

	want := Hop{Iface: 0, Dst: server.mac("s0"), MTU: 1500, Source: ip("fd00:a::1"), Gateway: ip("fd00:a::2")}
	awaitHop(t, r, 3*soon, "fd00:a::2", want)
	want4 := want
	want4.Source, want4.Gateway = ip("10.0.0.1"), ip("10.0.0.2")
	awaitHop(t, r, soon, "10.0.0.2", want4)
	awaitStatus(t, r, soon, "fd00:a::1", NoRoute) // ours, but no next hop
	awaitStatus(t, r, soon, "fd00:b::1", NoRoute)
	awaitStatus(t, r, 6*time.Second, "fd00:a::99", Unreachable)
	if i, ok := r.OnLink(ip("fd00:a::77")); i != 0 || !ok {
		t.Errorf("OnLink = %d, %v, want the gateway's interface", i, ok)
	}

	r.SetPinned([]packet.Addr{ip("fd00:a::2")})
	time.Sleep(2 * tick)
	server.delAddr("s0", "fd00:a::2/64")
	awaitStatus(t, r, 12*time.Second, "fd00:a::2", Unreachable)
	server.must(server.LinkSetHardwareAddr(server.link("s0"), net.HardwareAddr{2, 1, 1, 1, 1, 1}))
	server.addr("s0", "fd00:a::2/64")
	want.Dst = packet.MAC{2, 1, 1, 1, 1, 1}
	awaitHop(t, r, 12*time.Second, "fd00:a::2", want)
}
