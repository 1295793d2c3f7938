package nexthop

import (
	"encoding/hex"
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

// wireARP makes a Resolver with a gateway send and hear ARP on an interface, as the dataplane does.
func (s *space) wireARP(cfg *Config, dev string) (start func(*Resolver)) {
	s.t.Helper()
	var conn *mdpacket.Conn
	s.in(func() error {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		conn, err = mdpacket.Listen(l, mdpacket.Raw, packet.EtherARP, nil)
		if err != nil {
			return err
		}
		return conn.SetPromiscuous(true)
	})
	cfg.SendARP = func(_ int, frame []byte) {
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
				if a, ok := packet.ParseARP(b[packet.EthLen:n]); ok {
					r.HandleARP(0, a)
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
	start := d.wireARP(&cfg, "eth1")
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
	cfg.SendARP = out.send
	r := d.resolver(cfg)
	if _, status := r.Lookup(ip("10.0.0.9")); status != Local {
		t.Errorf("Lookup of the host's own address = %v, want %v", status, Local)
	}
	if _, ok := r.OnLink(ip("10.0.0.9")); ok {
		t.Error("OnLink takes the host's own address for a neighbour's")
	}
	awaitStatus(t, r, soon, "10.0.0.9", Local) // however often it is asked for
	if frames := out.take(); len(frames) != 0 {
		t.Errorf("asked for the host's own address: %x", frames)
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

// sent gathers the ARP frames that a Resolver under test sends.
type sent struct {
	mu     sync.Mutex // guards frames
	frames [][]byte
}

func (s *sent) send(_ int, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, frame)
}

func (s *sent) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.frames
	s.frames = nil
	return f
}

// stillNet is a director whose Resolver doesn't run: the test turns its clock.
func stillNet(t *testing.T) (*Resolver, *sent) {
	t.Helper()
	d, server := newSpace(t), newSpace(t)
	wire(d, "eth1", server, "s0")
	s := new(sent)
	cfg := gatewayConfig()
	cfg.SendARP = s.send
	return d.idle(cfg, eventBuffer), s
}

func (r *Resolver) turn(now *time.Time, ticks int) {
	for range ticks {
		*now = now.Add(tick)
		r.tick(*now)
		r.finish()
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
	frames := s.take()
	if len(frames) != 1 {
		t.Fatalf("%d frames sent on the first question, want 1", len(frames))
	}
	// dst broadcast, src uvs's MAC, ARP request, sender uvs's MAC and 10.0.0.1, target 10.0.0.2, padded to 60 bytes
	want := "ffffffffffff" + "027500000000" + "0806" + "0001080006040001" + "027500000000" + "0a000001" + "000000000000" + "0a000002" +
		"000000000000000000000000000000000000"
	if got := hex.EncodeToString(frames[0]); got != want {
		t.Errorf("request\n got %s\nwant %s", got, want)
	}
	r.Resolve(ip("10.0.0.2")) // again, by another worker
	r.answerAsked(now)
	if n := len(s.take()); n != 0 {
		t.Errorf("%d frames sent though one is out, want 0", n)
	}
	for i, want := range []int{1, 1, 0} {
		r.turn(&now, 1)
		if n := len(s.take()); n != want {
			t.Errorf("%d frames after %d s, want %d", n, i+1, want)
		}
	}
	if _, status := r.Lookup(ip("10.0.0.2")); status != Unreachable {
		t.Fatalf("Lookup = %v after three tries, want %v", status, Unreachable)
	}

	server := packet.MAC{2, 8, 8, 8, 8, 8}
	r.HandleARP(0, arpFrom(server, "10.0.0.2", "10.0.0.77")) // to somebody else: we know the sender all the same
	r.hear(<-r.heard, now)
	if hop, status := r.Lookup(ip("10.0.0.2")); status != Ready || hop.Dst != server {
		t.Fatalf("Lookup = %+v, %v after the server spoke, want its MAC", hop, status)
	}
	r.turn(&now, keepTicks-1)
	if n := len(s.take()); n != 0 {
		t.Errorf("%d frames sent about a fresh neighbour that isn't pinned, want 0", n)
	}
	r.pinned = []packet.Addr{ip("10.0.0.2")}
	r.turn(&now, keepTicks)
	frames = s.take()
	if len(frames) == 0 || packet.MAC(frames[0][:6]) != server {
		t.Fatalf("frames %x, want a unicast probe of the pinned server", frames)
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
			r.hear(<-r.heard, time.Now())
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
