package guard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// lock says that an instance lives. It is a socket bound to a name in the abstract namespace, which is the network
// namespace's own: it is seen across containers that share the network and nothing else, and the kernel frees it when the
// process ends, however it ends.
type lock struct{ fd int }

var errLocked = errors.New("another uvsd has it")

func bindLock(name string) (lock, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return lock{}, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@uvs-guard-" + name})
	if err == nil {
		return lock{fd}, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		return lock{}, errLocked
	}
	return lock{}, fmt.Errorf("take lock: %w", err)
}

func takeLock(id int) (lock, error) { return bindLock(fmt.Sprintf("%08x", id)) }

func takeMACLock(iface string, mac packet.MAC) (lock, error) {
	return bindLock(iface + "-" + mac.String())
}

// dead says that the instance of that number doesn't live.
func dead(id int) bool {
	l, err := takeLock(id)
	l.release()
	return err == nil
}

func (l lock) release() {
	if l.fd > 0 {
		unix.Close(l.fd)
	}
}
