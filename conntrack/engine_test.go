package conntrack

import (
	"fmt"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// calls are templates of one client and service, told apart by data, as --pe sip makes them.
type calls struct {
	*world
	rs  *service.RealServer
	key TemplateKey
}

func newCalls(t testing.TB) *calls {
	w := newWorld(t, Config{Shards: 4})
	return &calls{world: w, rs: w.server(t, "10.1.0.11:5060", service.Route), key: TemplateKey{
		Proto: service.UDP, Client: packet.AddrFrom4(0xc0000201), Virtual: packet.AddrFrom4(0x0a090064), VirtualPort: 5060,
	}}
}

func (w *calls) insert(data string, c *Conn) Outcome {
	return w.InsertTemplate(&NewTemplate{
		TemplateKey: w.key, Server: w.rs.IP, ServerPort: 5060, RS: w.rs, Timeout: time.Minute, Data: []byte(data), Now: w.now,
	}, c)
}

func (w *calls) find(data string, c *Conn) Outcome {
	return w.FindTemplateData(&w.key, []byte(data), w.now, c)
}

func TestTemplatesAreToldApartByTheirData(t *testing.T) {
	w := newCalls(t)
	var c Conn
	ids := map[string]ID{}
	for _, data := range []string{"", "k1", "k2", "a84b4c76e66710@pc33.example.com"} {
		if o := w.find(data, &c); o != Miss {
			t.Errorf("%q before it is there: %v", data, o)
		}
		if o := w.insert(data, &c); o != Inserted {
			t.Fatalf("%q: %v", data, o)
		}
		ids[data] = c.ID
	}
	for data, id := range ids {
		if o := w.find(data, &c); o != Hit || c.ID != id || c.Flags&Template == 0 || c.Client != w.key.Client {
			t.Errorf("%q: %v %#x, want %#x", data, o, c.ID, id)
		}
		if o := w.insert(data, &c); o != Hit || c.ID != id {
			t.Errorf("%q again: %v %#x, want %#x", data, o, c.ID, id)
		}
		if got := w.TemplateData(id); got != data {
			t.Errorf("TemplateData = %q, want %q", got, data)
		}
	}
	if w.key.Client = packet.AddrFrom4(0xc0000202); w.find("k1", &c) != Miss {
		t.Error("another client has the template")
	}
	if got := counts(w.rs); got != [3]int32{0, 0, 4} {
		t.Errorf("counts %v", got)
	}
	w.pass(62 * time.Second)
	if st := w.Stats(); st.Templates != 0 || w.rs.Refs() != 0 || w.TemplateData(ids["k1"]) != "" {
		t.Errorf("%d templates, counts %v after their time", st.Templates, counts(w.rs))
	}
	for i := range w.templates {
		if x := &w.templates[i].engine; len(x.slots) != 0 || len(x.data) != 0 {
			t.Errorf("%d slots, %d texts left", len(x.slots), len(x.data))
		}
	}
}

func TestTemplateWithDataOfAServerThatIsGone(t *testing.T) {
	w := newCalls(t)
	var c Conn
	w.insert("k1", &c)
	id := c.ID
	w.rs.SetAvailable(false)
	if o := w.find("k1", &c); o != MissNoServer {
		t.Errorf("%v, want %v", o, MissNoServer)
	}
	if o := w.find("k1", &c); o != Miss || w.TemplateData(id) != "k1" {
		t.Errorf("put aside: %v, data %q", o, w.TemplateData(id))
	}
	w.rs.SetAvailable(true)
	if o := w.insert("k1", &c); o != Inserted || c.ID == id {
		t.Errorf("in its place: %v", o)
	}
	id2 := c.ID
	w.pass(62 * time.Second)
	if w.TemplateData(id) != "" || w.TemplateData(id2) != "" || w.rs.Refs() != 0 {
		t.Errorf("counts %v after the time of both", counts(w.rs))
	}
	if w.insert("", &c); w.TemplateData(c.ID) != "" || w.TemplateData(0) != "" || w.TemplateData(1<<40) != "" {
		t.Error("data of a template that has none")
	}
}

func TestFindingACallAllocatesNothing(t *testing.T) {
	w := newCalls(t)
	var c Conn
	for i := range 100 {
		w.insert(fmt.Sprintf("%d@example.com", i), &c)
	}
	data := []byte("7@example.com")
	if n := testing.AllocsPerRun(100, func() {
		if w.FindTemplateData(&w.key, data, w.now, &c) != Hit {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
