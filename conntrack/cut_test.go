package conntrack

import (
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// only chooses one server.
func only(rs *service.RealServer) func(*service.RealServer) bool {
	return func(x *service.RealServer) bool { return x == rs }
}

func TestCutEmptiesOneServerAndNoOther(t *testing.T) {
	for _, family := range families {
		w := newWorld(t, Config{Shards: 4})
		rs, other := w.server(t, family.server, service.Masq), w.server(t, family.server, service.Masq)
		const each = 500
		var c Conn
		for i := range 3 * each {
			f := family.numbered(service.TCP, i)
			if i >= 2*each {
				f.Proto = uint8(service.UDP)
			}
			to := rs
			if i%2 == 1 {
				to = other
			}
			w.open(f, to, &c)
			if i < each { // established, the next five hundred are half open
				w.In(&f, packet.TCPAck, w.now, &c)
			}
		}
		before := counts(other)
		if got, want := w.Cut(only(rs), w.now), (Cuts{Reset: each, Dropped: each / 2}); got != want {
			t.Errorf("%s: Cut = %+v, want %+v", family.name, got, want)
		}
		if counts(rs) != [3]int32{} || counts(other) != before {
			t.Errorf("%s: the servers count %v and %v, want none and %v", family.name, counts(rs), counts(other), before)
		}
		if again := w.Cut(only(rs), w.now); again != (Cuts{}) {
			t.Errorf("%s: cut again: %+v", family.name, again)
		}
		for i := range 3 * each {
			f := family.numbered(service.TCP, i)
			if i >= 2*each {
				f.Proto = uint8(service.UDP)
			}
			want := Cut
			switch {
			case i%2 == 1:
				want = Hit
			case i >= 2*each:
				want = Miss
			}
			if got := w.In(&f, packet.TCPAck, w.now, &c); got != want || want == Cut && (c.State != Close || c.Server != rs.IP) {
				t.Fatalf("%s: In = %v of connection %d, %+v, want %v", family.name, got, i, c, want)
			}
		}
		w.pass(20 * time.Minute)
		if st := w.Stats(); st.Conns != 0 || counts(rs) != [3]int32{} || counts(other) != [3]int32{} {
			t.Errorf("%s: in the end %d connections are left, the servers count %v and %v", family.name, st.Conns, counts(rs), counts(other))
		}
	}
}

func TestForsakenServersKeepEstablishedConnectionsAlone(t *testing.T) {
	for _, family := range families {
		w := newWorld(t, Config{Shards: 4})
		rs, other := w.server(t, family.server, service.Masq), w.server(t, family.server, service.Masq)
		const each = 300
		var c Conn
		kinds := []struct {
			proto service.Proto
			flags uint8 // of a second packet
			left  bool
		}{{service.TCP, packet.TCPAck, true}, {service.TCP, 0, false}, {service.UDP, 0, false}}
		for i := range len(kinds) * each {
			kind := kinds[i/each]
			to := rs
			if i%2 == 1 {
				to = other
			}
			f := family.numbered(kind.proto, i)
			w.open(f, to, &c)
			if kind.flags != 0 {
				w.In(&f, kind.flags, w.now, &c)
			}
		}
		before := counts(other)
		if got, want := w.Forsake(only(rs), w.now), (Cuts{Dropped: each}); got != want {
			t.Errorf("%s: Forsake = %+v, want %+v", family.name, got, want)
		}
		if counts(other) != before || counts(rs) != [3]int32{each / 2, 0, 0} {
			t.Errorf("%s: the servers count %v and %v, want %d active and %v", family.name, counts(rs), counts(other), each/2, before)
		}
		for i := range len(kinds) * each {
			kind := kinds[i/each]
			f := family.numbered(kind.proto, i)
			want := Hit
			if i%2 == 0 && !kind.left {
				want = Miss
			}
			if got := w.In(&f, packet.TCPAck, w.now, &c); got != want {
				t.Fatalf("%s: In = %v of flow %d, want %v", family.name, got, i, want)
			}
		}
	}
}

func TestForsakenServersHaveNoTemplates(t *testing.T) {
	p := newPersistence(t, time.Hour)
	f := p.connect(1)
	var c Conn
	p.In(&f, packet.TCPAck, p.now, &c)
	if got := p.Forsake(only(p.rs), p.now); got != (Cuts{}) {
		t.Errorf("Forsake = %+v: the connection goes on, and what it hangs on", got)
	}
	if o := p.find(); o != Miss {
		t.Errorf("the template is found: %v", o)
	}
	if o := p.In(&f, packet.TCPAck, p.now, &c); o != Hit {
		t.Errorf("its connection: %v", o)
	}
	if o := p.InsertTemplate(p.template(time.Hour), &p.c); o != Inserted {
		t.Fatalf("another template for the client: %v", o)
	}
	if got := p.Forsake(only(p.rs), p.now); got != (Cuts{Templates: 1}) || p.find() != Miss {
		t.Errorf("Forsake of a template without connections = %+v", got)
	}
	p.In(&f, packet.TCPRst, p.now, &c)
	p.pass(2 * time.Hour)
	if st := p.Stats(); st.Conns != 0 || st.Templates != 0 || counts(p.rs) != [3]int32{} {
		t.Errorf("in the end %+v are left, the server counts %v", st, counts(p.rs))
	}
}

// A connection that was cut answers packets of both directions, lives ten seconds after the first, and steps back before a
// new connection.
func TestWhatWasCutIsResetByItsNextPacket(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	back := answer(f, rs)
	begin := func() {
		t.Helper()
		var c Conn
		w.open(f, rs, &c)
		w.In(&f, packet.TCPAck, w.now, &c)
		if n := w.Cut(only(rs), w.now); n.Reset != 1 {
			t.Fatalf("Cut = %+v", n)
		}
	}
	var c Conn
	begin()
	w.pass(99 * time.Second)
	if o := w.Out(&back, packet.TCPAck, w.now, &c); o != Cut || c.Client != f.Src || c.Virtual != f.Dst {
		t.Errorf("the server's next packet: %v, %+v", o, c)
	}
	w.pass(0)
	begin2 := w.now
	for w.Out(&back, packet.TCPAck, w.now, &c) == Cut || w.In(&f, packet.TCPAck, w.now, &c) == Cut {
		w.pass(250 * time.Millisecond)
	}
	if lived := time.Duration(w.now - begin2); lived > 2*time.Second {
		t.Errorf("it lived %v longer than it had", lived)
	}

	begin()
	w.In(&f, packet.TCPAck, w.now, &c)
	w.pass(9 * time.Second)
	if o := w.In(&f, packet.TCPAck, w.now, &c); o != Cut {
		t.Errorf("nine seconds after the first packet: %v", o)
	}
	w.pass(3 * time.Second)
	if o := w.In(&f, packet.TCPAck, w.now, &c); o != Miss {
		t.Errorf("twelve seconds after the first packet: %v", o)
	}

	begin()
	var peeked Conn
	if o := w.Peek(&f, packet.TCPAck, w.now, &peeked); o != Cut {
		t.Errorf("Peek = %v", o)
	}
	if o := w.In(&f, packet.TCPSyn, w.now, &c); o != MissReused {
		t.Errorf("a new connection from the same port: %v", o)
	}
	if o := w.open(f, rs, &c); o != Inserted || counts(rs) != [3]int32{1, 0, 0} {
		t.Errorf("Insert = %v, the server counts %v", o, counts(rs))
	}
	// Another worker inserts where one was cut in the meantime.
	if n := w.Cut(only(rs), w.now); n.Reset != 1 {
		t.Fatalf("Cut = %+v", n)
	}
	if o := w.open(f, rs, &c); o != Inserted || counts(rs) != [3]int32{1, 0, 0} {
		t.Errorf("Insert = %v in place of what was cut, the server counts %v", o, counts(rs))
	}
}

func TestCutDropsTemplates(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	var flows []packet.Flow
	for i := range 3 {
		flows = append(flows, p.connect(i))
	}
	if got, want := p.Cut(only(p.rs), p.now), (Cuts{Reset: 3, Templates: 1}); got != want {
		// The last connection to leave takes an unassured template with it.
		if want.Templates = 0; got != want {
			t.Errorf("Cut = %+v", got)
		}
	}
	if o := p.find(); o != Miss || counts(p.rs) != [3]int32{} {
		t.Errorf("FindTemplate = %v, the server counts %v", o, counts(p.rs))
	}
	var c Conn
	if o := p.In(&flows[0], packet.TCPAck, p.now, &c); o != Cut || c.Control != 0 {
		t.Errorf("In = %v, on template %#x", o, c.Control)
	}
	// One without connections, and one with a connection that was established.
	q := newPersistence(t, 300*time.Second)
	if n := q.Cut(only(q.rs), q.now); n != (Cuts{Templates: 1}) || q.find() != Miss {
		t.Errorf("an idle template: %+v", n)
	}
	r := newPersistence(t, 300*time.Second)
	f := r.connect(0)
	r.In(&f, packet.TCPAck, r.now, &c)
	if n := r.Cut(only(r.rs), r.now); n != (Cuts{Reset: 1, Templates: 1}) || r.find() != Miss || counts(r.rs) != [3]int32{} {
		t.Errorf("an assured template: %+v, the server counts %v", n, counts(r.rs))
	}
}
