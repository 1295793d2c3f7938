// Package local makes the way into the host's own stack for real servers that are addresses of the director itself
// (IPVS's localnode): a TAP device, made when the first such server is, and the links by which the packet path uses it and,
// for ::1, the loopback interface.
package local

import (
	"errors"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"uvs/dataplane/link"
	"uvs/dataplane/tun"
	"uvs/packet"
)

// The device's addresses. None is ever on a wire: the host sends everything by Gateway and Gateway6, and what a socket
// without an address sends comes from Unbound and Unbound6. That is a unique local address (RFC 4193), whose kind the kernel
// takes for any destination.
var (
	Unbound  = netip.MustParseAddr("169.254.117.118")
	Gateway  = netip.MustParseAddr("169.254.117.119")
	Unbound6 = netip.MustParseAddr("fd75:7673:9a1c:5e07::1")
	Gateway6 = netip.MustParseAddr("fe80::75:7673:1")
	MAC      = packet.MAC{0x02, 0x75, 0x76, 0x73, 0x00, 0x01}
)

// deviceName is the device's, with a number for the case that several uvsd live in one network namespace.
const deviceName = "uvslocal%d"

// Config says what a Stack is like.
type Config struct {
	// Queues is the number of workers, each of which reads a queue of its own.
	Queues int
	// MTU in bytes of what the host sends. Default 1500.
	MTU int
	// Made is called, by one goroutine at a time, when the device was made, with its name. The path must look at the links'
	// descriptors again.
	Made func(name string)
	Log  *zap.Logger
}

// Stack is the way into the host's stack. Its methods may be called from any goroutine; those that make the device do so
// in the network namespace of the calling thread.
type Stack struct {
	cfg Config

	mu     sync.Mutex // guards what follows, and is held while the device is made
	device *tun.Tap   // nil until one is wanted
	wanted bool       // there was one
	links  []*Link    // that were given out
	closed bool

	ipv6, loopback bool // wanted as well
}

// New returns a Stack without a device.
func New(cfg Config) *Stack {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Stack{cfg: cfg}
}

// Make makes the device, if there is none yet, and has it carry packets of the server address a, of whatever family. The error
// says what is missing, and how to get it.
func (s *Stack) Make(a netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil {
		if err := s.makeLocked(); err != nil {
			return err
		}
	}
	if a.Is6() && !s.ipv6 {
		if err := s.device.AddAddress6(Unbound6); err != nil {
			return err
		}
		s.ipv6 = true
	}
	if a.Is6() && a.IsLoopback() && !s.loopback {
		for _, l := range s.links {
			if err := l.attachLoopback(); err != nil {
				return err
			}
		}
		s.loopback = true
	}
	return nil
}

// makeLocked makes a device and gives all links their queues.
func (s *Stack) makeLocked() error {
	if s.closed {
		return link.ErrClosed
	}
	device, err := tun.OpenTap(tun.TapConfig{Name: deviceName, MAC: MAC, Address: Unbound, Queues: s.cfg.Queues, MTU: s.cfg.MTU})
	if err != nil {
		return err
	}
	if s.ipv6 {
		if err := device.AddAddress6(Unbound6); err != nil {
			return errors.Join(err, device.Close())
		}
	}
	for _, l := range s.links {
		if err := attach(l, device); err != nil {
			return errors.Join(err, device.Close())
		}
	}
	s.device, s.wanted = device, true
	s.cfg.Log.Info("made the device for real servers that are this host itself", zap.String("interface", device.Name()))
	if s.cfg.Made != nil {
		s.cfg.Made(device.Name())
	}
	return nil
}

func attach(l *Link, device *tun.Tap) error {
	fd, err := device.Queue(l.queue)
	if err != nil {
		return err
	}
	return l.Attach(fd)
}

// Link returns a link to a queue. If the device has been deleted since it was made, another is made.
func (s *Stack) Link(queue int) (*Link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := newLink(queue)
	if s.device != nil && s.lostLocked() {
		s.links = nil // those of the lost device are closed by who finds them dead, and ask here for others
		_ = s.device.Close()
		s.device = nil
	}
	if s.device == nil && s.wanted {
		if err := s.makeLocked(); err != nil {
			return nil, err
		}
	}
	if s.loopback {
		if err := l.attachLoopback(); err != nil {
			return nil, err
		}
	}
	if s.device != nil {
		if err := attach(l, s.device); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	s.links = append(s.links, l)
	return l, nil
}

// lostLocked says that the device was deleted by somebody.
func (s *Stack) lostLocked() bool {
	for _, l := range s.links {
		if l.Err() != nil {
			return true
		}
	}
	return false
}

// Device is the device's name, empty while there is none.
func (s *Stack) Device() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil {
		return ""
	}
	return s.device.Name()
}

// Close lets go of the device, which disappears when the links are closed too.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.device == nil {
		return nil
	}
	err := s.device.Close()
	s.device = nil
	return err
}
