package link

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Socket is a Link over AF_PACKET sockets: one that receives and one that sends. The Link methods belong to the
// worker's thread; all others may be called from any goroutine.
type Socket struct {
	rx    receiver // nil when the link only sends
	tx    *sender
	count counters

	mu     sync.Mutex // guards what follows, and keeps descriptors open while other goroutines use them
	closed bool
	rxFD   int // -1 when the link only sends
	txFD   int
	info   Info
	// hideOwn says that the filter has to drop our own transmissions, which the socket would receive.
	hideOwn bool
	stats   unix.TpacketStats // where the kernel writes them
}

var _ Link = (*Socket)(nil)

// receiver takes frames from a socket: the ring or the simple way.
type receiver interface {
	// recv is Link.Recv.
	recv(frames []Frame) int
	// release is Link.Release.
	release()
	// tend looks after a receiver that seems to have nothing.
	tend()
	// close gives back memory; the descriptor is the Socket's.
	close() error
}

// Recv implements Link.
func (s *Socket) Recv(frames []Frame) int {
	if s.rx == nil {
		return 0
	}
	n := s.rx.recv(frames)
	if n > 0 {
		s.count.received(frames[:n])
	}
	return n
}

// Release implements Link.
func (s *Socket) Release() {
	if s.rx != nil {
		s.rx.release()
	}
}

// tend finds out whether a silent link is blocked. Poller calls it now and then: such a link does not wake anybody.
func (s *Socket) tend() {
	if s.rx != nil {
		s.rx.tend()
	}
}

// Send implements Link.
func (s *Socket) Send(head, body []byte) { s.tx.send(head, body) }

// Flush implements Link.
func (s *Socket) Flush() { s.tx.flush() }

// FD implements Link.
func (s *Socket) FD() int { return s.rxFD }

// Stats implements Link.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countDrops()
	return s.count.snapshot()
}

// countDrops adds the kernel's count of lost frames, which reading it sets back to zero. Needs mu.
func (s *Socket) countDrops() {
	if s.closed || s.rxFD < 0 {
		return
	}
	if readStatistics(s.rxFD, &s.stats) == 0 && s.stats.Drops > 0 {
		s.count.rxRingFull.Add(uint64(s.stats.Drops))
	}
}

// Close implements Link. Frames not yet released are lost with the memory they lie in.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.countDrops()
	s.closed = true
	var first error
	if s.rx != nil {
		first = s.rx.close()
	}
	if s.tx.ring != nil {
		first = errors.Join(first, s.tx.ring.close())
	}
	for _, fd := range []int{s.rxFD, s.txFD} {
		if fd < 0 {
			continue
		}
		if err := unix.Close(fd); err != nil && first == nil {
			first = fmt.Errorf("close link on %s: %w", s.info.Name, err)
		}
	}
	s.rx, s.rxFD, s.txFD, s.tx.fd, s.tx.ring = nil, -1, -1, -1, nil
	return first
}

// Info says what the link turned out to be. Kind, Slots, SlotSize and Reason can change while it runs, and MAC when Err
// finds that the interface has got another.
func (s *Socket) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// HasVnet says that frames carry real virtio-net headers. Where it is false, offloads must be off at both ends.
func (s *Socket) HasVnet() bool { return s.Info().Vnet }

// Err says whether the link can carry frames just now: nil, ErrDown or ErrNoCarrier (it resumes by itself when the
// interface comes up again or its cable is plugged in), ErrGone or ErrClosed. It takes the socket's pending error, which makes poll(2) return at once for as
// long as it waits; Poller calls it for that reason.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("link on %s: %w", s.info.Name, ErrClosed)
	}
	fd := s.rxFD
	if fd < 0 {
		fd = s.txFD
	}
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("link on %s: read the socket's error: %w", s.info.Name, err)
	}
	if unix.Errno(pending) == unix.EINVAL {
		s.count.rxError.Add(1) // left behind by recvmmsg, see simple.recv
	}
	return s.interfaceErr(fd)
}

// interfaceErr asks after the interface itself. Needs mu.
func (s *Socket) interfaceErr(fd int) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("link on %s: %w", s.info.Name, err)
	}
	// The kernel sets the bound index to -1 when the interface leaves the namespace.
	ll, ok := sa.(*unix.SockaddrLinklayer)
	if !ok || ll.Ifindex != s.info.Index {
		return fmt.Errorf("link on %s: %w", s.info.Name, ErrGone)
	}
	copy(s.info.MAC[:], ll.Addr[:]) // the interface's of now
	flags, err := interfaceFlags(fd, s.info.Index)
	switch {
	case err == unix.ENODEV:
		return fmt.Errorf("link on %s: %w", s.info.Name, ErrGone)
	case err != nil:
		return fmt.Errorf("link on %s: read interface flags: %w", s.info.Name, err)
	case flags&unix.IFF_UP == 0:
		return fmt.Errorf("link on %s: %w", s.info.Name, ErrDown)
	case flags&unix.IFF_RUNNING == 0:
		return fmt.Errorf("link on %s: %w", s.info.Name, ErrNoCarrier)
	}
	return nil
}

// JoinUnicast asks for frames to a further MAC address (PACKET_MR_UNICAST), until the link is closed. That the
// kernel agrees does not mean that such frames come: a macvlan port of mode bridge never gets any.
func (s *Socket) JoinUnicast(mac [6]byte) error {
	return s.membership(unix.PACKET_ADD_MEMBERSHIP, unix.PACKET_MR_UNICAST, mac)
}

// LeaveUnicast ends a JoinUnicast.
func (s *Socket) LeaveUnicast(mac [6]byte) error {
	return s.membership(unix.PACKET_DROP_MEMBERSHIP, unix.PACKET_MR_UNICAST, mac)
}

// JoinMulticast asks for frames to a group MAC address, until the link is closed. It sends no IGMP or MLD.
func (s *Socket) JoinMulticast(mac [6]byte) error {
	return s.membership(unix.PACKET_ADD_MEMBERSHIP, unix.PACKET_MR_MULTICAST, mac)
}

// LeaveMulticast ends a JoinMulticast.
func (s *Socket) LeaveMulticast(mac [6]byte) error {
	return s.membership(unix.PACKET_DROP_MEMBERSHIP, unix.PACKET_MR_MULTICAST, mac)
}

// Promiscuous asks for every frame on the segment, until the link is closed.
func (s *Socket) Promiscuous() error {
	return s.membership(unix.PACKET_ADD_MEMBERSHIP, unix.PACKET_MR_PROMISC, [6]byte{})
}

func (s *Socket) membership(option int, kind uint16, mac [6]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	fd := s.rxFD
	if fd < 0 {
		fd = s.txFD
	}
	mreq := unix.PacketMreq{Ifindex: int32(s.info.Index), Type: kind}
	if kind != unix.PACKET_MR_PROMISC {
		mreq.Alen = uint16(copy(mreq.Address[:], mac[:]))
	}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, option, &mreq); err != nil {
		return fmt.Errorf("membership of %x on %s: %w", mac, s.info.Name, err)
	}
	return nil
}

// SetFilter makes the link receive only frames for which the classic BPF program returns non-zero, or all frames if
// it is empty. Offset 0 is the Ethernet header. Frames already received are not affected.
func (s *Socket) SetFilter(program []unix.SockFilter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.rxFD < 0:
		return fmt.Errorf("filter on %s: the link only sends", s.info.Name)
	}
	return s.setFilter(program)
}

// setFilter needs mu or a Socket not yet published.
func (s *Socket) setFilter(program []unix.SockFilter) error {
	if s.hideOwn {
		program = dropOwn(program)
	}
	if err := attachFilter(s.rxFD, program); err != nil {
		return fmt.Errorf("attach filter on %s: %w", s.info.Name, err)
	}
	return nil
}
