package dataplane

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// The director of these tests has two legs, as that of the recorded traces:
//
//	clients 192.0.2.0/24 -- gateway 10.9.0.254 -- [port 0: cli | director | port 1: rs] -- servers 10.1.0.N
var (
	cliMAC     = packet.MAC{2, 0, 0, 0, 9, 1}
	rsMAC      = packet.MAC{2, 0, 0, 0, 1, 1}
	gatewayMAC = packet.MAC{2, 0, 0, 0, 9, 0xfe}
	vip        = netip.MustParseAddr("10.9.0.100")
	client     = netip.MustParseAddrPort("192.0.2.7:40001")
)

const second = int64(1e9)

func serverMAC(n byte) packet.MAC { return packet.MAC{2, 0, 0, 0, 1, n} }

// director is a Plane over in-memory links, stepped by hand in virtual time.
type director struct {
	t       testing.TB
	plane   *Plane
	hops    *nexthop.Static
	conns   *conntrack.Table
	servers *service.ServerIndex
	mem     [2]*link.Mem // received from and sent to by the worker
	slow    [2]*link.Mem // sent to by the slow path
	now     int64
}

func newDirector(t testing.TB, change func(*Config)) *director {
	t.Helper()
	d := &director{t: t, hops: new(nexthop.Static), servers: new(service.ServerIndex), now: 1000 * second}
	conns, err := conntrack.New(conntrack.Config{Servers: d.servers, Shards: 16})
	if err != nil {
		t.Fatal(err)
	}
	d.conns = conns
	macs := [2]packet.MAC{cliMAC, rsMAC}
	for i := range d.mem {
		d.mem[i], d.slow[i] = link.NewMem(link.MemConfig{MAC: macs[i]}), link.NewMem(link.MemConfig{MAC: macs[i]})
	}
	cfg := Config{
		Ports: []Port{
			{Name: "cli", MAC: cliMAC},
			{Name: "rs", MAC: rsMAC, Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}},
		},
		OpenRx:           func(_, port int) (link.Link, error) { return d.mem[port], nil },
		OpenTx:           func(port int) (link.Link, error) { return d.slow[port], nil },
		Conns:            conns,
		NextHops:         d.hops,
		AnnounceInterval: -1,
	}
	if change != nil {
		change(&cfg)
	}
	if d.plane, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.plane.Close(); err != nil {
			t.Error(err)
		}
	})
	d.hops.SetPrefix(netip.MustParsePrefix("192.0.2.0/24"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
	for n := byte(11); n <= 30; n++ {
		d.hops.Set(packet.AddrFrom4(0x0a010000|uint32(n)), &nexthop.Hop{Iface: 1, Dst: serverMAC(n), MTU: 1500}, nexthop.Ready)
	}
	return d
}

// serve publishes one service with one server per address, latest last, all by method m.
func (d *director) serve(proto service.Proto, m service.Method, servers ...string) *service.VirtualService {
	d.t.Helper()
	port := map[service.Proto]uint16{service.TCP: 80, service.UDP: 53, service.SCTP: 701}[proto]
	key := service.Key{Proto: proto, Addr: netip.AddrPortFrom(vip, port)}
	s, err := sched.New("rr", 0)
	if err != nil {
		d.t.Fatal(err)
	}
	vs := &service.VirtualService{Key: key, Scheduler: s, SchedulerName: "rr"}
	old := d.plane.Table()
	vs.Index = uint32(len(old.Services))
	for _, a := range servers {
		rs := service.NewRealServer(key, netip.MustParseAddrPort(a), m, 1)
		if err := d.servers.Add(rs); err != nil {
			d.t.Fatal(err)
		}
		before := vs.Servers
		vs.Servers = append([]*service.RealServer{rs}, before...)
		s.Changed(service.Change{Kind: service.ServerAdded, Server: rs, Before: before, After: vs.Servers})
	}
	s.Prepare(vs.Servers)
	d.plane.Publish(service.NewTable(append(append([]*service.VirtualService(nil), old.Services...), vs), d.servers, old.Generation+1))
	return vs
}

// inject runs one frame in at a port to its end and returns what was sent, by port.
func (d *director) inject(port int, frame []byte) (out [2][][]byte) {
	d.mem[port].Inject(frame)
	return d.run()
}

// received is an Ethernet frame as a link hands it out.
func received(eth []byte) *link.Frame {
	return &link.Frame{Buf: append(make([]byte, packet.VnetLen), eth...)}
}

// run steps worker and slow path until both are idle.
func (d *director) run() (out [2][][]byte) {
	for d.plane.Step(d.now) {
	}
	for i := range out {
		out[i] = withoutProbes(append(d.mem[i].Sent(), d.slow[i].Sent()...))
	}
	return out
}

// withoutProbes leaves out the ARP probes that go along with announcements.
func withoutProbes(frames [][]byte) [][]byte {
	return slices.DeleteFunc(frames, func(f []byte) bool {
		eth, payload, ok := packet.ParseEth(f[packet.VnetLen:])
		if !ok || eth.Type() != packet.EtherARP {
			return false
		}
		a, ok := packet.ParseARP(payload)
		return ok && a.Op() == packet.ARPRequest && a.Sender() == 0
	})
}

// verdicts are all paths' counts together, without the zeros.
func (d *director) verdicts() map[Verdict]uint64 {
	m := make(map[Verdict]uint64)
	d.plane.eachPath(func(w *path) {
		for v, n := range w.verdicts {
			if n > 0 {
				m[Verdict(v)] += n
			}
		}
	})
	return m
}

// accounted fails the test unless every frame received has exactly one verdict or still waits.
func (d *director) accounted() {
	d.t.Helper()
	s := d.plane.Stats()
	if sum := s.Forwarded + s.Answered + s.Passed + s.Dropped + s.Held; sum != s.Received {
		d.t.Errorf("received %d frames, accounted for %d: %+v", s.Received, sum, s)
	}
}

// frame builds an Ethernet frame with gopacket, independently of our own code.
func frame(t testing.TB, src, dst packet.MAC, ip *layers.IPv4, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip.Version, ip.IHL = 4, 5
	if ip.TTL == 0 {
		ip.TTL = 64
	}
	for _, l := range rest {
		switch l := l.(type) {
		case *layers.TCP:
			ip.Protocol = layers.IPProtocolTCP
			_ = l.SetNetworkLayerForChecksum(ip)
		case *layers.UDP:
			ip.Protocol = layers.IPProtocolUDP
			_ = l.SetNetworkLayerForChecksum(ip)
		case *layers.ICMPv4:
			ip.Protocol = layers.IPProtocolICMPv4
		}
	}
	buf := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}, ip}, rest...)
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[:packet.EthLen+int(ip.Length)] // without padding
}

// fromClient is a TCP segment from the client to the VIP with flags such as "S" or "PA".
func fromClient(t testing.TB, src netip.AddrPort, flags, payload string) []byte {
	t.Helper()
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: src.Addr().AsSlice(), DstIP: vip.AsSlice()},
		tcp(src.Port(), 80, flags), gopacket.Payload(payload))
}

// fromServer is a TCP segment from a real server to the client.
func fromServer(t testing.TB, n byte, dst netip.AddrPort, flags, payload string) []byte {
	t.Helper()
	return frame(t, serverMAC(n), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, n), DstIP: dst.Addr().AsSlice()},
		tcp(8080, dst.Port(), flags), gopacket.Payload(payload))
}

func tcp(src, dst uint16, flags string) *layers.TCP {
	h := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), Seq: 1000, Ack: 5000, Window: 64240}
	for _, f := range flags {
		switch f {
		case 'S':
			h.SYN = true
		case 'A':
			h.ACK = true
		case 'P':
			h.PSH = true
		case 'F':
			h.FIN = true
		case 'R':
			h.RST = true
		}
	}
	return h
}

// parse reads a sent frame with gopacket and fails the test if a checksum is wrong.
func parse(t testing.TB, sent []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(sent[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
	if err := p.ErrorLayer(); err != nil {
		t.Fatalf("sent frame is malformed: %v\n%v", err.Error(), p)
	}
	var d packet.Packet
	if fault := packet.Decode(sent[packet.VnetLen:], &d); fault != packet.NoFault && fault != packet.FaultEtherType {
		t.Fatalf("sent frame has fault %d\n%v", fault, p)
	}
	return p
}

// one returns the only frame in frames.
func one(t testing.TB, frames [][]byte) []byte {
	t.Helper()
	if len(frames) != 1 {
		t.Fatalf("%d frames sent, want 1", len(frames))
	}
	return frames[0]
}

// payload is n bytes of payload.
func payload(n int) gopacket.Payload { return gopacket.Payload(make([]byte, n)) }

// bytesOf is b as a payload.
func bytesOf(b []byte) gopacket.Payload { return gopacket.Payload(b) }

// withoutARP leaves out announcements.
func withoutARP(frames [][]byte) (rest [][]byte) {
	for _, f := range frames {
		if (*packet.Eth)(f[packet.VnetLen:]).Type() != packet.EtherARP {
			rest = append(rest, f)
		}
	}
	return rest
}
