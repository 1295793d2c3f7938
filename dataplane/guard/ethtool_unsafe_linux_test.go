package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setEthtool changes a setting of an interface.
func setEthtool(iface string, cmd, data uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := ethtoolValue{cmd: cmd, data: data}
	var req ethtoolRequest
	copy(req.name[:len(req.name)-1], iface)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
