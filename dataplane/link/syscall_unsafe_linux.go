package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wrappers here allocate nothing. They enter the kernel by Syscall6, never the raw form: the scheduler must
// know that the thread is away, or the garbage collector waits for it.

// sendmmsg sends messages until the kernel refuses one, and returns how many it took.
func sendmmsg(fd int, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// writev writes one packet made of parts.
func writev(fd int, parts []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(parts))), uintptr(len(parts)))
	return int(n), errno
}

// recvmmsg receives what waits, up to one message each. Lengths are those of the frames, even where buffers are
// shorter (MSG_TRUNC).
func recvmmsg(fd int, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(n), errno
}

// recv receives one message and returns its length, which is more than len(buf) if it did not fit.
func recv(fd int, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))),
		uintptr(len(buf)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(n), errno
}

// readStatistics takes PACKET_STATISTICS, which sets the kernel's counts back to zero.
func readStatistics(fd int, st *unix.TpacketStats) unix.Errno {
	size := uint32(unix.SizeofTpacketStats)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(st)), uintptr(unsafe.Pointer(&size)), 0)
	return errno
}
