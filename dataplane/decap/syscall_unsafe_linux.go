package decap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmmsg receives what waits, up to one message each. Lengths are those of the frames, even where buffers are shorter
// (MSG_TRUNC). It allocates nothing, and enters the kernel so that the scheduler knows.
func recvmmsg(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(n), errno
}

// envelope is what the kernel writes beside each frame: the interface it came in by, and where its IP header begins
// (PACKET_AUXDATA).
type envelope struct {
	from unix.RawSockaddrLinklayer
	_    [4]byte // control messages are aligned to 8
	unix.Cmsghdr
	aux unix.TpacketAuxdata
	_   [4]byte
}

var (
	_ [20]byte = [unsafe.Sizeof(unix.RawSockaddrLinklayer{})]byte{}
	_ [20]byte = [unsafe.Sizeof(unix.TpacketAuxdata{})]byte{}
	_ [14]byte = [unsafe.Offsetof(unix.TpacketAuxdata{}.Net)]byte{}
)

// address makes the kernel write to e.
func (e *envelope) address(hdr *unix.Msghdr) {
	hdr.Name = (*byte)(unsafe.Pointer(&e.from))
	hdr.Namelen = uint32(unsafe.Sizeof(e.from))
	hdr.Control = (*byte)(unsafe.Pointer(&e.Cmsghdr))
	hdr.SetControllen(int(unsafe.Sizeof(*e) - unsafe.Offsetof(e.Cmsghdr)))
}

// dropCounts takes PACKET_STATISTICS' count of frames that found the socket's queue full; the kernel then counts from 0.
func dropCounts(fd uintptr) (uint32, unix.Errno) {
	var st unix.TpacketStats
	size := uint32(unix.SizeofTpacketStats)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_PACKET, unix.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(&st)), uintptr(unsafe.Pointer(&size)), 0)
	return st.Drops, errno
}
