package link

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// Tap is the near end of one queue of a TAP device: what is sent, the host's stack receives, and what the stack sends out
// by the device, Recv hands out. The device may be made later than its links. Until then nothing comes, and what is sent
// is refused.
//
// A read is one frame and so is a write: the driver takes no more at once. A write runs the host's stack on the writer's
// thread up to the socket.
type Tap struct {
	fd   atomic.Int32 // -1: no device yet
	gone atomic.Bool

	bufs [][]byte
	held int // buffers handed out, from the first
	iovs [2]unix.Iovec

	mu     sync.Mutex // guards closed against Attach
	closed bool
	count  counters
}

var _ Link = (*Tap)(nil)

// NewTap makes a link that has no device yet.
func NewTap() *Tap {
	t := new(Tap)
	t.fd.Store(-1)
	return t
}

// Attach gives the link its queue of a device: a non-blocking descriptor with virtio-net headers, which is the link's from
// then on. Any goroutine may call it, once; whoever polls the link has to look at FD again.
func (t *Tap) Attach(fd int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !t.fd.CompareAndSwap(-1, int32(fd)) {
		return errors.Join(fmt.Errorf("attach to a TAP device: %w", ErrClosed), unix.Close(fd))
	}
	return nil
}

// tapBatch is how many frames are read before the path is asked to do something with them.
const tapBatch = 64

// Recv implements Link.
func (t *Tap) Recv(frames []Frame) int {
	fd := int(t.fd.Load())
	if fd < 0 || t.gone.Load() {
		return 0
	}
	if t.bufs == nil {
		t.bufs = newBuffers(tapBatch)
	}
	n := 0
	for n < len(frames) && t.held < len(t.bufs) {
		buf := t.bufs[t.held]
		const start = frameOffset - packet.VnetLen
		got, err := unix.Read(fd, buf[start:])
		if err != nil || got < packet.VnetLen {
			if errno, ok := err.(unix.Errno); ok {
				t.note(errno)
			}
			break
		}
		frames[n] = Frame{Buf: buf[start : start+got], mem: buf, Truncated: start+got == len(buf)}
		t.held++
		n++
	}
	if n > 0 {
		t.count.received(frames[:n])
	}
	return n
}

// Release implements Link.
func (t *Tap) Release() { t.held = 0 }

// Send implements Link. The frame is gone when it returns.
func (t *Tap) Send(head, body []byte) {
	if len(head) <= packet.VnetLen {
		t.count.txError.Add(1)
		return
	}
	fd := int(t.fd.Load())
	if fd < 0 || t.gone.Load() {
		t.count.refused(unix.ENXIO, 1)
		return
	}
	iovs := t.iovs[:1]
	iovs[0].Base = &head[0]
	iovs[0].SetLen(len(head))
	if len(body) > 0 {
		iovs = t.iovs[:2]
		iovs[1].Base = &body[0]
		iovs[1].SetLen(len(body))
	}
	n, errno := writev(fd, iovs)
	clear(t.iovs[:])
	if errno != 0 {
		t.note(errno)
		t.count.refused(errno, 1)
		return
	}
	t.count.txFrames.Add(1)
	t.count.txBytes.Add(uint64(n - packet.VnetLen))
}

// note looks at what the driver said: EBADFD once the device has been deleted.
func (t *Tap) note(errno unix.Errno) {
	if errno == unix.EBADFD || errno == unix.ENODEV {
		t.gone.Store(true)
	}
}

// Flush implements Link: nothing is queued.
func (*Tap) Flush() {}

// FD implements Link: -1 until there is a device.
func (t *Tap) FD() int { return int(t.fd.Load()) }

// Err says that the device was deleted, by ErrGone.
func (t *Tap) Err() error {
	if t.gone.Load() {
		return fmt.Errorf("TAP device: %w", ErrGone)
	}
	return nil
}

// Stats implements Link.
func (t *Tap) Stats() Stats { return t.count.snapshot() }

// Close implements Link.
func (t *Tap) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.closed = true
	if fd := t.fd.Swap(-1); fd >= 0 {
		return unix.Close(int(fd))
	}
	return nil
}
