package conntrack

import (
	"time"

	"uvs/packet"
)

// sctpEvent is what a packet's deciding chunk (packet.SCTPEvent) says to the state table.
type sctpEvent uint8

const (
	sctpOther sctpEvent = iota // DATA, and every chunk that has no row of its own
	sctpInit
	sctpInitAck
	sctpCookieEcho
	sctpCookieAck
	sctpShutdown
	sctpShutdownAck
	sctpShutdownComplete
	sctpError
	sctpAbort
	numSCTPEvents
)

// sctpEvents maps chunk types to events.
var sctpEvents = [256]sctpEvent{
	packet.SCTPInit:             sctpInit,
	packet.SCTPInitAck:          sctpInitAck,
	packet.SCTPCookieEcho:       sctpCookieEcho,
	packet.SCTPCookieAck:        sctpCookieAck,
	packet.SCTPShutdown:         sctpShutdown,
	packet.SCTPShutdownAck:      sctpShutdownAck,
	packet.SCTPShutdownComplete: sctpShutdownComplete,
	packet.SCTPError:            sctpError,
	packet.SCTPAbort:            sctpAbort,
}

const numSCTPStates = int(SCTPClosed-SCTPInit1) + 2 // None is the first

type sctpTable [numColumns][numSCTPEvents][numSCTPStates]State

// Short names, to keep the tables readable.
const (
	cNO, cI1, cIN = None, SCTPInit1, SCTPInit
	cCS, cCR, cCW = SCTPCookieSent, SCTPCookieReplied, SCTPCookieWait
	cCO, cCE, cES = SCTPCookie, SCTPCookieEchoed, SCTPEstablished
	cSS, cSR, cSA = SCTPShutdownSent, SCTPShutdownReceived, SCTPShutdownAckSent
	cRJ, cCL      = SCTPRejected, SCTPClosed
)

// sctpStates is what IPVS was seen to do (traces sctp-states-nat, sctp-states-dr, sctp-icmp): the next state by column,
// event and state. A client alone never leads to the states that a server takes part in; their cells in clientOnly, which
// nothing was seen of, are those of fromClient.
var sctpStates = sctpTable{
	fromClient: {
		//                    NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL
		sctpOther:            {cES, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpInit:             {cI1, cIN, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cIN, cIN},
		sctpInitAck:          {cCW, cCW, cCW, cCS, cCR, cCO, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieEcho:       {cCR, cIN, cIN, cCR, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieAck:        {cES, cI1, cIN, cCS, cCR, cCW, cCO, cES, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdown:         {cSR, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cSR, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdownAck:      {cCL, cIN, cIN, cCS, cCR, cCW, cCO, cCE, cES, cCL, cSR, cCL, cRJ, cCL},
		sctpShutdownComplete: {cCL, cCL, cCL, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cCL, cRJ, cCL},
		sctpError:            {cCL, cI1, cIN, cCS, cCR, cCW, cCO, cCL, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpAbort:            {cCL, cCL, cCL, cCL, cCL, cRJ, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL},
	},
	fromServer: {
		sctpOther:            {cES, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpInit:             {cCW, cCW, cCW, cCW, cCW, cCW, cCW, cCW, cES, cCW, cCW, cCW, cCW, cCW},
		sctpInitAck:          {cCS, cCS, cCS, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieEcho:       {cCE, cCE, cCE, cCE, cCE, cCE, cCE, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieAck:        {cES, cES, cES, cES, cES, cES, cES, cES, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdown:         {cSS, cSS, cSS, cSS, cSS, cSS, cSS, cSS, cSS, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdownAck:      {cSA, cSA, cSA, cSA, cSA, cCW, cCO, cCE, cES, cSA, cSA, cSA, cRJ, cCL},
		sctpShutdownComplete: {cCL, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpError:            {cCL, cCL, cCL, cCL, cCL, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpAbort:            {cCL, cRJ, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL},
	},
	clientOnly: {
		//                    NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL
		sctpOther:            {cES, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpInit:             {cI1, cIN, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cIN, cIN},
		sctpInitAck:          {cCE, cCE, cCE, cCS, cCR, cCO, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieEcho:       {cES, cES, cES, cCR, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpCookieAck:        {cES, cI1, cIN, cCS, cCR, cCW, cCO, cES, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdown:         {cSR, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cSR, cSS, cSR, cSA, cRJ, cCL},
		sctpShutdownAck:      {cCL, cIN, cIN, cCS, cCR, cCW, cCO, cCE, cCL, cCL, cSR, cCL, cRJ, cCL},
		sctpShutdownComplete: {cCL, cCL, cCL, cCS, cCR, cCW, cCO, cCE, cES, cSS, cCL, cCL, cRJ, cCL},
		sctpError:            {cCL, cI1, cIN, cCS, cCR, cCW, cCO, cCE, cES, cSS, cSR, cSA, cRJ, cCL},
		sctpAbort:            {cCL, cCL, cCL, cCL, cCL, cRJ, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL},
	},
}

// sctpNext is the state that a packet whose deciding chunk is of type chunk leads to. One without a chunk changes none.
func sctpNext(column int, chunk uint8, s State) State {
	if chunk == packet.SCTPNoChunk {
		return s
	}
	at := 0
	if s >= SCTPInit1 && s <= SCTPClosed {
		at = int(s-SCTPInit1) + 1
	}
	return sctpStates[column][sctpEvents[chunk]][at]
}

// The kernel's timeouts of SCTP (ip_vs_proto_sctp.c, sctp_timeouts), which nothing changes: 4 s is a second more than
// RFC 9260's initial retransmission timeout, 61 s one more than its greatest.
const (
	sctpFirst  = 4 * time.Second
	sctpUsual  = 61 * time.Second
	sctpSteady = 15 * time.Minute
)
