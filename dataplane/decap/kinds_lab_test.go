package decap

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"uvs/lab"
	"uvs/packet"
)

// dual is network in both families, with a Decapsulator that allows director1 in both.
func dual(t *testing.T) (*network, *running) {
	n := newNetwork(t, lab.Config{IPv6: true})
	must(t, n.rs.RemoveAddr("lo", netip.PrefixFrom(n.VIPs6[0], 128)))
	n.VIPs = append(n.VIPs, n.VIPs6[0])
	r := n.start(t, Config{GUEPort: DefaultGUEPort, Directors: []netip.Prefix{
		netip.PrefixFrom(n.director.Addr(), 32), netip.PrefixFrom(n.director.Addr6(), 128),
	}})
	return n, r
}

// query is a datagram from the client's port to port 53 of the VIP of either family.
func (n *network) query(t *testing.T, v6 bool, from uint16, payload string) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: 53}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = ip4(n.client.Addr().String(), n.VIPs[0].String(), layers.IPProtocolUDP, 0)
	if v6 {
		ip = ip6(n.client.Addr6().String(), n.VIPs6[0].String(), layers.IPProtocolUDP, 0)
	}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	return bytesOf(t, ip, udp, gopacket.Payload(payload))
}

// tunnelBy sends an inner packet from director1 to the real server in a tunnel of kind k. The outer header is the kernel's,
// which fragments what is too long.
func (n *network) tunnelBy(t *testing.T, k kind, over6 bool, inner []byte) {
	t.Helper()
	frame := k.pack(t, false, 0, inner)
	payload := frame[34:]
	proto := int(frame[14+9])
	src, dst := n.director.Addr(), n.rs.Addr()
	if over6 {
		src, dst = n.director.Addr6(), n.rs.Addr6()
	}
	if k.proto == layers.IPProtocolUDP && k.checksum { // it was made for other addresses
		(*packet.UDP)(payload).SetChecksum(0)
		pseudo := packet.AddrFrom(src).Sum() + packet.AddrFrom(dst).Sum() + 17 + uint64(len(payload))
		(*packet.UDP)(payload).SetChecksum(^packet.Fold(packet.Sum(payload, pseudo)))
	}
	must(t, n.director.Do(func() error {
		family := unix.AF_INET
		var to unix.Sockaddr = &unix.SockaddrInet4{Addr: n.rs.Addr().As4()}
		if over6 {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: n.rs.Addr6().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if !over6 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, payload, 0, to)
	}))
}

// TestEveryKindArrives: a datagram in every kind of tunnel, of and over both families, short and so long that the outer packet
// comes in fragments, is answered by the VIP straight to the client.
func TestEveryKindArrives(t *testing.T) {
	n, r := dual(t)
	for _, vip := range []netip.Addr{n.VIPs[0], n.VIPs6[0]} {
		_, err := lab.ServeUDPEcho(n.rs.Namespace, "rs1", netip.AddrPortFrom(vip, 53))
		must(t, err)
	}
	waited := uint64(0)
	for _, k := range kinds {
		for i := range 8 {
			inner6, over6, long := i&1 != 0, i&2 != 0, i&4 != 0
			payload := fmt.Sprintf("%s %d", k.name, i)
			if long {
				payload += strings.Repeat(".", 4000)
				if over6 {
					waited += 2 // three fragments of IPv6, of which the last brings the datagram
				}
			}
			network, local := "udp4", n.client.Addr()
			if inner6 {
				network, local = "udp6", n.client.Addr6()
			}
			c, err := n.client.ListenPacket(network, netip.AddrPortFrom(local, 0).String())
			must(t, err)
			port := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
			n.tunnelBy(t, k, over6, n.query(t, inner6, port, payload))
			must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
			b := make([]byte, 1<<16)
			got, _, err := c.ReadFrom(b)
			if err != nil || string(b[:got]) != "rs1: "+payload {
				t.Errorf("%s, IPv6 inside %v, over IPv6 %v, long %v: answer of %d bytes, %v; %+v", k.name, inner6, over6, long, got, err, r.Stats())
			}
			must(t, c.Close())
		}
	}
	s := r.Stats()
	if n := uint64(len(kinds) * 8); s.Verdicts[Delivered] != n || s.Verdicts[Gathered] != waited || s.Received != n+waited {
		t.Errorf("%d datagrams, %d fragments before the last: %+v", n, waited, s)
	}
}

// TestVirtualAddressIsNotTheHostsOwnChoice: what the host sends of its own accord has no IPv6 VIP as its source. Where no better
// address is on the way out, only that it is deprecated (RFC 6724 section 5, rule 3) keeps the kernel from it.
func TestVirtualAddressIsNotTheHostsOwnChoice(t *testing.T) {
	n, _ := dual(t)
	c, err := n.rs.DialContext(shortly(t), "udp6", netip.AddrPortFrom(n.client.Addr6(), 9).String())
	must(t, err)
	if got := netip.MustParseAddrPort(c.LocalAddr().String()).Addr(); got != n.rs.Addr6() {
		t.Errorf("the host sends from %v, want %v", got, n.rs.Addr6())
	}
	must(t, c.Close())
	out, err := n.rs.Command(shortly(t), "ip", "-6", "addr", "show", "dev", DefaultDevice).CombinedOutput()
	must(t, err)
	if text := string(out); !strings.Contains(text, n.VIPs6[0].String()+"/128") || !strings.Contains(text, "deprecated") || strings.Contains(text, "tentative") || strings.Contains(text, "fe80:") {
		t.Errorf("the device has\n%s", text)
	}
}

// TestKernelRefusesNoKind: nobody else takes these protocols here, and still the director hears of no refusal.
func TestKernelRefusesNoKind(t *testing.T) {
	n, r := dual(t)
	back, err := n.director.Capture("eth0")
	must(t, err)
	sent := uint64(0)
	for _, k := range kinds {
		for i := range 4 {
			n.tunnelBy(t, k, i&1 != 0, n.query(t, i&2 != 0, 4000, "x"))
			sent++
		}
	}
	r.count(t, Delivered, sent)
	// What this asks comes after what the kernel answered before.
	_, err = n.director.DialContext(shortly(t), "tcp4", n.rs.Addr().String()+":9")
	if err == nil {
		t.Fatal("somebody listens on the discard port")
	}
	for _, f := range back.Stop() {
		if f.Out {
			continue
		}
		proto, _, msg, ok := packet.DecodeQuotedIP(f.Data[packet.EthLen:])
		if ok && (proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 && (*packet.ICMP)(msg).IsError6()) {
			t.Errorf("the director got %x", f.Data)
		}
	}
}

func TestPortOfAnotherIsRefused(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	_, err := n.rs.ListenPacket("udp4", "0.0.0.0:6080")
	must(t, err)
	must(t, n.rs.Do(func() error {
		cfg := Config{Directors: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}, VIPs: n.VIPs, GUEPort: 6080}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "UDP port 6080") || !strings.Contains(err.Error(), "--gue-port 0") {
			t.Errorf("New() = %v", err)
		}
		cfg.GUEPort = 0
		d, err := New(cfg)
		if err != nil {
			return err
		}
		return d.Close()
	}))
}
