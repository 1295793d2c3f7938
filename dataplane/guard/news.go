package guard

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// news hears that something changed on the host that may touch what a Guard has installed. What it was is not looked at.
type news struct {
	fds    []int // rtnetlink and, where the kernel has it, nfnetlink
	wake   int   // an eventfd that ends listen
	mu     sync.Mutex
	closed bool
	ended  chan struct{} // closed when listen has ended
	began  bool
}

func openNews() (*news, error) {
	n := &news{wake: -1, ended: make(chan struct{})}
	var err error
	if n.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	route := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1))
	if err := n.subscribe(unix.NETLINK_ROUTE, route); err != nil {
		n.close()
		return nil, fmt.Errorf("subscribe to the host's interfaces: %w", err)
	}
	_ = n.subscribe(unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1)) // without it the review at intervals must do
	return n, nil
}

func (n *news) subscribe(protocol int, groups uint32) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return err
	}
	n.fds = append(n.fds, fd)
	return nil
}

// listen writes to heard, which has room for one, whenever there are news, until close.
func (n *news) listen(heard chan<- struct{}) {
	n.mu.Lock()
	if n.closed || n.began {
		n.mu.Unlock()
		return
	}
	n.began = true
	n.mu.Unlock()
	defer close(n.ended)
	polls := []unix.PollFd{{Fd: int32(n.wake), Events: unix.POLLIN}}
	for _, fd := range n.fds {
		polls = append(polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	buf := make([]byte, 1<<16)
	for {
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if polls[0].Revents != 0 {
			return
		}
		for _, fd := range n.fds {
			for { // ENOBUFS, more news than room, is news as well
				_, _, err := unix.Recvfrom(fd, buf, 0)
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				select {
				case heard <- struct{}{}:
				default:
				}
				if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
					break
				}
			}
		}
	}
}

// close ends listen, waits for it and gives back the sockets.
func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed = true
	if n.began {
		_, _ = unix.Write(n.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-n.ended
	}
	for _, fd := range n.fds {
		unix.Close(fd)
	}
	if n.wake >= 0 {
		unix.Close(n.wake)
	}
}
