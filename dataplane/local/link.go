package local

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"uvs/dataplane/link"
	"uvs/packet"
)

// Loopback is the MAC address of frames that go to the host's loopback interface instead of the device: its own, zeros.
var Loopback packet.MAC

// Link is the near end of one queue of the device, and beside it a way to the loopback interface. That is for ::1, which the
// kernel takes from no other interface (RFC 4291 section 2.5.3). What the host answers comes by the device all the same.
type Link struct {
	*link.Tap
	queue    int
	loopback atomic.Pointer[link.Socket] // sends alone; nil until it is wanted

	mu     sync.Mutex // guards closed against attachLoopback
	closed bool
}

var _ link.Link = (*Link)(nil)

func newLink(queue int) *Link { return &Link{Tap: link.NewTap(), queue: queue} }

// attachLoopback opens the way to the loopback interface, unless there is one or nobody needs it any more.
func (l *Link) attachLoopback() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.loopback.Load() != nil {
		return nil
	}
	s, err := link.OpenTx(link.Config{Interface: "lo", Loopback: true})
	if err != nil {
		return fmt.Errorf("what goes to ::1 must be sent by the loopback interface: %w", err)
	}
	l.loopback.Store(s)
	return nil
}

// Send implements link.Link.
func (l *Link) Send(head, body []byte) {
	if s := l.loopback.Load(); s != nil && len(head) > packet.VnetLen+packet.EthLen &&
		(*packet.Eth)(head[packet.VnetLen:]).Dst() == Loopback {
		s.Send(head, body)
		return
	}
	l.Tap.Send(head, body)
}

// Flush implements link.Link.
func (l *Link) Flush() {
	if s := l.loopback.Load(); s != nil {
		s.Flush()
	}
}

// Stats implements link.Link: both ways together.
func (l *Link) Stats() link.Stats {
	all := l.Tap.Stats()
	if s := l.loopback.Load(); s != nil {
		all.Add(s.Stats())
	}
	return all
}

// Close implements link.Link.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	err := l.Tap.Close()
	if s := l.loopback.Load(); s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}
