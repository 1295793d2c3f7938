package link

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"uvs/packet"
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

// hostFrameLen is the longest frame to the host that ForStation lets through: the longest ICMPv6 error (RFC 4443 section 2.4).
const hostFrameLen = 14 + 1280

// ForStation is a filter for one who has a MAC address of his own on the interface, beside the host's: it lets through frames
// to mac and to groups, and of those to the host the short ones, among which are ICMP errors, and those to TCP's and UDP's ports
// from first to last. The rest, which is other stations' business and the bulk of the host's, is never copied.
func ForStation(mac packet.MAC, first, last uint16) []unix.SockFilter {
	const (
		load    = unix.BPF_LD | unix.BPF_ABS
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret     = unix.BPF_RET | unix.BPF_K
		toPort  = 2 // in TCP's and UDP's headers
	)
	return []unix.SockFilter{
		{Code: load | unix.BPF_H, K: 4},
		{Code: equal, K: uint32(binary.BigEndian.Uint16(mac[4:])), Jt: 0, Jf: 2},
		{Code: load | unix.BPF_W, K: 0},
		{Code: equal, K: binary.BigEndian.Uint32(mac[:4]), Jt: 16, Jf: 0},
		{Code: load | unix.BPF_B, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 1, Jt: 14, Jf: 0},
		{Code: load | unix.BPF_B, K: skfAdOff + skfAdPktType},
		{Code: equal, K: unix.PACKET_HOST, Jt: 0, Jf: 11},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: hostFrameLen, Jt: 0, Jf: 10},
		{Code: load | unix.BPF_H, K: 12},
		{Code: equal, K: packet.EtherIPv4, Jt: 3, Jf: 0},
		{Code: equal, K: packet.EtherIPv6, Jt: 0, Jf: 6},
		{Code: load | unix.BPF_H, K: packet.EthLen + packet.IPv6Len + toPort},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 2},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: packet.EthLen}, // the length of the IPv4 header
		{Code: unix.BPF_LD | unix.BPF_IND | unix.BPF_H, K: packet.EthLen + toPort},
		{Code: atLeast, K: uint32(first), Jt: 0, Jf: 1},
		{Code: atLeast, K: uint32(last) + 1, Jt: 0, Jf: 1},
		{Code: ret, K: 0},
		{Code: ret, K: 0xffffffff},
	}
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
