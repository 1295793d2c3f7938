package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uvs/lab"
)

// wire is a captured frame, taken apart as far as the tests look.
type wire struct {
	lab.CapturedFrame
	gap      bool // no frame, but that some before are missing
	from, to net.HardwareAddr
	kind     uint16 // EtherType

	arp     bool             // ARP: src and dst are the sender's and the target's addresses
	request bool             // of ARP, or a neighbour solicitation
	claims  net.HardwareAddr // the sender's MAC: in ARP, or in the option of NDP

	ndp      bool       // a neighbour solicitation or advertisement
	target   netip.Addr // of NDP: who is asked for, or told of
	override bool       // in an advertisement

	src, dst     netip.Addr // IPv4 and IPv6
	proto, ttl   byte       // of IPv6 the one after the extension headers, and the hop limit
	id           uint16     // of IPv6 half a fragment's
	fragment     bool
	sport, dport uint16 // TCP and UDP, but for later fragments
	flags        byte   // TCP
	seq, ack     uint32
	payload      []byte // of TCP and UDP, of ICMP after its type and code
}

const (
	tcpFIN, tcpSYN, tcpRST, tcpACK   = 1, 2, 4, 16
	protoICMP, protoTCP, protoUDP    = 1, 6, 17
	protoICMPv6                      = 58
	icmpEchoReply, icmpFragNeeded    = 0, 3<<8 | 4 // type and code
	icmp6EchoReply, icmp6TooBig      = 129 << 8, 2 << 8
	icmp6Solicitation, icmp6Advert   = 135 << 8, 136 << 8
	etherIPv4, etherARP, etherHeader = 0x0800, 0x0806, 14
	etherIPv6                        = 0x86dd
)

// take takes a frame apart. Only what an honest stack sends is understood.
func take(f lab.CapturedFrame) wire {
	b := f.Data
	w := wire{CapturedFrame: f, to: b[:6], from: b[6:12], kind: binary.BigEndian.Uint16(b[12:])}
	b = b[etherHeader:]
	switch w.kind {
	case etherARP:
		w.arp, w.request = true, b[7] == 1
		w.claims = b[8:14]
		w.src, w.dst = netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	case etherIPv4:
		w.src, w.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		w.proto, w.ttl, w.id = b[9], b[8], binary.BigEndian.Uint16(b[4:])
		offset := binary.BigEndian.Uint16(b[6:]) & 0x3fff // with the flag of more fragments
		w.fragment = offset != 0
		b = b[int(b[0]&15)*4 : binary.BigEndian.Uint16(b[2:])]
		if offset&0x1fff != 0 {
			w.payload = b
			break
		}
		w.transport(b)
	case etherIPv6:
		w.src, w.dst, w.ttl = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[7]
		w.extensions(b[6], b[40:40+int(binary.BigEndian.Uint16(b[4:]))])
	}
	return w
}

// extensions takes what follows IPv6's header apart.
func (w *wire) extensions(next byte, b []byte) {
	for {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination
			next, b = b[0], b[8+8*int(b[1]):]
			continue
		case 44:
			w.fragment, w.id = true, binary.BigEndian.Uint16(b[6:])
			later := binary.BigEndian.Uint16(b[2:])&^7 != 0
			next, b = b[0], b[8:]
			if later {
				w.proto, w.payload = next, b
				return
			}
			continue
		}
		w.proto = next
		w.transport(b)
		return
	}
}

// transport takes a segment, a datagram or a message apart.
func (w *wire) transport(b []byte) {
	switch w.proto {
	case protoTCP:
		w.sport, w.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		w.seq, w.ack, w.flags = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[13]
		w.payload = b[int(b[12]>>4)*4:]
	case protoUDP:
		w.sport, w.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		w.payload = b[8:]
	case protoICMP, protoICMPv6:
		w.sport = binary.BigEndian.Uint16(b) // type and code
		w.payload = b[2:]
		if w.proto == protoICMPv6 && (w.sport == icmp6Solicitation || w.sport == icmp6Advert) {
			w.neighbour(b)
		}
	}
}

// neighbour takes a neighbour solicitation or advertisement apart.
func (w *wire) neighbour(b []byte) {
	w.ndp, w.request = true, w.sport == icmp6Solicitation
	w.override = !w.request && b[4]&0x20 != 0
	w.target = netip.AddrFrom16([16]byte(b[8:]))
	if len(b) >= 32 && (b[24] == 1 || b[24] == 2) { // the link-layer address of who sends it
		w.claims = b[26:32]
	}
}

// isIP says that the frame has an IP packet that isn't NDP's or of the multicast groups: one that goes through routers.
func (w wire) isIP() bool {
	switch w.kind {
	case etherIPv4:
		return true
	case etherIPv6:
		kind := w.sport >> 8
		return !(w.proto == protoICMPv6 && (130 <= kind && kind <= 136 || kind == 143))
	}
	return false
}

// isICMP says that it is ICMP of its family, without NDP and the like.
func (w wire) isICMP() bool {
	return w.kind == etherIPv4 && w.proto == protoICMP || w.isIP() && w.kind == etherIPv6 && w.proto == protoICMPv6
}

// String is the frame in a line.
func (w wire) String() string {
	way := "in"
	if w.Out {
		way = "out"
	}
	head := fmt.Sprintf("%s %v > %v (%d bytes)", way, w.from, w.to, len(w.Data))
	switch {
	case w.arp:
		return fmt.Sprintf("%s ARP request=%v %v (%v) asks or tells %v", head, w.request, w.src, w.claims, w.dst)
	case w.ndp:
		return fmt.Sprintf("%s NDP request=%v %v > %v about %v (%v)", head, w.request, w.src, w.dst, w.target, w.claims)
	case w.kind == etherIPv4 || w.kind == etherIPv6:
		return fmt.Sprintf("%s %v:%d > %v:%d protocol %d flags %#x seq %d ack %d id %d, %d bytes", head, w.src, w.sport, w.dst, w.dport,
			w.proto, w.flags, w.seq, w.ack, w.id, len(w.payload))
	}
	return fmt.Sprintf("%s type %#x", head, w.kind)
}

// has says that an address is the packet's source or destination.
func (w wire) has(a netip.Addr) bool { return w.src == a || w.dst == a }

// capture records an interface until the returned function is called, which gives the frames. As root none is missed.
func capture(t testing.TB, ns *lab.Namespace, ifname string) (stop func() []wire) {
	t.Helper()
	c, err := ns.Capture(ifname)
	must(t, err)
	return func() []wire {
		t.Helper()
		var frames []wire
		for _, f := range c.Stop() {
			frames = append(frames, take(f))
		}
		switch {
		case c.Err() != nil, c.Dropped() > 0 && !inUserNamespace():
			t.Fatalf("the capture of %s in %s missed %d frames: %v", ifname, ns, c.Dropped(), c.Err())
		case c.Dropped() > 0: // where its queue cannot be as long as it should
			t.Logf("the capture of %s in %s missed %d frames", ifname, ns, c.Dropped())
			frames = append(frames, wire{gap: true})
		}
		return frames
	}
}

// captureDirector records all interfaces of the director.
func (r *rig) captureDirector() (stop func() [][]wire) {
	r.t.Helper()
	var stops []func() []wire
	for _, leg := range r.Directors[0].Legs {
		stops = append(stops, capture(r.t, r.Directors[0].Namespace, leg.Name))
	}
	return func() [][]wire {
		r.t.Helper()
		r.awaitQuiet() // what is under way was seen on one interface and not yet on the other
		var all [][]wire
		for _, stop := range stops {
			all = append(all, stop())
		}
		return all
	}
}

// awaitQuiet waits until nothing reaches the director for a moment.
func (r *rig) awaitQuiet() {
	r.t.Helper()
	before := -1
	eventually(r.t, "nothing reaches the director", func() (bool, any) {
		time.Sleep(30 * time.Millisecond)
		now := r.status().Packets.Received
		quiet := now == before
		before = now
		return quiet, now
	})
}

// checkHostSilent fails the test if the director's own stack sent anything about the traffic that uvs balances: in
// what the director's interfaces sent, which is uvs's and the host's together, nothing may be that uvs doesn't send.
func (r *rig) checkHostSilent(legs [][]wire) {
	r.t.Helper()
	var macs []string
	virtual := true
	for _, i := range r.status().Interfaces {
		macs = append(macs, i.MAC)
		virtual = virtual && i.Mode == "virtual"
	}
	in, out := map[string]int{}, map[string]int{}
	bad := 0
	complain := func(why string, w wire) {
		r.t.Helper()
		if bad++; bad <= 5 {
			r.t.Errorf("%s: %v", why, w)
		}
	}
	all := slices.Concat(legs...)
	whole := !slices.ContainsFunc(all, func(w wire) bool { return w.gap })
	for _, w := range all {
		if !w.Out && w.isIP() {
			in[w.packet()]++
		}
	}
	for leg, frames := range legs {
		for _, w := range frames {
			mine := w.Out && w.from.String() == macs[leg]
			switch {
			case !w.Out:
			case mine && w.arp && w.request && w.src == netip.IPv4Unspecified():
				// uvs asks whether another station has the address (RFC 5227), before it takes it.
			case w.arp && w.has(r.VIP()) && (!mine || w.claims.String() != macs[leg] || w.src != r.VIP()):
				complain("the host speaks ARP about the VIP", w)
			case w.ndp && (w.has(r.VIP()) || w.target == r.VIP()) && (!mine || w.claims != nil && w.claims.String() != macs[leg]):
				complain("the host speaks NDP about the VIP", w)
			case !w.isIP():
			case virtual && !mine:
				complain("the host sends with its own address", w)
			case w.isICMP() && w.sport != icmpEchoReply && w.sport != icmp6EchoReply:
				complain("somebody sends ICMP", w)
			case w.proto == protoTCP && w.flags&tcpRST != 0:
				complain("somebody resets a connection", w)
			case !r.direct && leg == 0 && w.src != r.VIP(), !r.direct && leg == 1 && w.dst == r.VIP():
				complain("forwarded untranslated", w)
			default:
				if out[w.packet()]++; whole && out[w.packet()] > in[w.packet()] {
					complain("sent more often than received", w)
				}
			}
		}
	}
	if bad > 5 {
		r.t.Errorf("and %d more such frames", bad-5)
	}
	if len(in) == 0 || len(out) == 0 {
		r.t.Errorf("the captures have %d packets that came in and %d that went out", len(in), len(out))
	}
}

// packet names an IP packet alike when it comes in and when it goes on, a router further and maybe translated, and an echo
// reply like its request.
func (w wire) packet() string {
	ttl := w.ttl
	if w.Out {
		ttl++
	}
	switch w.proto {
	case protoTCP:
		client := w.sport
		if w.sport == 80 || w.sport == 8080 {
			client = w.dport
		}
		return fmt.Sprint("tcp ", ttl, client, w.seq, w.ack, w.flags, w.id, len(w.payload))
	case protoICMP, protoICMPv6:
		return fmt.Sprintf("icmp %x", w.payload[2:6]) // identifier and sequence number
	}
	return fmt.Sprint(w.proto, ttl, w.id, w.fragment, len(w.payload))
}

// waitFor waits for a frame.
func waitFor(ctx context.Context, c *lab.Capture, match func(wire) bool) (wire, error) {
	f, err := c.Wait(ctx, func(f lab.CapturedFrame) bool { return match(take(f)) })
	if err != nil {
		return wire{}, err
	}
	return take(f), nil
}
