// Package conntrack is the connection table: which real server each connection goes to, in what state it is and how long
// it lives. It opens no socket, starts no goroutine, reads no clock and logs nothing: time is an argument, memory comes
// as bytes from outside.
//
// Entries lie in slabs of slots without pointers, so that ten million of them cost the garbage collector nothing. They
// are spread over shards, each family's over its own, by a keyed hash of protocol, client address and client port; both directions of a connection,
// ICMP errors about it and its first packet all meet in one shard, under one lock, which is held for a lookup and a step
// of the state and never across a system call. Persistence templates have shards of their own; a connection's lock may
// be held when a template's is taken, never the other way round.
package conntrack

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"uvs/packet"
	"uvs/service"
)

// Config is what a Table needs from outside.
type Config struct {
	// Servers resolves the real servers of entries. Required.
	Servers *service.ServerIndex
	// Alloc returns n zeroed bytes that stay where they are for the life of the table; n is 1 MiB. It is called with no
	// lock of a shard held, and may be called by two workers at once. Default: the Go heap.
	Alloc func(n int) ([]byte, error)
	// MaxConns is the most entries, templates included. Default 64 million.
	MaxConns int
	// Shards is the number of connection shards of each family, a power of two up to 1024. Default 256.
	Shards int
	// Key makes the hash unpredictable. Default: random.
	Key [4]uint64
}

const (
	defaultMaxConns = 64 << 20
	defaultShards   = 256
)

// Table is the connection table. Its methods may be called by several workers at once. Every now is in nanoseconds on
// one clock that never jumps (CLOCK_BOOTTIME).
type Table struct {
	servers       *service.ServerIndex
	hash          hashKey
	maxEntries    int64
	connShift     int // a client hash shifted right by it is the number of the connection shard
	templateShift int
	conns         []shard // those for IPv4, then as many for IPv6
	templates     []shard // likewise

	prefetchFrom int64

	rules   atomic.Pointer[rules]
	rulesMu sync.Mutex // serialises changes of rules

	pool    pool
	_       [64]byte // what follows is written by workers
	entries atomic.Int64
	// expected counts the entries with NoCPort.
	expected atomic.Int64
	refused  atomic.Uint64
	sweeper  sweeper
	defence  defence
	watch    watch
}

// New returns an empty table.
func New(c Config) (*Table, error) {
	if c.Servers == nil {
		return nil, errors.New("conntrack: Config.Servers is missing")
	}
	if c.Shards == 0 {
		c.Shards = defaultShards
	}
	if c.Shards < 1 || c.Shards > 1<<shardBits/2 || c.Shards&(c.Shards-1) != 0 {
		return nil, fmt.Errorf("conntrack: %d shards: not a power of two up to %d", c.Shards, 1<<shardBits/2)
	}
	if c.MaxConns <= 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.Key == [4]uint64{} {
		c.Key = randomKey()
	}
	if c.Alloc == nil {
		c.Alloc = func(n int) ([]byte, error) { return make([]byte, n), nil }
	}
	templates := min(c.Shards, 1<<templateBits/2)
	t := &Table{
		servers:       c.Servers,
		hash:          c.Key,
		maxEntries:    int64(c.MaxConns),
		prefetchFrom:  prefetchFrom,
		connShift:     64 - bits.TrailingZeros(uint(c.Shards)),
		templateShift: 64 - bits.TrailingZeros(uint(templates)),
		conns:         make([]shard, 2*c.Shards),
		templates:     make([]shard, 2*templates),
	}
	for _, shards := range [...][]shard{t.conns, t.templates} {
		for i := range shards {
			s := &shards[i]
			s.id, s.stride, s.servers, s.watch = uint32(i), 1, c.Servers, &t.watch
			if i >= len(shards)/2 {
				s.stride = 2
			}
		}
	}
	t.pool.alloc = c.Alloc
	t.rules.Store(newRules(DefaultSettings(), DefaultTimeouts()))
	for _, k := range [...]memoryKind{entryMemory, indexMemory} {
		if err := t.pool.chunk(k); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// server returns the real server of e, or nil for none.
func (t *Table) server(e *entry) *service.RealServer { return t.servers.At(e.rs()) }

// fill copies e, which lives in slot of s, into c.
func (s *shard) fill(c *Conn, slot uint32, e *entry, dir Dir, now int64) {
	id := connID(e.gen(), s.id, slot)
	if e.flags()&Template != 0 {
		id = templateID(s.id<<slotBits|slot, uint16(e.gen()))
	}
	if s.stride == 1 && e.life()&lifeForeign == 0 {
		c.Client, c.Virtual, c.Server = packet.AddrFrom4(e.client4()), packet.AddrFrom4(e.virtual4()), packet.AddrFrom4(e.server4())
	} else {
		c.Client, c.Virtual, c.Server = s.tuple(slot, e)
	}
	e.fill(c, id, dir, now)
}
