// Package link moves Ethernet frames between an interface and the packet path: in from a receive ring (or
// recvmmsg), out by a transmit ring, or by sendmmsg from the very bytes that came in. Frames travel with their
// virtio-net header, so that super-frames (GSO) and partial checksums pass through unharmed.
//
// A Link belongs to one worker's thread. None of its methods may be called from elsewhere, but for Stats.
package link

import (
	"errors"

	"uvs/packet"
)

// Frame is one received Ethernet frame with its virtio-net header in front:
//
//	Buf[0:10]   virtio-net header (packet.Vnet), all zero when the link has none to give
//	Buf[10:]    Ethernet header and payload, VLAN tag stripped, no FCS
//
// Buf lies in the link's own memory (a ring slot, a receive buffer). It may be rewritten in place and handed to
// Send of any link of the same worker; it is valid until Release of the link it came from.
type Frame struct {
	Buf []byte
	// VLAN is the 802.1Q tag control information (priority, DEI, VID) that the receiving interface stripped;
	// meaningful if Tagged.
	VLAN uint16
	// TPID is the tag's protocol (0x8100 or 0x88a8), meaningful if Tagged.
	TPID uint16
	// Tagged says that the frame carried a VLAN tag.
	Tagged bool
	// Truncated says that bytes are missing from the end: the frame must be dropped.
	Truncated bool
	// Type is the kernel's verdict on the destination MAC: a unix.PACKET_* value (HOST, BROADCAST, MULTICAST,
	// OTHERHOST).
	Type uint8
	// mem is the free room in front of Buf and Buf itself; both end at the same byte of memory.
	mem []byte
}

// Vnet is the frame's virtio-net header.
func (f *Frame) Vnet() *packet.Vnet { return (*packet.Vnet)(f.Buf) }

// Eth is the Ethernet frame without the virtio-net header.
func (f *Frame) Eth() []byte { return f.Buf[packet.VnetLen:] }

// Headroom is how many free bytes lie directly in front of Buf, for Prepend. Socket links give at least 64.
func (f *Frame) Headroom() int {
	// Both slices end at the same byte, so the difference survives cutting Buf at either side.
	return max(0, cap(f.mem)-cap(f.Buf))
}

// Prepend makes Buf begin n bytes earlier, in the link's own memory, so that a tag or an outer header needs no
// second buffer. The new bytes hold rubbish and the virtio-net header stays where it was: moving it to the front is
// the caller's business. It returns false and changes nothing when the room does not suffice.
func (f *Frame) Prepend(n int) bool {
	room := f.Headroom()
	if n <= 0 || n > room {
		return n == 0
	}
	f.Buf = f.mem[room-n : room+len(f.Buf)]
	return true
}

// Link is one interface as one worker sees it.
type Link interface {
	// Recv fills frames with what has arrived, without blocking, and returns how many. The frames stay valid
	// until Release.
	Recv(frames []Frame) int
	// Release gives every frame handed out by Recv back to the link. Frames sent from them must have been
	// flushed before, on all links.
	Release()
	// Send queues a frame for transmission: head followed by body, in one frame on the wire. The first ten bytes
	// of head are the virtio-net header; body may be nil. Neither may change until Flush. A full queue is flushed
	// by Send itself. What cannot be sent is a counted drop, never an error.
	Send(head, body []byte)
	// Flush transmits everything queued. A frame refused by the kernel costs that frame alone.
	Flush()
	// FD is the descriptor to poll for input, or -1 when there is none (in-memory link, transmit-only link).
	FD() int
	// Stats returns the link's counters since it was opened. It may be called from any goroutine.
	Stats() Stats
	// Close gives back sockets and memory.
	Close() error
}

// Stats are a link's counters since it was opened.
type Stats struct {
	RxFrames    uint64 // frames handed out by Recv
	RxBytes     uint64 // their bytes, virtio-net header not counted
	RxTruncated uint64 // frames handed out with Truncated set
	RxRingFull  uint64 // frames the kernel dropped because the ring or buffer was full (PACKET_STATISTICS)
	RxError     uint64 // frames the kernel could not describe in a virtio-net header (SCTP super-frames, for one)
	RxRestarts  uint64 // times such a frame had blocked the ring for good, so that it was set up anew
	TxFrames    uint64 // frames the kernel took
	TxBytes     uint64 // their bytes, virtio-net header not counted
	TxNoBuffer  uint64 // frames dropped on ENOBUFS or EAGAIN: the way out is full
	TxTooLong   uint64 // frames dropped on EMSGSIZE
	TxError     uint64 // frames dropped on any other error
}

// ErrClosed is returned by operations on a closed link.
var ErrClosed = errors.New("link is closed")

// Add adds d to s.
func (s *Stats) Add(d Stats) {
	s.RxFrames += d.RxFrames
	s.RxBytes += d.RxBytes
	s.RxTruncated += d.RxTruncated
	s.RxRingFull += d.RxRingFull
	s.RxError += d.RxError
	s.RxRestarts += d.RxRestarts
	s.TxFrames += d.TxFrames
	s.TxBytes += d.TxBytes
	s.TxNoBuffer += d.TxNoBuffer
	s.TxTooLong += d.TxTooLong
	s.TxError += d.TxError
}
