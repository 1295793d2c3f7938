package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CapturedFrame is a frame as the kernel's taps see it.
type CapturedFrame struct {
	// Time is when the kernel saw it; for the first frames after a machine's first capture began, when it was read.
	Time time.Time
	// Out is true for a frame that the interface sends, false for one that it receives.
	Out bool
	// PacketType is unix.PACKET_HOST, PACKET_OTHERHOST and so on; PACKET_OUTGOING with Out.
	PacketType uint8
	// PartialChecksum says that the sender left the transport checksum to the hardware: the field in Data holds the
	// sum of the pseudo-header.
	PartialChecksum bool
	// SegmentSize is the payload of each segment of a super-frame, in bytes; 0 for an ordinary frame.
	SegmentSize int
	// Data is the frame from its Ethernet header on, with its VLAN tag in place.
	Data []byte
}

const (
	vnetHdrLen        = 10      // struct virtio_net_hdr
	vnetNeedsChecksum = 1       // VIRTIO_NET_HDR_F_NEEDS_CSUM
	captureBuffer     = 1 << 19 // the longest frame: BIG TCP, 512 KiB
	captureQueue      = 64 << 20
)

// Capture records an interface's frames, both ways, until Stop.
type Capture struct {
	ns     *Namespace
	ifname string
	file   *os.File
	conn   syscall.RawConn
	forget func() // takes it off the lab's list
	ended  chan struct{}
	stop   sync.Once

	mu      sync.Mutex // guards what follows
	frames  []CapturedFrame
	more    chan struct{} // closed and replaced at each new frame
	dropped int
	err     error
}

// Capture starts to record what an interface of the namespace sends and receives. What a packet socket sends with
// PACKET_QDISC_BYPASS is not seen by the kernel's taps, nor is what XDP takes.
func (n *Namespace) Capture(ifname string) (*Capture, error) {
	c := &Capture{ns: n, ifname: ifname, ended: make(chan struct{}), more: make(chan struct{}), forget: func() {}}
	err := n.Do(func() error {
		fd, err := openCapture(ifname)
		if err != nil {
			return err
		}
		c.file = os.NewFile(uintptr(fd), "capture of "+ifname)
		c.conn, err = c.file.SyscallConn()
		return err
	})
	if err == nil && n != nil {
		c.forget, err = n.lab.own(func() error { c.Stop(); return nil })
	}
	if err != nil {
		if c.file != nil {
			c.file.Close()
		}
		return nil, fmt.Errorf("capture on %s in %s: %w", ifname, n, err)
	}
	go c.run()
	return c, nil
}

// openCapture opens a non-blocking packet socket on an interface of the thread's namespace.
func openCapture(ifname string) (fd int, err error) {
	// Protocol 0: nothing comes before the bind, when everything is set.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	req, err := unix.NewIfreq(ifname)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return -1, fmt.Errorf("find interface: %w", err)
	}
	for _, o := range []struct{ level, option int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR}, {unix.SOL_PACKET, unix.PACKET_AUXDATA},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, 1); err != nil {
			return -1, fmt.Errorf("set socket option %d: %w", o.option, err)
		}
	}
	// In a user namespace the force is refused and the machine's limit holds; drops are counted.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureQueue) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureQueue); err != nil {
			return -1, fmt.Errorf("set receive buffer: %w", err)
		}
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // big-endian on the wire and in sockaddr_ll
	addr := &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(int32(req.Uint32()))}
	if err := unix.Bind(fd, addr); err != nil {
		return -1, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}

// run records until the file's deadline is set by Stop.
func (c *Capture) run() {
	defer close(c.ended)
	r := captureReader{buf: make([]byte, captureBuffer), oob: make([]byte, 256)}
	for {
		var f CapturedFrame
		var err error
		waitErr := c.conn.Read(func(fd uintptr) bool {
			f, err = r.read(int(fd))
			return err != unix.EAGAIN
		})
		switch {
		case waitErr != nil:
			c.drain(&r)
			return
		case err == unix.ENETDOWN || err == unix.EINTR:
			// The interface went down, and may come up again.
		case err != nil:
			c.fail(err)
			return
		default:
			c.add(f)
		}
	}
}

// drain records what has arrived and was not read yet. Time stamps cannot tell where that ends: the kernel makes up
// late ones (see CapturedFrame.Time). So first nothing more is let in.
func (c *Capture) drain(r *captureReader) {
	var err error
	controlErr := c.conn.Control(func(fd uintptr) {
		dropAll := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
		prog := &unix.SockFprog{Len: 1, Filter: &dropAll}
		if err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
			return
		}
		for {
			f, readErr := r.read(int(fd))
			switch readErr {
			case nil:
				c.add(f)
			case unix.ENETDOWN, unix.EINTR:
			case unix.EAGAIN:
				return
			default:
				err = readErr
				return
			}
		}
	})
	c.fail(errors.Join(controlErr, err))
}

// add records a frame and wakes those who wait for one.
func (c *Capture) add(f CapturedFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, f)
	close(c.more)
	c.more = make(chan struct{})
}

// fail notes why recording ended early.
func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// Frames returns what was recorded so far, in order.
func (c *Capture) Frames() []CapturedFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Wait returns the first recorded frame that match accepts, waiting for it until ctx ends or the capture does. match
// sees each frame once.
func (c *Capture) Wait(ctx context.Context, match func(CapturedFrame) bool) (CapturedFrame, error) {
	for seen := 0; ; {
		c.mu.Lock()
		fresh, more := c.frames[seen:len(c.frames):len(c.frames)], c.more
		c.mu.Unlock()
		for _, f := range fresh {
			if match(f) {
				return f, nil
			}
		}
		if seen += len(fresh); len(fresh) > 0 {
			continue
		}
		select {
		case <-more:
		case <-c.ended:
			c.mu.Lock()
			done := seen == len(c.frames)
			c.mu.Unlock()
			if done {
				return CapturedFrame{}, fmt.Errorf("capture on %s in %s ended without the frame", c.ifname, c.ns)
			}
		case <-ctx.Done():
			return CapturedFrame{}, fmt.Errorf("capture on %s in %s: no such frame among %d: %w", c.ifname, c.ns, seen, ctx.Err())
		}
	}
}

// Stop ends the recording and returns the frames seen before, in order. Calling it again returns them again.
func (c *Capture) Stop() []CapturedFrame {
	c.stop.Do(func() {
		c.file.SetReadDeadline(time.Unix(1, 0)) // wakes run, which drains the socket
		<-c.ended
		var stats *unix.TpacketStats
		var err error
		controlErr := c.conn.Control(func(fd uintptr) {
			stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		})
		c.fail(errors.Join(controlErr, err, c.file.Close()))
		if stats != nil {
			c.mu.Lock()
			c.dropped = int(stats.Drops)
			c.mu.Unlock()
		}
		c.forget()
	})
	return c.Frames()
}

// Dropped says, after Stop, how many frames were missed because the socket's queue was full. A test that claims a
// frame was not there asks it.
func (c *Capture) Dropped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// Err says, after Stop, why the recording ended before Stop or is not complete; nil if all went well.
func (c *Capture) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// captureReader reads frames from a packet socket.
type captureReader struct{ buf, oob []byte }

// read reads one frame, without waiting. Its errors are bare errnos.
func (r *captureReader) read(fd int) (CapturedFrame, error) {
	n, oobn, _, from, err := unix.Recvmsg(fd, r.buf, r.oob, 0)
	if err != nil {
		return CapturedFrame{}, err
	}
	if n < vnetHdrLen {
		return CapturedFrame{}, unix.EPROTO
	}
	// virtio_net_hdr: flags, gso_type uint8; hdr_len, gso_size, csum_start, csum_offset uint16, machine's order.
	hdr, data := r.buf[:vnetHdrLen], r.buf[vnetHdrLen:n]
	f := CapturedFrame{PartialChecksum: hdr[0]&vnetNeedsChecksum != 0}
	if hdr[1] != 0 {
		f.SegmentSize = int(binary.NativeEndian.Uint16(hdr[4:]))
	}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		f.PacketType, f.Out = ll.Pkttype, ll.Pkttype == unix.PACKET_OUTGOING
	}
	messages, err := unix.ParseSocketControlMessage(r.oob[:oobn])
	if err != nil {
		return CapturedFrame{}, unix.EPROTO
	}
	var tag []byte
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS_NEW && len(m.Data) >= 16:
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			f.Time = time.Unix(int64(sec), int64(nsec))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA:
			tag = vlanTag(m.Data)
		}
	}
	if len(tag) > 0 && len(data) >= 12 {
		f.Data = slices.Concat(data[:12], tag, data[12:])
	} else {
		f.Data = slices.Clone(data)
	}
	return f, nil
}

// vlanTag is the tag that the kernel took out of a frame, as it stood there; nil if there was none. aux is a struct
// tpacket_auxdata: status, len, snaplen uint32; mac, net, vlan_tci, vlan_tpid uint16.
func vlanTag(aux []byte) []byte {
	ne, be := binary.NativeEndian, binary.BigEndian
	if len(aux) < 20 || ne.Uint32(aux)&unix.TP_STATUS_VLAN_VALID == 0 {
		return nil
	}
	tpid := uint16(unix.ETH_P_8021Q)
	if ne.Uint32(aux)&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = ne.Uint16(aux[18:])
	}
	return be.AppendUint16(be.AppendUint16(nil, tpid), ne.Uint16(aux[16:]))
}
