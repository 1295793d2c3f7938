package link

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's layouts, pinned: struct tpacket2_hdr, and behind it, aligned to 16, struct sockaddr_ll.
var (
	_ [32]byte = [unsafe.Sizeof(unix.Tpacket2Hdr{})]byte{}
	_ [20]byte = [unsafe.Sizeof(unix.RawSockaddrLinklayer{})]byte{}
	_ [0]byte  = [unsafe.Offsetof(unix.Tpacket2Hdr{}.Status)]byte{}
	_ [12]byte = [unsafe.Offsetof(unix.Tpacket2Hdr{}.Mac)]byte{}
	_ [24]byte = [unsafe.Offsetof(unix.Tpacket2Hdr{}.Vlan_tci)]byte{}
	_ [10]byte = [unsafe.Offsetof(unix.RawSockaddrLinklayer{}.Pkttype)]byte{}
)

// slotHeader is what the kernel writes at the start of a slot.
type slotHeader struct {
	unix.Tpacket2Hdr
	unix.RawSockaddrLinklayer
}

const slotHeaderLen = int(unsafe.Sizeof(slotHeader{}))

var _ [52]byte = [slotHeaderLen]byte{}

// header is a view of the slot that begins at offset off of the ring. It may be read once status has shown the slot
// to be ours.
func (r *ring) header(off int) *slotHeader {
	_ = r.mem[off : off+slotHeaderLen]
	return (*slotHeader)(unsafe.Pointer(&r.mem[off]))
}

// status reads the slot's status word. What the kernel wrote before it is visible once it shows TP_STATUS_USER.
func (r *ring) status(off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.mem[off])))
}

// giveBack makes the slot the kernel's again, after all our reads and writes of it.
func (r *ring) giveBack(off int) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.mem[off])), unix.TP_STATUS_KERNEL)
}
