package conntrack

import (
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

type persistence struct {
	*world
	t   *testing.T
	rs  *service.RealServer
	key TemplateKey
	c   Conn
}

func newPersistence(t *testing.T, timeout time.Duration) *persistence {
	p := &persistence{world: newWorld(t, Config{}), t: t}
	p.rs = p.server(t, "10.1.0.11:80", service.Route)
	p.key = TemplateKey{
		Proto: service.TCP, Client: packet.AddrFrom4(0xc0000200), Virtual: packet.AddrFrom4(0x0a090064), VirtualPort: 80,
	}
	if o := p.InsertTemplate(p.template(timeout), &p.c); o != Inserted {
		t.Fatalf("InsertTemplate = %v", o)
	}
	return p
}

func (p *persistence) template(timeout time.Duration) *NewTemplate {
	return &NewTemplate{
		TemplateKey: p.key, Server: p.rs.IP, ServerPort: 80, Method: p.rs.Method(), RS: p.rs, Timeout: timeout, Now: p.now,
	}
}

func (p *persistence) find() Outcome { return p.FindTemplate(&p.key, p.now, &p.c) }

// connect opens the i-th connection under the template.
func (p *persistence) connect(i int) packet.Flow {
	p.t.Helper()
	if o := p.find(); o != Hit {
		p.t.Fatalf("FindTemplate = %v", o)
	}
	f := numbered(service.TCP, i)
	n := newConn(f, p.rs, packet.TCPSyn, p.now)
	n.Template = p.c.ID
	var c Conn
	if o := p.Insert(n, &c); o != Inserted || c.Control != n.Template {
		p.t.Fatalf("Insert = %v under %#x, want inserted under %#x", o, c.Control, n.Template)
	}
	return f
}

// left is the time the template has left.
func (p *persistence) left() time.Duration {
	p.t.Helper()
	if o := p.find(); o != Hit {
		p.t.Fatalf("FindTemplate = %v", o)
	}
	return time.Duration(p.c.Expires - p.now).Round(time.Second)
}

func TestTemplateTimerStartsAgainForNewConnectionsOnly(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	f := p.connect(0)
	p.pass(50 * time.Second)
	var c Conn
	p.In(&f, packet.TCPAck, p.now, &c)
	if got := p.left(); got != 250*time.Second {
		t.Errorf("%v left after a packet, want 250s", got)
	}
	p.connect(1)
	if got := p.left(); got != 300*time.Second {
		t.Errorf("%v left after a new connection, want 300s", got)
	}
}

func TestUnusedTemplateTimesOut(t *testing.T) {
	p := newPersistence(t, 10*time.Second)
	if got, want := counts(p.rs), [3]int32{0, 0, 1}; got != want {
		t.Errorf("counts = %v, want %v", got, want)
	}
	p.pass(9900 * time.Millisecond)
	if o := p.find(); o != Hit {
		t.Errorf("%v before its time", o)
	}
	id := p.c.ID
	p.pass(time.Second)
	if o := p.find(); o != Miss {
		t.Errorf("%v after its time", o)
	}
	if p.Lookup(id, p.now, &p.c) || p.rs.Refs() != 0 {
		t.Errorf("still counted %v", counts(p.rs))
	}
}

func TestBusyTemplateLivesInStepsOfSixtySeconds(t *testing.T) {
	p := newPersistence(t, 3*time.Second)
	f := p.connect(0)
	var c Conn
	p.In(&f, packet.TCPAck, p.now, &c) // 15 minutes
	p.pass(3 * time.Second)
	p.pass(2 * time.Second)
	if got := p.left(); got != 58*time.Second {
		t.Errorf("%v left 5 seconds after -p 3, want 58s", got)
	}
	p.connect(1)
	if got := p.left(); got != 60*time.Second {
		t.Errorf("%v left after a new connection, want 60s: the timeout has changed", got)
	}
	p.pass(16 * time.Minute)
	if o := p.find(); o != Miss || p.rs.Refs() != 0 {
		t.Errorf("%v, counts %v after all connections have gone", o, counts(p.rs))
	}
}

func TestBusyTemplateKeepsItsTimeoutIfAskedTo(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	s := DefaultSettings()
	s.KeepTemplateTimeout = true
	p.SetSettings(s)
	f := p.connect(0)
	var c Conn
	p.In(&f, packet.TCPAck, p.now, &c) // 15 minutes
	p.pass(310 * time.Second)
	if got := p.left(); got != 290*time.Second {
		t.Errorf("%v left 310 seconds after -p 300, want 290s", got)
	}
	p.connect(1)
	if got := p.left(); got != 300*time.Second {
		t.Errorf("%v left after a new connection, want 300s", got)
	}
}

func TestEstablishedConnectionAssuresItsTemplate(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	f := p.connect(0)
	p.find()
	if p.c.State != TemplateNone || p.c.Flags&Template == 0 {
		t.Errorf("template begins as %v, flags %#x", p.c.State, p.c.Flags)
	}
	var c Conn
	p.In(&f, packet.TCPAck, p.now, &c)
	p.find()
	if p.c.State != TemplateAssured {
		t.Errorf("template of an established connection is %v", p.c.State)
	}
}

func TestInvalidTemplatesArePutAside(t *testing.T) {
	gone := func(p *persistence) { p.rs.SetAvailable(false) }
	quiesced := func(p *persistence) { p.rs.SetWeight(0) }
	for _, tt := range []struct {
		name   string
		expire bool
		change func(*persistence)
		want   Outcome
	}{
		{"server removed", false, gone, MissNoServer},
		{"server quiesced", false, quiesced, Hit},
		{"server quiesced, expire_quiescent_template", true, quiesced, MissNoServer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPersistence(t, 300*time.Second)
			p.SetSettings(Settings{ConnReuseMode: 1, ExpireQuiescentTemplate: tt.expire})
			p.connect(0)
			tt.change(p)
			if o := p.find(); o != tt.want {
				t.Fatalf("FindTemplate = %v, want %v", o, tt.want)
			}
			if tt.want == Hit {
				return
			}
			if o := p.find(); o != Miss {
				t.Errorf("second FindTemplate = %v, want miss", o)
			}
			var listed []Conn
			p.Walk(p.now, func(c *Conn) bool {
				if c.Flags&Template != 0 {
					listed = append(listed, *c)
				}
				return true
			})
			if len(listed) != 1 || listed[0].VirtualPort != 65535 || listed[0].ServerPort != 65535 || p.rs.Persistent() != 1 {
				t.Errorf("listed %+v, %d counted, want one on port 65535", listed, p.rs.Persistent())
			}
			if o := p.InsertTemplate(p.template(time.Minute), &p.c); o != Inserted {
				t.Errorf("InsertTemplate = %v in its place", o)
			}
			p.pass(6 * time.Minute)
			if p.rs.Refs() != 0 {
				t.Errorf("counts %v after the time of all", counts(p.rs))
			}
		})
	}
}

func TestTemplateRaceIsWonByTheFirst(t *testing.T) {
	p := newPersistence(t, time.Minute)
	first := p.c.ID
	n := p.template(time.Minute)
	n.RS = p.server(t, "10.1.0.12:80", service.Route)
	var c Conn
	if o := p.InsertTemplate(n, &c); o != Hit || c.ID != first || c.RS != p.rs.Index {
		t.Errorf("second InsertTemplate = %v, server %d, want hit and the first one's", o, c.RS)
	}
}

func TestConnectionOutlivesAVanishedTemplate(t *testing.T) {
	p := newPersistence(t, time.Second)
	n := newConn(numbered(service.TCP, 0), p.rs, packet.TCPSyn, p.now)
	n.Template = p.c.ID
	p.pass(2 * time.Second)
	n.Now = p.now
	var c Conn
	if o := p.Insert(n, &c); o != Inserted || c.Control != 0 {
		t.Errorf("Insert under a template that is gone = %v, control %#x", o, c.Control)
	}
}

func TestFwmarkTemplateIsSharedByProtocols(t *testing.T) {
	p := newPersistence(t, time.Minute)
	p.key = TemplateKey{Client: packet.AddrFrom4(0xc0000201), Virtual: packet.AddrFrom4(7)}
	p.InsertTemplate(p.template(time.Minute), &p.c)
	if o := p.find(); o != Hit || p.c.Proto != 0 || p.c.Virtual.String() != "0.0.0.7" {
		t.Errorf("FindTemplate = %v %+v", o, p.c)
	}
}

func TestOnePacketLeavesNothingBehind(t *testing.T) {
	p := newPersistence(t, 300*time.Second)
	p.pass(100 * time.Second)
	p.find()
	f := numbered(service.UDP, 0)
	n := newConn(f, p.rs, 0, p.now)
	n.Flags, n.Template = OnePacket, p.c.ID
	var c Conn
	if o := p.Insert(n, &c); o != Inserted || c.ID != 0 || c.State != UDPNormal || c.Server != p.rs.IP || c.Flags&OnePacket == 0 {
		t.Errorf("Insert = %v %+v", o, c)
	}
	if p.Find(&f, In, p.now, &c) {
		t.Error("a one-packet connection is found")
	}
	if got, want := counts(p.rs), [3]int32{0, 0, 1}; got != want {
		t.Errorf("counts = %v, want %v", got, want)
	}
	if got := p.left(); got != 300*time.Second || p.c.Packets != 1 {
		t.Errorf("template has %v left, %d packets; want 300s, 1", got, p.c.Packets)
	}

	p.pass(301 * time.Second)
	if o := p.InsertTemplate(p.template(time.Minute), &p.c); o != Inserted || p.c.Packets != 0 || p.c.State != TemplateNone {
		t.Errorf("a new template in the slot of an old one: %v %+v", o, p.c)
	}

	// The connection that there is for a moment counts: at the threshold it makes the server overloaded.
	p.rs.SetThresholds(4, 0)
	for i := range 3 {
		p.open(numbered(service.UDP, 1+i), p.rs, &c)
	}
	n.Template = 0
	p.Insert(n, &c)
	if !p.rs.Overloaded() {
		t.Error("a one-packet connection reaching the threshold leaves no overload, but 4*3 isn't below 3*4")
	}
}
