package link

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A super-frame that a virtio-net header cannot describe (SCTP, UFO from a virtual machine, UDP before Linux 6.2)
// blocks a TPACKET_V2 ring for ever: the kernel marks the slot as being filled, finds that it cannot fill it, drops
// the frame and leaves the mark. Every later frame is dropped as well, and poll(2) stays silent. Whoever can send
// such a frame could so cut the director off. The only sign is that drops are counted while the ring is empty.
const (
	// stuckInterval is how often an empty ring is looked at. Two looks find a blocked ring.
	stuckInterval = 50 * time.Millisecond
	// After the third restart in stuckPatience such frames are taken for usual, and the simple link, which loses
	// nothing but them, takes over.
	stuckPatience = time.Minute
)

// stuckWatch is what the last look at an empty ring saw.
type stuckWatch struct {
	last          time.Time // zero before the first look
	frames, drops uint64    // counts at that time
	restarts      [2]time.Time
}

// watch finds out whether an empty ring is blocked, and sets it up anew if so.
func (r *ring) watch() {
	now := time.Now()
	w := &r.stuck
	if now.Sub(w.last) < stuckInterval {
		return
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.countDrops()
	frames, drops := r.s.count.rxFrames.Load(), r.s.count.rxRingFull.Load()
	// Nothing came in between two looks, yet something was lost; and the ring did not fill up just now.
	stuck := !w.last.IsZero() && frames == w.frames && drops > w.drops &&
		r.status(r.next*r.slotSize)&unix.TP_STATUS_USER == 0
	w.last, w.frames, w.drops = now, frames, drops
	if stuck {
		r.restart(now)
	}
}

// restart makes a new ring on the same socket, so that descriptor, filter, fanout and memberships stay. Nothing is
// handed out at this time. Needs the Socket's mu.
func (r *ring) restart(now time.Time) {
	r.s.count.rxError.Add(1)
	r.s.count.rxRestarts.Add(1)
	seen := &r.stuck.restarts
	often := !seen[0].IsZero() && now.Sub(seen[0]) < stuckPatience
	seen[0], seen[1] = seen[1], now
	err := r.close()
	if err == nil {
		err = unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{})
	}
	if err == nil && !often {
		if err = r.mapSlots(); err == nil {
			return
		}
	}
	reason := "super-frames that the kernel cannot describe keep blocking it"
	if err != nil {
		reason = fmt.Sprintf("blocked by a super-frame that the kernel cannot describe, and not to be had again: %v", err)
	}
	simple, err := newSimple(r.s, len(r.spare))
	if err != nil {
		r.s.info.Reason = fmt.Sprintf("ring given up: %s; nor is there another way: %v", reason, err)
		return
	}
	r.s.rx = simple
	info := &r.s.info
	info.Kind, info.Slots, info.SlotSize, info.Reason = KindSimple, 0, 0, "ring given up: "+reason
}
