package decap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// refusalGuard keeps the kernel from answering tunnelled packets that it has no handler for with ICMP protocol or port
// unreachable, which would tell the director that its tunnel leads nowhere: sockets that take nothing count as handlers. They
// are raw sockets of the protocols, and a UDP socket on GUE's port.
type refusalGuard []int

// open opens them for one family.
func (g *refusalGuard) open(v6 bool, guePort uint16) error {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	for _, protocol := range []int{unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE} {
		fd, err := g.socket(family, unix.SOCK_RAW, protocol)
		if err != nil {
			return fmt.Errorf("open raw socket for protocol %d: %w", protocol, err)
		}
		if err := silence(fd); err != nil {
			return fmt.Errorf("silence raw socket for protocol %d: %w", protocol, err)
		}
	}
	if guePort == 0 {
		return nil
	}
	fd, err := g.socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("open UDP socket: %w", err)
	}
	if err := silence(fd); err != nil {
		return fmt.Errorf("silence UDP socket: %w", err)
	}
	if err := bindPort(fd, v6, int(guePort)); err != nil {
		if err == unix.EADDRINUSE {
			return fmt.Errorf("UDP port %d, where GUE comes to, is another's: if the kernel decapsulates there (ip fou show), do without uvsdecap; else let director and uvsdecap use another port, or --gue-port 0 for no GUE", guePort)
		}
		return fmt.Errorf("bind UDP port %d: %w", guePort, err)
	}
	return nil
}

func (g *refusalGuard) socket(family, typ, protocol int) (fd int, err error) {
	fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err == nil {
		*g = append(*g, fd)
	}
	return fd, err
}

// silence makes a socket take nothing.
func silence(fd int) error {
	return attachFilter(fd, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}})
}

func bindPort(fd int, v6 bool, port int) error {
	if !v6 {
		return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: port})
}

func (g *refusalGuard) close() error {
	var errs []error
	for _, fd := range *g {
		errs = append(errs, unix.Close(fd))
	}
	*g = nil
	return errors.Join(errs...)
}
