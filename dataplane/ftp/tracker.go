package ftp

import (
	"slices"
	"sync"
	"sync/atomic"

	"uvs/packet"
)

// Tracker holds the sessions of a director's control connections, by a number that each connection has. Only those that
// asked for a data connection have one. Its methods may be called by several goroutines.
type Tracker struct {
	used atomic.Bool // there is, or was, a session

	mu       sync.Mutex
	sessions map[uint64]*tracked
	waiting  map[waitingKey]uint64 // control connections of expected data connections whose client port isn't known
}

type tracked struct {
	Session
	data []uint64 // data connections
	// wait is where the latest of them is expected that the client opens.
	wait waitingKey
}

type waitingKey struct {
	client, virtual packet.Addr
	port            uint16 // of the virtual service
}

// NewTracker returns a Tracker without sessions.
func NewTracker() *Tracker {
	return &Tracker{sessions: make(map[uint64]*tracked), waiting: make(map[waitingKey]uint64)}
}

// FromClient deals with a segment from the client on control connection id: acknowledgements are brought to the server's
// numbers; of an established connection the commands are read. ok says that a data connection is to be expected: one
// that the server opens.
func (t *Tracker) FromClient(id uint64, c *Control, p *packet.Packet, v *packet.Vnet, established bool) (x Expectation, ok bool) {
	payload := p.Frame[p.Payload:]
	if !t.used.Load() && (len(payload) == 0 || !established) {
		return x, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s != nil {
		shiftAck(&s.replies, p, v)
	}
	if len(payload) == 0 || !established {
		return x, false
	}
	if s != nil {
		return s.Commands(payload, c)
	}
	var fresh Session
	if x, ok = fresh.Commands(payload, c); ok || fresh.mode != modeActive {
		t.used.Store(true)
		t.sessions[id] = &tracked{Session: fresh}
	}
	return x, ok
}

// FromServer deals with a segment from the server on control connection id: its sequence number is brought to the
// client's; of an established connection the replies are read.
func (t *Tracker) FromServer(id uint64, c *Control, p *packet.Packet, v *packet.Vnet, established bool) (r Reply, found Found) {
	if !t.used.Load() {
		return r, Nothing
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil {
		return r, Nothing
	}
	seq := p.TCP().Seq()
	shiftSeq(&s.replies, p, v)
	if payload := p.Frame[p.Payload:]; len(payload) > 0 {
		if r, found = s.Replies(payload, seq, c); found == Named && !established {
			return Reply{}, Nothing
		}
	}
	return r, found
}

// Expectation is the data connection that a reply names: the client opens it. It may be expected on another port of the
// virtual service too, if that is free.
func (r *Reply) Expectation(c *Control) Expectation {
	return Expectation{Client: c.Client, VirtualPort: r.Port, Server: r.Server, ServerPort: r.Port}
}

// Answer makes a reply that was Named name the virtual service's port on which the data connection is expected.
func (t *Tracker) Answer(id uint64, r *Reply, c *Control, port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[id]; s != nil {
		s.Answer(r, c.Virtual, port)
		t.unwaitLocked(id, s)
		s.wait = waitingKey{c.Client, c.Virtual, port}
		t.waiting[s.wait] = id
	}
}

// unwaitLocked forgets where id's latest data connection is expected.
func (t *Tracker) unwaitLocked(id uint64, s *tracked) {
	if t.waiting[s.wait] == id {
		delete(t.waiting, s.wait)
	}
}

// Opens notes that connection data belongs to control connection id: one that FromClient made be expected.
func (t *Tracker) Opens(id, data uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opensLocked(id, data)
}

func (t *Tracker) opensLocked(id, data uint64) {
	if s := t.sessions[id]; s != nil && !slices.Contains(s.data, data) {
		s.data = append(s.data, data)
	}
}

// Claimed notes that an expected connection whose client port was not known has come to be: connection data, from client
// to that port of virtual.
func (t *Tracker) Claimed(data uint64, client, virtual packet.Addr, port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := waitingKey{client, virtual, port}
	if id, ok := t.waiting[key]; ok {
		delete(t.waiting, key)
		t.opensLocked(id, data)
	}
}

// Sweep forgets connections that alive says are gone, and calls keep for control connections that have data connections:
// they stay as long as those, though nothing is said on them (in the kernel, ip_vs_conn.c, n_control). It is to be called
// every few seconds; neither function may call the Tracker.
func (t *Tracker) Sweep(alive func(id uint64) bool, keep func(id uint64)) {
	if !t.used.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, s := range t.sessions {
		if !alive(id) {
			t.unwaitLocked(id, s)
			delete(t.sessions, id)
			continue
		}
		if s.data = slices.DeleteFunc(s.data, func(data uint64) bool { return !alive(data) }); len(s.data) > 0 {
			keep(id)
		}
	}
	if len(t.sessions) == 0 {
		t.used.Store(false)
	}
}

// Sessions is the number of control connections that asked for a data connection.
func (t *Tracker) Sessions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions)
}
