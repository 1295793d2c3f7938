package link

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Poller lets a worker sleep until one of its links has input or another goroutine wakes it. All methods but Wake
// belong to the worker's thread. None allocates, NewPoller and errors apart.
//
// Release what Recv has handed out on every link before Wait: a ring whose frames are held makes Wait return at
// once, for ever.
type Poller struct {
	links []Link
	// sockets are those of the links that want tending, nil for others.
	sockets []*Socket
	fds     []unix.PollFd // one for each link, then the wake-up's
	errs    []error       // what the last Wait found wrong with each link
	ts      unix.Timespec
	buf     [8]byte
	woken   bool

	pending atomic.Bool // a Wake that Wait has not taken
	mu      sync.Mutex  // guards closing wake against a Wake under way
	wake    int         // eventfd, -1 when closed
}

// NewPoller makes a poller for links, which are named by their position from then on.
func NewPoller(links ...Link) (*Poller, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd for wake-ups: %w", err)
	}
	p := &Poller{
		links:   links,
		sockets: make([]*Socket, len(links)),
		fds:     make([]unix.PollFd, len(links)+1),
		errs:    make([]error, len(links)),
		wake:    wake,
	}
	for i, l := range links {
		p.fds[i] = unix.PollFd{Fd: int32(l.FD()), Events: unix.POLLIN} // the kernel passes over -1
		p.sockets[i], _ = l.(*Socket)
	}
	p.fds[len(links)] = unix.PollFd{Fd: int32(wake), Events: unix.POLLIN}
	return p, nil
}

// Replace puts another link in the place of link i, which may be closed already.
func (p *Poller) Replace(i int, l Link) {
	p.links[i], p.errs[i] = l, nil
	p.sockets[i], _ = l.(*Socket)
	p.fds[i] = unix.PollFd{Fd: int32(l.FD()), Events: unix.POLLIN}
}

// tendInterval is how often a sleeping poller looks after rings: a blocked one would not wake it.
const tendInterval = 100 * time.Millisecond

// Wait sleeps until a link is readable or broken, Wake is called, or timeout has passed (negative: no limit; zero:
// only look). It returns the number of links for which Readable or Err has something to say; zero also when a signal
// arrived. It takes the pending error of a broken link, so that one that is down does not make it spin.
func (p *Poller) Wait(timeout time.Duration) int {
	for {
		step := timeout
		if step < 0 || step > tendInterval {
			step = tendInterval
		}
		n, interrupted := p.poll(step)
		for i, s := range p.sockets {
			if s != nil && p.fds[i].Revents == 0 {
				s.tend()
			}
		}
		if n > 0 || p.woken || interrupted || step == timeout {
			return n
		}
		if timeout > 0 {
			timeout -= step
		}
	}
}

// poll is one system call and what it found.
func (p *Poller) poll(timeout time.Duration) (n int, interrupted bool) {
	clear(p.errs)
	p.woken = false
	p.ts = unix.NsecToTimespec(int64(timeout))
	n, err := unix.Ppoll(p.fds, &p.ts, nil)
	if err != nil || n <= 0 {
		for i := range p.fds {
			p.fds[i].Revents = 0
		}
		return 0, err != nil
	}
	last := len(p.links)
	if p.fds[last].Revents != 0 {
		n--
		unix.Read(p.wake, p.buf[:])
		p.pending.Store(false) // what was published before Wake is seen by whoever looks after Wait
		p.woken = true
	}
	for i := range p.links {
		if p.fds[i].Revents&^unix.POLLIN != 0 {
			p.takeError(i)
		}
	}
	return n, false
}

// takeError asks a link what is wrong with it, which takes the error off its socket.
func (p *Poller) takeError(i int) {
	if p.fds[i].Revents&unix.POLLNVAL != 0 {
		p.fds[i].Fd = -1 // closed; polling it again would only say so again
		p.errs[i] = ErrClosed
		return
	}
	if l, ok := p.links[i].(interface{ Err() error }); ok {
		p.errs[i] = l.Err()
	}
}

// Readable says that the last Wait found input on link i.
func (p *Poller) Readable(i int) bool { return p.fds[i].Revents&unix.POLLIN != 0 }

// Err is what the last Wait found wrong with link i: it wraps ErrDown, ErrGone or ErrClosed. Each change is reported
// once.
func (p *Poller) Err(i int) error { return p.errs[i] }

// Woken says that Wake ended the last Wait.
func (p *Poller) Woken() bool { return p.woken }

// Wake ends the Wait under way, or else the next. Any goroutine may call it; calls between two Waits cost one system
// call together.
func (p *Poller) Wake() {
	if p.pending.Swap(true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(p.wake, one[:])
}

// Close gives the poller's descriptor back. The links stay open.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake < 0 {
		return ErrClosed
	}
	fd := p.wake
	p.wake, p.fds[len(p.links)].Fd = -1, -1
	return unix.Close(fd)
}
