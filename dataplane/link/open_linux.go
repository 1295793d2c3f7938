package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Open attaches to an interface of the calling thread's network namespace. Frames arrive from the moment it
// returns; none that were on the wire before, and none that this host sends.
func Open(cfg Config) (*Socket, error) {
	cfg = cfg.withDefaults()
	if cfg.Kind != KindAuto {
		return open(cfg, cfg.Kind)
	}
	s, err := open(cfg, KindRing)
	if err == nil || errors.Is(err, ErrPermission) || errors.Is(err, ErrNoInterface) ||
		errors.Is(err, ErrNotEthernet) || errors.Is(err, ErrDown) {
		return s, err
	}
	s, simpleErr := open(cfg, KindSimple)
	if simpleErr != nil {
		return nil, errors.Join(err, simpleErr)
	}
	s.info.Reason = fmt.Sprintf("no ring: %v", err)
	return s, nil
}

// OpenTx opens a link that only sends, for those that write a frame now and then: its FD is -1 and Recv returns 0.
func OpenTx(cfg Config) (*Socket, error) {
	return open(cfg.withDefaults(), KindTransmit)
}

// open does the work for one kind. The socket is bound when all else is set, so that no frame arrives half-way.
func open(cfg Config, kind Kind) (_ *Socket, err error) {
	s := &Socket{rxFD: -1, txFD: -1}
	s.tx = newSender(cfg.Batch, &s.count)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.txFD, err = packetSocket(); err != nil {
		return nil, fmt.Errorf("open link on %s: %w", cfg.name(), err)
	}
	if s.info, err = findInterface(s.txFD, cfg); err != nil {
		return nil, fmt.Errorf("open link on %s: %w", cfg.name(), err)
	}
	s.info.Kind = kind
	fail := func(what string, err error) (*Socket, error) {
		return nil, fmt.Errorf("open %v link on %s: %s: %w", kind, s.info.Name, what, err)
	}
	if kind != KindTransmit {
		if s.rxFD, err = packetSocket(); err != nil {
			return fail("receive socket", err)
		}
	}
	s.info.Vnet = !cfg.NoVnet && setVnet(s.txFD) && (s.rxFD < 0 || setVnet(s.rxFD))
	if !s.info.Vnet {
		// One without the other would be worse than none: a frame's header is read on one and obeyed on another.
		unix.SetsockoptInt(s.txFD, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 0)
		unix.SetsockoptInt(s.rxFD, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 0)
	}
	if err = s.setUpTx(cfg); err != nil {
		return fail("transmit socket", err)
	}
	if kind != KindTransmit {
		if err = s.setUpRx(cfg, kind); err != nil {
			return fail("receive socket", err)
		}
	}
	if cfg.Promiscuous {
		if err = s.Promiscuous(); err != nil {
			return fail("promiscuous mode", err)
		}
	}
	for _, mac := range cfg.Unicast {
		if err = s.JoinUnicast(mac); err != nil {
			return fail("further MAC address", err)
		}
	}
	return s, nil
}

// setUpTx binds with protocol 0: such a socket never receives.
func (s *Socket) setUpTx(cfg Config) (err error) {
	s.info.SendBuffer = grow(s.txFD, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer)
	if cfg.QdiscBypass {
		if err := unix.SetsockoptInt(s.txFD, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return fmt.Errorf("PACKET_QDISC_BYPASS: %w", err)
		}
	}
	if err := unix.Bind(s.txFD, &unix.SockaddrLinklayer{Ifindex: s.info.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	sa, err := unix.Getsockname(s.txFD)
	if err != nil {
		return fmt.Errorf("read MAC address: %w", err)
	}
	if ll, ok := sa.(*unix.SockaddrLinklayer); ok {
		copy(s.info.MAC[:], ll.Addr[:])
	}
	s.tx.fd, s.tx.vnet = s.txFD, s.info.Vnet
	if s.info.Kind == KindRing && s.info.Vnet {
		if s.tx.ring, err = openTxRing(cfg, s.info, &s.count); err != nil {
			s.info.Reason = fmt.Sprintf("no transmit ring: %v", err) // sendmmsg sends everything as well
		}
	}
	return nil
}

// setUpRx prepares the receive socket, binds it, and last of all lets frames through.
func (s *Socket) setUpRx(cfg Config, kind Kind) (err error) {
	fd := s.rxFD
	s.info.RecvBuffer = grow(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.RecvBuffer)
	// Absent before Linux 4.20, and without effect in a fanout group; the filter stands in.
	s.hideOwn = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) != nil ||
		cfg.Fanout.Group != 0
	if kind == KindRing {
		r, err := newRing(s, cfg)
		if err != nil {
			return err
		}
		s.rx = r
	} else {
		r, err := newSimple(s, cfg.Batch)
		if err != nil {
			return err
		}
		s.rx = r
	}
	// Between bind and joining its fanout group a socket gets every frame, which other members get as well.
	if cfg.Fanout.Group != 0 {
		err = attachFilter(fd, dropAll)
	} else {
		err = s.setFilter(cfg.Filter)
	}
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{
		Protocol: htons(unix.ETH_P_ALL), Ifindex: s.info.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if cfg.Fanout.Group == 0 {
		return nil
	}
	if err := joinFanout(fd, cfg.Fanout); err != nil {
		return fmt.Errorf("fanout group %d: %w", cfg.Fanout.Group, err)
	}
	return s.setFilter(cfg.Filter)
}

// joinFanout makes fd a member of the group. The flag spares members our own transmissions where the kernel knows
// it; older ones ignore it, and the filter does the work.
func joinFanout(fd int, f Fanout) error {
	arg := uint32(f.Group) | (uint32(f.Mode)|unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING)<<16
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(int32(arg))); err != nil {
		return err
	}
	if f.Mode != FanoutProgram {
		return nil
	}
	if len(f.Program) == 0 {
		return errors.New("no program given")
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA,
		&unix.SockFprog{Len: uint16(len(f.Program)), Filter: &f.Program[0]})
}

// packetSocket opens an AF_PACKET socket that receives nothing before it is bound.
func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == unix.EPERM || err == unix.EACCES {
		return -1, fmt.Errorf("%w (run as root, or give the binary cap_net_raw,cap_net_admin): %w", ErrPermission, err)
	}
	if err != nil {
		return -1, fmt.Errorf("AF_PACKET socket: %w", err)
	}
	return fd, nil
}

// setVnet asks for the virtio-net header of ten bytes.
func setVnet(fd int) bool {
	return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil
}

// grow asks for a socket buffer of size bytes, past the system's limit if we may, and returns what was granted.
func grow(fd, force, plain, size int) int {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		// The kernel cuts the size to its limit instead of failing.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
	granted, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
	if err != nil {
		return 0
	}
	return granted
}

// name is the interface as the caller named it.
func (c Config) name() string {
	if c.Interface == "" {
		return fmt.Sprintf("interface %d", c.Index)
	}
	return c.Interface
}

// findInterface looks the interface up, through any socket, and checks that it can carry frames.
func findInterface(fd int, cfg Config) (Info, error) {
	info := Info{Name: cfg.Interface, Index: cfg.Index}
	if info.Name == "" {
		name, err := interfaceName(fd, info.Index)
		if err != nil {
			return info, notFound(err)
		}
		info.Name = name
	}
	ask := func(request uint) (*unix.Ifreq, error) {
		ifr, err := unix.NewIfreq(info.Name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoInterface, err)
		}
		return ifr, notFound(unix.IoctlIfreq(fd, request, ifr))
	}
	ifr, err := ask(unix.SIOCGIFINDEX)
	if err != nil {
		return info, err
	}
	info.Index = int(ifr.Uint32())
	if ifr, err = ask(unix.SIOCGIFHWADDR); err != nil {
		return info, err
	}
	// The address's family is the interface's ARPHRD type.
	if kind := ifr.Uint16(); kind != unix.ARPHRD_ETHER && (kind != unix.ARPHRD_LOOPBACK || !cfg.Loopback) {
		return info, fmt.Errorf("%w (type %d)", ErrNotEthernet, kind)
	}
	if ifr, err = ask(unix.SIOCGIFMTU); err != nil {
		return info, err
	}
	info.MTU = int(ifr.Uint32())
	if ifr, err = ask(unix.SIOCGIFFLAGS); err != nil {
		return info, err
	}
	if ifr.Uint16()&unix.IFF_UP == 0 {
		return info, fmt.Errorf("%w: ip link set %s up", ErrDown, info.Name)
	}
	return info, nil
}

func notFound(err error) error {
	if err == unix.ENODEV || err == unix.ENXIO {
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	}
	return err
}

// interfaceName is the name of the interface with that index; ENODEV if there is none.
func interfaceName(fd, index int) (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	ifr.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// interfaceFlags are the interface's IFF_* flags; ENODEV if it is gone.
func interfaceFlags(fd, index int) (uint16, error) {
	name, err := interfaceName(fd, index)
	if err != nil {
		return 0, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return 0, err
	}
	return ifr.Uint16(), nil
}

// htons gives v in network byte order, as sockaddr_ll wants it.
func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
