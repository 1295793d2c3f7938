package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of SIOCETHTOOL that golang.org/x/sys/unix doesn't name (linux/ethtool.h). All take a struct ethtool_value.
const (
	ethtoolGetGRO   = 0x2b
	ethtoolGetFlags = 0x25
	ethtoolFlagLRO  = 1 << 15
)

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolRequest is struct ifreq with a pointer to an ethtool command.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

var _ [40]byte = [unsafe.Sizeof(ethtoolRequest{})]byte{} // struct ifreq

// ethtoolGet returns the value that an ethtool command reads of an interface.
func ethtoolGet(iface string, cmd uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	value := ethtoolValue{cmd: cmd}
	var req ethtoolRequest
	copy(req.name[:len(req.name)-1], iface)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
