package link

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

const (
	// frameOffset is where a slot's Ethernet frame begins, behind the kernel's header and the virtio-net header. It
	// puts the headers of a frame on as few cache lines as possible (virtio-net header on a line's first byte, IP
	// header on an eight-byte boundary), and leaves 76 bytes of headroom.
	frameOffset = 128 + packet.VnetLen
	// kernelOffset is where the kernel would put the Ethernet frame by itself: its header and 16 bytes for the
	// link-layer header, rounded up to 16, less the 14 of Ethernet's.
	kernelOffset = 80 - 14
	// superFrameLen holds the longest Ethernet frame short of BIG TCP: 64 KiB and two VLAN tags.
	superFrameLen = 64<<10 + 14 + 8
	// superSlot is a slot or buffer for such a frame, in whole pages of 4 KiB.
	superSlot = 68 << 10
	// enoughRecvBuffer is what the socket's queue must hold, in bytes of kernel memory, for super-frames to be left
	// there; with less, they are lost under load, and the ring takes slots for them instead.
	enoughRecvBuffer = 16 << 20
	// blockSize is the unit of the ring's memory: enough slots to a block to waste little, yet no allocation that a
	// fragmented kernel refuses.
	blockSize = 64 << 10
)

var _ [superSlot - frameOffset - superFrameLen]byte // superSlot suffices

// ring receives through a TPACKET_V2 ring: the kernel copies each frame into a slot of shared memory. A frame that
// is longer than its slot is queued on the socket as well (PACKET_COPY_THRESH) and read from there whole.
//
// poll(2) returns at once, for ever, while the slot filled last is held or a queued frame is unread: release before
// polling.
type ring struct {
	s        *Socket
	fd       int
	vnet     bool
	mem      []byte
	slotSize int
	slots    int
	next     int // the slot that the kernel fills next
	held     int // slots before it that are handed out

	spare [][]byte // buffers for super-frames
	taken int      // of which these many, from the end, are handed out
	stuck stuckWatch
}

// newRing sets up the ring of a socket not yet bound.
func newRing(s *Socket, cfg Config) (*ring, error) {
	r := &ring{s: s, fd: s.rxFD, vnet: s.info.Vnet}
	reserve := frameOffset - kernelOffset
	if r.vnet {
		reserve -= packet.VnetLen // the kernel makes room for that itself
	}
	for _, opt := range []struct {
		name          string
		option, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, reserve},
		{"PACKET_COPY_THRESH", unix.PACKET_COPY_THRESH, 1},
	} {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, opt.option, opt.value); err != nil {
			return nil, fmt.Errorf("%s: %w", opt.name, err)
		}
	}
	r.slotSize, r.slots = ringShape(cfg, s.info)
	r.spare = newBuffers(cfg.Batch)
	if err := r.mapSlots(); err != nil {
		return nil, err
	}
	return r, nil
}

// ringShape chooses size and number of slots; mapSlots rounds the number up.
func ringShape(cfg Config, info Info) (size, slots int) {
	size, slots = cfg.SlotSize, cfg.RingSlots
	if size <= 0 {
		size = defaultSlotSize
		for size < frameOffset+14+4+info.MTU {
			size *= 2
		}
	}
	if size < superSlot && info.RecvBuffer < enoughRecvBuffer {
		size = superSlot
		slots = min(slots, minSlots)
	}
	if size < 4096 {
		// Powers of two divide a block evenly; shorter slots than this hold no frame.
		p := 256
		for p < size {
			p *= 2
		}
		size = p
	} else {
		size = roundUp(min(size, superSlot), os.Getpagesize())
	}
	if slots <= 0 {
		slots = min(max(ringBudget/size, minSlots), defaultSlots)
	}
	return size, slots
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

// mapSlots makes the kernel allocate the ring and maps it.
func (r *ring) mapSlots() error {
	block := max(blockSize, os.Getpagesize())
	switch {
	case r.slotSize > block:
		// Blocks are rounded up to a power of two pages: many slots to a block waste less.
		block = r.slotSize * ((1 << 20) / r.slotSize)
	case block%r.slotSize != 0:
		block = r.slotSize
	}
	perBlock := block / r.slotSize
	r.slots = roundUp(r.slots, perBlock)
	blocks := r.slots / perBlock
	req := unix.TpacketReq{
		Block_size: uint32(block),
		Block_nr:   uint32(blocks),
		Frame_size: uint32(r.slotSize),
		Frame_nr:   uint32(r.slots),
	}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("PACKET_RX_RING of %d slots of %d bytes: %w", r.slots, r.slotSize, err)
	}
	mem, err := unix.Mmap(r.fd, 0, blocks*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	r.mem, r.next, r.held, r.taken = mem, 0, 0, 0
	r.s.info.Slots, r.s.info.SlotSize = r.slots, r.slotSize
	return nil
}

// close unmaps the ring; its memory goes with the socket.
func (r *ring) close() error {
	if r.mem == nil {
		return nil
	}
	err := unix.Munmap(r.mem)
	r.mem = nil
	return err
}

func (r *ring) recv(frames []Frame) int {
	if r.mem == nil {
		return 0
	}
	n := 0
	for n < len(frames) && r.held < r.slots {
		off := r.next * r.slotSize
		status := r.status(off)
		if status&unix.TP_STATUS_USER == 0 {
			break
		}
		if status&unix.TP_STATUS_COPY != 0 && r.taken == len(r.spare) {
			break // no buffer before the next release
		}
		r.take(&frames[n], off, status)
		n++
		r.held++
		if r.next++; r.next == r.slots {
			r.next = 0
		}
	}
	if n == 0 {
		r.tend()
	}
	return n
}

// tend finds out whether an empty ring is blocked, unless frames are handed out.
func (r *ring) tend() {
	if r.mem != nil && r.held == 0 {
		r.watch()
	}
}

// take describes the frame in a slot that is ours.
func (r *ring) take(f *Frame, off int, status uint32) {
	h := r.header(off)
	mac, snap, length := int(h.Mac), int(h.Snaplen), int(h.Len)
	slot := r.mem[off : off+r.slotSize : off+r.slotSize]
	*f = Frame{
		Tagged:    status&unix.TP_STATUS_VLAN_VALID != 0,
		VLAN:      h.Vlan_tci,
		TPID:      h.Vlan_tpid,
		Truncated: snap < length,
		Type:      h.Pkttype,
	}
	if f.Tagged && status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
		f.TPID = unix.ETH_P_8021Q
	}
	if status&unix.TP_STATUS_COPY != 0 && r.takeWhole(f, length) {
		return
	}
	// The bounds hold for every frame the kernel writes into a slot as large as ours; a slot without room for the
	// frame is handed out empty.
	mac = min(max(mac, slotHeaderLen+packet.VnetLen), len(slot))
	f.mem = slot[slotHeaderLen:]
	f.Buf = slot[mac-packet.VnetLen : min(mac+snap, len(slot))]
	if !r.vnet {
		clear(f.Buf[:packet.VnetLen])
	}
}

// takeWhole reads the frame that the socket has queued because its slot was too short for it. Frames are queued in
// the slots' order.
func (r *ring) takeWhole(f *Frame, length int) bool {
	buf := r.spare[len(r.spare)-1-r.taken]
	start := frameOffset
	if r.vnet {
		start -= packet.VnetLen
	}
	n, errno := recv(r.fd, buf[start:])
	if errno != 0 && errno != unix.EAGAIN {
		n, errno = recv(r.fd, buf[start:]) // the first call only reported an error such as ENETDOWN
	}
	if errno != 0 || start+n != frameOffset+length {
		return false
	}
	r.taken++
	f.Truncated = start+n > len(buf)
	f.mem = buf
	f.Buf = buf[frameOffset-packet.VnetLen : min(start+n, len(buf))]
	if !r.vnet {
		clear(f.Buf[:packet.VnetLen])
	}
	return true
}

func (r *ring) release() {
	slot := r.next - r.held
	if slot < 0 {
		slot += r.slots
	}
	for ; r.held > 0; r.held-- {
		r.giveBack(slot * r.slotSize)
		if slot++; slot == r.slots {
			slot = 0
		}
	}
	r.taken = 0
}

// newBuffers makes n buffers for super-frames. Their pages cost nothing before they are used, and the first are
// used first.
func newBuffers(n int) [][]byte {
	mem := make([]byte, n*superSlot)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = mem[i*superSlot : (i+1)*superSlot : (i+1)*superSlot]
	}
	return bufs
}
