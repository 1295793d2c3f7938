package conntrack

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// flood is a world with connections of all kinds to one server.
type flood struct {
	*world
	t      *testing.T
	rs     *service.RealServer
	random *rand.Rand
	n      int
}

func newFlood(t *testing.T) *flood {
	w := newWorld(t, Config{Shards: 16})
	return &flood{world: w, t: t, rs: w.server(t, "10.1.0.11:80", service.Route), random: rand.New(rand.NewPCG(5, 6))}
}

// open makes a connection and sends further packets on it.
func (f *flood) open(proto service.Proto, flags ...uint8) packet.Flow {
	f.t.Helper()
	flow := numbered(proto, f.n)
	f.n++
	var c Conn
	if o := f.Insert(newConn(flow, f.rs, flags[0], f.now), &c); o != Inserted {
		f.t.Fatalf("Insert = %v", o)
	}
	for _, more := range flags[1:] {
		f.In(&flow, more, f.now, &c)
	}
	return flow
}

func (f *flood) drop(times int) (dropped int) {
	for range times {
		dropped += f.DropRandom(f.now, f.random.Uint32N)
	}
	return dropped
}

const (
	syn = packet.TCPSyn
	ack = packet.TCPAck
	fin = packet.TCPFin | packet.TCPAck
)

func TestDropRandomTakesAThirtySecondOfHalfOpenConnections(t *testing.T) {
	f := newFlood(t)
	const n = 64000
	for range n {
		f.open(service.TCP, syn)
	}
	if got, want := float64(f.drop(1)), float64(n)/32; math.Abs(got-want) > want/4 {
		t.Errorf("one call drops %v of %d, want about %v", got, n, want)
	}
	for range 1000 {
		f.drop(1)
	}
	if got := f.Stats().Conns; got != 0 || f.rs.Refs() != 0 {
		t.Errorf("%d of %d half-open connections left after 1000 calls, %d counted", got, n, f.rs.Refs())
	}
}

func TestDropRandomLooksAtSmallTablesToo(t *testing.T) {
	f := newFlood(t)
	f.open(service.TCP, syn)
	n := 0
	for ; f.Stats().Conns > 0 && n < 10000; n++ {
		f.drop(1)
	}
	if n == 10000 {
		t.Error("the only connection is never looked at")
	}
}

func TestDropRandomSparesWhatIsInUse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		proto service.Proto
		flags []uint8
		idle  time.Duration
		share float64 // of those that were looked at
	}{
		{"half open", service.TCP, []uint8{syn}, 0, 1},
		{"established", service.TCP, []uint8{syn, ack}, 0, 0},
		{"established, idle for 55 seconds", service.TCP, []uint8{syn, ack}, 55 * time.Second, 0},
		{"established, idle for 65 seconds, two packets", service.TCP, []uint8{syn, ack}, 65 * time.Second, 0.5},
		{"established, idle for 65 seconds, four packets", service.TCP, []uint8{syn, ack, ack, ack}, 65 * time.Second, 0.25},
		{"established, idle, eight packets", service.TCP, []uint8{syn, ack, ack, ack, ack, ack, ack, ack}, 65 * time.Second, 0.125},
		{"established, idle, nine packets", service.TCP, []uint8{syn, ack, ack, ack, ack, ack, ack, ack, ack}, 65 * time.Second, 0},
		{"closing, idle", service.TCP, []uint8{syn, ack, fin}, 65 * time.Second, 0},
		{"UDP", service.UDP, []uint8{0}, 0, 0},
		{"UDP, idle for 65 seconds, one packet", service.UDP, []uint8{0}, 65 * time.Second, 1},
		{"UDP, idle for 65 seconds, two packets", service.UDP, []uint8{0, 0}, 65 * time.Second, 0.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFlood(t)
			const n = 32000
			for range n {
				f.open(tt.proto, tt.flags...)
			}
			f.pass(tt.idle)
			got, want := float64(f.drop(1)), tt.share*n/32
			if math.Abs(got-want) > want/3 {
				t.Errorf("one call drops %v of %d, want about %v", got, n, want)
			}
		})
	}
}

func TestDropRandomDropsTemplatesNobodyWasEstablishedUnder(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	random := rand.New(rand.NewPCG(7, 8))
	drop := func() {
		for range 4000 { // each looks at an entry of so few with a chance of 1 in 256
			p.DropRandom(p.now, random.Uint32N)
		}
	}
	f := p.connect(0)
	var c Conn
	p.In(&f, ack, p.now, &c)
	drop()
	if o := p.find(); o != Hit {
		t.Errorf("template with a connection: %v, want hit", o)
	}
	p.In(&f, packet.TCPRst, p.now, &c)
	p.pass(12 * time.Second)
	drop()
	if o := p.find(); o != Hit || p.c.State != TemplateAssured {
		t.Errorf("assured template without connection: %v %v, want hit and assured", o, p.c.State)
	}
	p.pass(400 * time.Second)

	p.InsertTemplate(p.template(300*time.Second), &p.c)
	p.connect(1) // never established: goes, and its template with it
	drop()
	if o := p.find(); o != Miss || p.rs.Refs() != 0 {
		t.Errorf("template of a half-open connection: %v, %v counted, want miss", o, counts(p.rs))
	}

	p.InsertTemplate(p.template(300*time.Second), &p.c)
	n := newConn(numbered(service.UDP, 0), p.rs, 0, p.now)
	n.Flags, n.Template = OnePacket, p.c.ID
	p.Insert(n, &c)
	drop()
	if o := p.find(); o != Hit {
		t.Errorf("template of one-packet connections, in use: %v, want hit", o)
	}
	p.pass(61 * time.Second)
	drop()
	if o := p.find(); o != Miss {
		t.Errorf("template of one-packet connections, idle: %v, want miss", o)
	}
}
