package link

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

var _ [4]byte = [unsafe.Offsetof(unix.Tpacket2Hdr{}.Len)]byte{}

// txStatus reads the status word of a slot of a transmit ring.
func txStatus(slot []byte) uint32 {
	_ = slot[:txDataOffset]
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&slot[0])))
}

// txLen is the length that the slot's frame was queued with, virtio-net header included.
func txLen(slot []byte) int {
	_ = slot[:txDataOffset]
	return int((*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0])).Len)
}

// requestTx makes the slot the kernel's, with a frame of n bytes, virtio-net header included, after all our writes of it.
func requestTx(slot []byte, n int) {
	_ = slot[:txDataOffset]
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
	h.Len = uint32(n)
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_SEND_REQUEST)
}

// kickTxRing has the kernel send what is requested, until it refuses a frame.
func kickTxRing(fd int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}
