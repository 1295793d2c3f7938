package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// TapConfig says what a TAP device is like.
type TapConfig struct {
	// Name is the interface's name: 1 to 15 bytes. A %d in it becomes the first free number.
	Name string
	// MAC is the interface's address. The host sends everything to it as well: there is no ARP, and no other station.
	MAC packet.MAC
	// Address is put on the interface, with host scope: see Config.Addresses.
	Address netip.Addr
	// Queues is how many descriptors the host's packets are spread over, by flow. Default 1.
	Queues int
	// MTU in bytes of the IP packets that the stack sends; those that it is given may be longer. Default 1500.
	MTU int
}

// Tap is an Ethernet device of the host's with this process behind it. Frames have a virtio-net header in front, in both
// directions, and the stack leaves checksums and segmentation to the reader. It takes packets for 127.0.0.0/8, which the
// host otherwise takes from its loopback alone, and it is none to be routed by: what isn't for the host is dropped.
//
// IPv6 is off until AddAddress6.
//
// It goes with its last queue's descriptor: with Close, or when the process ends in whatever way.
type Tap struct {
	queues []int
	name   string
	index  int
}

// OpenTap makes a device in the network namespace of the calling thread, and brings it up. Needs CAP_NET_ADMIN.
func OpenTap(cfg TapConfig) (_ *Tap, err error) {
	t := &Tap{name: cfg.Name}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	flags := uint16(unix.IFF_TAP | unix.IFF_TUN_EXCL)
	if cfg.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	for range max(cfg.Queues, 1) {
		fd, err := openDriver()
		if err != nil {
			return nil, err
		}
		t.queues = append(t.queues, fd)
		if t.name, err = attach(fd, t.name, flags, true); err != nil {
			return nil, fmt.Errorf("make TAP device %s: %w", cfg.Name, err)
		}
		flags &^= unix.IFF_TUN_EXCL // the others join the first
	}
	if err := t.dress(cfg); err != nil {
		return nil, fmt.Errorf("set up TAP device %s: %w", t.name, err)
	}
	return t, nil
}

// tapQueueLen is how many packets of the host's wait to be read. The driver's own 500 overflow with a few fast connections.
const tapQueueLen = 2000

// dress gives the device its settings.
func (t *Tap) dress(cfg TapConfig) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(t.name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	for _, set := range []error{
		h.LinkSetHardwareAddr(link, net.HardwareAddr(cfg.MAC[:])), h.LinkSetARPOff(link), h.LinkSetTxQLen(link, tapQueueLen),
		writeSysctl("net/ipv4/conf/"+t.name+"/route_localnet", "1"),
		writeSysctl("net/ipv4/conf/"+t.name+"/forwarding", "0"),
	} {
		if set != nil {
			return set
		}
	}
	d := Device{name: t.name}
	own := Config{MTU: cfg.MTU}
	if cfg.Address.IsValid() {
		own.Addresses = []netip.Prefix{netip.PrefixFrom(cfg.Address, cfg.Address.BitLen())}
	}
	return d.dress(own)
}

// AddAddress6 switches IPv6 on and gives the interface an address of its own, which is the only one that the host chooses as
// the source of what it sends this way: see Config.Addresses.
func (t *Tap) AddAddress6(a netip.Addr) error {
	if err := t.addAddress6(a); err != nil {
		return fmt.Errorf("set up IPv6 on TAP device %s: %w", t.name, err)
	}
	return nil
}

func (t *Tap) addAddress6(a netip.Addr) error {
	d := Device{name: t.name}
	if err := d.quiet(true); err != nil {
		return err
	}
	conf := "net/ipv6/conf/" + t.name + "/"
	for _, s := range [][2]string{{"forwarding", "0"}, {"use_oif_addrs_only", "1"}} {
		if err := writeSysctl(conf+s[0], s[1]); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(t.name)
	if err != nil {
		return err
	}
	if err := addAddress(h, link, netip.PrefixFrom(a, a.BitLen())); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// Name is the interface's name.
func (t *Tap) Name() string { return t.name }

// Index is the interface's number.
func (t *Tap) Index() int { return t.index }

// Queue returns a descriptor, non-blocking and the caller's own, of queue i. Those beyond the last are the first.
func (t *Tap) Queue(i int) (fd int, err error) {
	if i >= len(t.queues) {
		i = 0
	}
	fd, err = unix.FcntlInt(uintptr(t.queues[i]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("queue %d of %s: %w", i, t.name, err)
	}
	return fd, nil
}

// Close lets go of the device, which goes when the descriptors that Queue has given are closed as well.
func (t *Tap) Close() error {
	var errs []error
	for _, fd := range t.queues {
		errs = append(errs, unix.Close(fd))
	}
	t.queues = nil
	return errors.Join(errs...)
}
