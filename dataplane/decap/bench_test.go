package decap

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uvs/lab"
	"uvs/packet"
)

// BenchmarkTunnelled is a tunnelled UDP datagram of 64 bytes from the wire to a socket on the VIP, whose queue is full
// most of the time. The sender works on the same machine and is in the figure.
func BenchmarkTunnelled(b *testing.B) {
	n := newNetwork(b, lab.Config{})
	r := n.start(b, Config{})
	_, err := n.rs.ListenPacket("udp4", n.VIP().String()+":53")
	must(b, err)
	ip := wrap(n.datagram(4000, 53, make([]byte, 64)), n.director.Addr(), n.rs.Addr())
	frame := append(make([]byte, packet.EthLen), ip...)
	packet.PutEth(frame, packet.MAC(n.rs.Legs[0].MAC), packet.MAC(n.director.Legs[0].MAC), packet.EtherIPv4)
	must(b, n.director.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := n.director.Index("eth0")
		if err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: index}
		b.ReportAllocs()
		sent := uint64(0)
		for b.Loop() {
			if err := unix.Sendto(fd, frame, 0, to); err != nil {
				return err
			}
			for sent++; sent%256 == 0 && sent-r.Stats().Received > 4096; {
				time.Sleep(10 * time.Microsecond)
			}
		}
		for end := time.Now().Add(time.Second); r.Stats().Received < sent && time.Now().Before(end); {
			time.Sleep(10 * time.Microsecond)
		}
		if s := r.Stats(); s.Received != sent || s.Verdicts[Delivered] != sent {
			b.Errorf("sent %d: %+v", sent, s)
		}
		return nil
	}))
}
