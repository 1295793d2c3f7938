package conntrack

import (
	"slices"
	"time"

	"uvs/packet"
	"uvs/service"
)

// model is the slow, obvious twin of Table: lists that are searched from their start, the newest entry first. Time moves
// in steps of a quarter second and timeouts are whole seconds, so that the table's ticks make no difference.
type model struct {
	settings  Settings
	timeouts  map[State]time.Duration
	usual     textTable
	secure    textTable
	conns     []*modelConn
	templates []*modelTemplate
	dying     []*modelConn // gone, still counted until the next Advance
	lapsed    []*modelConn // timed out; counted until the wheel comes to them
}

type modelConn struct {
	flow     packet.Flow
	server   packet.Addr
	sport    uint16
	method   service.Method
	rs       *service.RealServer
	state    State
	noOutput bool
	packets  uint32
	deadline int64
	template *modelTemplate
	cut      bool
}

type modelTemplate struct {
	key      TemplateKey
	id       ID
	rs       *service.RealServer
	timeout  time.Duration
	deadline int64
	assured  bool
	dead     bool // put aside
}

// slack is how late the wheel may be.
const slack = int64(1500 * time.Millisecond)

func newModel() *model {
	return &model{
		settings: DefaultSettings(),
		timeouts: map[State]time.Duration{
			None: 2 * time.Second, Established: 15 * time.Minute, SynSent: 2 * time.Minute, SynRecv: time.Minute,
			FinWait: 2 * time.Minute, TimeWait: 2 * time.Minute, Close: 10 * time.Second, CloseWait: time.Minute,
			LastAck: 30 * time.Second, Listen: 2 * time.Minute, SynAck: 2 * time.Minute, UDPNormal: 5 * time.Minute,
			SCTPInit1: 4 * time.Second, SCTPInit: 61 * time.Second, SCTPCookieSent: 61 * time.Second,
			SCTPCookieReplied: 61 * time.Second, SCTPCookieWait: 61 * time.Second, SCTPCookie: 61 * time.Second,
			SCTPCookieEchoed: 61 * time.Second, SCTPEstablished: 15 * time.Minute, SCTPShutdownSent: 61 * time.Second,
			SCTPShutdownReceived: 61 * time.Second, SCTPShutdownAckSent: 61 * time.Second, SCTPRejected: 4 * time.Second,
			SCTPClosed: 61 * time.Second,
		},
		usual:  readTable(usualTable),
		secure: readTable(usualTable, secureRows),
	}
}

// lapse moves connections whose time is up to the lapsed, and forgets those that the wheel must have found by now.
func (m *model) lapse(now int64) {
	m.conns = slices.DeleteFunc(m.conns, func(c *modelConn) bool {
		if c.deadline >= now {
			return false
		}
		m.lapsed = append(m.lapsed, c)
		return true
	})
	m.lapsed = slices.DeleteFunc(m.lapsed, func(c *modelConn) bool { return c.deadline < now-slack })
}

func (m *model) step(c *modelConn, dir Dir, flags uint8, now int64) {
	if c.flow.Proto == uint8(service.SCTP) {
		column := fromClient
		if dir == Out {
			c.noOutput = false
			column = fromServer
		} else if c.noOutput {
			column = clientOnly
		}
		old := c.state
		c.state = sctpNext(column, flags, old) // the recordings know every cell
		if c.state == SCTPEstablished && old != SCTPEstablished && c.template != nil {
			c.template.assured = true
		}
	} else if c.flow.Proto == uint8(service.UDP) {
		c.state = UDPNormal
		if dir == Out && c.template != nil {
			c.template.assured = true
		}
	} else {
		column := "in "
		if dir == Out {
			c.noOutput = false
			column = "out "
		} else if c.noOutput {
			column = "only "
		}
		table := m.usual
		if m.settings.SecureTCP {
			table = m.secure
		}
		old := c.state
		switch {
		case flags&packet.TCPRst != 0:
			c.state = table[column+"rst"][old]
		case flags&packet.TCPSyn != 0:
			c.state = table[column+"syn"][old]
		case flags&packet.TCPFin != 0:
			c.state = table[column+"fin"][old]
		case flags&packet.TCPAck != 0:
			c.state = table[column+"ack"][old]
		default:
			c.state = Close
		}
		if c.state == Established && old != Established && c.template != nil {
			c.template.assured = true
		}
	}
	c.deadline = now + int64(m.timeouts[c.state])
}

func (c *modelConn) active() bool {
	return slices.Contains([]State{Established, SynSent, SynRecv, SynAck, SCTPEstablished}, c.state)
}

func (m *model) find(f packet.Flow, dir Dir) *modelConn {
	for _, c := range m.conns {
		if dir == In && c.flow == f {
			return c
		}
		answers := c.method == service.Masq || c.method == service.Local
		reply := packet.Flow{Src: c.server, SrcPort: c.sport, Dst: c.flow.Src, DstPort: c.flow.SrcPort, Proto: c.flow.Proto}
		if dir == Out && answers && reply == f {
			return c
		}
	}
	return nil
}

func (m *model) in(f packet.Flow, flags uint8, now int64) (Outcome, *modelConn) {
	m.lapse(now)
	c := m.find(f, In)
	if c == nil {
		return Miss, nil
	}
	gone := func(o Outcome) (Outcome, *modelConn) {
		m.conns = slices.DeleteFunc(m.conns, func(o *modelConn) bool { return o == c })
		m.dying = append(m.dying, c)
		return o, nil
	}
	if c.cut {
		if flags&packet.TCPSyn != 0 {
			return gone(MissReused)
		}
		return m.answerCut(c, now)
	}
	if f.Proto == uint8(service.TCP) && flags&packet.TCPSyn != 0 || f.Proto == uint8(service.SCTP) && flags == packet.SCTPInit {
		if m.settings.ExpireNodestConn && c.rs.Weight() == 0 {
			return gone(MissReused)
		}
		mode := m.settings.ConnReuseMode
		if mode != 0 && c.template == nil && (c.state == TimeWait || c.state == Close || c.state == SCTPClosed) {
			return gone(MissReused)
		}
		if mode&2 != 0 && c.template == nil && c.state == FinWait && c.noOutput {
			return gone(MissReused)
		}
	}
	if !c.rs.Available() {
		if m.settings.ExpireNodestConn {
			return gone(MissNoServer)
		}
		return NoServer, c
	}
	c.packets++
	m.step(c, In, flags, now)
	return Hit, c
}

func (m *model) out(f packet.Flow, flags uint8, now int64) (Outcome, *modelConn) {
	m.lapse(now)
	c := m.find(f, Out)
	if c == nil {
		return Miss, nil
	}
	if c.cut {
		return m.answerCut(c, now)
	}
	m.step(c, Out, flags, now)
	return Hit, c
}

func (m *model) answerCut(c *modelConn, now int64) (Outcome, *modelConn) {
	c.deadline = min(c.deadline, now+int64(m.timeouts[Close]))
	return Cut, c
}

// cut ends what rs has. Nothing is dying.
func (m *model) cut(rs *service.RealServer, now int64) {
	m.conns = slices.DeleteFunc(m.conns, func(c *modelConn) bool {
		switch {
		case c.rs != rs || c.cut:
			return false
		case c.flow.Proto != uint8(service.TCP) || c.state == TimeWait || c.state == Close:
			return true
		}
		c.cut, c.state, c.template, c.deadline = true, Close, nil, min(c.deadline, now+int64(100*time.Second))
		return false
	})
	m.lapsed = slices.DeleteFunc(m.lapsed, func(c *modelConn) bool { return c.rs == rs })
	m.templates = slices.DeleteFunc(m.templates, func(tm *modelTemplate) bool { return tm.rs == rs })
}

func (m *model) insert(n *NewConn) (Outcome, *modelConn) {
	m.lapse(n.Now)
	c := m.find(n.Flow, In)
	if c != nil && c.cut {
		m.conns = slices.DeleteFunc(m.conns, func(o *modelConn) bool { return o == c })
		c = nil
	}
	o := Hit
	if c == nil {
		o = Inserted
		c = &modelConn{
			flow: n.Flow, server: n.Server, sport: n.ServerPort, method: n.Method, rs: n.RS,
			noOutput: n.Method != service.Masq,
		}
		for _, tm := range m.templates {
			if tm.id == n.Template {
				c.template = tm
				tm.deadline = n.Now + int64(tm.timeout)
			}
		}
		m.conns = slices.Insert(m.conns, 0, c)
	}
	c.packets++
	m.step(c, In, n.Event, n.Now)
	return o, c
}

func (m *model) findTemplate(k TemplateKey, now int64) (Outcome, *modelTemplate) {
	for _, tm := range m.templates {
		if tm.key != k || tm.dead {
			continue
		}
		if !tm.rs.Available() || tm.rs.Weight() == 0 && m.settings.ExpireQuiescentTemplate {
			tm.dead = true
			return MissNoServer, nil
		}
		return Hit, tm
	}
	return Miss, nil
}

func (m *model) insertTemplate(n *NewTemplate, id ID) *modelTemplate {
	tm := &modelTemplate{key: n.TemplateKey, id: id, rs: n.RS, timeout: n.Timeout, deadline: n.Now + int64(n.Timeout)}
	m.templates = append(m.templates, tm)
	return tm
}

// reconcile settles the templates whose time is up at now. Whether connections still hung on one at that moment may
// depend on how late the wheel is; only then alive decides, which asks the table.
func (m *model) reconcile(now int64, alive func(ID) bool, complain func(string, *modelTemplate)) {
	m.lapse(now)
	m.templates = slices.DeleteFunc(m.templates, func(tm *modelTemplate) bool {
		if tm.deadline >= now {
			return false
		}
		must, may := false, false
		for _, c := range slices.Concat(m.conns, m.dying, m.lapsed) {
			if c.template == tm {
				must = must || c.deadline >= now
				may = true
			}
		}
		lives := alive(tm.id)
		if lives && !may {
			complain("outlives its connections", tm)
		}
		if !lives && must {
			complain("is gone before its connections", tm)
		}
		if !lives {
			return true
		}
		for tm.timeout = time.Minute; tm.deadline < now; {
			tm.deadline += int64(time.Minute)
		}
		return false
	})
}

// bounds returns the least and the most that rs's counts of active, inactive and templates may be.
func (m *model) bounds(rs *service.RealServer) (least, most [3]int32) {
	count := func(n *[3]int32, c *modelConn) {
		if c.cut {
			return
		}
		if c.rs == rs && c.active() {
			n[0]++
		} else if c.rs == rs {
			n[1]++
		}
	}
	for _, c := range m.conns {
		count(&least, c)
	}
	for _, tm := range m.templates {
		if tm.rs == rs {
			least[2]++
		}
	}
	most = least
	for _, c := range slices.Concat(m.lapsed, m.dying) {
		count(&most, c)
	}
	return least, most
}

// flush drops what ExpireRemoved drops.
func (m *model) flush() {
	if !m.settings.ExpireNodestConn {
		return
	}
	var left []*modelTemplate
	gone := func(c *modelConn) bool {
		if c.rs.Available() || c.cut {
			return false
		}
		left = append(left, c.template)
		return true
	}
	m.conns = slices.DeleteFunc(m.conns, gone)
	m.lapsed = slices.DeleteFunc(m.lapsed, gone)
	m.templates = slices.DeleteFunc(m.templates, func(tm *modelTemplate) bool {
		for _, c := range slices.Concat(m.conns, m.lapsed, m.dying) {
			if c.template == tm {
				return false
			}
		}
		return slices.Contains(left, tm) && !tm.assured || !tm.rs.Available()
	})
}
