package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolRequest is struct ifreq with its union's pointer member (linux/if.h), as SIOCETHTOOL takes it.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte // the union's longest member is struct ifmap
}

// ethtoolIoctl carries out the ethtool command that begins arg, a uint32 in the machine's byte order. The kernel
// writes its answer into arg.
func ethtoolIoctl(fd int, ifname string, arg []byte) error {
	if len(ifname) >= unix.IFNAMSIZ || len(arg) < 4 {
		return unix.EINVAL
	}
	req := ethtoolRequest{data: unsafe.Pointer(&arg[0])}
	copy(req.name[:], ifname)
	// A positive result is no error: SFEATURES says so that it did less than asked.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return fmt.Errorf("ethtool command %#x: %w", *(*uint32)(unsafe.Pointer(&arg[0])), errno)
	}
	return nil
}
