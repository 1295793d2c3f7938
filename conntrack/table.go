// Package conntrack is the connection table: which real server each connection goes to, in what state it is and how long
// it lives. It opens no socket, starts no goroutine, reads no clock and logs nothing: time is an argument, memory comes
// as bytes from outside.
package conntrack

import (
	"time"

	"uvs/packet"
	"uvs/service"
)

// Config is what a Table needs from outside.
type Config struct {
	// Servers resolves the real servers of entries. Required.
	Servers *service.ServerIndex
	// Alloc returns n zeroed bytes that stay where they are for the life of the table. It is never called with a lock of
	// a shard held. Default: the Go heap.
	Alloc func(n int) ([]byte, error)
	// MaxConns is the most entries, templates included. Default 64 million.
	MaxConns int
	// Shards is the number of connection shards, a power of two up to 1024. Default 256.
	Shards int
	// Key makes the hash unpredictable. Default: random.
	Key [4]uint64
}

// Table is the connection table. Its methods may be called by several workers at once. Every now is in nanoseconds on
// one clock that never jumps (CLOCK_BOOTTIME).
type Table struct{}

// New returns an empty table.
func New(c Config) (*Table, error) { return &Table{}, nil }

// In does everything for a packet from the client under one lock: it finds the entry of f (client to VIP), judges it
// (conn_reuse_mode, expire_nodest_conn), steps its state, re-arms its timer, counts the packet and fills c. tcpFlags is
// ignored for other protocols. Miss, MissReused, MissNoServer, Hit or NoServer.
func (t *Table) In(f *packet.Flow, tcpFlags uint8, now int64, c *Conn) Outcome { return Miss }

// Out does the same for a packet from a real server: f.Src is the server's address and port, f.Dst the client's. Only
// connections whose answers pass the director (NAT, Local) are found. Miss or Hit: a removed server's answers still
// belong to their connections.
func (t *Table) Out(f *packet.Flow, tcpFlags uint8, now int64, c *Conn) Outcome { return Miss }

// Find looks without touching state, timer or counters: for ICMP errors and for explain. dir says which tuple f is, as
// for In or Out; a packet quoted in an ICMP error is to be reversed first.
func (t *Table) Find(f *packet.Flow, dir Dir, now int64, c *Conn) bool { return false }

// NewConn is a connection to be made.
type NewConn struct {
	// Flow is the first packet's, from client to VIP.
	Flow packet.Flow
	// Server and ServerPort are where it goes, whatever RS says: the port may be the packet's own.
	Server     packet.Addr
	ServerPort uint16
	Method     service.Method
	// Flags may have OnePacket (and, from sync and FTP, others). The table sets NoOutput, Inactive and Template itself.
	Flags Flags
	// Service is the counters slot of the virtual service.
	Service uint32
	// Mark is the packet's firewall mark.
	Mark uint32
	// RS is the real server, nil for Bypass.
	RS *service.RealServer
	// Template is the template that it hangs on, or 0.
	Template ID
	// TCPFlags are the first packet's.
	TCPFlags uint8
	// Now is the time.
	Now int64
}

// Insert makes an entry for a new connection, counts it at its server as the kernel does (inactive, then by its first
// state) and accounts its first packet; n.Template's timer starts again. Inserted; Hit, if another worker was faster and
// c is its entry; or Full. With OnePacket nothing is stored: the server's counts and thresholds are moved and moved back,
// c is filled with ID 0, and the outcome is Inserted.
func (t *Table) Insert(n *NewConn, c *Conn) Outcome { return Full }

// TemplateKey names a persistence template.
type TemplateKey struct {
	// Proto is the service's, 0 for a fwmark service.
	Proto service.Proto
	// Client is the client's address under the service's mask.
	Client packet.Addr
	// Virtual is the VIP, or packet.AddrFrom4(mark) for a fwmark service; VirtualPort is 0 there, on port-zero services
	// and on FTP's.
	Virtual     packet.Addr
	VirtualPort uint16
}

// NewTemplate is a template to be made.
type NewTemplate struct {
	TemplateKey
	// Server and ServerPort are where its connections go; the port is 0 where VirtualPort is.
	Server     packet.Addr
	ServerPort uint16
	Method     service.Method
	Service    uint32
	RS         *service.RealServer
	// Timeout is the service's persistence timeout.
	Timeout time.Duration
	// Now is the time.
	Now int64
}

// FindTemplate fills c with the template of k: Hit. It is Miss if there is none, and MissNoServer if there was one whose
// server is gone, or quiesced with expire_quiescent_template=1: that one is put aside under port 65535 and left to time
// out. The template's timer doesn't start again here but when Insert puts a connection on it.
func (t *Table) FindTemplate(k *TemplateKey, now int64, c *Conn) Outcome { return Miss }

// InsertTemplate makes a template: Inserted; Hit, if another worker was faster and c is its template, with its server;
// or Full.
func (t *Table) InsertTemplate(n *NewTemplate, c *Conn) Outcome { return Full }

// Lookup fills c with the entry that id names, if it still lives.
func (t *Table) Lookup(id ID, now int64, c *Conn) bool { return false }

// Advance does about budget entries' worth of expiry. Workers call it once per batch or idle wake-up; it is cheap when
// nothing is due. It returns true if it stopped for its budget.
func (t *Table) Advance(now int64, budget int) (more bool) { return false }

// ExpireRemoved is to be called after a server was removed: with expire_nodest_conn=1, Advance then drops all entries
// whose server is gone, as the kernel does in the background. Otherwise it does nothing.
func (t *Table) ExpireRemoved() {}

// Walk calls yield for every entry, templates included, in no order, until it returns false. It copies a few at a time,
// so that workers wait no longer than for each other; an entry made or gone meanwhile may be missed.
func (t *Table) Walk(now int64, yield func(*Conn) bool) {}

// Settings returns the settings in force.
func (t *Table) Settings() Settings { return Settings{} }

// SetSettings changes the settings, from the next packet on.
func (t *Table) SetSettings(s Settings) {}

// Timeouts returns the timeouts in force.
func (t *Table) Timeouts() Timeouts { return Timeouts{} }

// SetTimeouts changes timeouts; 0 leaves one as it is. An entry follows at its next packet.
func (t *Table) SetTimeouts(tcp, tcpFin, udp time.Duration) {}

// Stats is a count of what is in the table and of what happened.
type Stats struct {
	// Conns and Templates are the entries now; States tells them apart by state.
	Conns, Templates int
	States           [NumStates]int
	// Memory is the number of bytes taken from Config.Alloc.
	Memory int
	// Inserts, Expirations and Refused count entries made, entries gone and Full answers.
	Inserts, Expirations, Refused uint64
	// LockWaits counts how often a worker found a shard locked.
	LockWaits uint64
}

// Stats sums the counts of all shards.
func (t *Table) Stats() Stats { return Stats{} }
