package replay

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"uvs/conntrack"
	"uvs/packet"
	"uvs/service"
)

// packets takes a capture's packets through uvsd's connection table.
type packets struct {
	cfg     *Config
	capture *capture
	decoder decoder
	table   *conntrack.Table
	server  *service.RealServer // one for all: where a connection went in the recording doesn't matter
	events  []conntrack.Event
	first   int64 // time of the first packet
	now     int64 // nanoseconds since then; never goes back
	turned  int64
	follow  *follower
	stats   *Stats
	// Scratch.
	event event
	conn  conntrack.Conn
	fresh conntrack.NewConn
}

// turnEvery is how often the table's timers are looked at, in the time of the recording, and turnBudget how much one look does,
// so that its events fit where the table keeps them.
const (
	turnEvery  = int64(250 * time.Millisecond)
	turnBudget = 32
	mostTurns  = 20 * 60 * 4 // after a longer silence all connections have ended
)

// tracked is how many connections the table has for one that is followed: those that were let go stay there until they end.
const tracked = 4

func newPackets(cfg *Config, c *capture, f *follower) (*packets, error) {
	index := new(service.ServerIndex)
	table, err := conntrack.New(conntrack.Config{Servers: index, Shards: 1, MaxConns: tracked * cfg.Flows, Key: [4]uint64{1, 2, 3, 4}})
	if err != nil {
		return nil, err
	}
	table.SetTimeouts(cfg.TCPTimeout, cfg.FINTimeout, cfg.UDPTimeout)
	rs := service.NewRealServer(service.Key{}, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), service.Masq, 1)
	if err := index.Add(rs); err != nil {
		return nil, err
	}
	table.Watch()
	return &packets{cfg: cfg, capture: c, table: table, server: rs, follow: f, stats: f.stats, first: -1}, nil
}

// run reads the capture to its end.
func (p *packets) run(ctx context.Context) error {
	var r record
	defer func() {
		p.stats.Lasted = time.Duration(p.now)
		p.stats.Corrupt, p.stats.CorruptAt, p.stats.CorruptBytes, p.stats.Cut = p.capture.corrupt, p.capture.firstCorrupt, p.capture.lost, p.capture.cut
	}()
	for n := uint64(0); ; n++ {
		if n%4096 == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.cfg.progress()
		}
		switch err := p.capture.next(&r); {
		case errors.Is(err, io.EOF):
			return p.drain()
		case err != nil:
			return err
		}
		p.stats.Packets++
		if err := p.packet(&r); err != nil {
			return err
		}
	}
}

func (p *packets) packet(r *record) error {
	if why := p.decoder.decode(r); why != kept {
		p.stats.Skipped[why]++
		return nil
	}
	if err := p.tick(r.at); err != nil {
		return err
	}
	pkt := &p.decoder.pkt
	event, now := pkt.Event(), base+p.now
	if p.table.In(&pkt.Flow, event, now, &p.conn) == conntrack.Hit || p.table.Out(&pkt.Flow, event, now, &p.conn) == conntrack.Hit {
		return p.drain()
	}
	switch {
	case !p.cfg.serves(&pkt.Flow):
		p.stats.Elsewhere++
	case pkt.Proto == packet.ProtoTCP && pkt.TCPFlags&(packet.TCPSyn|packet.TCPAck|packet.TCPRst) != packet.TCPSyn,
		pkt.Proto == packet.ProtoSCTP && packet.SCTPFirst(pkt.L4Bytes()) != packet.SCTPInit:
		if p.stats.Shift == 0 { // else it may be of a client whose connections aren't offered
			p.stats.Midway++
		}
	case !p.follow.sampled(pkt.Src):
		p.stats.Thinned++
	default:
		return p.open(pkt, event, now)
	}
	return p.drain()
}

func (p *packets) open(pkt *packet.Packet, said uint8, now int64) error {
	p.fresh = conntrack.NewConn{
		Flow: pkt.Flow, Server: pkt.Dst, ServerPort: pkt.DstPort, Method: service.Masq, RS: p.server, Event: said, Flags: conntrack.Watched, Now: now,
	}
	if p.table.Insert(&p.fresh, &p.conn) == conntrack.Full {
		p.follow.full(p.now)
	}
	return p.drain()
}

// tick brings the time on: connections end whose time is up.
func (p *packets) tick(at int64) error {
	if p.first < 0 {
		p.first = at
	}
	if at -= p.first; at < p.now {
		if at < p.now-int64(time.Second) {
			p.stats.Backward++
		}
		return nil
	}
	if p.turned = max(p.turned, at-mostTurns*turnEvery); at-p.turned < turnEvery {
		p.now = at
		return nil
	}
	for p.turned+turnEvery <= at {
		p.turned += turnEvery
		p.now = p.turned
		for more := true; more; {
			more = p.table.Advance(base+p.now, turnBudget)
			if err := p.drain(); err != nil {
				return err
			}
		}
	}
	p.now = at
	return nil
}

// drain hands on what happened.
func (p *packets) drain() error {
	p.events = p.table.Events(p.events[:0])
	for i := range p.events {
		e := &p.events[i]
		p.event = event{kind: e.Kind, id: uint64(e.ID), at: p.now, flow: e.Flow}
		if err := p.follow.take(&p.event); err != nil {
			return err
		}
	}
	return nil
}
