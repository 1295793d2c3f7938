package decap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// tap receives tunnelled packets of one IP family from all interfaces of a network namespace.
//
// It is an AF_PACKET socket and not a raw IP socket, which would be simpler, because a raw socket says too little. Where
// the host's card or driver merges the segments of a tunnelled TCP stream (GRO, on by default on most), a raw socket hands
// over one long packet whose inner checksum is only the pseudo-header's sum, and nothing tells it from a damaged one; of
// UDP datagrams merged likewise the boundaries would be lost. AF_PACKET puts a virtio-net header before each that says it
// all, and the TUN device takes just such a header.
//
// What a raw socket does of itself is done here by other means: the kernel puts IPv4's fragments together (fanout with
// FLAG_DEFRAG, a group of one), Addresses says what is local, and refusalGuard keeps the kernel from refusing the packets.
type tap struct {
	file *os.File
	raw  rawConn
	msgs []unix.Mmsghdr
	iovs []unix.Iovec
	envs []envelope
	bufs [][]byte

	read  func(fd uintptr) bool // receive, made once: a closure made at each call would be allocated
	n     int                   // results of receive
	errno unix.Errno
}

// rawConn is syscall.RawConn's part that is used.
type rawConn interface {
	Read(f func(fd uintptr) bool) error
	Control(f func(fd uintptr)) error
}

const (
	// batch is how many frames a system call takes. More gains nothing: recvmmsg's price is per message.
	batch = 32
	// room is that of a frame: virtio-net header, link header, and the longest IP packet. The kernel doesn't merge
	// tunnelled packets into longer ones.
	room = packet.VnetLen + 64 + 1<<16
	// queue is what may wait in the socket, in bytes of kernel memory.
	queue = 16 << 20
)

// Where a classic BPF program reads what isn't in the packet, and the packet from its IP header on (linux/filter.h).
const (
	skfAdOff     = 0xfffff000 // SKF_AD_OFF
	skfAdPktType = 4          // SKF_AD_PKTTYPE
	skfAdIfindex = 8          // SKF_AD_IFINDEX
	skfNetOff    = 0xfff00000 // SKF_NET_OFF
)

// filter passes tunnelled packets of one IP family that are for this host, to tell by the link layer, and don't come out of
// interface except: a tunnel inside a tunnel would come round again.
func filter(v6 bool, guePort uint16, except int) []unix.SockFilter {
	const load, word, half, octet = unix.BPF_LD | unix.BPF_ABS, unix.BPF_W, unix.BPF_H, unix.BPF_B
	const equal, ret = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	protocol, protocols := uint32(skfNetOff+9), []uint32{packet.ProtoIPIP, packet.ProtoIPv6, packet.ProtoGRE}
	port := []unix.SockFilter{ // where the port is, behind IPv4's header of any length
		{Code: unix.BPF_LDX | unix.BPF_MSH | unix.BPF_B, K: skfNetOff},
		{Code: unix.BPF_LD | unix.BPF_IND | half, K: skfNetOff + 2},
	}
	if v6 {
		protocol = skfNetOff + 6
		port = []unix.SockFilter{{Code: load | half, K: skfNetOff + packet.IPv6Len + 2}}
	}
	p := []unix.SockFilter{
		{Code: load | octet, K: skfAdOff + skfAdPktType},
		{Code: equal, K: unix.PACKET_HOST, Jt: 1},
		{Code: ret, K: 0},
		{Code: load | word, K: skfAdOff + skfAdIfindex},
		{Code: equal, K: uint32(except), Jf: 1},
		{Code: ret, K: 0},
		{Code: load | octet, K: protocol},
	}
	for _, proto := range protocols {
		p = append(p, unix.SockFilter{Code: equal, K: proto, Jf: 1}, unix.SockFilter{Code: ret, K: 0xffffffff})
	}
	if v6 { // a fragment header: what it says is next is looked at; of UDP only the first fragment shows the port
		q := []unix.SockFilter{{Code: load | octet, K: skfNetOff + packet.IPv6Len}}
		for _, proto := range append(protocols, packet.ProtoUDP) {
			q = append(q, unix.SockFilter{Code: equal, K: proto, Jf: 1}, unix.SockFilter{Code: ret, K: 0xffffffff})
		}
		q = append(q, unix.SockFilter{Code: ret, K: 0})
		p = append(append(p, unix.SockFilter{Code: equal, K: packet.ProtoFragment, Jf: uint8(len(q))}), q...)
	}
	if guePort != 0 {
		p = append(p, unix.SockFilter{Code: equal, K: packet.ProtoUDP, Jt: 1}, unix.SockFilter{Code: ret, K: 0})
		p = append(p, port...)
		p = append(p, unix.SockFilter{Code: equal, K: uint32(guePort), Jf: 1}, unix.SockFilter{Code: ret, K: 0xffffffff})
	}
	return append(p, unix.SockFilter{Code: ret, K: 0})
}

func attachFilter(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// openTap opens the socket for one IP family in the calling thread's network namespace. Packets out of the interface except are
// left alone.
func openTap(v6 bool, guePort uint16, except int) (*tap, error) {
	// Protocol 0 receives nothing until bind, when all is set.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == unix.EPERM {
		return nil, fmt.Errorf("open packet socket: %w: needs CAP_NET_RAW", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setUpTap(fd, v6, guePort, except); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up packet socket: %w", err)
	}
	t := &tap{
		file: os.NewFile(uintptr(fd), "packet socket"),
		msgs: make([]unix.Mmsghdr, batch),
		iovs: make([]unix.Iovec, batch),
		envs: make([]envelope, batch),
		bufs: make([][]byte, batch),
	}
	t.raw, err = t.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	t.read = t.receive
	for i := range t.msgs {
		t.bufs[i] = make([]byte, room)
		t.iovs[i].Base = &t.bufs[i][0]
		t.iovs[i].SetLen(room)
		t.msgs[i].Hdr.Iov = &t.iovs[i]
		t.msgs[i].Hdr.SetIovlen(1)
	}
	return t, nil
}

func setUpTap(fd int, v6 bool, guePort uint16, except int) error {
	for _, o := range []struct {
		name   string
		option int
	}{{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR}, {"PACKET_AUXDATA", unix.PACKET_AUXDATA}} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.option, 1); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue) != nil {
		// In a user namespace: what net.core.rmem_max allows has to do.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queue); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	if err := attachFilter(fd, filter(v6, guePort, except)); err != nil {
		return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	// For packets of the family, not for all: then a frame that comes in by a port of a bridge or bond, or with a VLAN tag, is
	// seen once, where the host's IP stack sees it.
	protocol := uint16(unix.ETH_P_IP)
	if v6 {
		protocol = unix.ETH_P_IPV6
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol)}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if v6 {
		return nil // the kernel puts fragments together for packet sockets only in IPv4
	}
	// The option's value has the group's number below, which UNIQUEID leaves to the kernel, and mode and flags above.
	// In a group of one all modes are alike; CPU is the one that computes nothing.
	const fanout = unix.PACKET_FANOUT_CPU | unix.PACKET_FANOUT_FLAG_DEFRAG | unix.PACKET_FANOUT_FLAG_UNIQUEID
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanout<<16); err != nil {
		return fmt.Errorf("PACKET_FANOUT: %w", err)
	}
	return nil
}

// networkOrder is n as the kernel wants it in a sockaddr_ll.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)})
}

// receive fills the batch. It returns false if nothing waits.
func (t *tap) receive(fd uintptr) bool {
	for i := range t.msgs {
		t.envs[i].address(&t.msgs[i].Hdr)
	}
	t.n, t.errno = recvmmsg(fd, t.msgs)
	return t.errno != unix.EAGAIN
}

// wait receives up to a batch of frames and returns their number; 0 after an error that passes, which errs counts. It
// blocks until there are some, or until interruptWith's ctx ends: then it returns os.ErrDeadlineExceeded.
func (t *tap) wait(errs *uint64) (int, error) {
	if err := t.raw.Read(t.read); err != nil {
		return 0, err
	}
	switch t.errno {
	case 0:
		return t.n, nil
	case unix.EINTR:
		return 0, nil
	case unix.EINVAL, unix.ENETDOWN, unix.ENOBUFS, unix.ENOMEM:
		// EINVAL: the kernel took a frame from the queue and could not describe it in a virtio-net header.
		*errs++
		return 0, nil
	}
	return 0, fmt.Errorf("receive from packet socket: %w", t.errno)
}

// frame is frame i of the batch.
func (t *tap) frame(i int) received {
	e, n := &t.envs[i], int(t.msgs[i].Len)
	r := received{buf: t.bufs[i][:min(n, room)], ifindex: int(e.from.Ifindex), truncated: n > room || n < packet.VnetLen}
	if t.msgs[i].Hdr.Controllen == 0 || e.Level != unix.SOL_PACKET || e.Type != unix.PACKET_AUXDATA {
		r.truncated = true // nothing says where the IP header is; doesn't happen
	}
	r.l3 = int(e.aux.Net)
	return r
}

// received is a frame as the kernel handed it over.
type received struct {
	buf       []byte // virtio-net header and frame
	l3        int    // offset of the IP header in the frame
	ifindex   int
	truncated bool
}

// interruptWith makes wait return when ctx ends. The caller calls the result when it is done waiting.
func (t *tap) interruptWith(ctx context.Context) (done func() bool) {
	return context.AfterFunc(ctx, func() { _ = t.file.SetReadDeadline(time.Unix(1, 0)) })
}

// drops is how many frames found the queue full since it was last asked.
func (t *tap) drops() (n uint64) {
	_ = t.raw.Control(func(fd uintptr) {
		lost, _ := dropCounts(fd)
		n = uint64(lost)
	})
	return n
}

func (t *tap) close() error { return t.file.Close() }
