package e2e

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"uvs/lab"
)

// sendFrame puts a frame on the wire.
func sendFrame(t testing.TB, ns *lab.Namespace, ifname string, frame []byte) {
	t.Helper()
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	}))
}
