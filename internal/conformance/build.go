package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"

	"uvs/packet"
)

// The stations of the recorded topology.
var (
	directorClientSide = packet.MAC{2, 0, 0, 0, 9, 1}
	directorServerSide = packet.MAC{2, 0, 0, 0, 1, 1}
	clientGateway      = packet.MAC{2, 0, 0, 0, 9, 0xfe}
	serverRouter       = packet.MAC{2, 0, 0, 0, 1, 0xfa}
)

func serverMAC(n byte) packet.MAC { return packet.MAC{2, 0, 0, 0, 1, n} }

// tcpKinds are the flags of the kinds of TCP segment.
var tcpKinds = map[string]uint8{
	"syn": packet.TCPSyn, "ack": packet.TCPAck, "data": packet.TCPPsh | packet.TCPAck, "fin": packet.TCPFin | packet.TCPAck,
	"rst": packet.TCPRst, "rstack": packet.TCPRst | packet.TCPAck, "synack": packet.TCPSyn | packet.TCPAck, "fin1": packet.TCPFin,
	"null": 0, "xmas": packet.TCPFin | packet.TCPPsh | packet.TCPUrg, "synfin": packet.TCPSyn | packet.TCPFin,
}

// DirectorMACs are the addresses of the recorded director's two interfaces: the clients' side and the servers'.
func DirectorMACs() [2]packet.MAC { return [2]packet.MAC{directorClientSide, directorServerSide} }

// Builder makes the frames of a trace's steps.
type Builder struct{ id uint16 }

// NewBuilder makes the builder of a trace's frames, which count the IP identification up from the trace's first.
func NewBuilder(tr *Trace) *Builder { return &Builder{id: value(tr.FirstID, 1)} }

// Frame builds the frame of a step and says on which wire it comes in: 0 the clients', 1 the servers'.
func (b *Builder) Frame(s *Step) (wire int, frame []byte, err error) {
	if s.Dir == "rs" {
		wire = 1
	}
	if s.Pkt == "raw" {
		frame, err = hex.DecodeString(s.Hex)
		return wire, frame, err
	}
	if isIPv6(s.C) || isIPv6(s.Src) {
		frame, err = b.frame6(s, wire)
		return wire, frame, err
	}
	id := b.id
	if s.IPID != nil {
		id = *s.IPID
	}
	b.id++
	h := header{id: id, ttl: value(s.TTL, 64), tos: s.TOS}
	var body []byte
	switch s.Pkt {
	case "echo":
		h.src, h.dst, h.proto = addr(s.Src), addr(s.Dst), packet.ProtoICMP
		body = icmp(8, 0, value(s.EchoID, 77), 1, []byte("abcdefghabcdefghabcdefghabcdefgh"))
	case "icmperr":
		h.src, h.dst, h.proto = addr(s.Src), addr(s.Dst), packet.ProtoICMP
		body, err = icmpError(s)
	default:
		var src, dst netip.AddrPort
		switch wire {
		case 0:
			src, dst = addrPort(s.C), addrPort(s.V)
		default:
			src, dst = addrPort(s.S), addrPort(s.C)
		}
		h.src, h.dst = src.Addr(), dst.Addr()
		h.proto, body, err = l4(s, src, dst)
		h.df = value(s.DF, b2i(h.proto == packet.ProtoTCP)) != 0
	}
	if err != nil {
		return 0, nil, err
	}
	if s.Pkt == "udpfrag" {
		h.id = value(s.IPID, 500)
		from, to := s.Part*s.FS, (s.Part+1)*s.FS
		h.off, h.mf = from, to < len(body)
		body = body[from:min(to, len(body))]
	}
	if h.opts, err = hex.DecodeString(s.IPOpts); err != nil {
		return 0, nil, err
	}
	dstMAC, srcMAC := directorClientSide, clientGateway
	if wire == 1 {
		dstMAC, srcMAC = directorServerSide, serverRouter
		if a := h.src.As4(); a[0] == 10 && a[1] == 1 && a[2] == 0 {
			srcMAC = serverMAC(a[3])
		}
	}
	return wire, ethernet(dstMAC, srcMAC, h.packet(body)), nil
}

// l4 builds the transport part of a step's packet.
func l4(s *Step, src, dst netip.AddrPort) (proto uint8, b []byte, err error) {
	if flags, ok := tcpKinds[s.Pkt]; ok {
		var payload []byte
		if s.Pkt == "data" && s.Len == nil {
			payload = []byte("GET / HTTP/1.0\r\n\r\n")
		} else if s.Len != nil {
			payload = pattern(*s.Len)
		}
		if s.Payload != nil {
			payload = latin1(*s.Payload)
		}
		seq := uint32(1001)
		switch s.Pkt {
		case "syn":
			seq = 1000
		case "synack":
			seq = 5000
		}
		ack := uint32(5001)
		switch s.Pkt {
		case "syn", "rst", "null", "xmas", "fin1", "synfin":
			ack = 0
		}
		var opts []byte
		if s.Pkt == "syn" || s.Pkt == "synack" {
			opts = []byte{2, 4, 5, 0xb4} // MSS 1460
		}
		b = make([]byte, 20, 20+len(opts)+len(payload))
		binary.BigEndian.PutUint16(b[0:], src.Port())
		binary.BigEndian.PutUint16(b[2:], dst.Port())
		binary.BigEndian.PutUint32(b[4:], value(s.Seq, seq))
		binary.BigEndian.PutUint32(b[8:], value(s.Ack, ack))
		b[12], b[13] = byte(5+len(opts)/4)<<4, flags
		binary.BigEndian.PutUint16(b[14:], 64240)
		b = append(append(b, opts...), payload...)
		c := checksum(src.Addr(), dst.Addr(), packet.ProtoTCP, b)
		if s.BadCsum != 0 {
			c ^= 0x5555
		}
		binary.BigEndian.PutUint16(b[16:], c)
		return packet.ProtoTCP, b, nil
	}
	if s.Pkt == "sctp" {
		b, err = sctp(s, src, dst)
		return packet.ProtoSCTP, b, err
	}
	if s.Pkt != "udp" && s.Pkt != "udpfrag" {
		return 0, nil, fmt.Errorf("unknown kind of packet %q", s.Pkt)
	}
	payload := pattern(value(s.Len, 32))
	if s.Payload != nil {
		payload = latin1(*s.Payload)
	}
	b = make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	c := checksum(src.Addr(), dst.Addr(), packet.ProtoUDP, b)
	if c == 0 {
		c = 0xffff
	}
	if s.NoCsum {
		c = 0
	}
	if s.BadCsum != 0 {
		c ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[6:], c)
	return packet.ProtoUDP, b, nil
}

// icmpError builds an ICMP error that quotes the step's original packet.
func icmpError(s *Step) ([]byte, error) {
	o := s.Orig
	proto, seg, err := l4(o, addrPort(o.S), addrPort(o.D))
	if err != nil {
		return nil, err
	}
	h := header{src: addrPort(o.S).Addr(), dst: addrPort(o.D).Addr(), proto: proto, ttl: value(o.TTL, 62), tos: o.TOS,
		id: value(o.IPID, 9), df: value(o.DF, 1) != 0}
	quoted := h.packet(seg)
	quoted = quoted[:min(value(s.Quote, 28), len(quoted))]
	t, c := value(s.Type, 3), value(s.Code, 4)
	var mtu uint16
	if t == 3 && c == 4 {
		mtu = value(s.MTU, 1400)
	}
	return icmp(t, c, 0, mtu, quoted), nil
}

func icmp(t, c uint8, a, b uint16, rest []byte) []byte {
	m := append([]byte{t, c, 0, 0, byte(a >> 8), byte(a), byte(b >> 8), byte(b)}, rest...)
	binary.BigEndian.PutUint16(m[2:], ^packet.Fold(packet.Sum(m, 0)))
	return m
}

// header is an IPv4 header to be.
type header struct {
	src, dst netip.Addr
	proto    uint8
	ttl, tos uint8
	id       uint16
	df, mf   bool
	off      int
	opts     []byte
}

func (h *header) packet(body []byte) []byte {
	opts := append([]byte(nil), h.opts...)
	for len(opts)%4 != 0 {
		opts = append(opts, 0)
	}
	b := make([]byte, 20, 20+len(opts)+len(body))
	b[0], b[1] = byte(0x45+len(opts)/4), h.tos
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(opts)+len(body)))
	binary.BigEndian.PutUint16(b[4:], h.id)
	(*packet.IPv4)(b).SetFrag(h.df, h.mf, h.off)
	b[8], b[9] = h.ttl, h.proto
	copy(b[12:], h.src.AsSlice())
	copy(b[16:], h.dst.AsSlice())
	b = append(b, opts...)
	packet.FixIPv4Checksum(b)
	return append(b, body...)
}

func ethernet(dst, src packet.MAC, body []byte) []byte {
	b := append(append(append([]byte(nil), dst[:]...), src[:]...), 0x08, 0x00)
	return append(b, body...)
}

func checksum(src, dst netip.Addr, proto uint8, b []byte) uint16 {
	s := packet.AddrFrom(src).Sum() + packet.AddrFrom(dst).Sum() + uint64(proto) + uint64(len(b))
	return ^packet.Fold(packet.Sum(b, s))
}

// pattern is the payload of recorded packets of a given length.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	return b
}

func latin1(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
