// Package tun makes TUN devices: network interfaces of the host whose far end is this process. What the process writes
// into one, the host's stack receives; what the stack routes into it, the process reads. Packets go both ways without
// link header and with a virtio-net header in front, so that super-frames and partial checksums cross it.
package tun

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// Reasons why a device cannot be made or used, wrapped by errors that name the device and the remedy.
var (
	// ErrExists says that the host has an interface of that name.
	ErrExists = errors.New("interface exists")
	// ErrGone says that the device was deleted while it was open. It doesn't come back.
	ErrGone = errors.New("interface was deleted")
	// ErrDown says that the device is down and takes no packets.
	ErrDown = errors.New("interface is down")
)

// Config says what a device is like.
type Config struct {
	// Name is the interface's name: 1 to 15 bytes. A %d in it becomes the first free number.
	Name string
	// Addresses are put on the interface: the host takes packets for them from then on, whichever way they come. The
	// kernel never chooses one by itself as the source of what the host sends: IPv4's have host scope, IPv6's are
	// deprecated. Nobody is asked whether he has them too.
	Addresses []netip.Prefix
	// MTU in bytes of what the stack sends into the device; what is written into it may be longer. Default 1500.
	MTU int
	// Offloads lets the stack leave checksums and segmentation of what it sends into the device to the reader, who
	// then finds them described in the virtio-net headers. Without, every packet read is complete and at most MTU long.
	Offloads bool
}

// Device is a TUN device. It goes with its file: with Close, or when the process ends in whatever way.
type Device struct {
	file  *os.File
	name  string
	index int
}

// Open makes a device in the network namespace of the calling thread, and brings it up. Needs CAP_NET_ADMIN.
func Open(cfg Config) (*Device, error) {
	fd, err := openDriver()
	if err != nil {
		return nil, err
	}
	// EXCL, or a device that somebody made persistent would be taken over, and would stay behind.
	name, err := attach(fd, cfg.Name, unix.IFF_TUN|unix.IFF_TUN_EXCL, cfg.Offloads)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", cfg.Name, err)
	}
	// Only now: before TUNSETIFF the file cannot be polled, and the runtime would take it for one that never can.
	d := &Device{file: os.NewFile(uintptr(fd), name), name: name}
	if err := d.dress(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("set up TUN device %s: %w", name, err), d.file.Close())
	}
	return d, nil
}

// openDriver opens the kernel's TUN driver, of which no device is made yet.
func openDriver() (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case err == unix.ENOENT, err == unix.ENODEV, err == unix.ENXIO:
		return -1, fmt.Errorf("open /dev/net/tun: %w: the kernel's TUN driver is missing; try: modprobe tun", err)
	case err == unix.EACCES, err == unix.EPERM:
		return -1, fmt.Errorf("open /dev/net/tun: %w: run as root, or in a container with --device /dev/net/tun", err)
	case err != nil:
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	return fd, nil
}

// attach makes the device of the open file and returns its name.
func attach(fd int, name string, flags uint16, offloads bool) (string, error) {
	req, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return "", errors.New("an interface's name has 1 to 15 bytes")
	}
	req.SetUint16(flags | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); {
	case err == unix.EBUSY:
		return "", fmt.Errorf("%w: see what it is with `ip -d link show %s`", ErrExists, name)
	case err == unix.EPERM:
		return "", fmt.Errorf("TUNSETIFF: %w: needs CAP_NET_ADMIN", err)
	case err != nil:
		return "", fmt.Errorf("TUNSETIFF: %w", err)
	}
	if offloads {
		if err := setOffloads(fd); err != nil {
			return "", err
		}
	}
	return req.Name(), nil
}

// setOffloads lets the stack leave work to the reader.
func setOffloads(fd int) error {
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

// dress gives the device its settings and addresses and brings it up.
func (d *Device) dress(cfg Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(d.name)
	if err != nil {
		return err
	}
	d.index = link.Attrs().Index
	v6 := slices.ContainsFunc(cfg.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if err := d.quiet(v6); err != nil {
		return err
	}
	if cfg.MTU != 0 {
		if err := h.LinkSetMTU(link, cfg.MTU); err != nil {
			return fmt.Errorf("MTU %d: %w", cfg.MTU, err)
		}
	}
	for _, p := range cfg.Addresses {
		if err := addAddress(h, link, p); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	return nil
}

// addAddress puts an address on an interface as Config.Addresses says.
func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	addr := &netlink.Addr{IPNet: ip, Scope: unix.RT_SCOPE_HOST}
	if p.Addr().Is6() {
		// The address is the director's as well, so it must not be asked for (DAD). No preferred lifetime: deprecated.
		addr.Flags, addr.ValidLft, addr.PreferedLft = unix.IFA_F_NODAD, math.MaxUint32, 0
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %v: %w", p, err)
	}
	return nil
}

// quiet keeps the stack from dropping what comes out of the device, and from talking into it on its own account. v6 says that
// there will be IPv6 addresses.
func (d *Device) quiet(v6 bool) error {
	// Off, or there would be a link-local address, router solicitations and multicast reports: noise, no more, and so
	// it doesn't matter if the kernel has no IPv6 or the settings cannot be written.
	conf := "net/ipv6/conf/" + d.name + "/"
	if v6 {
		for _, s := range [][2]string{{"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"router_solicitations", "0"}} {
			_ = writeSysctl(conf+s[0], s[1])
		}
		if value, err := readSysctl(conf + "disable_ipv6"); err != nil || value != "0" {
			if err := writeSysctl(conf+"disable_ipv6", "0"); err != nil {
				return fmt.Errorf("switch IPv6 on: %w", err)
			}
		}
	} else {
		_ = writeSysctl(conf+"disable_ipv6", "1")
	}
	// What comes out of the device has sources that are reached by another way. rp_filter would drop it: the setting in
	// force is the higher one of "all" and the device's own, so 0 is no help where "all" is 1 now or will be one day.
	// 2 is: it asks no more than that there be a way back at all, and without one there could be no answer either.
	own, all := "net/ipv4/conf/"+d.name+"/rp_filter", "net/ipv4/conf/all/rp_filter"
	err := writeSysctl(own, "2")
	if err == nil {
		return nil
	}
	for _, name := range []string{own, all} {
		if value, readErr := readSysctl(name); readErr != nil || value == "1" {
			return fmt.Errorf("let packets in whose way back is another: %w; by hand: sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0", err)
		}
	}
	return nil // it cannot be written, as in a container, but is not strict either
}

// Name is the interface's name.
func (d *Device) Name() string { return d.name }

// Index is the interface's number.
func (d *Device) Index() int { return d.index }

// Write hands one packet to the host's stack: a virtio-net header, whose offsets count from the packet's first byte, and
// the packet. Errors: ErrGone, ErrDown, EINVAL for a header that contradicts the packet or that the kernel doesn't know.
func (d *Device) Write(b []byte) (int, error) {
	n, err := d.file.Write(b)
	if err != nil {
		return n, d.explain(err)
	}
	return n, nil
}

// Read waits for a packet that the host's stack sends into the device, and writes its virtio-net header and the packet to
// b. A packet that is longer than b is cut. Close ends it.
func (d *Device) Read(b []byte) (int, error) {
	n, err := d.file.Read(b)
	if err != nil {
		return n, d.explain(err)
	}
	return n, nil
}

// MaxPacket is the length in bytes of the longest read: a virtio-net header and an IP packet.
const MaxPacket = packet.VnetLen + 1<<16 - 1

// explain gives the driver's error numbers a meaning.
func (d *Device) explain(err error) error {
	switch {
	case errors.Is(err, unix.EBADFD):
		return fmt.Errorf("%s: %w", d.name, ErrGone)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%s: %w", d.name, ErrDown)
	}
	return err
}

// Close removes the device with its addresses.
func (d *Device) Close() error { return d.file.Close() }
