package conntrack

import (
	"fmt"

	"uvs/packet"
	"uvs/service"
)

// ID names an entry for as long as it lives; 0 is none. Slots are used again, and an ID carries its slot's generation,
// so that the ID of an entry that is gone is recognised.
type ID uint64

// Flags describe an entry. The values are the kernel's (uapi ip_vs.h, IP_VS_CONN_F_*), which connection sync sends; the
// forwarding method, which the kernel keeps in the lowest three bits, is Conn.Method.
type Flags uint16

// The flag bits.
const (
	Sync      Flags = 0x20   // came from a master by connection sync
	NoOutput  Flags = 0x80   // the server's packets don't pass the director: the INPUT-ONLY states apply
	Inactive  Flags = 0x100  // counted as inactive at the server
	OutSeq    Flags = 0x200  // FTP changed the length of what the server sends
	InSeq     Flags = 0x400  // FTP changed the length of what the client sends
	NoCPort   Flags = 0x800  // the client's port isn't known yet; with a Hit of In, wasn't before this packet
	Template  Flags = 0x1000 // a persistence template, not a connection
	OnePacket Flags = 0x2000 // one-packet scheduling: the entry exists in the Conn alone
)

// Dir is a packet's direction.
type Dir uint8

// The directions.
const (
	In  Dir = iota // client to VIP
	Out            // server to client, before NAT gives it back the VIP
)

// String is the direction's name in messages.
func (d Dir) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}

// Conn is a copy of what the packet path and listings need to know of an entry, filled by the table's methods.
type Conn struct {
	ID ID
	// Client, Virtual and Server are the CIP, the VIP and the RIP. Client and Virtual are of one family, Server may be of
	// the other if Method is Tunnel. A template's Client is masked, and its Virtual is MarkAddr of the mark if its service
	// is a fwmark service.
	Client, Virtual, Server packet.Addr
	// ClientPort is 0 in a template. VirtualPort and ServerPort of an invalidated template are 65535.
	ClientPort, VirtualPort, ServerPort uint16
	Proto                               service.Proto
	Method                              service.Method
	State                               State
	Dir                                 Dir
	Flags                               Flags
	// Service is the counters slot of the virtual service, RS the real server's slot in the ServerIndex, or
	// service.NoServer.
	Service, RS uint32
	// Mark is the packet's firewall mark when the connection began; a template has none.
	Mark uint32
	// Packets counts what the client sent, this packet included.
	Packets uint32
	// Control is the template that the connection hangs on, if any.
	Control ID
	// Expires is when the entry will be gone if no more packets come, on the clock of the now arguments.
	Expires int64
}

// Outcome is what the table did with a packet.
type Outcome uint8

// The outcomes.
const (
	Miss         Outcome = iota // no entry: schedule, if the packet may open a connection
	MissReused                  // as Miss; an old entry was just dropped by conn_reuse_mode, or because of weight 0
	MissNoServer                // as Miss; an entry without server was just dropped (expire_nodest_conn=1)
	Hit                         // entry found, state stepped, timer re-armed, Conn filled
	NoServer                    // entry found, its server is gone (expire_nodest_conn=0): drop silently; Conn filled
	Inserted                    // new entry, first packet accounted, Conn filled
	Full                        // no memory, or Config.MaxConns reached: drop
	Cut                         // entry found, Table.Cut has ended it: reset both ends; Conn filled
)

// Missed says that there is no entry for the packet (any more).
func (o Outcome) Missed() bool { return o <= MissNoServer }

// String is the outcome's name in messages.
func (o Outcome) String() string {
	names := [...]string{"miss", "miss-reused", "miss-no-server", "hit", "no-server", "inserted", "full", "cut"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}
