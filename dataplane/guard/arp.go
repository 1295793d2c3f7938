package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	mdpacket "github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// prober asks by ARP who has an address, as one that has none itself: the sender's address is 0.0.0.0, so that nobody's
// cache is touched (RFC 5227 section 2.1.1).
type prober struct {
	conn *mdpacket.Conn
	mac  packet.MAC // the interface's
}

func openProber(iface string) (*prober, error) {
	l, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	if len(l.HardwareAddr) != len(packet.MAC{}) {
		return nil, fmt.Errorf("interface %s is not Ethernet", iface)
	}
	conn, err := mdpacket.Listen(l, mdpacket.Raw, packet.EtherARP, nil)
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", iface, err)
	}
	return &prober{conn, packet.MAC(l.HardwareAddr)}, nil
}

func (p *prober) close() { _ = p.conn.Close() }

// join has the interface take frames to another address than its own, while the prober is open.
func (p *prober) join(iface string, mac packet.MAC) error {
	l, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	m := unix.PacketMreq{Ifindex: int32(l.Index), Type: unix.PACKET_MR_UNICAST, Alen: uint16(len(mac))}
	copy(m.Address[:], mac[:])
	var e error
	err = raw.Control(func(fd uintptr) {
		e = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m)
	})
	return errors.Join(err, e)
}

// ask sends one request from a MAC address.
func (p *prober) ask(from packet.MAC, target netip.Addr) error {
	b := make([]byte, 60)
	eth := (*packet.Eth)(b)
	eth.SetDst(packet.Broadcast)
	eth.SetSrc(from)
	eth.SetType(packet.EtherARP)
	packet.PutARP(b[packet.EthLen:packet.EthLen+packet.ARPLen], packet.ARPRequest, from, 0, packet.MAC{}, packet.AddrFrom(target).V4())
	_, err := p.conn.WriteTo(b, &mdpacket.Addr{HardwareAddr: net.HardwareAddr(packet.Broadcast[:])})
	return err
}

// reply is an ARP reply.
type reply struct {
	to     packet.MAC // the frame's destination
	sender netip.Addr
	mac    packet.MAC // the sender's
}

// listen calls heard for every reply that comes before the deadline or ctx ends, until heard returns false.
func (p *prober) listen(ctx context.Context, deadline time.Time, heard func(reply) bool) error {
	b := make([]byte, 2048)
	for {
		until := time.Now().Add(50 * time.Millisecond) // to look at ctx now and then
		if until.After(deadline) {
			until = deadline
		}
		if err := p.conn.SetReadDeadline(until); err != nil {
			return err
		}
		n, _, err := p.conn.ReadFrom(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if ctx.Err() != nil || !time.Now().Before(deadline) {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		eth, payload, ok := packet.ParseEth(b[:n])
		if !ok {
			continue
		}
		a, ok := packet.ParseARP(payload)
		if !ok || a.Op() != packet.ARPReply {
			continue
		}
		if !heard(reply{eth.Dst(), packet.AddrFrom4(a.Sender()).Netip(), a.SenderMAC()}) {
			return nil
		}
	}
}
