package link

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

const (
	// txSlotSize is the bytes of a slot of the transmit ring.
	txSlotSize = 2048
	// txDataOffset is where the kernel looks for a slot's frame: behind its header, aligned to 16.
	txDataOffset = 32
	// txSlotRoom is the longest frame that a slot takes, virtio-net header included.
	txSlotRoom = txSlotSize - txDataOffset
)

// txRing sends frames of usual length through a TPACKET_V2 transmit ring: copied into its slots, they are all taken by one
// system call. sendmmsg takes a frame from where it lies, but a message costs the kernel more than such a frame's copy costs us.
//
// A slot is the kernel's from the system call until the interface has sent the frame. The ring has a socket of its own: on
// one that has a ring, every send call is about the ring.
type txRing struct {
	fd    int
	mem   []byte
	slots int
	limit int // bytes of the longest frame that goes this way, virtio-net header included
	next  int // the slot that is filled next
	count *counters

	queued  int    // frames in the slots before it that the kernel hasn't been told of
	dropped int    // frames given up that it may not have passed over yet
	bytes   uint64 // theirs, virtio-net headers not counted
}

// openTxRing makes the ring for an interface.
func openTxRing(cfg Config, info Info, count *counters) (_ *txRing, err error) {
	// With a virtio-net header no frame is too long for the kernel here, unlike in sendmmsg.
	r := &txRing{count: count, slots: 4 * cfg.Batch, limit: min(txSlotRoom, packet.VnetLen+packet.EthLen+info.MTU)}
	if r.fd, err = packetSocket(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	grow(r.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer)
	bypass := 0
	if cfg.QdiscBypass {
		bypass = 1
	}
	for _, opt := range []struct {
		name          string
		option, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
		{"PACKET_LOSS", unix.PACKET_LOSS, 1}, // a frame that it refuses doesn't stop it for ever: see drop
		{"PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS, bypass},
	} {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, opt.option, opt.value); err != nil {
			return nil, fmt.Errorf("%s: %w", opt.name, err)
		}
	}
	block := roundUp(r.slots*txSlotSize, os.Getpagesize())
	r.slots = block / txSlotSize
	req := unix.TpacketReq{Block_size: uint32(block), Block_nr: 1, Frame_size: txSlotSize, Frame_nr: uint32(r.slots)}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
		return nil, fmt.Errorf("PACKET_TX_RING of %d slots of %d bytes: %w", r.slots, txSlotSize, err)
	}
	if r.mem, err = unix.Mmap(r.fd, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map transmit ring: %w", err)
	}
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Ifindex: info.Index}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return r, nil
}

// put queues a frame, unless it is one for sendmmsg, or the ring is full.
func (r *txRing) put(head, body []byte) bool {
	n := len(head) + len(body)
	if n > r.limit || !plainFrame((*packet.Vnet)(head), n-packet.VnetLen) {
		return false
	}
	slot := r.slot(r.next)
	if txStatus(slot) != unix.TP_STATUS_AVAILABLE {
		if r.queued > 0 || r.dropped == 0 {
			return false
		}
		// The ring is full of frames that were given up while the interface was down, and nobody has told the kernel since.
		if kickTxRing(r.fd) == 0 {
			r.dropped = 0
		}
		if txStatus(slot) != unix.TP_STATUS_AVAILABLE {
			return false
		}
	}
	data := slot[txDataOffset:]
	copy(data[copy(data, head):], body)
	// Without a header length the kernel would leave the frame in the slot and refer to it, which costs more than its copy.
	(*packet.Vnet)(data).SetHdrLen(n - packet.VnetLen)
	requestTx(slot, n)
	if r.next++; r.next == r.slots {
		r.next = 0
	}
	r.queued++
	r.bytes += uint64(n - packet.VnetLen)
	return true
}

// plainFrame says that the kernel will take a frame of n bytes with this header: PACKET_LOSS would hide that it didn't.
func plainFrame(h *packet.Vnet, n int) bool {
	return n >= packet.EthLen && h.GSOType() == packet.GSONone &&
		(!h.NeedsCsum() || h.CsumStart()+h.CsumOffset()+2 <= n)
}

// flush sends what is queued. The kernel stops at a frame that the way out has no room for, and would try that one again: it
// is dropped, and the kernel told to go on behind it.
func (r *txRing) flush() {
	if r.queued == 0 {
		return
	}
	var frames uint64
	for r.queued > 0 {
		errno := kickTxRing(r.fd)
		switch errno {
		case unix.EINTR:
			continue
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EBADF:
			frames += uint64(r.taken())
			r.count.refused(errno, r.queued)
			for r.queued > 0 {
				r.drop()
			}
			continue
		}
		frames += uint64(r.taken())
		if r.queued > 0 {
			if errno == 0 {
				errno = unix.EAGAIN // it took the frames before, and then had no memory for this one
			}
			r.count.refused(errno, 1)
			r.drop()
		}
	}
	r.count.txFrames.Add(frames)
	r.count.txBytes.Add(r.bytes)
	r.bytes = 0
}

// taken forgets the frames that the kernel has taken, and returns how many those are.
func (r *txRing) taken() (n int) {
	for r.queued > 0 && txStatus(r.slot(r.first())) != unix.TP_STATUS_SEND_REQUEST {
		r.queued--
		n++
	}
	return n
}

// drop gives up the first queued frame. The kernel looks at the slots in turn and would wait for this one to be filled if it
// were taken back; a frame without a length it passes over.
func (r *txRing) drop() {
	slot := r.slot(r.first())
	r.bytes -= uint64(txLen(slot) - packet.VnetLen)
	requestTx(slot, 0)
	r.queued--
	r.dropped++
}

// first is the slot of the first queued frame.
func (r *txRing) first() int {
	if i := r.next - r.queued; i >= 0 {
		return i
	}
	return r.next - r.queued + r.slots
}

func (r *txRing) slot(i int) []byte {
	return r.mem[i*txSlotSize : (i+1)*txSlotSize : (i+1)*txSlotSize]
}

// close gives back memory and socket. What was queued and not flushed is lost.
func (r *txRing) close() error {
	var err error
	if r.mem != nil {
		err = unix.Munmap(r.mem)
	}
	return errors.Join(err, unix.Close(r.fd))
}
