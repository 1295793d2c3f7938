package conntrack

import (
	"time"

	"uvs/service"
)

// For schedulers that ask for it (service.RealServer.TimeSetups), the time from a client's SYN to its first ACK is
// measured. While it runs, an entry has lifeTimed, and its packets field holds the SYN's time above the count.
const (
	setupShift = 16 // 65.5 µs, a unit of that time; 22 bits of it wrap after 275 s, longer than a handshake takes
	setupBits  = 22
	countBits  = 32 - setupBits
	countMask  = 1<<countBits - 1
)

// refusedSetup is the least that a server's RST counts for instead of an ACK, so that a server doesn't look good that
// refuses quickly: the time after which a client would repeat an unanswered SYN (RFC 6298 section 2).
const refusedSetup = time.Second

// timeSetup starts the measurement of a new entry, if its first packet was a client's SYN, at now, and its server wants it.
func (e *entry) timeSetup(rs *service.RealServer, now int64) {
	if s := e.state(); rs == nil || s != SynRecv && s != SynAck || !rs.SetupsTimed() {
		return
	}
	e.stampSetup(now)
	rs.BeginSetup()
}

func (e *entry) stampSetup(now int64) {
	packets := e.packets()
	e.setLife(e.life() | lifeTimed)
	e.setPackets(packets | uint32(now>>setupShift)<<countBits)
}

// stepSetup goes on with the measurement of e, which is timed, after a packet. A SYN that the client repeats is a sample
// too, of an answer that took at least so long, and the measurement begins again; a client that gives up is none.
func (e *entry) stepSetup(rs *service.RealServer, dir Dir, tcpFlags uint8, now int64) {
	if rs == nil {
		e.endSetup(nil)
		return
	}
	elapsed := time.Duration((uint32(now>>setupShift)-e.u32(32)>>countBits)&(1<<setupBits-1)) << setupShift
	if elapsed > 1<<(setupBits+setupShift-1) {
		elapsed = 0 // the SYN's worker has the later clock
	}
	switch event := tcpEvents[tcpFlags&31]; {
	case dir == Out && event == eventRst:
		rs.ObserveSetup(max(elapsed, refusedSetup), now)
	case dir == Out:
		return
	case event == eventSyn:
		rs.ObserveSetup(elapsed, now)
		if e.packets() < countMask {
			e.stampSetup(now)
			return
		}
	case event == eventAck:
		rs.ObserveSetup(elapsed, now)
	}
	e.endSetup(rs)
}

// endSetup ends the measurement of e, if it is timed.
func (e *entry) endSetup(rs *service.RealServer) {
	if e.life()&lifeTimed == 0 {
		return
	}
	packets := e.packets()
	e.setLife(e.life() &^ lifeTimed)
	e.setPackets(packets)
	if rs != nil {
		rs.EndSetup()
	}
}
