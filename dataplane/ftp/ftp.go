// Package ftp follows FTP's control connections through NAT, as ip_vs_ftp does: it finds the address and port of a data
// connection in what client and server say, so that the connection can be expected, puts the virtual address into the
// server's replies, and keeps sequence numbers right where a reply's length changed.
//
// It is pure: no sockets, no goroutines, no clock. Only segments that hold a command or reply whole are understood, which
// those of all real clients and servers do; one that is cut in two passes unchanged, as in the kernel.
package ftp

import (
	"uvs/packet"
)

// Port is the port of virtual services whose connections are control connections.
const Port = 21

// Expectation is a data connection that is to come. It is a NAT connection like others, from Client to the virtual
// service, translated to the real server.
type Expectation struct {
	// Client and ClientPort are the client's end; the port is 0 where the client connects, since only its first packet
	// tells.
	Client     packet.Addr
	ClientPort uint16
	// VirtualPort is the virtual service's end, on the control connection's VIP.
	VirtualPort uint16
	// Server and ServerPort are the real server's end.
	Server     packet.Addr
	ServerPort uint16
}

// Control is a control connection: its ends.
type Control struct {
	Client      packet.Addr
	Virtual     packet.Addr
	VirtualPort uint16
	Server      packet.Addr
	ServerPort  uint16
}

// active is the expectation of a data connection that the server opens, from the port below its control port, to where the
// client said that it listens.
func (c *Control) active(to packet.Addr, port uint16) Expectation {
	return Expectation{
		Client: to, ClientPort: port, VirtualPort: c.VirtualPort - 1, Server: c.Server, ServerPort: c.ServerPort - 1,
	}
}

// mode is what the client asked for last.
type mode uint8

const (
	modeActive   mode = iota // PORT, EPRT, or nothing yet: replies don't matter
	modePassive              // PASV: the reply 227 names an address and a port
	modeExtended             // EPSV: the reply 229 names a port
)

// Session is what is known of one control connection. The zero value is a new one.
type Session struct {
	mode    mode
	replies Shift // of what the server sends
	last    edit
}

// edit is the latest change to a reply, kept for its retransmission.
type edit struct {
	seq    uint32 // of the first byte that was replaced, in the server's own numbers
	length int    // of what was replaced; 0: there was none
	text   text
}

// Commands reads what the client sends in one segment: PASV and EPSV are remembered, PORT and EPRT say where the server is
// to connect to.
func (s *Session) Commands(payload []byte, c *Control) (x Expectation, ok bool) {
	for line := range lines(payload) {
		switch {
		case isPASV(line) && c.Client.Is4():
			s.mode = modePassive
		case isEPSV(line, c.Client.Is4()):
			s.mode = modeExtended
		default:
			if to, port, found := parsePORT(line, c.Client.Is4()); found {
				s.mode = modeActive
				x, ok = c.active(to, port), true
			}
		}
	}
	return x, ok
}

// Found is what was found in a segment of the server.
type Found uint8

// What may be found.
const (
	Nothing Found = iota // the segment goes on as it is
	Named                // a reply that names a data port: expect the connection, and put the virtual address there
	Again                // a reply that was changed before is sent again: it is to be changed again
	Torn                 // part of such a reply, which cannot be changed: the segment must be dropped
)

// Reply is the part of a segment's payload that names a data port.
type Reply struct {
	// Server and Port are where the server listens.
	Server packet.Addr
	Port   uint16

	start, end int // in the payload
	seq        uint32
	extended   bool
	text       text
}

// Replies reads what the server sends in one segment, which begins with seq in the server's own numbers.
func (s *Session) Replies(payload []byte, seq uint32, c *Control) (r Reply, found Found) {
	if r, found = s.again(payload, seq); found != Nothing || s.mode == modeActive {
		return r, found
	}
	offset := 0
	for line := range lines(payload) {
		if s.mode == modePassive {
			r, found = parse227(line)
		} else {
			r, found = parse229(line, c.Client.Is4())
			r.Server = c.Server
		}
		if found == Named {
			r.start += offset
			r.end += offset
			r.seq = seq + uint32(r.start)
			if r.Server == c.Virtual {
				r.Server = c.Server // a server told of its virtual address: what it says stays, who listens is clear
			}
			return r, found
		}
		offset += len(line)
	}
	return Reply{}, Nothing
}

// again says whether a segment holds bytes that were changed before.
func (s *Session) again(payload []byte, seq uint32) (Reply, Found) {
	from := int32(s.last.seq - seq) // of the changed bytes in payload
	to := int64(from) + int64(s.last.length)
	switch {
	case s.last.length == 0 || to <= 0 || int64(from) >= int64(len(payload)):
		return Reply{}, Nothing
	case from < 0 || to > int64(len(payload)):
		return Reply{}, Torn
	}
	return Reply{start: int(from), end: int(to), seq: s.last.seq, text: s.last.text}, Again
}

// Answer makes r name a port of the virtual service, and notes it as said. It must be called before the segment is
// rewritten.
func (s *Session) Answer(r *Reply, virtual packet.Addr, port uint16) {
	r.text = textOf(r.extended, virtual, port)
	s.mode = modeActive
	s.replies.edit(r.seq, r.end-r.start, r.text.n)
	s.last = edit{seq: r.seq, length: r.end - r.start, text: r.text}
}
