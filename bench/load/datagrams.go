package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A datagram carries, in network order:
//
//	0 magic of this run    8 flow    12 number in the flow    20 content that follows from the two
//
// An answer is whatever ends with the whole of it: an echo server may put its name before.
const (
	MinSize    = 24
	headerSize = 20
)

// window is how many datagrams of a flow may be without an answer. A later one takes the place of the oldest, which is lost then.
const window = 1 << 10

// datagrams sends datagrams and checks what comes back.
type datagrams struct {
	g     *generator
	t     *tally
	magic uint64
	flows []*flow
}

// flow is one socket.
type flow struct {
	d    *datagrams
	id   uint32
	conn *net.UDPConn
	out  []byte // the sender's alone

	mu   sync.Mutex // guards what follows
	sent [window]sentDatagram
	next uint64 // number of the next
	top  uint64 // highest number that was answered, and one
}

// sentDatagram is one that may be answered.
type sentDatagram struct {
	due    time.Time
	n      uint64 // of all flows
	state  datagramState
	number uint64
}

type datagramState uint8

const (
	unsent datagramState = iota
	waiting
	answered
	failed
)

func newDatagrams(g *generator) (*datagrams, error) {
	d := &datagrams{g: g, t: newTally(Datagrams), magic: rand.Uint64()}
	lc := net.Dialer{Control: g.control}
	for i := range g.cfg.Flows {
		if a := g.from.at(uint64(i)); a.IsValid() {
			lc.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		}
		c, err := lc.Dial("udp", g.cfg.UDP.String())
		if err != nil {
			d.close()
			return nil, fmt.Errorf("socket %d of %d for datagrams: %w", i+1, g.cfg.Flows, err)
		}
		d.flows = append(d.flows, &flow{d: d, id: uint32(i), conn: c.(*net.UDPConn), out: make([]byte, g.cfg.Size)})
	}
	return d, nil
}

func (d *datagrams) tally() *tally { return d.t }

func (d *datagrams) close() {
	for _, f := range d.flows {
		f.conn.Close()
	}
}

func (d *datagrams) run(running, ctx context.Context) {
	var reading sync.WaitGroup
	for _, f := range d.flows {
		reading.Go(f.read)
	}
	d.g.pace(running, d.g.cfg.Datagrams, math.MaxUint64, func(n uint64, due time.Time) {
		d.t.begin(n, due)
		d.flows[n%uint64(len(d.flows))].send(n, due)
	})
	end := time.NewTimer(d.g.cfg.Timeout)
	defer end.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for left := true; left; {
		select {
		case <-ctx.Done():
			left = false
		case <-end.C:
			left = false
		case <-look.C:
			left = d.waiting()
		}
	}
	d.close()
	reading.Wait()
	if ctx.Err() != nil {
		return // what had no time to be answered isn't lost
	}
	for _, f := range d.flows {
		for i := range f.sent {
			if s := &f.sent[i]; s.state == waiting {
				d.t.fail(s.n, s.due, Lost)
			}
		}
	}
}

// waiting says that an answer may still come.
func (d *datagrams) waiting() bool {
	for _, f := range d.flows {
		f.mu.Lock()
		for i := range f.sent {
			if f.sent[i].state == waiting {
				f.mu.Unlock()
				return true
			}
		}
		f.mu.Unlock()
	}
	return false
}

// fill makes the payload of a datagram.
func (d *datagrams) fill(b []byte, flow uint32, number uint64) {
	binary.BigEndian.PutUint64(b, d.magic)
	binary.BigEndian.PutUint32(b[8:], flow)
	binary.BigEndian.PutUint64(b[12:], number)
	x := d.magic ^ uint64(flow)<<32 ^ number
	for i := headerSize; i < len(b); i++ {
		if (i-headerSize)%8 == 0 {
			x = x*0x9e3779b97f4a7c15 + 0xbf58476d1ce4e5b9
		}
		b[i] = byte(x >> ((i - headerSize) % 8 * 8))
	}
}

func (f *flow) send(n uint64, due time.Time) {
	f.mu.Lock()
	number := f.next
	f.next++
	s := &f.sent[number%window]
	old := *s
	*s = sentDatagram{due: due, n: n, state: waiting, number: number}
	f.mu.Unlock()
	if old.state == waiting {
		f.d.t.fail(old.n, old.due, Lost)
	}
	f.d.fill(f.out, f.id, number)
	if _, err := f.conn.Write(f.out); err != nil {
		f.mu.Lock()
		ours := s.number == number && s.state == waiting
		if ours {
			s.state = failed
		}
		f.mu.Unlock()
		if ours {
			f.d.t.fail(n, due, failure(err, true)) // also an ICMP error about an earlier one
		}
	}
}

// read takes answers until the socket is closed.
func (f *flow) read() {
	size := f.d.g.cfg.Size
	b, want := make([]byte, size+2048), make([]byte, size)
	for {
		n, err := f.conn.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // an ICMP error: the datagram will be missing
		}
		f.take(b[:n], want, time.Now())
	}
}

// take judges an answer.
func (f *flow) take(b, want []byte, now time.Time) {
	t := f.d.t
	if len(b) < len(want) {
		t.fail(uint64(f.id), now, Corrupt)
		return
	}
	b = b[len(b)-len(want):]
	number := binary.BigEndian.Uint64(b[12:])
	f.d.fill(want, f.id, number)
	if !bytes.Equal(b, want) {
		t.fail(uint64(f.id), now, Corrupt)
		return
	}
	f.mu.Lock()
	s := &f.sent[number%window]
	was := *s
	known := number < f.next && was.number == number && was.state != unsent
	reordered := number+1 < f.top
	f.top = max(f.top, number+1)
	if known && was.state == waiting {
		s.state = answered
	}
	f.mu.Unlock()
	var c counts
	if reordered {
		c.reordered = 1
	}
	if !known || was.state == answered { // or later than the window: it counted as lost
		c = counts{duplicates: 1}
	}
	if c != (counts{}) {
		t.count(uint64(f.id), c)
	}
	if known && was.state == waiting {
		t.succeed(was.n, was.due, now)
	}
}
