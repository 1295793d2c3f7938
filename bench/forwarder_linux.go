package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"

	mdlayher "github.com/mdlayher/packet"

	"golang.org/x/sys/unix"

	"uvs/dataplane/link"
	"uvs/packet"
)

// ForwarderConfig says between which interfaces a forwarder carries frames. Frames to MAC[0] on the first go out of the
// second to To[1], frames to MAC[1] on the second go out of the first to To[0]. Both MACs are foreign to the host, as uvs's
// own is, so that its stack drops its copies as early as it does under uvs.
type ForwarderConfig struct {
	Interface [2]string
	MAC, To   [2]packet.MAC
	Link      string    // of the bare forwarder: auto, ring or simple
	Ready     io.Writer // told when frames are forwarded from now on
}

// Forward is the bare forwarder: what a director costs that decides nothing. It works as uvs's workers do, on the same
// links, one thread for both ways: poll, receive a batch, rewrite the MAC addresses, send, flush, release.
func Forward(ctx context.Context, cfg ForwarderConfig) (err error) {
	var links []link.Link
	defer func() {
		for _, l := range links {
			err = errors.Join(err, l.Close())
		}
	}()
	kind, err := link.ParseKind(cfg.Link)
	if err != nil {
		return err
	}
	for i, name := range cfg.Interface {
		s, err := link.Open(link.Config{Interface: name, Kind: kind, Unicast: [][6]byte{cfg.MAC[i]}, Filter: link.ForStation(cfg.MAC[i], 0xffff, 0xffff)})
		if err != nil {
			return err
		}
		links = append(links, s)
	}
	p, err := link.NewPoller(links...)
	if err != nil {
		return err
	}
	defer p.Close()
	defer context.AfterFunc(ctx, p.Wake)()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	frames := make([]link.Frame, 64)
	fmt.Fprintln(cfg.Ready, forwarderReady)
	for ctx.Err() == nil {
		busy := false
		for i, in := range links {
			n := in.Recv(frames)
			for j := range frames[:n] {
				f := &frames[j]
				if cfg.rewrite(i, f.Eth()) && !f.Truncated {
					links[1-i].Send(f.Buf, nil)
				}
			}
			if n > 0 {
				busy = true
				links[1-i].Flush()
				in.Release()
			}
		}
		if !busy {
			p.Wait(-1)
		}
	}
	return nil
}

// rewrite makes a frame that came in by port i one that goes out by the other, if it is to be forwarded.
func (cfg *ForwarderConfig) rewrite(i int, frame []byte) bool {
	eth, _, ok := packet.ParseEth(frame)
	if !ok || eth.Dst() != cfg.MAC[i] {
		return false
	}
	eth.SetSrc(cfg.MAC[1-i])
	eth.SetDst(cfg.To[1-i])
	return true
}

// ForwardSingly is a forwarder as one writes it first: one frame at a time, by the mdlayher/packet module.
func ForwardSingly(ctx context.Context, cfg ForwarderConfig) error {
	var conns [2]*mdlayher.Conn
	for i, name := range cfg.Interface {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if conns[i], err = mdlayher.Listen(ifi, mdlayher.Raw, unix.ETH_P_ALL, nil); err != nil {
			return fmt.Errorf("listen on %s: %w", name, err)
		}
		defer conns[i].Close()
		if err := errors.Join(conns[i].SetPromiscuous(true), ignoreOutgoing(conns[i])); err != nil {
			return fmt.Errorf("listen on %s: %w", name, err)
		}
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.Close()
		}
	})()
	fmt.Fprintln(cfg.Ready, forwarderReady)
	ended := make(chan error, 2)
	for i := range conns {
		go func() { ended <- cfg.carry(i, conns[i], conns[1-i]) }()
	}
	err := errors.Join(<-ended, <-ended)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ignoreOutgoing spares a socket the frames that others send by its interface.
func ignoreOutgoing(c *mdlayher.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	return errors.Join(controlErr, err)
}

// carry forwards what comes in by port i.
func (cfg *ForwarderConfig) carry(i int, in, out *mdlayher.Conn) error {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			return err
		}
		if !cfg.rewrite(i, buf[:n]) {
			continue
		}
		to := &mdlayher.Addr{HardwareAddr: cfg.To[1-i][:]}
		if _, err := out.WriteTo(buf[:n], to); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
	}
}
