package link

import (
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// sender queues frames and hands them to the kernel many at a time. Each takes up to two parts of memory, which
// the kernel copies during flush. Short ones in front of the first long one go through a ring, if there is one: beside each
// other in both they could overtake each other.
type sender struct {
	fd    int
	ring  *txRing // nil: none
	vnet  bool    // the socket takes virtio-net headers
	n     int     // frames queued
	msgs  []unix.Mmsghdr
	iovs  []unix.Iovec // two for each message
	count *counters
}

// newSender makes a sender that flushes by itself when batch frames are queued.
func newSender(batch int, count *counters) *sender {
	t := &sender{
		fd:    -1,
		msgs:  make([]unix.Mmsghdr, batch),
		iovs:  make([]unix.Iovec, 2*batch),
		count: count,
	}
	for i := range t.msgs {
		t.msgs[i].Hdr.Iov = &t.iovs[2*i]
	}
	return t
}

func (t *sender) send(head, body []byte) {
	if len(head) <= packet.VnetLen {
		t.count.txError.Add(1)
		return
	}
	if !t.vnet {
		if !t.plain(head, body) {
			return
		}
		head = head[packet.VnetLen:]
	}
	if t.ring != nil && t.n == 0 && t.ring.put(head, body) {
		return
	}
	if t.n == len(t.msgs) {
		t.flush()
	}
	hdr := &t.msgs[t.n].Hdr
	iov := t.iovs[2*t.n : 2*t.n+2]
	iov[0].Base = &head[0]
	iov[0].SetLen(len(head))
	hdr.SetIovlen(1)
	if len(body) > 0 {
		iov[1].Base = &body[0]
		iov[1].SetLen(len(body))
		hdr.SetIovlen(2)
	}
	t.n++
}

// plain prepares a frame for a socket without virtio-net headers, or counts and refuses what it cannot carry.
func (t *sender) plain(head, body []byte) bool {
	if (*packet.Vnet)(head).GSOType() != packet.GSONone {
		t.count.refused(unix.EMSGSIZE, 1)
		return false
	}
	if !finishChecksum(head, body) {
		t.count.refused(unix.EINVAL, 1)
		return false
	}
	return true
}

// flush sends what is queued. sendmmsg stops in front of a frame that the kernel refuses, and says why only when
// that frame is the first it is given: so it is called again from there, and the frame alone is dropped.
func (t *sender) flush() {
	if t.ring != nil {
		t.ring.flush()
	}
	if t.n == 0 {
		return
	}
	var frames, bytes uint64
	for i := 0; i < t.n; {
		sent, errno := sendmmsg(t.fd, t.msgs[i:t.n])
		switch errno {
		case 0:
			for _, m := range t.msgs[i : i+sent] {
				bytes += uint64(m.Len)
			}
			frames += uint64(sent)
			i += sent
		case unix.EINTR:
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EBADF:
			// The interface is down or gone: the rest would fail alike, at a system call each.
			t.count.refused(errno, t.n-i)
			i = t.n
		default:
			t.count.refused(errno, 1)
			i++
		}
	}
	if t.vnet {
		bytes -= frames * packet.VnetLen
	}
	t.count.txFrames.Add(frames)
	t.count.txBytes.Add(bytes)
	clear(t.iovs[:2*t.n]) // the memory behind them is the caller's again, and may be unmapped
	t.n = 0
}
