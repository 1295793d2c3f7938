package link

import (
	"fmt"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// simple receives with recvmmsg into buffers of its own: the reference for the ring, and its stand-in.
type simple struct {
	s     *Socket
	fd    int
	vnet  bool
	start int // where in a buffer the kernel begins to write
	held  int // buffers handed out, from the first

	bufs  [][]byte
	msgs  []unix.Mmsghdr
	iovs  []unix.Iovec
	names []unix.RawSockaddrLinklayer
	auxs  []auxMessage
}

// newSimple prepares a socket to be read with up to batch frames at a time.
func newSimple(s *Socket, batch int) (*simple, error) {
	if err := unix.SetsockoptInt(s.rxFD, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return nil, fmt.Errorf("PACKET_AUXDATA: %w", err)
	}
	r := &simple{
		s:     s,
		fd:    s.rxFD,
		vnet:  s.info.Vnet,
		start: frameOffset,
		bufs:  newBuffers(batch),
		msgs:  make([]unix.Mmsghdr, batch),
		iovs:  make([]unix.Iovec, batch),
		names: make([]unix.RawSockaddrLinklayer, batch),
		auxs:  make([]auxMessage, batch),
	}
	if r.vnet {
		r.start -= packet.VnetLen
	}
	for i := range r.msgs {
		into := r.bufs[i][r.start:]
		r.iovs[i].Base = &into[0]
		r.iovs[i].SetLen(len(into))
		r.msgs[i].Hdr.Iov = &r.iovs[i]
		r.msgs[i].Hdr.SetIovlen(1)
	}
	return r, nil
}

func (r *simple) close() error { return nil }

func (r *simple) release() { r.held = 0 }

// tend has nothing to do: a frame that cannot be described costs itself alone.
func (r *simple) tend() {}

func (r *simple) recv(frames []Frame) int {
	want := min(len(frames), len(r.msgs)-r.held)
	if want == 0 {
		return 0
	}
	msgs := r.msgs[r.held : r.held+want]
	for i := range msgs {
		setName(&msgs[i].Hdr, &r.names[r.held+i])
		r.auxs[r.held+i].setControl(&msgs[i].Hdr)
	}
	n := r.fill(msgs)
	for i := range n {
		r.take(&frames[i], r.held+i)
	}
	r.held += n
	return n
}

// fill receives into msgs. An error in place of frames is the socket's pending one, taken by the call.
func (r *simple) fill(msgs []unix.Mmsghdr) int {
	for range msgs {
		n, errno := recvmmsg(r.fd, msgs)
		switch errno {
		case 0:
			return n
		case unix.EAGAIN:
			return 0
		case unix.EINVAL:
			// A frame that the kernel took from its queue and could not describe in a virtio-net header. In the
			// middle of a batch it ends the batch and the error waits for the next call.
			r.s.count.rxError.Add(1)
		}
	}
	return 0
}

// take describes the frame in buffer i.
func (r *simple) take(f *Frame, i int) {
	buf, aux := r.bufs[i], &r.auxs[i]
	end := r.start + int(r.msgs[i].Len)
	*f = Frame{
		Type:      r.names[i].Pkttype,
		Truncated: end > len(buf),
		Buf:       buf[frameOffset-packet.VnetLen : max(frameOffset, min(end, len(buf)))],
		mem:       buf,
	}
	if !r.vnet {
		clear(f.Buf[:packet.VnetLen])
	}
	if r.msgs[i].Hdr.Controllen == 0 || aux.Level != unix.SOL_PACKET || aux.Type != unix.PACKET_AUXDATA ||
		aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
		return
	}
	f.Tagged, f.VLAN, f.TPID = true, aux.Vlan_tci, aux.Vlan_tpid
	if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
		f.TPID = unix.ETH_P_8021Q
	}
}
