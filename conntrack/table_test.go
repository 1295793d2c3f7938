package conntrack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

func TestNewChecksItsConfig(t *testing.T) {
	var servers service.ServerIndex
	for _, tt := range []struct {
		name string
		c    Config
		ok   bool
	}{
		{"defaults", Config{Servers: &servers}, true},
		{"one shard", Config{Servers: &servers, Shards: 1}, true},
		{"most shards", Config{Servers: &servers, Shards: 1024}, true},
		{"no servers", Config{}, false},
		{"odd shards", Config{Servers: &servers, Shards: 100}, false},
		{"too many shards", Config{Servers: &servers, Shards: 2048}, false},
		{"no memory", Config{Servers: &servers, Alloc: func(int) ([]byte, error) { return nil, errors.New("none") }}, false},
		{"short memory", Config{Servers: &servers, Alloc: func(n int) ([]byte, error) { return make([]byte, n-1), nil }}, false},
	} {
		if table, err := New(tt.c); (err == nil) != tt.ok || (table != nil) != tt.ok {
			t.Errorf("%s: New = %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}

func TestFullTableRefuses(t *testing.T) {
	w := newWorld(t, Config{MaxConns: 100})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	refused := 0
	for i := range 150 {
		if w.open(numbered(service.TCP, i), rs, &c) == Full {
			refused++
		}
	}
	if refused != 50 || rs.Refs() != 100 || w.Stats().Refused != 50 {
		t.Errorf("%d refused, %d counted, %d said, want 50, 100, 50", refused, rs.Refs(), w.Stats().Refused)
	}
	if o := w.open(numbered(service.TCP, 0), rs, &c); o != Hit {
		t.Errorf("Insert of a known connection into a full table = %v, want hit", o)
	}
	k := TemplateKey{Client: packet.AddrFrom4(1), Virtual: packet.AddrFrom4(2)}
	if o := w.InsertTemplate(&NewTemplate{TemplateKey: k, Server: rs.IP, RS: rs, Timeout: time.Minute, Now: w.now}, &c); o != Full {
		t.Errorf("InsertTemplate into a full table = %v", o)
	}
	w.pass(2 * time.Minute)
	if o := w.open(numbered(service.TCP, 1000), rs, &c); o != Inserted {
		t.Errorf("Insert after others have gone = %v", o)
	}
}

func TestOutOfMemoryIsNoDisaster(t *testing.T) {
	calls, limit := 0, 4
	w := newWorld(t, Config{Alloc: func(n int) ([]byte, error) {
		if calls++; calls > limit {
			return nil, errors.New("no more")
		}
		return make([]byte, n), nil
	}})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	inserted := 0
	for i := range 100000 {
		f := numbered(service.TCP, i)
		switch o := w.open(f, rs, &c); o {
		case Inserted:
			inserted++
			a := answer(f, rs)
			if !w.Find(&f, In, w.now, &c) || !w.Find(&a, Out, w.now, &c) {
				t.Fatal("an inserted connection isn't found")
			}
		case Full:
		default:
			t.Fatalf("Insert = %v", o)
		}
	}
	if inserted < 20000 || inserted == 100000 || int(rs.Refs()) != inserted {
		t.Errorf("%d inserted, %d counted", inserted, rs.Refs())
	}
	if calls > limit+10 {
		t.Errorf("Alloc was asked %d times at one moment, though it had failed", calls)
	}
	limit = 100
	w.pass(2 * time.Second)
	for i := range 100000 {
		if o := w.open(numbered(service.TCP, i), rs, &c); o == Full {
			t.Fatalf("Insert = %v with memory again", o)
		}
	}
	if st := w.Stats(); st.Conns != 100000 || st.States[SynRecv] != 100000 || st.Memory < 100000*64 {
		t.Errorf("Stats = %+v", st)
	}
	w.pass(2 * time.Minute)
	if rs.Refs() != 0 {
		t.Errorf("%d left", rs.Refs())
	}
}

func TestUnsupportedAddressesMiss(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	f := flow(service.TCP, "[2001:db8::1]:1000", "[2001:db8::2]:80")
	var c Conn
	if w.In(&f, packet.TCPSyn, w.now, &c) != Miss || w.Out(&f, packet.TCPSyn, w.now, &c) != Miss || w.Find(&f, In, w.now, &c) {
		t.Error("an IPv6 flow is found")
	}
	if o := w.open(f, rs, &c); o != Full {
		t.Errorf("Insert of an IPv6 flow = %v, want full", o)
	}
}

func TestBypassHasNoServer(t *testing.T) {
	w := newWorld(t, Config{})
	f := flow(service.TCP, "192.0.2.1:1000", "198.51.100.1:80")
	var c Conn
	n := &NewConn{Flow: f, Server: f.Dst, ServerPort: 80, Method: service.Bypass, Event: packet.TCPSyn, Mark: 3, Now: w.now}
	if o := w.Insert(n, &c); o != Inserted || c.RS != service.NoServer || c.Mark != 3 {
		t.Errorf("Insert = %v %+v", o, c)
	}
	w.SetSettings(Settings{ConnReuseMode: 1, ExpireNodestConn: true})
	if o := w.In(&f, packet.TCPAck, w.now, &c); o != Hit || c.State != Established {
		t.Errorf("In = %v %v", o, c.State)
	}
	w.pass(16 * time.Minute)
	if w.Stats().Conns != 0 {
		t.Error("still there after its time")
	}
}

func TestAnswersAreFoundOnlyWhereTheyPass(t *testing.T) {
	w := newWorld(t, Config{})
	for i, tt := range []struct {
		m    service.Method
		want Outcome
	}{{service.Masq, Hit}, {service.Local, Hit}, {service.Route, Miss}, {service.Tunnel, Miss}} {
		rs := w.server(t, "10.1.0.11:80", tt.m)
		f := numbered(service.TCP, i)
		a := answer(f, rs)
		var c Conn
		w.open(f, rs, &c)
		if o := w.Out(&a, packet.TCPSyn|packet.TCPAck, w.now, &c); o != tt.want {
			t.Errorf("%v: Out = %v, want %v", tt.m, o, tt.want)
		}
		if o := w.Out(&f, packet.TCPSyn, w.now, &c); o != Miss {
			t.Errorf("%v: the client's packet as an answer: %v", tt.m, o)
		}
		if o := w.In(&a, packet.TCPSyn, w.now, &c); o != Miss {
			t.Errorf("%v: the answer as a client's packet: %v", tt.m, o)
		}
	}
}

func TestKeysAreGoodForTheirFlow(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c, d Conn
	for i := range prefetchFrom {
		w.open(numbered(service.TCP, i), rs, &c)
	}
	v6 := flow(service.TCP, "[2001:db8::1]:1000", "[2001:db8::2]:80")
	for i := range 2 * prefetchFrom {
		f := numbered(service.TCP, i)
		a := answer(f, rs)
		var keys [4]Key
		w.Hash(&f, In, &keys[0])
		w.Hash(&a, Out, &keys[1])
		w.Hash(&v6, In, &keys[2])
		w.Prefetch(keys[:])
		want := w.In(&f, packet.TCPAck, w.now, &c)
		if got := w.InHashed(&keys[0], packet.TCPAck, w.now, &d); got != want || got == Hit && c.ID != d.ID {
			t.Fatalf("InHashed = %v %#x, want %v %#x", got, d.ID, want, c.ID)
		}
		if got := w.OutHashed(&keys[1], packet.TCPAck, w.now, &d); got != want || got == Hit && c.ID != d.ID {
			t.Fatalf("OutHashed = %v %#x, want %v %#x", got, d.ID, want, c.ID)
		}
		if got := w.InHashed(&keys[2], packet.TCPAck, w.now, &d); got != Miss {
			t.Fatalf("InHashed of an IPv6 flow = %v", got)
		}
	}
}

func TestWalkStopsWhenToldTo(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	var c Conn
	for i := range 1000 {
		w.open(numbered(service.TCP, i), rs, &c)
	}
	seen := map[ID]bool{}
	w.Walk(w.now, func(c *Conn) bool { seen[c.ID] = true; return true })
	if len(seen) != 1000 {
		t.Errorf("%d connections walked over, want 1000", len(seen))
	}
	n := 0
	w.Walk(w.now, func(*Conn) bool { n++; return n < 77 })
	if n != 77 {
		t.Errorf("%d connections walked over, want 77", n)
	}
}

func TestPacketPathAllocatesNothing(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) { testAllocations(t, family.server, family.numbered) })
	}
}

func testAllocations(t *testing.T, server string, numbered func(service.Proto, int) packet.Flow) {
	w := newWorld(t, Config{})
	rs := w.server(t, server, service.Masq)
	f := numbered(service.TCP, 200000)
	a := answer(f, rs)
	var c Conn
	w.open(f, rs, &c)
	for i := range 100000 { // so that the table doesn't grow below
		w.open(numbered(service.TCP, i), rs, &c)
	}
	w.pass(2 * time.Minute)
	w.open(f, rs, &c)
	n := newConn(f, rs, packet.TCPSyn, w.now)
	k := TemplateKey{Proto: service.TCP, Client: f.Src, Virtual: f.Dst, VirtualPort: 80}
	nt := &NewTemplate{TemplateKey: k, Server: rs.IP, RS: rs, Timeout: time.Minute, Now: w.now}
	i := 0
	for _, tt := range []struct {
		name string
		run  func()
	}{
		{"In", func() { w.In(&f, packet.TCPAck, w.now, &c) }},
		{"Prefetch", func() {
			var keys [4]Key
			w.Hash(&f, In, &keys[0])
			w.Hash(&a, Out, &keys[1])
			w.Prefetch(keys[:])
		}},
		{"In, miss", func() { w.In(&a, packet.TCPAck, w.now, &c) }},
		{"Out", func() { w.Out(&a, packet.TCPAck, w.now, &c) }},
		{"Find", func() { w.Find(&a, Out, w.now, &c) }},
		{"Lookup", func() { w.Lookup(c.ID, w.now, &c) }},
		{"Insert", func() { i++; n.Flow = numbered(service.TCP, i); w.Insert(n, &c) }},
		{"OnePacket", func() { n.Flags = OnePacket; w.Insert(n, &c); n.Flags = 0 }},
		{"InsertTemplate", func() { i++; nt.Client = numbered(service.TCP, i<<14).Src; w.InsertTemplate(nt, &c) }},
		{"FindTemplate", func() { w.FindTemplate(&k, w.now, &c) }},
		{"Advance", func() { w.now += int64(100 * time.Millisecond); w.Advance(w.now, 1000) }},
		{"Stats", func() { w.Stats() }},
	} {
		if got := testing.AllocsPerRun(2000, tt.run); got != 0 {
			t.Errorf("%s: %v allocations", tt.name, got)
		}
	}
}

// TestWorkersTogether is for the race detector, and for counts that come out even.
func TestWorkersTogether(t *testing.T) {
	w := newWorld(t, Config{Shards: 4})
	var servers []*service.RealServer
	for i, m := range []service.Method{service.Masq, service.Masq, service.Route, service.Local} {
		servers = append(servers, w.server(t, fmt.Sprintf("10.1.0.%d:80", 11+i), m), w.server(t, fmt.Sprintf("[2001:db8:1::%d]:80", 11+i), m))
	}
	w.prefetchFrom = 0
	const workers, rounds, flows = 8, 20000, 600
	begin := w.now
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 9))
			var c Conn
			for round := range rounds {
				now := begin + int64(round)*int64(100*time.Millisecond)
				family := random.IntN(2)
				f := families[family].numbered(service.Proto([]uint8{6, 17, 132}[random.IntN(3)]), random.IntN(flows))
				rs := servers[2*random.IntN(4)+family]
				flags := []uint8{packet.TCPSyn, packet.TCPAck, packet.TCPFin, packet.TCPRst}[random.IntN(4)]
				switch random.IntN(8) {
				case 0, 1, 2:
					if w.In(&f, flags, now, &c).Missed() {
						w.Insert(newConn(f, rs, flags, now), &c)
					}
				case 3:
					a := answer(f, rs)
					w.Out(&a, flags, now, &c)
				case 4:
					k := TemplateKey{Proto: service.TCP, Client: f.Src.Masked([]int{30, 126}[family]), Virtual: f.Dst, VirtualPort: f.SrcPort & 15}
					n := newConn(f, rs, packet.TCPSyn, now)
					if w.FindTemplate(&k, now, &c) != Hit {
						w.InsertTemplate(&NewTemplate{TemplateKey: k, Server: rs.IP, RS: rs, Timeout: 20 * time.Second, Now: now}, &c)
					}
					n.Template = c.ID
					n.RS = w.servers.At(c.RS)
					n.Server = c.Server
					w.Insert(n, &c)
				case 5:
					w.Advance(now, 64)
				case 6:
					var keys [3]Key
					w.Hash(&f, In, &keys[0])
					w.Prefetch(keys[:])
					w.Find(&f, In, now, &c)
					w.Lookup(c.ID, now, &c)
				case 7:
					switch random.IntN(40) {
					case 0:
						w.Walk(now, func(*Conn) bool { return true })
					case 1:
						w.Stats()
					case 2:
						w.SetSettings(Settings{ConnReuseMode: random.IntN(4), ExpireNodestConn: random.IntN(2) == 0})
					case 3:
						rs.SetAvailable(false)
						w.ExpireRemoved()
						rs.SetAvailable(true)
					case 5:
						w.Cut(only(rs), now)
					case 4:
						w.SetTimeouts(time.Duration(1+random.IntN(100))*time.Second, 0, 0)
					}
				}
			}
		})
	}
	wg.Wait()
	w.now = begin + int64(rounds)*int64(100*time.Millisecond)
	w.pass(20 * time.Minute)
	for _, rs := range servers {
		if got := counts(rs); got != [3]int32{} {
			t.Errorf("counts of %v after all = %v", rs, got)
		}
	}
	st := w.Stats()
	if st.Conns != 0 || st.Templates != 0 || st.Inserts != st.Expirations || w.entries.Load() != 0 {
		t.Errorf("after all: %+v, %d entries", st, w.entries.Load())
	}
}
