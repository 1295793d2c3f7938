package link

import (
	"sync"
	"syscall"

	"uvs/packet"
)

// Kernel verdicts on a destination MAC (linux/if_packet.h), for links without a kernel.
const (
	typeHost      = 0 // PACKET_HOST
	typeBroadcast = 1
	typeMulticast = 2
	typeOtherHost = 3
)

// memHeadroom is the free room in front of an in-memory link's frames: what a ring slot has.
const memHeadroom = 76

// memBatch is how many sent frames an in-memory link queues before it flushes by itself.
const memBatch = 64

// rubbish overwrites released frames, so that a test sees who still uses them.
const rubbish = 0xdb

// Mem is a Link without an interface, for tests and benchmarks: frames go in by Inject, what was sent comes out of
// Sent. It needs no privilege, starts no goroutine and has no descriptor. It checks its user: a frame's memory is
// overwritten on Release, and sent frames are read at Flush, not before.
//
// Inject, Sent and Stats may be called from any goroutine, the Link methods from one.
type Mem struct {
	cfg   MemConfig
	count counters

	held    []Frame     // handed out, to be overwritten on Release
	pending [][2][]byte // queued by Send
	replay  []Frame     // set for a link made by NewReplay: what every Recv hands out
	masters [][]byte    // the bytes that each has when handed out
	next    int

	mu    sync.Mutex // guards what follows
	queue []Frame
	sent  [][]byte
	peer  *Mem // receives what this one sends, if not nil
}

var _ Link = (*Mem)(nil)

// MemConfig shapes an in-memory link. The zero value has no limits.
type MemConfig struct {
	// MAC is the interface's address. If set, frames to another unicast address are of type PACKET_OTHERHOST.
	MAC [6]byte
	// MTU in bytes, Ethernet header not counted: longer frames that are no super-frames are refused as by the kernel
	// (one VLAN tag is free). 0 means any length.
	MTU int
	// Queue is how many frames wait to be received; more are dropped and counted in RxRingFull. 0 means any number.
	Queue int
	// Refuse, if set, is asked about each frame to be sent (virtio-net header first). Anything but 0 drops it, counted
	// as if sendmmsg had failed so.
	Refuse func(frame []byte) syscall.Errno
}

// NewMem makes an in-memory link.
func NewMem(cfg MemConfig) *Mem {
	return &Mem{cfg: cfg, pending: make([][2][]byte, 0, memBatch)}
}

// NewMemPair makes two links of which each receives what the other sends.
func NewMemPair(a, b MemConfig) (*Mem, *Mem) {
	x, y := NewMem(a), NewMem(b)
	x.peer, y.peer = y, x
	return x, y
}

// NewReplay makes a link for benchmarks: Recv hands out the given frames over and over, each time with its original
// bytes, and what is sent is counted and thrown away. Nothing is allocated after the call. Between two Releases it
// hands out each frame once.
func NewReplay(frames ...Frame) *Mem {
	m := NewMem(MemConfig{})
	for _, f := range frames {
		c := cloneFrame(f)
		m.replay = append(m.replay, c)
		m.masters = append(m.masters, append([]byte(nil), c.Buf...))
	}
	return m
}

// Inject makes Recv return a copy of an Ethernet frame with a virtio-net header of zeros.
func (m *Mem) Inject(eth []byte) { m.InjectVnet(packet.Vnet{}, eth) }

// InjectVnet makes Recv return a copy of a frame with the given virtio-net header.
func (m *Mem) InjectVnet(v packet.Vnet, eth []byte) {
	m.InjectFrame(Frame{Buf: append(v[:], eth...), Type: m.verdict(eth)})
}

// InjectFrame makes Recv return a copy of the frame, whose Buf begins with the virtio-net header, with all that is
// said beside it (VLAN tag, type, truncation).
func (m *Mem) InjectFrame(f Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.Queue > 0 && len(m.queue) >= m.cfg.Queue {
		m.count.rxRingFull.Add(1)
		return
	}
	m.queue = append(m.queue, cloneFrame(f))
}

// Sent returns the frames sent since the last call, oldest first, each with its virtio-net header. They are copies.
// A link of a pair has none: its peer receives them.
func (m *Mem) Sent() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := m.sent
	m.sent = nil
	return sent
}

// Recv implements Link.
func (m *Mem) Recv(frames []Frame) int {
	n := 0
	if m.replay != nil {
		for n < len(frames) && m.next < len(m.replay) {
			frames[n] = m.replay[m.next]
			copy(frames[n].Buf, m.masters[m.next])
			n++
			m.next++
		}
	} else {
		m.mu.Lock()
		n = copy(frames, m.queue)
		m.queue = m.queue[n:]
		m.mu.Unlock()
		m.held = append(m.held, frames[:n]...)
	}
	if n > 0 {
		m.count.received(frames[:n])
	}
	return n
}

// Release implements Link.
func (m *Mem) Release() {
	m.next = 0
	for _, f := range m.held {
		for i := range f.mem {
			f.mem[i] = rubbish
		}
	}
	clear(m.held)
	m.held = m.held[:0]
}

// Send implements Link.
func (m *Mem) Send(head, body []byte) {
	if len(head) <= packet.VnetLen {
		m.count.txError.Add(1)
		return
	}
	if len(m.pending) == memBatch {
		m.Flush()
	}
	m.pending = append(m.pending, [2][]byte{head, body})
}

// Flush implements Link.
func (m *Mem) Flush() {
	if len(m.pending) == 0 {
		return
	}
	var frames, bytes uint64
	for _, parts := range m.pending {
		if m.replay == nil && !m.transmit(parts[0], parts[1]) {
			continue
		}
		frames++
		bytes += uint64(len(parts[0]) + len(parts[1]) - packet.VnetLen)
	}
	m.count.txFrames.Add(frames)
	m.count.txBytes.Add(bytes)
	clear(m.pending)
	m.pending = m.pending[:0]
}

// transmit copies a frame out, to the peer if there is one, or counts why not.
func (m *Mem) transmit(head, body []byte) bool {
	frame := make([]byte, 0, len(head)+len(body))
	frame = append(append(frame, head...), body...)
	if m.cfg.Refuse != nil {
		if errno := m.cfg.Refuse(frame); errno != 0 {
			m.count.refused(errno, 1)
			return false
		}
	}
	v, eth := (*packet.Vnet)(frame), frame[packet.VnetLen:]
	switch {
	case len(eth) < 14:
		m.count.refused(syscall.EINVAL, 1)
		return false
	case m.cfg.MTU > 0 && v.GSOType() == packet.GSONone && len(eth) > m.cfg.MTU+14+tagged(eth):
		m.count.refused(syscall.EMSGSIZE, 1)
		return false
	}
	if m.peer != nil {
		m.peer.InjectFrame(Frame{Buf: frame, Type: m.peer.verdict(eth)})
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, frame)
	return true
}

// FD implements Link: there is nothing to poll.
func (m *Mem) FD() int { return -1 }

// Stats implements Link.
func (m *Mem) Stats() Stats { return m.count.snapshot() }

// Close implements Link.
func (m *Mem) Close() error { return nil }

// verdict is what a kernel would say of the frame's destination.
func (m *Mem) verdict(eth []byte) uint8 {
	if len(eth) < 6 {
		return typeHost
	}
	switch dst := [6]byte(eth); {
	case dst == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		return typeBroadcast
	case dst[0]&1 != 0:
		return typeMulticast
	case m.cfg.MAC != [6]byte{} && dst != m.cfg.MAC:
		return typeOtherHost
	}
	return typeHost
}

// tagged is the length of the VLAN tag in front of the EtherType, 0 if there is none.
func tagged(eth []byte) int {
	if eth[12] == 0x81 && eth[13] == 0 {
		return vlanTagLen
	}
	return 0
}

// cloneFrame copies a frame into memory of its own, with headroom.
func cloneFrame(f Frame) Frame {
	f.mem = make([]byte, memHeadroom+len(f.Buf))
	copy(f.mem[memHeadroom:], f.Buf)
	f.Buf = f.mem[memHeadroom:]
	return f
}
