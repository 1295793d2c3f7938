package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxSuperFrame is the longest frame a tap hands over: a GSO frame of 64 KiB with its Ethernet and virtio headers,
// rounded up.
const maxSuperFrame = 1<<16 + 128

// AddTapPair joins two namespaces by a pair of tap devices, between which this process carries the frames, as a
// hypervisor does. They are up. With offloads, frames cross with their virtio header: super-frames stay whole and
// checksums partial. An MTU of 0 means 1500. The cable ends with the lab, so a kept lab cannot have one.
func (l *Lab) AddTapPair(a, b End, mtu int, offloads bool) error {
	if l.keep {
		return errors.New("a tap pair needs this process and cannot be kept")
	}
	fa, err := a.openTap(mtu, offloads)
	if err != nil {
		return err
	}
	fb, err := b.openTap(mtu, offloads)
	if err != nil {
		fa.Close()
		return err
	}
	var pumps sync.WaitGroup
	cut := func() error {
		err := errors.Join(fa.Close(), fb.Close()) // the devices go with their files
		pumps.Wait()
		return err
	}
	if _, err := l.own(cut); err != nil {
		return errors.Join(err, cut())
	}
	pumps.Go(func() { pump(fb, fa) })
	pumps.Go(func() { pump(fa, fb) })
	return errors.Join(a.awaitCarrier(), b.awaitCarrier())
}

// openTap makes the end a tap device, plugs it in, and returns its frames: each read and write is a virtio-net header
// of 10 bytes and a frame.
func (e End) openTap(mtu int, offloads bool) (*os.File, error) {
	var fd int
	err := e.Namespace.Do(func() (err error) {
		// os.OpenFile would put the descriptor into the poller, where it is of no use before TUNSETIFF.
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("add tap %s in %s: open /dev/net/tun: %w", e.Name, e.Namespace, err)
	}
	file, err := func() (*os.File, error) {
		req, err := unix.NewIfreq(e.Name)
		if err != nil {
			return nil, err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return nil, fmt.Errorf("TUNSETIFF: %w", err)
		}
		if offloads {
			if err := setTapOffloads(fd); err != nil {
				return nil, err
			}
		}
		return os.NewFile(uintptr(fd), e.Name), nil
	}()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("add tap %s in %s: %w", e.Name, e.Namespace, err)
	}
	if err := e.dress(mtu); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// setTapOffloads lets the stack leave checksums and segmentation to the reader of the tap.
func setTapOffloads(fd int) error {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6)
	if err == unix.EINVAL { // UDP segmentation is there since Linux 6.2
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
	}
	if err != nil {
		return fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	return nil
}

// dress sets what netlink sets at once for links that it makes itself, and brings the end up.
func (e End) dress(mtu int) error {
	if e.MAC != nil {
		if err := e.Namespace.SetMAC(e.Name, e.MAC); err != nil {
			return err
		}
	}
	if mtu != 0 {
		if err := e.Namespace.SetMTU(e.Name, mtu); err != nil {
			return err
		}
	}
	return e.plug()
}

// pump carries frames from one tap to the other until one is closed.
func pump(to, from *os.File) {
	buf := make([]byte, maxSuperFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		// A frame the other side refuses, being down, is lost as on a cable.
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// AddTap makes the end a tap device that carries frames once another program, a hypervisor for one, opens it by its name: with a
// virtio-net header, in the same namespace. It is up. An MTU of 0 means 1500.
func (e End) AddTap(mtu int) error {
	file, err := e.openTap(mtu, false)
	if err != nil {
		return err
	}
	defer file.Close() // the device stays, and is to be had again
	raw, err := file.SyscallConn()
	if err == nil {
		var refused error
		err = raw.Control(func(fd uintptr) { refused = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
		err = errors.Join(err, refused)
	}
	if err != nil {
		return fmt.Errorf("keep tap %s in %s: %w", e.Name, e.Namespace, err)
	}
	e.Namespace.hasLinks.Store(true)
	return e.Namespace.setLink(e.Name, "set the group of", func(l netlink.Link) error {
		return e.Namespace.nl.LinkSetGroup(l, linkGroup)
	})
}
