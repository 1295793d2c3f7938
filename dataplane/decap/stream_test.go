package decap

import (
	"net/netip"
	"testing"

	"uvs/lab"
	"uvs/packet"
)

const streamBytes = 8 << 20

// A TCP connection through a tunnel, both ways, every byte checked.
func TestStreamsArriveIntact(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    lab.Config
		merged bool // the real server's interface merges segments, and it can be seen that it does
	}{
		{name: "offloads on"},
		{name: "offloads off", cfg: lab.Config{OffloadsOff: true}},
		{name: "MTU 9000", cfg: lab.Config{MTU: 9000}},
		{name: "segments merged on receipt", merged: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, c.cfg)
			if c.merged {
				n.mergeOnReceipt(t)
			}
			n.encapsulate(t)
			r := n.start(t, Config{})
			_, err := lab.ServeHTTP(n.rs.Namespace, "rs1", netip.AddrPortFrom(n.VIP(), 80))
			must(t, err)
			base := "http://" + n.VIP().String()
			up, err := lab.Upload(shortly(t), n.client.HTTPClient(), base, streamBytes)
			must(t, err)
			down, err := lab.Download(shortly(t), n.client.HTTPClient(), base, streamBytes)
			must(t, err)
			if up.Server != "rs1" || down.Server != "rs1" {
				t.Errorf("answered by %s and %s, want rs1", up.Server, down.Server)
			}
			s := r.Stats()
			t.Logf("up in %v, down in %v; %+v", up.Took, down.Took, s)
			if s.Received != s.Verdicts[Delivered] || s.Bytes < streamBytes {
				t.Errorf("stats %+v", s)
			}
			if (s.SuperFrames > 0) != c.merged {
				t.Errorf("%d super-frames of %d packets", s.SuperFrames, s.Received)
			}
		})
	}
}

// mergeOnReceipt makes the real server's interface hold segments back and merge them (GRO), as a busy network card does.
// A veth end does so only if the other end doesn't send super-frames.
func (n *network) mergeOnReceipt(t testing.TB) {
	t.Helper()
	must(t, n.rs.SetOffloads("eth0", true))
	must(t, n.Switch.SetOffloads(n.rs.Legs[0].Port, false))
	// sysfs shows the namespace it was mounted in.
	out, err := n.rs.Command(shortly(t), "unshare", "--mount", "sh", "-c", `mount -t sysfs none /sys && cd /sys/class/net/eth0 &&
		echo 200000 >gro_flush_timeout && echo 1000 >napi_defer_hard_irqs`).CombinedOutput()
	if err != nil {
		t.Fatalf("make eth0 hold segments back: %v\n%s", err, out)
	}
}

// A sender next door, such as a container on the same machine, leaves the inner checksum to a network card that never
// comes: only the virtio-net header tells.
func TestChecksumLeftUndoneIsNoError(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	n.serveUDP(t)
	c, port := n.udpPort(t)
	inner := n.datagram(port, 53, []byte("left to the card"))
	l4 := inner[packet.IPv4Len:]
	(*packet.UDP)(l4).SetChecksum(packet.Fold(packet.Pseudo4(number(n.client.Addr()), number(n.VIP()), packet.ProtoUDP, len(l4))))
	var v packet.Vnet
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(packet.EthLen + 2*packet.IPv4Len)
	v.SetCsumOffset(6)
	n.inject(t, n.director, v, wrap(inner, n.director.Addr(), n.rs.Addr()))
	n.answered(t, c, "left to the card")

	// Without a word about it, it is what it looks like: a damaged packet, which the stack drops.
	n.inject(t, n.director, packet.Vnet{}, wrap(inner, n.director.Addr(), n.rs.Addr()))
	n.tunnel(t, n.director, n.datagram(port, 53, []byte("the next one")))
	n.answered(t, c, "the next one")
	r.count(t, Delivered, 3)
}
