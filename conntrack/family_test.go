package conntrack

import (
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// TestServerOfTheOtherFamily: a tunnel leads from one family to the other, and only a tunnel.
func TestServerOfTheOtherFamily(t *testing.T) {
	for _, tt := range []struct{ name, client, virtual, server, other string }{
		{"ipv4 in ipv6", "192.0.2.1:1000", "10.9.0.100:80", "[2001:db8:1::11]:80", "[2001:db8:1::12]:80"},
		{"ipv6 in ipv4", "[2001:db8:c::1]:1000", "[2001:db8:9::100]:80", "10.1.0.11:80", "10.1.0.12:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Shards: 2})
			rs, other := w.server(t, tt.server, service.Tunnel), w.server(t, tt.other, service.Tunnel)
			f := flow(service.TCP, tt.client, tt.virtual)
			var c Conn
			check := func(situation string, id ID) {
				t.Helper()
				if c.Client != f.Src || c.Virtual != f.Dst || c.Server != rs.IP || c.RS != rs.Index || id != 0 && c.ID != id {
					t.Errorf("%s: %+v, want %v to %v", situation, c, f, rs)
				}
			}
			for _, m := range []service.Method{service.Masq, service.Route, service.Local} {
				n := newConn(f, rs, syn, w.now)
				n.Method = m
				if o := w.Insert(n, &c); o != Full {
					t.Errorf("%v to the other family: %v, want full", m, o)
				}
				if o := w.Expect(n, &c); o != Full {
					t.Errorf("%v expected to the other family: %v, want full", m, o)
				}
			}
			k := TemplateKey{Proto: service.TCP, Client: f.Src, Virtual: f.Dst, VirtualPort: 80}
			nt := &NewTemplate{TemplateKey: k, Server: rs.IP, ServerPort: 80, Method: service.Tunnel, RS: rs, Timeout: time.Minute, Now: w.now}
			if o := w.InsertTemplate(nt, &c); o != Inserted {
				t.Fatalf("InsertTemplate = %v", o)
			}
			check("template inserted", 0)
			if w.FindTemplate(&k, w.now, &c) != Hit {
				t.Fatal("the template isn't found")
			}
			check("template found", 0)
			if o := w.open(f, rs, &c); o != Inserted {
				t.Fatalf("Insert = %v", o)
			}
			id := c.ID
			check("inserted", 0)
			w.open(f, other, &c)
			check("inserted again for another server", id)
			if o := w.In(&f, ack, w.now, &c); o != Hit || c.State != Established {
				t.Fatalf("In = %v %v", o, c.State)
			}
			check("a packet", id)
			for _, a := range []packet.Flow{answer(f, rs), f.Reverse()} {
				if w.Find(&a, Out, w.now, &c) {
					t.Errorf("%v belongs to a tunnel's connection", a)
				}
			}
			if !w.Lookup(id, w.now, &c) {
				t.Fatal("Lookup finds nothing")
			}
			check("looked up", id)
			n := 0
			w.Walk(w.now, func(w *Conn) bool { n++; c = *w; check("listed", 0); return true })
			if n != 2 {
				t.Errorf("%d entries listed, want connection and template", n)
			}
			rs.SetAvailable(false)
			if o := w.In(&f, ack, w.now, &c); o != NoServer {
				t.Errorf("In = %v without the server, want no-server", o)
			}
			check("without the server", id)
			w.pass(20 * time.Minute)
			if st := w.Stats(); st.Conns+st.Templates != 0 || rs.Refs() != 0 {
				t.Errorf("%+v, %d references left", st, rs.Refs())
			}
		})
	}
}

func TestFlowBetweenFamiliesHasNoEntry(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "[2001:db8:1::11]:80", service.Tunnel)
	var c Conn
	for _, f := range []packet.Flow{
		flow(service.TCP, "192.0.2.1:1000", "[2001:db8:9::100]:80"), flow(service.TCP, "[2001:db8:c::1]:1000", "10.9.0.100:80"),
	} {
		if o := w.open(f, rs, &c); o != Full {
			t.Errorf("Insert of %v = %v, want full", f, o)
		}
		if o := w.In(&f, ack, w.now, &c); o != Miss {
			t.Errorf("In of %v = %v, want miss", f, o)
		}
		k := TemplateKey{Proto: service.TCP, Client: f.Src, Virtual: f.Dst, VirtualPort: 80}
		if o := w.InsertTemplate(&NewTemplate{TemplateKey: k, Server: rs.IP, Method: service.Tunnel, RS: rs, Now: w.now}, &c); o != Full {
			t.Errorf("InsertTemplate of %v = %v, want full", f, o)
		}
		if o := w.FindTemplate(&k, w.now, &c); o != Miss {
			t.Errorf("FindTemplate of %v = %v, want miss", f, o)
		}
	}
}

// TestLongAddressesAreToldApart has flows that differ in one bit of one address, and answers likewise.
func TestLongAddressesAreToldApart(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "[2001:db8:1::11]:80", service.Masq)
	base := numbered6(service.TCP, 0)
	var flows []packet.Flow
	for bit := range 128 {
		flip := func(a packet.Addr) packet.Addr {
			hi, lo := a.Words()
			if bit < 64 {
				return packet.AddrFromWords(hi^1<<bit, lo)
			}
			return packet.AddrFromWords(hi, lo^1<<(bit-64))
		}
		a, b := base, base
		a.Src, b.Dst = flip(a.Src), flip(b.Dst)
		flows = append(flows, a, b)
	}
	ids := map[ID]packet.Flow{}
	var c Conn
	for _, f := range flows {
		if o := w.open(f, rs, &c); o != Inserted {
			t.Fatalf("%v: %v", f, o)
		}
		ids[c.ID] = f
	}
	for _, f := range flows {
		if !w.Find(&f, In, w.now, &c) || ids[c.ID] != f {
			t.Errorf("%v: found %+v", f, c)
		}
		a := answer(f, rs)
		if !w.Find(&a, Out, w.now, &c) || c.Client != f.Src {
			t.Errorf("answer of %v: found %+v", f, c)
		}
	}
	if w.Find(&base, In, w.now, &c) {
		t.Errorf("%v, which isn't there: found %+v", base, c)
	}
	for id := range ids {
		for _, wrong := range []ID{id + 1, id - 1} { // the address line of one entry or another
			if _, known := ids[wrong]; !known && w.Lookup(wrong, w.now, &c) {
				t.Errorf("ID %#x names %+v", wrong, c)
			}
		}
	}
}

// TestTemplatesOfIPv6Clients has the prefix and the address for a mark that the kernel showed (trace v6-persist-mark).
func TestTemplatesOfIPv6Clients(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "[2001:db8:1::11]:0", service.Route)
	client := flow(service.TCP, "[2001:db8:c::1]:1000", "[2001:db8:9::100]:80").Src
	k := TemplateKey{Client: client.Masked(64), Virtual: MarkAddr(7, client)}
	if got := k.Virtual.String(); got != "0:7::" {
		t.Errorf("mark 7 is %s, want 0:7::", got)
	}
	if got := MarkAddr(7, packet.AddrFrom4(1)).String(); got != "0.0.0.7" {
		t.Errorf("mark 7 is %s for IPv4, want 0.0.0.7", got)
	}
	insert := func(k TemplateKey, data string) ID {
		t.Helper()
		var c Conn
		nt := &NewTemplate{TemplateKey: k, Server: rs.IP, Method: rs.Method(), RS: rs, Timeout: time.Minute, Data: []byte(data), Now: w.now}
		if o := w.InsertTemplate(nt, &c); o != Inserted || c.Client != k.Client || c.Virtual != k.Virtual || c.Server != rs.IP {
			t.Fatalf("InsertTemplate of %+v = %v %+v", k, o, c)
		}
		return c.ID
	}
	find := func(k TemplateKey, data string, want ID) {
		t.Helper()
		var c Conn
		if o := w.FindTemplateData(&k, []byte(data), w.now, &c); o != Hit && want != 0 || want != 0 && c.ID != want || want == 0 && o != Miss {
			t.Errorf("%+v %q: %v %#x, want %#x", k, data, o, c.ID, want)
		}
	}
	plain, call := insert(k, ""), insert(k, "call")
	find(k, "", plain)
	find(k, "call", call)
	find(k, "other", 0)
	if got := w.TemplateData(call); got != "call" {
		t.Errorf("TemplateData = %q", got)
	}
	for _, other := range []TemplateKey{
		{Client: client.Masked(64), Virtual: MarkAddr(8, client)},
		{Client: flow(service.TCP, "[2001:db8:c:1::]:1", "[::1]:1").Src, Virtual: k.Virtual},
	} {
		find(other, "", 0)
		find(other, "call", 0)
	}
	f := numbered6(service.TCP, 1)
	n := newConn(f, rs, syn, w.now)
	n.Template = plain
	var c Conn
	if o := w.Insert(n, &c); o != Inserted || c.Control != plain {
		t.Errorf("Insert = %v under %#x, want %#x", o, c.Control, plain)
	}
	w.In(&f, ack, w.now, &c)
	if w.Lookup(plain, w.now, &c); c.State != TemplateAssured {
		t.Errorf("template %v once its connection is established", c.State)
	}
	rs.SetAvailable(false)
	find(k, "never", 0)
	if o := w.FindTemplate(&k, w.now, &c); o != MissNoServer {
		t.Errorf("FindTemplate = %v without the server", o)
	}
	w.Walk(w.now, func(c *Conn) bool {
		if c.ID == plain && (c.VirtualPort != 65535 || c.Virtual != k.Virtual) {
			t.Errorf("put aside as %v:%d", c.Virtual, c.VirtualPort)
		}
		return true
	})
	w.pass(time.Hour)
	if st := w.Stats(); st.Conns+st.Templates != 0 || rs.Refs() != 0 {
		t.Errorf("%+v, %d references left", st, rs.Refs())
	}
}

// TestExpectedByIPv6 is a passive data connection: its port becomes known by its first packet.
func TestExpectedByIPv6(t *testing.T) {
	w := newWorld(t, Config{Shards: 64})
	rs := w.server(t, "[2001:db8:1::11]:21", service.Masq)
	n := newConn(flow(service.TCP, "[2001:db8:c::7]:0", "[2001:db8:9::100]:40000"), rs, 0, w.now)
	n.ServerPort = 40000
	var c Conn
	if o := w.Expect(n, &c); o != Inserted || c.Flags&NoCPort == 0 || c.Client != n.Flow.Src {
		t.Fatalf("Expect = %v %+v", o, c)
	}
	if o := w.Expect(n, &c); o != Hit {
		t.Errorf("expected again: %v", o)
	}
	if !w.Extend(c.ID, 5*time.Minute, w.now) {
		t.Error("Extend finds nothing")
	}
	w.pass(4 * time.Minute)
	other := flow(service.TCP, "[2001:db8:c::8]:51300", "[2001:db8:9::100]:40000")
	if o := w.In(&other, syn, w.now, &c); o != Miss {
		t.Errorf("%v takes what another is expected to take: %v", other, o)
	}
	f := flow(service.TCP, "[2001:db8:c::7]:51300", "[2001:db8:9::100]:40000")
	if o := w.In(&f, syn, w.now, &c); o != Hit || c.Flags&NoCPort == 0 || c.ClientPort != 51300 || c.Client != f.Src ||
		c.Virtual != f.Dst || c.Server != rs.IP || c.ServerPort != 40000 {
		t.Fatalf("first packet: %v %+v", o, c)
	}
	a := packet.Flow{Src: rs.IP, SrcPort: 40000, Dst: f.Src, DstPort: f.SrcPort, Proto: f.Proto}
	if o := w.Out(&a, syn|ack, w.now, &c); o != Hit {
		t.Errorf("the server's answer: %v", o)
	}
	w.pass(20 * time.Minute)
	if st := w.Stats(); st.Conns != 0 || rs.Refs() != 0 || w.expected.Load() != 0 {
		t.Errorf("%+v, %d references, %d expected left", st, rs.Refs(), w.expected.Load())
	}
}

// TestDefencesReachIPv6 drops half-open connections at random, and those of a removed server.
func TestDefencesReachIPv6(t *testing.T) {
	w := newWorld(t, Config{Shards: 4})
	rs := w.server(t, "[2001:db8:1::11]:80", service.Masq)
	const n = 5000
	var c Conn
	for i := range n {
		w.open(numbered6(service.TCP, i), rs, &c)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for calls := 0; w.Stats().Conns > 0; calls++ {
		if calls == 5000 {
			t.Fatalf("%d of %d half-open connections are never looked at", w.Stats().Conns, n)
		}
		w.DropRandom(w.now, random.Uint32N)
	}
	s := w.Settings()
	s.ExpireNodestConn = true
	w.SetSettings(s)
	for i := range n {
		w.open(numbered6(service.TCP, i), rs, &c)
	}
	rs.SetAvailable(false)
	w.ExpireRemoved()
	w.settle()
	if st := w.Stats(); st.Conns != 0 || rs.Refs() != 0 {
		t.Errorf("%d connections of a removed server left, %d counted", st.Conns, rs.Refs())
	}
}
