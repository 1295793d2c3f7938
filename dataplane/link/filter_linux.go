package link

import (
	"golang.org/x/sys/unix"
)

// Offsets from which a classic BPF program reads a frame's metadata (linux/filter.h), absent from package unix.
const (
	skfAdOff     = 0xfffff000 // SKF_AD_OFF
	skfAdPktType = 4          // SKF_AD_PKTTYPE
)

var (
	// acceptAll returns the largest length: the whole frame.
	acceptAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}}
	// dropAll keeps a socket quiet until it is complete.
	dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
)

// dropOwn puts in front of a program what drops our own transmissions: PACKET_IGNORE_OUTGOING has no effect on a
// socket in a fanout group. Jumps in BPF are relative, so the program behind needs no change; it expects A to be zero.
func dropOwn(program []unix.SockFilter) []unix.SockFilter {
	if len(program) == 0 {
		program = acceptAll
	}
	return append([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: skfAdOff + skfAdPktType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.PACKET_OUTGOING},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_LD | unix.BPF_IMM, K: 0},
	}, program...)
}

// attachFilter replaces the socket's filter; an empty program removes it.
func attachFilter(fd int, program []unix.SockFilter) error {
	if len(program) == 0 {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if err == unix.ENOENT {
			return nil // there was none
		}
		return err
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
