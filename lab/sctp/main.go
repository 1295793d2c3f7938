// Command sctp is a server and a client with one-to-one SCTP sockets (RFC 6458 section 4), which package net doesn't have.
//
//	sctp serve NAME ADDRESS:PORT...           greets every association with NAME and sends back what it gets
//	sctp ask FROM ADDRESS:PORT N BYTES FILE   opens N associations, moves BYTES through each, prints which servers greeted,
//	                                          waits until FILE exists, moves them once more, and closes the associations
//
// Each socket is bound to one address, so that no association has more than one.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	longestGreeting = 64
	longestMessage  = 32 << 10 // of many DATA chunks
	backlog         = 64
	patience        = 30 * time.Second // with a peer that says nothing
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sctp:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 2 && args[0] == "serve":
		ended := make(chan error)
		for _, a := range args[2:] {
			at, err := netip.ParseAddrPort(a)
			if err != nil {
				return err
			}
			listener, err := listen(at)
			if err != nil {
				return err
			}
			go func() { ended <- serve(args[1], listener) }()
		}
		fmt.Println("listening")
		return <-ended
	case len(args) == 6 && args[0] == "ask":
		from, err := netip.ParseAddr(args[1])
		if err != nil {
			return err
		}
		to, err := netip.ParseAddrPort(args[2])
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		return ask(from, to, n, size, args[5])
	}
	return errors.New("usage: sctp serve NAME ADDRESS:PORT... | sctp ask FROM ADDRESS:PORT N BYTES FILE")
}

// socket is a one-to-one socket bound to an address; its calls don't block.
func socket(at netip.AddrPort) (int, error) {
	domain := unix.AF_INET
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind to %v: %w", at, err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func listen(at netip.AddrPort) (int, error) {
	fd, err := socket(at)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, fmt.Errorf("listen at %v: %w", at, err)
	}
	return fd, nil
}

// serve returns only errors.
func serve(name string, listener int) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, -1)
			if err == nil || err == unix.EINTR {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			a := os.NewFile(uintptr(fd), "association")
			defer a.Close()
			if _, err := a.WriteString(name); err != nil {
				fmt.Fprintln(os.Stderr, "sctp:", err)
				return
			}
			b := make([]byte, longestMessage)
			for {
				n, err := a.Read(b)
				if err == nil {
					_, err = a.Write(b[:n])
				}
				if err == io.EOF {
					return
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, "sctp:", err)
					return
				}
			}
		}()
	}
}

// ask is the client.
func ask(from netip.Addr, to netip.AddrPort, n, size int, file string) error {
	greeted := map[string]int{}
	var open []*os.File
	for range n {
		a, name, err := dial(from, to)
		if err != nil {
			return err
		}
		defer a.Close()
		greeted[name]++
		open = append(open, a)
	}
	if err := echoAll(open, size); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(greeted); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(file); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return echoAll(open, size)
}

// dial opens an association and reads the greeting.
func dial(from netip.Addr, to netip.AddrPort) (*os.File, string, error) {
	fd, err := socket(netip.AddrPortFrom(from, 0))
	if err != nil {
		return nil, "", err
	}
	if err := connect(fd, to); err != nil {
		unix.Close(fd)
		return nil, "", fmt.Errorf("connect to %v: %w", to, err)
	}
	a := os.NewFile(uintptr(fd), "association")
	b := make([]byte, longestGreeting)
	err = a.SetDeadline(time.Now().Add(patience))
	k := 0
	if err == nil {
		k, err = a.Read(b)
	}
	if err != nil {
		a.Close()
		return nil, "", fmt.Errorf("greeting of %v: %w", to, err)
	}
	return a, string(b[:k]), nil
}

// connect opens the association. A blocking connect(2) would end at a signal, of which Go's runtime has some.
func connect(fd int, to netip.AddrPort) error {
	if err := unix.Connect(fd, sockaddr(to)); err != unix.EINPROGRESS {
		return err
	}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(time.Until(end).Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && code != 0 {
				err = unix.Errno(code)
			}
			return err
		}
	}
}

// echoAll does echo on every association, at once.
func echoAll(open []*os.File, size int) error {
	errs := make([]error, len(open))
	var all sync.WaitGroup
	for i, a := range open {
		all.Go(func() {
			if errs[i] = a.SetDeadline(time.Now().Add(patience)); errs[i] == nil {
				errs[i] = echo(a, size)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// echo sends random bytes and compares what comes back.
func echo(a *os.File, size int) error {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	sent := make(chan error, 1)
	go func() {
		rest := data
		for len(rest) > 0 {
			n, err := a.Write(rest[:min(len(rest), longestMessage)])
			if err != nil {
				sent <- fmt.Errorf("after %d of %d bytes: %w", size-len(rest), size, err)
				return
			}
			rest = rest[n:]
		}
		sent <- nil
	}()
	back := make([]byte, size)
	if n, err := io.ReadFull(a, back); err != nil {
		return fmt.Errorf("after %d of %d bytes came back: %w", n, size, err)
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("other bytes came back than the %d that were sent", size)
	}
	return nil
}
