package conntrack

import (
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// expected is a world with a NAT server that a data connection is expected to.
type expected struct {
	*world
	t  *testing.T
	rs *service.RealServer
}

func newExpected(t *testing.T) *expected {
	w := newWorld(t, Config{Shards: 64})
	return &expected{world: w, t: t, rs: w.server(t, "10.1.0.11:21", service.Masq)}
}

// expect expects a connection such as "192.0.2.7:0" to "10.9.0.100:40000", which leads to the server's port of that number.
func (w *expected) expect(client, virtual string, c *Conn) Outcome {
	n := newConn(flow(service.TCP, client, virtual), w.rs, 0, w.now)
	n.ServerPort = n.Flow.DstPort
	return w.Expect(n, c)
}

func (w *expected) check(situation string, c *Conn, state State, left time.Duration, counts3 [3]int32) {
	w.t.Helper()
	if got := time.Duration(c.Expires - w.now); c.State != state || got < left || got > left+time.Second/10 || counts(w.rs) != counts3 {
		w.t.Errorf("%s: %v, %v left, counts %v; want %v, %v, %v", situation, c.State, got, counts(w.rs), state, left, counts3)
	}
}

// TestExpectedFromAnUnknownPort follows the passive data connection of the recording ftp-nat.
func TestExpectedFromAnUnknownPort(t *testing.T) {
	w := newExpected(t)
	var c Conn
	if o := w.expect("192.0.2.7:0", "10.9.0.100:40000", &c); o != Inserted || c.Flags&NoCPort == 0 || c.ClientPort != 0 || c.Packets != 0 {
		t.Fatalf("Expect = %v %+v", o, c)
	}
	w.check("expected", &c, Listen, 120*time.Second, [3]int32{0, 1, 0})
	w.pass(100 * time.Second)
	first := c.ID
	if o := w.expect("192.0.2.7:0", "10.9.0.100:40000", &c); o != Hit || c.ID != first {
		t.Errorf("expected again: %v, %#x, want the first one, %#x", o, c.ID, first)
	}
	w.check("expected again", &c, Listen, 120*time.Second, [3]int32{0, 1, 0})

	for _, other := range []packet.Flow{
		flow(service.TCP, "192.0.2.8:51300", "10.9.0.100:40000"), flow(service.TCP, "192.0.2.7:51300", "10.9.0.100:40001"),
		flow(service.UDP, "192.0.2.7:51300", "10.9.0.100:40000"),
	} {
		if o := w.In(&other, packet.TCPSyn, w.now, &c); o != Miss {
			t.Errorf("%v takes what another is expected to take: %v", other, o)
		}
	}
	f := flow(service.TCP, "192.0.2.7:51300", "10.9.0.100:40000")
	if o := w.In(&f, packet.TCPSyn, w.now, &c); o != Hit || c.Flags&NoCPort == 0 || c.ClientPort != 51300 || c.ServerPort != 40000 || c.Packets != 1 {
		t.Fatalf("first packet: %v %+v", o, c)
	}
	w.check("first packet", &c, SynRecv, 60*time.Second, [3]int32{1, 0, 0})
	if w.Lookup(first, w.now, &c) {
		t.Error("the entry without port is still there")
	}
	out := packet.Flow{Src: w.rs.IP, SrcPort: 40000, Dst: f.Src, DstPort: f.SrcPort, Proto: f.Proto}
	if o := w.Out(&out, packet.TCPSyn|packet.TCPAck, w.now, &c); o != Hit {
		t.Errorf("the server's answer: %v", o)
	}
	if o := w.In(&f, packet.TCPAck, w.now, &c); o != Hit || c.Flags&NoCPort != 0 {
		t.Errorf("second packet: %v, flags %#x", o, c.Flags)
	}
	w.check("established", &c, Established, 15*time.Minute, [3]int32{1, 0, 0})
	second := flow(service.TCP, "192.0.2.7:51301", "10.9.0.100:40000")
	if o := w.In(&second, packet.TCPSyn, w.now, &c); o != Miss {
		t.Errorf("a second connection to the port: %v, want miss", o)
	}
	w.pass(16 * time.Minute)
	if st := w.Stats(); st.Conns != 0 || w.rs.Refs() != 0 || w.Table.expected.Load() != 0 {
		t.Errorf("%d entries, counts %v, %d expected after all", st.Conns, counts(w.rs), w.Table.expected.Load())
	}
}

func TestExpectedFromAKnownPort(t *testing.T) {
	w := newExpected(t)
	var c Conn
	if o := w.expect("192.0.2.7:51210", "10.9.0.100:20", &c); o != Inserted || c.Flags&NoCPort != 0 {
		t.Fatalf("Expect = %v %+v", o, c)
	}
	w.check("expected", &c, Listen, 120*time.Second, [3]int32{0, 1, 0})
	in := flow(service.TCP, "192.0.2.7:51210", "10.9.0.100:20")
	out := packet.Flow{Src: w.rs.IP, SrcPort: 20, Dst: in.Src, DstPort: in.SrcPort, Proto: in.Proto}
	w.Out(&out, packet.TCPSyn, w.now, &c) // the server opens
	w.check("the server's SYN", &c, Listen, 120*time.Second, [3]int32{0, 1, 0})
	w.In(&in, packet.TCPSyn|packet.TCPAck, w.now, &c)
	w.Out(&out, packet.TCPAck, w.now, &c)
	w.check("established", &c, Established, 15*time.Minute, [3]int32{1, 0, 0})
	w.In(&in, packet.TCPFin|packet.TCPAck, w.now, &c)
	w.Out(&out, packet.TCPFin|packet.TCPAck, w.now, &c)
	w.check("closed", &c, TimeWait, 2*time.Minute, [3]int32{0, 1, 0})
	if o := w.expect("192.0.2.7:51210", "10.9.0.100:20", &c); o != Hit {
		t.Errorf("the same once more: %v", o)
	}
	w.check("expected once more", &c, Listen, 120*time.Second, [3]int32{0, 1, 0})
}

func TestExpectingWhatAnotherServerHas(t *testing.T) {
	w := newExpected(t)
	var c Conn
	w.expect("192.0.2.7:0", "10.9.0.100:40000", &c)
	first := w.rs
	w.rs = w.server(t, "10.1.0.12:21", service.Masq)
	w.pass(10 * time.Second)
	if o := w.expect("192.0.2.7:0", "10.9.0.100:40000", &c); o != Hit || c.Server != first.IP || c.Expires-w.now > int64(111*time.Second) {
		t.Errorf("Expect = %v %+v, want the first server's, left alone", o, c)
	}
	if w.rs.Refs() != 0 {
		t.Errorf("counts %v", counts(w.rs))
	}
}

func TestExpectedExpires(t *testing.T) {
	w := newExpected(t)
	var c Conn
	w.expect("192.0.2.7:0", "10.9.0.100:40000", &c)
	w.pass(121 * time.Second)
	f := flow(service.TCP, "192.0.2.7:51300", "10.9.0.100:40000")
	if o := w.In(&f, packet.TCPSyn, w.now, &c); o != Miss || w.rs.Refs() != 0 || w.Table.expected.Load() != 0 {
		t.Errorf("after its time: %v, counts %v, %d expected", o, counts(w.rs), w.Table.expected.Load())
	}
}

func TestManyAreExpectedAndClaimed(t *testing.T) {
	w := newExpected(t)
	var c Conn
	const n = 5000
	for i := range n {
		f := numbered(service.TCP, i)
		port := f.SrcPort
		f.SrcPort = 0
		f.DstPort = port
		conn := newConn(f, w.rs, 0, w.now)
		if o := w.Expect(conn, &c); o != Inserted {
			t.Fatalf("Expect %d = %v", i, o)
		}
	}
	for i := range n {
		f := numbered(service.TCP, i)
		f.DstPort = f.SrcPort
		if o := w.In(&f, packet.TCPSyn, w.now, &c); o != Hit || c.ClientPort != f.SrcPort {
			t.Fatalf("In %d = %v", i, o)
		}
	}
	if st := w.Stats(); st.Conns != n || st.States[SynRecv] != n || counts(w.rs) != [3]int32{n, 0, 0} || w.Table.expected.Load() != 0 {
		t.Errorf("%d entries, %d half open, counts %v", st.Conns, st.States[SynRecv], counts(w.rs))
	}
	w.pass(70 * time.Second)
	if st := w.Stats(); st.Conns != 0 || w.rs.Refs() != 0 {
		t.Errorf("%d entries, counts %v at the end", st.Conns, counts(w.rs))
	}
}

func TestExtend(t *testing.T) {
	w := newExpected(t)
	var c Conn
	w.open(flow(service.TCP, "192.0.2.7:1000", "10.9.0.100:21"), w.rs, &c) // 60 s
	id := c.ID
	w.pass(50 * time.Second)
	if !w.Extend(id, time.Minute, w.now) || !w.Extend(id, time.Second, w.now) {
		t.Error("Extend doesn't find the connection")
	}
	w.pass(55 * time.Second)
	if !w.Lookup(id, w.now, &c) {
		t.Error("gone before the end of its extension")
	}
	w.pass(6 * time.Second)
	if w.Lookup(id, w.now, &c) || w.Extend(id, time.Minute, w.now) || w.rs.Refs() != 0 {
		t.Error("still there after the end of its extension")
	}
	if w.Extend(0, time.Minute, w.now) || w.Extend(templateFlag, time.Minute, w.now) || w.Extend(^templateFlag, time.Minute, w.now) {
		t.Error("Extend extends nothing")
	}
}

func TestExpectingAllocatesNothing(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:21", service.Masq)
	var c Conn
	n := newConn(flow(service.TCP, "192.0.2.7:0", "10.9.0.100:40000"), rs, 0, w.now)
	f := flow(service.TCP, "192.0.2.7:51300", "10.9.0.100:40000")
	if got := testing.AllocsPerRun(100, func() {
		f.SrcPort++
		w.Expect(n, &c)
		w.In(&f, packet.TCPSyn, w.now, &c)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
