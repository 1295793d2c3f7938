package e2e

import (
	"bytes"
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

	arp     bool // ARP: src and dst are the sender's and the target's addresses
	request bool
	claims  net.HardwareAddr // the sender's MAC

	src, dst     netip.Addr // IPv4
	proto, ttl   byte
	id           uint16
	fragment     bool
	sport, dport uint16 // TCP and UDP, but for later fragments
	flags        byte   // TCP
	seq, ack     uint32
	payload      []byte // of TCP and UDP, of ICMP after its type and code
}

const (
	tcpFIN, tcpSYN, tcpRST, tcpACK              = 1, 2, 4, 16
	protoICMP, protoTCP, protoUDP               = 1, 6, 17
	icmpEchoReply, icmpFragNeeded               = 0, 3<<8 | 4 // type and code
	etherIPv4, etherARP, etherIPv6, etherHeader = 0x0800, 0x0806, 0x86dd, 14
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
		switch w.proto {
		case protoTCP:
			w.sport, w.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
			w.seq, w.ack, w.flags = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[13]
			w.payload = b[int(b[12]>>4)*4:]
		case protoUDP:
			w.sport, w.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
			w.payload = b[8:]
		case protoICMP:
			w.sport = binary.BigEndian.Uint16(b) // type and code
			w.payload = b[2:]
		}
	}
	return w
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
	case w.kind == etherIPv4:
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
		if !w.Out && w.kind == etherIPv4 {
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
			case w.kind != etherIPv4:
			case virtual && !mine:
				complain("the host sends with its own address", w)
			case w.proto == protoICMP && w.sport != icmpEchoReply:
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
	case protoICMP:
		return fmt.Sprintf("icmp %x", w.payload[2:6]) // identifier and sequence number
	}
	return fmt.Sprint(w.proto, ttl, w.id, w.fragment, len(w.payload))
}

// arpFrame is an ARP packet in a frame of its own.
func arpFrame(to, from net.HardwareAddr, request bool, sender netip.Addr, target netip.Addr) []byte {
	op := byte(2)
	if request {
		op = 1
	}
	frame := slices.Concat(to, from, []byte{0x08, 0x06}, []byte{0, 1, 8, 0, 6, 4, 0, op}, from, sender.AsSlice(), make([]byte, 6), target.AsSlice())
	return append(frame, make([]byte, 60-len(frame))...)
}

// whoHas asks on a host's first leg who has an address and returns every MAC address that answered within a moment.
func whoHas(t testing.TB, h *lab.Host, addr netip.Addr) (macs []string) {
	t.Helper()
	c, err := h.Capture(h.Legs[0].Name)
	must(t, err)
	defer c.Stop()
	sendFrame(t, h.Namespace, h.Legs[0].Name, arpFrame(bytes.Repeat([]byte{0xff}, 6), h.Legs[0].MAC, true, h.Addr(), addr))
	time.Sleep(100 * time.Millisecond)
	for _, f := range c.Stop() {
		if w := take(f); !w.Out && w.arp && !w.request && w.src == addr {
			macs = append(macs, w.claims.String())
		}
	}
	return macs
}

// waitFor waits for a frame.
func waitFor(ctx context.Context, c *lab.Capture, match func(wire) bool) (wire, error) {
	f, err := c.Wait(ctx, func(f lab.CapturedFrame) bool { return match(take(f)) })
	if err != nil {
		return wire{}, err
	}
	return take(f), nil
}
