package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/forward"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

var (
	microService = service.Key{Proto: service.UDP, Addr: netip.MustParseAddrPort("10.9.0.100:9")}
	microServer  = netip.MustParseAddrPort("10.1.0.11:8009")
	microMAC     = [2]packet.MAC{{2, 0, 0, 0, 9, 1}, {2, 0, 0, 0, 1, 1}} // the director's
	clientSide   = packet.MAC{2, 0, 0, 0, 9, 0xfe}
	serverSide   = packet.MAC{2, 0, 0, 0, 1, 11}
)

const second = int64(time.Second)

// stages are all, in the order of a packet's way.
func stages(large bool) (all []stage) {
	all = append(all, stage{"Decode", decode}, stage{"NATRewrite", rewrite(service.Masq)}, stage{"TunnelWrap", rewrite(service.Tunnel)})
	all = append(all, stage{"ConntrackHash", hash})
	for _, z := range sizes(large) {
		all = append(all,
			stage{"ConntrackHit/" + z.name, lookup(z.n, conntrack.Hit)}, stage{"ConntrackMiss/" + z.name, lookup(z.n, conntrack.Miss)},
			stage{"ConntrackHitBatch/" + z.name, lookupBatch(z.n)}, stage{"ConntrackInsert/" + z.name, insert(z.n)},
			stage{"ConntrackExpire/" + z.name, expire(z.n)})
	}
	all = append(all, nextHopStages()...)
	for _, n := range []int{0, 10, 1000, 10_000} {
		all = append(all, stage{fmt.Sprintf("Marks/%d", n), marks(n)})
	}
	for _, name := range sched.Names() {
		for _, n := range []int{3, 100, 1000} {
			all = append(all, stage{fmt.Sprintf("Schedule/%s/%d", name, n), schedule(name, n)})
		}
	}
	return append(all, pathStages(large)...)
}

func decode(b *testing.B) {
	s := newStream(microMAC[0], clientSide, microService.Addr, 1<<12)
	var p packet.Packet
	for i := 0; b.Loop(); i++ {
		if packet.Decode(s.batch[i%len(s.batch)][packet.VnetLen:], &p) != packet.NoFault {
			b.Fatal("the frame is faulty")
		}
	}
}

// rewrite is what a method does to a frame, each time to the same.
func rewrite(m service.Method) func(*testing.B) {
	return func(b *testing.B) {
		frame := newStream(microMAC[0], clientSide, microService.Addr, 1).batch[0]
		v, head := (*packet.Vnet)(frame), make([]byte, forward.FrameHead+forward.MaxTunnelLen)
		var p packet.Packet
		if packet.Decode(frame[packet.VnetLen:], &p) != packet.NoFault {
			b.Fatal("the frame is faulty")
		}
		rs := packet.AddrFrom(microServer.Addr())
		t := forward.Tunnel{Src: packet.AddrFrom(microService.Addr.Addr()), Dst: rs, PMTUDisc: true}
		for b.Loop() {
			if m == service.Tunnel {
				t.Wrap(head, &p, v)
			} else {
				forward.NATIn(&p, v, rs, microServer.Port())
			}
			forward.Ethernet(p.Frame, serverSide, microMAC[1])
		}
	}
}

// tracked is a connection table with n UDP connections, in which clients' ports lie as a stream has them.
type tracked struct {
	*conntrack.Table
	rs   *service.RealServer
	now  int64
	conn conntrack.Conn
}

func newTracked(b *testing.B, n int) *tracked {
	b.Helper()
	servers := new(service.ServerIndex)
	table, err := conntrack.New(conntrack.Config{Servers: servers})
	if err != nil {
		b.Fatal(err)
	}
	t := &tracked{Table: table, rs: service.NewRealServer(microService, microServer, service.Masq, 1), now: 1000 * second}
	if err := servers.Add(t.rs); err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if t.open(i) != conntrack.Inserted {
			b.Fatal("connection not inserted")
		}
	}
	return t
}

// flow is that of client i.
func flow(i int) packet.Flow {
	return packet.Flow{
		Src: packet.AddrFrom4(uint32(firstClient + i/portsPerHost)), SrcPort: uint16(firstPort + i%portsPerHost),
		Dst: packet.AddrFrom(microService.Addr.Addr()), DstPort: microService.Addr.Port(), Proto: packet.ProtoUDP,
	}
}

func (t *tracked) open(i int) conntrack.Outcome {
	return t.Insert(&conntrack.NewConn{
		Flow: flow(i), Server: packet.AddrFrom(microServer.Addr()), ServerPort: microServer.Port(), Method: service.Masq, RS: t.rs, Now: t.now,
	}, &t.conn)
}

// shuffled are n flows in an order that the caches don't know.
func shuffled(n int) []packet.Flow {
	flows := make([]packet.Flow, n)
	for i, j := range rand.New(rand.NewPCG(5, 6)).Perm(n) {
		flows[i] = flow(j)
	}
	return flows
}

func hash(b *testing.B) {
	t, flows := newTracked(b, 0), shuffled(1<<10)
	var k conntrack.Key
	for i := 0; b.Loop(); i++ {
		t.Hash(&flows[i%len(flows)], conntrack.In, &k)
	}
}

// lookup is one packet's among n connections, hash included.
func lookup(n int, want conntrack.Outcome) func(*testing.B) {
	return func(b *testing.B) {
		t, flows := newTracked(b, n), shuffled(n)
		if want == conntrack.Miss {
			for i := range flows {
				flows[i].DstPort++
			}
		}
		for i := 0; b.Loop(); i++ {
			if t.In(&flows[i%n], 0, t.now, &t.conn) != want {
				b.Fatalf("not a %v", want)
			}
		}
	}
}

// lookupBatch is as a worker does it: hashes of a batch, then what they lead to is fetched, then the lookups.
func lookupBatch(n int) func(*testing.B) {
	return func(b *testing.B) {
		t, flows := newTracked(b, n), shuffled(n)
		var keys [64]conntrack.Key
		for i := 0; b.Loop(); i++ {
			if i%len(keys) == 0 {
				for j := range keys {
					t.Hash(&flows[(i+j)%n], conntrack.In, &keys[j])
				}
				t.Prefetch(keys[:])
			}
			if t.InHashed(&keys[i%len(keys)], 0, t.now, &t.conn) != conntrack.Hit {
				b.Fatal("miss")
			}
		}
	}
}

// insert fills a table from empty to n connections, again and again.
func insert(n int) func(*testing.B) {
	return func(b *testing.B) {
		var t *tracked
		for i := n; b.Loop(); i++ {
			if i == n {
				b.StopTimer()
				t, i = newTracked(b, 0), 0
				b.StartTimer()
			}
			if t.open(i) != conntrack.Inserted {
				b.Fatal("connection not inserted")
			}
		}
	}
}

// expire has n connections' time come, and reports the price of each.
func expire(n int) func(*testing.B) {
	return func(b *testing.B) {
		var took time.Duration
		rounds := 0
		for b.Loop() {
			b.StopTimer()
			t := newTracked(b, n)
			t.now += 3600 * second
			b.StartTimer()
			begin := time.Now()
			for t.Advance(t.now, 256) {
			}
			took += time.Since(begin)
			if rounds++; t.Stats().Conns != 0 {
				b.Fatal("not all connections are gone")
			}
		}
		b.ReportMetric(float64(took.Nanoseconds())/float64(rounds*n), "ns/conn")
	}
}

func onePort(p uint16) service.PortRange { return service.PortRange{First: p, Last: p} }

// marks is the mark of a flow by n rules, a tenth of which look at the source, too.
func marks(n int) func(*testing.B) {
	return func(b *testing.B) {
		rules := make([]service.MarkRule, n)
		for i := range rules {
			host := i / 2
			rules[i] = service.MarkRule{
				Mark: uint32(i + 1), Proto: service.TCP, DstPorts: onePort(80),
				Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(host >> 16), byte(host >> 8), byte(host)}), 32),
			}
			if i%2 == 1 {
				rules[i].DstPorts = onePort(443)
			}
			if i%10 == 9 {
				rules[i].Src = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i >> 8), byte(i), 0}), 24)
			}
		}
		m, err := service.NewMarks(rules)
		if err != nil {
			b.Fatal(err)
		}
		table := service.NewTable(nil, nil, 0, service.WithMarks(m))
		random := rand.New(rand.NewPCG(1, 2))
		flows := make([]packet.Flow, 1024)
		for i := range flows {
			flows[i] = packet.Flow{
				Src: packet.AddrFrom4(random.Uint32()), SrcPort: uint16(random.Uint32()), Proto: packet.ProtoTCP,
				Dst: packet.AddrFrom4(10<<24 | uint32(random.IntN(max(n/2, 1)))), DstPort: []uint16{80, 443, 22}[i%3],
			}
		}
		for i := 0; b.Loop(); i++ {
			table.Mark(&flows[i%len(flows)], 0)
		}
	}
}

// schedule is a decision of a scheduler among n real servers with connections.
func schedule(name string, n int) func(*testing.B) {
	return func(b *testing.B) {
		list := make([]*service.RealServer, n)
		for i := range list {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte((i + 1) >> 8), byte(i + 1)}), 80)
			list[i] = service.NewRealServer(microService, addr, service.Route, int32(1+i%10))
			for range i % 3 {
				list[i].Bind(true)
			}
			for range i % 5 {
				list[i].Bind(false)
			}
		}
		s, err := sched.New(name, 0)
		if err != nil {
			b.Fatal(err)
		}
		s.Prepare(list)
		requests := make([]service.Request, 64)
		for i := range requests {
			requests[i].Flow = flow(i * 7919)
			s.Pick(&requests[i], list) // some remember a destination
		}
		for i := 0; b.Loop(); i++ {
			s.Pick(&requests[i%len(requests)], list)
		}
	}
}
