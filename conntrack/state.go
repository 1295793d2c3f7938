package conntrack

import (
	"time"

	"uvs/packet"
	"uvs/service"
)

// State is where a connection stands in its protocol. TCP's are the kernel's numbers (ip_vs.h, IP_VS_TCP_S_*); those of
// other protocols follow, SCTP's in the kernel's order too.
type State uint8

// The states.
const (
	None        State = iota // before the first packet
	Established              // both ways open
	SynSent                  // the server opened
	SynRecv                  // the client opened
	FinWait                  // the server closed, or the client where the server isn't seen
	TimeWait                 // both closed
	Close                    // reset
	CloseWait                // the client closed
	LastAck                  // the client closed first and acknowledged
	Listen                   // the kernel's table has it, no packet leads to it
	SynAck                   // secure_tcp: the server answered, the handshake isn't believed yet
	UDPNormal                // UDP has this state alone

	SCTPInit1            // the client's INIT
	SCTPInit             // more from the client, without an answer
	SCTPCookieSent       // the server's INIT ACK
	SCTPCookieReplied    // the client's COOKIE ECHO
	SCTPCookieWait       // the server opens, or the client answers what nobody saw
	SCTPCookie           // INIT ACK from the client
	SCTPCookieEchoed     // COOKIE ECHO from the server
	SCTPEstablished      // both ways open
	SCTPShutdownSent     // the server's SHUTDOWN
	SCTPShutdownReceived // the client's SHUTDOWN
	SCTPShutdownAckSent  // the server's SHUTDOWN ACK
	SCTPRejected         // the server's ABORT of an INIT
	SCTPClosed           // closed or aborted

	TemplateNone    // a template none of whose connections was established
	TemplateAssured // a template one of whose connections was
	NumStates
)

const numTCPStates = int(SynAck) + 1

var stateNames = [NumStates]string{
	"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN",
	"SYNACK", "UDP",
	"INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED",
	"S-ACK-SENT", "REJECTED", "CLOSED",
	"NONE", "ASSURED",
}

// String is the name in /proc/net/ip_vs_conn and ipvsadm -Lc.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "ERR!"
}

// active says that a connection in this state counts as active at its server (ip_vs_proto_tcp.c,
// tcp_state_active_table; ip_vs_proto_sctp.c, set_sctp_state). UDP never does.
func (s State) active() bool {
	return s == Established || s == SynSent || s == SynRecv || s == SynAck || s == SCTPEstablished
}

// stateTimeouts are the kernel's (ip_vs_proto_tcp.c, tcp_timeouts, and SCTP's), but for those that Timeouts has.
var stateTimeouts = [NumStates]time.Duration{
	None:      2 * time.Second,
	SynSent:   2 * time.Minute,
	SynRecv:   time.Minute,
	TimeWait:  2 * time.Minute,
	Close:     10 * time.Second,
	CloseWait: time.Minute,
	LastAck:   30 * time.Second,
	Listen:    2 * time.Minute,
	SynAck:    2 * time.Minute,

	SCTPInit1:            sctpFirst,
	SCTPInit:             sctpUsual,
	SCTPCookieSent:       sctpUsual,
	SCTPCookieReplied:    sctpUsual,
	SCTPCookieWait:       sctpUsual,
	SCTPCookie:           sctpUsual,
	SCTPCookieEchoed:     sctpUsual,
	SCTPEstablished:      sctpSteady,
	SCTPShutdownSent:     sctpUsual,
	SCTPShutdownReceived: sctpUsual,
	SCTPShutdownAckSent:  sctpUsual,
	SCTPRejected:         sctpFirst,
	SCTPClosed:           sctpUsual,
}

// tcpEvent is what a segment's flags say to the state table. RST goes before SYN, SYN before FIN, FIN before ACK.
type tcpEvent uint8

const (
	eventSyn tcpEvent = iota
	eventFin
	eventAck
	eventRst
	eventNone // no flag of these: CLOSE, whatever the state
	numTCPEvents
)

// tcpEvents maps the flags FIN, SYN, RST, PSH and ACK to their event.
var tcpEvents = func() (events [32]tcpEvent) {
	for flags := range events {
		switch {
		case flags&packet.TCPRst != 0:
			events[flags] = eventRst
		case flags&packet.TCPSyn != 0:
			events[flags] = eventSyn
		case flags&packet.TCPFin != 0:
			events[flags] = eventFin
		case flags&packet.TCPAck != 0:
			events[flags] = eventAck
		default:
			events[flags] = eventNone
		}
	}
	return events
}()

// The columns of a state table: who sent the segment, and whether the director sees the server at all.
const (
	fromClient = iota
	fromServer
	clientOnly
	numColumns
)

type tcpTable [numColumns][numTCPEvents][numTCPStates]State

// Short names, to keep the tables readable.
const (
	sNO, sES, sSS, sSR, sFW, sTW = None, Established, SynSent, SynRecv, FinWait, TimeWait
	sCL, sCW, sLA, sLI, sSA      = Close, CloseWait, LastAck, Listen, SynAck
)

var allClose = [numTCPStates]State{sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL}

// tcpStates is IPVS's usual table (ip_vs_proto_tcp.c): the next state by column, event and state.
var tcpStates = tcpTable{
	fromClient: {
		//          NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		eventSyn:  {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		eventFin:  {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR},
		eventNone: allClose,
	},
	fromServer: {
		eventSyn:  {sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
		eventFin:  {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		eventRst:  {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
		eventNone: allClose,
	},
	clientOnly: {
		eventSyn:  {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		eventFin:  {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		eventNone: allClose,
	},
}

// secureTCPStates is the table of secure_tcp: only the server's ACK establishes.
var secureTCPStates = tcpTable{
	fromClient: {
		//          NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		eventSyn:  {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSA},
		eventFin:  {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sSA},
		eventAck:  {sES, sES, sSS, sSR, sFW, sTW, sCL, sCW, sCL, sLI, sSA},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		eventNone: allClose,
	},
	fromServer: {
		eventSyn:  {sSS, sES, sSS, sSA, sSS, sSS, sSS, sSS, sSS, sLI, sSA},
		eventFin:  {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		eventRst:  {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
		eventNone: allClose,
	},
	clientOnly: {
		eventSyn:  {sSA, sES, sES, sSR, sSA, sSA, sSA, sSA, sSA, sSA, sSA},
		eventFin:  {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		eventAck:  {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		eventRst:  {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
		eventNone: allClose,
	},
}

// column is that of a packet in the state tables. One from the server shows that the director sees the server after all.
func (e *entry) column(dir Dir) int {
	f := e.flags()
	switch {
	case dir == Out:
		if f&NoOutput != 0 {
			e.setFlags(f &^ NoOutput)
		}
		return fromServer
	case f&NoOutput != 0:
		return clientOnly
	}
	return fromClient
}

// transition steps the state of e by a packet and returns the new one. s is locked.
func (t *Table) transition(s *shard, r *rules, slot uint32, e *entry, rs *service.RealServer, dir Dir, event uint8) State {
	state, assure := e.state(), false
	next := state
	switch service.Proto(e.proto()) {
	case service.TCP:
		next = r.tcp[e.column(dir)][tcpEvents[event&31]][state]
		assure = next == Established && state != Established
	case service.UDP:
		next = UDPNormal
		assure = dir == Out
	case service.SCTP:
		next = sctpNext(e.column(dir), event, state)
		assure = next == SCTPEstablished && state != SCTPEstablished
	}
	if next != state {
		s.setState(slot, e, next, rs)
	}
	if assure && e.control() != 0 && e.life()&lifeAssured == 0 {
		e.setLife(e.life() | lifeAssured)
		t.assure(e.control())
	}
	return next
}

// step steps the state of e by a packet and starts its timer anew. s is locked.
func (t *Table) step(s *shard, r *rules, slot uint32, e *entry, rs *service.RealServer, dir Dir, event uint8, now int64) {
	state, tick := t.transition(s, r, slot, e, rs, dir, event), tickOf(now)
	if e.life()&lifeTimed != 0 {
		e.stepSetup(rs, dir, event, now)
	}
	s.arm(slot, e, tick+r.ticks[state], tick)
}
