package decap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openRefusalGuard keeps the kernel from answering packets of an IP protocol that it has no handler for with ICMP
// protocol unreachable, which would tell the director that its tunnel leads nowhere. It is a raw socket of the protocol:
// that one is there counts as a handler, even if its filter takes nothing.
func openRefusalGuard(protocol int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, fmt.Errorf("open raw socket for protocol %d: %w", protocol, err)
	}
	if err := attachFilter(fd, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("silence raw socket for protocol %d: %w", protocol, err)
	}
	return fd, nil
}
