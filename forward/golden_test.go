package forward

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"uvs/packet"
)

// trace is a recording of the kernel's IPVS: steps, of which those with In are frames, and what came out for each.
type trace struct {
	Setup   []string
	SetupSh []string `json:"setup_sh"`
	Sysctl  map[string]any
	Steps   []step
}

type step struct {
	Pkt, Dir, Src, C, S, V, To, From, Fwd, Sh, IPVS, In string
	Out                                                 []sent
}

// sent is a frame that came out, parsed as far as these tests ask.
type sent struct {
	If, Src, Dst, Hex, ICMP string
	ICMP6                   string
	MTU                     int
	Proto                   int
	Inner                   *struct{ Src, Dst string }
}

func loadTrace(t *testing.T, name string) *trace {
	t.Helper()
	b, err := os.ReadFile("../testdata/golden/traces/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	tr := new(trace)
	if err := json.Unmarshal(b, tr); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return tr
}

// service is what the tests need of a virtual service: the one server that the traces replayed here give it.
type service struct {
	virtual, server netip.AddrPort
	proto           uint8
}

// director does what a recorded director did, as far as forward does it: the decisions come from the recording.
type director struct {
	t        *testing.T
	services []service
	mtu      map[string]int // by the recording's interface name
	pmtuDisc bool
	seen     map[string]int // how often each kind of work was done
}

var (
	addServer = regexp.MustCompile(`^-a -([tu]) (\S+) -r \[?([0-9a-f.:]+?)\]?(?::(\d+))? -`)
	setMTU    = regexp.MustCompile(`ip link set (vec\d) mtu (\d+)`)
)

func newDirector(t *testing.T, tr *trace) *director {
	d := &director{t: t, mtu: map[string]int{"rs": 1500, "cli": 1500}, pmtuDisc: true, seen: map[string]int{}}
	for _, line := range tr.Setup {
		m := addServer.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := service{virtual: netip.MustParseAddrPort(m[2]), proto: packet.ProtoTCP}
		if m[1] == "u" {
			s.proto = packet.ProtoUDP
		}
		port := s.virtual.Port()
		if m[4] != "" {
			n, _ := strconv.Atoi(m[4])
			port = uint16(n)
		}
		s.server = netip.AddrPortFrom(netip.MustParseAddr(m[3]), port)
		d.services = append(d.services, s)
	}
	for _, sh := range tr.SetupSh {
		d.shell(sh)
	}
	if v, ok := tr.Sysctl["vs.pmtu_disc"]; ok && v != 1.0 && v != "1" {
		d.pmtuDisc = false
	}
	return d
}

// shell takes the changes of MTU out of a shell command of the recording.
func (d *director) shell(sh string) {
	for _, m := range setMTU.FindAllStringSubmatch(sh, -1) {
		d.mtu[map[string]string{"vec0": "cli", "vec1": "rs"}[m[1]]], _ = strconv.Atoi(m[2])
	}
	if strings.Contains(sh, "echo 0 > /proc/sys/net/ipv4/vs/pmtu_disc") {
		d.pmtuDisc = false
	}
}

// addrPort reads an address and port as the recordings write them, IPv6 without brackets.
func addrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	i := strings.LastIndexByte(s, ':')
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(s[:i]), uint16(port))
}

func (d *director) byVirtual(proto uint8, a packet.Addr, port uint16) *service {
	for i, s := range d.services {
		if s.proto == proto && packet.AddrFrom(s.virtual.Addr()) == a && s.virtual.Port() == port {
			return &d.services[i]
		}
	}
	return nil
}

func (d *director) byServer(proto uint8, a packet.Addr, port uint16) *service {
	for i, s := range d.services {
		if s.proto == proto && packet.AddrFrom(s.server.Addr()) == a && s.server.Port() == port {
			return &d.services[i]
		}
	}
	return nil
}

// frames does with the frame in what the recording says the kernel did, and returns the frames that come of it.
func (d *director) frames(s *step, in []byte) [][]byte {
	buf := append(make([]byte, packet.VnetLen), in...)
	v := (*packet.Vnet)(buf)
	var p packet.Packet
	if f := packet.Decode(buf[packet.VnetLen:], &p); f != packet.NoFault {
		d.t.Fatalf("Decode = %v", f)
	}
	out := s.Out[0]
	reply := make([]byte, ReplyLen)
	mine := packet.AddrFrom(netip.MustParseAddr(out.Src))
	switch {
	case s.To == "rst":
		d.seen["reset"]++
		return [][]byte{withMACs(Reset(reply, &p), out)}
	case s.Pkt == "echo" && out.ICMP == "0/0":
		d.seen["echo"]++
		if !EchoReply(&p, v) {
			d.t.Fatal("EchoReply = false")
		}
		return [][]byte{withMACs(buf, out)}
	case s.Pkt == "echo" && out.ICMP6 == "129/0":
		d.seen["echo6"]++
		if !EchoReply(&p, v) {
			d.t.Fatal("EchoReply = false")
		}
		return [][]byte{withMACs(buf, out)}
	case out.ICMP6 == "3/0" && !p.IsICMP():
		d.seen["time exceeded 6"]++
		return [][]byte{withMACs(TimeExceeded(reply, &p, mine), out)}
	case out.ICMP6 == "2/0" && !p.IsICMP():
		d.seen["too big 6"]++
		p.DecTTL()
		return [][]byte{withMACs(Unreachable(reply, &p, TooBig, out.MTU, mine), out)}
	case out.ICMP6 == "1/4" && !p.IsICMP():
		d.seen["unreachable 6"]++
		return [][]byte{withMACs(Unreachable(reply, &p, NoPort, 0, mine), out)}
	case out.ICMP == "11/0" && p.Proto != packet.ProtoICMP:
		d.seen["time exceeded"]++
		return [][]byte{withMACs(TimeExceeded(reply, &p, mine), out)}
	case strings.HasPrefix(out.ICMP, "3/") && p.Proto != packet.ProtoICMP:
		d.seen["unreachable "+out.ICMP]++
		// Too long from the client, IPVS has decremented the TTL by then; too long from the server, the kernel's own
		// forwarding has not. Without a connection from the server (nat_icmp_send) it is done, without a server for
		// the client it is not.
		if (out.ICMP == "3/4") != (s.Dir == "rs") {
			p.IPv4().DecTTL()
		}
		code, _ := strconv.Atoi(out.ICMP[2:])
		return [][]byte{withMACs(Unreachable(reply, &p, Reason(code), out.MTU, mine), out)}
	}

	p.DecTTL()
	switch {
	case s.Fwd == "tun":
		return d.tunnel(&p, v, out)
	case p.IsICMP() && s.Pkt == "icmperr":
		d.errorAboutConnection(s, &p, v)
	case s.Dir == "rs":
		if sv := d.byServer(p.Proto, p.Src, p.SrcPort); sv != nil && addrPort(d.t, s.From) == sv.virtual {
			d.seen["nat out"+family(&p)]++
			NATOut(&p, v, packet.AddrFrom(sv.virtual.Addr()), sv.virtual.Port())
		}
	case s.Fwd == "nat":
		d.seen["nat in"+family(&p)]++
		server := addrPort(d.t, s.To)
		NATIn(&p, v, packet.AddrFrom(server.Addr()), server.Port())
	case s.Fwd == "dr":
		d.seen["dr"]++
	}
	withMACs(buf, out)
	if mtu := d.mtu[out.If]; p.IPLen() > mtu {
		d.seen["split"]++
		return split(d.t, p.Frame, mtu)
	}
	return [][]byte{buf[:packet.VnetLen+len(p.Frame)]}
}

func (d *director) tunnel(p *packet.Packet, v *packet.Vnet, out sent) [][]byte {
	d.seen["tunnel"]++
	outer, err := hex.DecodeString(out.Hex)
	if err != nil {
		d.t.Fatal(err)
	}
	ip := (*packet.IPv4)(outer[packet.EthLen:])
	tun := Tunnel{Src: packet.AddrFrom4(ip.Src()), Dst: packet.AddrFrom4(ip.Dst()), PMTUDisc: d.pmtuDisc}
	buf := make([]byte, FrameHead+MaxTunnelLen)
	head, body := tun.Wrap(buf, p, v)
	f := withMACs(append(bytes.Clone(head), body...), out)
	if mtu := d.mtu[out.If]; len(f)-FrameHead > mtu {
		d.seen["split outer"]++
		return split(d.t, f[packet.VnetLen:], mtu)
	}
	return [][]byte{f}
}

// errorAboutConnection translates an ICMP error if the recording says that it was about a connection by NAT.
func (d *director) errorAboutConnection(s *step, p *packet.Packet, v *packet.Vnet) {
	var q packet.Packet
	if !packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &q) {
		d.t.Fatal("DecodeQuoted = false")
	}
	if s.Dir == "rs" {
		if sv := d.byServer(q.Proto, q.Dst, q.DstPort); sv != nil && s.Out[0].Src == sv.virtual.Addr().String() {
			d.seen["error out"+family(p)]++
			NATErrorOut(p, v, &q, packet.AddrFrom(sv.virtual.Addr()), sv.virtual.Port())
		}
		return
	}
	if sv := d.byVirtual(q.Proto, q.Src, q.SrcPort); sv != nil && s.Out[0].Dst == sv.server.Addr().String() {
		d.seen["error in"+family(p)]++
		NATErrorIn(p, v, &q, packet.AddrFrom(sv.server.Addr()), sv.server.Port())
	}
}

func split(t *testing.T, frame []byte, mtu int) (pieces [][]byte) {
	t.Helper()
	if !Split(make([]byte, SplitRoom), frame, mtu, func(head, body []byte) {
		pieces = append(pieces, append(bytes.Clone(head), body...))
	}) {
		t.Fatalf("Split to %d = false", mtu)
	}
	return pieces
}

// withMACs gives f, which has a virtio-net header, the Ethernet addresses of what was sent.
func withMACs(f []byte, out sent) []byte {
	want, _ := hex.DecodeString(out.Hex[:2*packet.EthLen])
	eth := (*packet.Eth)(want)
	Ethernet(f[packet.VnetLen:], eth.Dst(), eth.Src())
	return f
}

func isIPv6(frame []byte) bool { return (*packet.Eth)(frame).Type() == packet.EtherIPv6 }

// family is what kinds of work in IPv6 are called behind their names.
func family(p *packet.Packet) string {
	if p.Is4() {
		return ""
	}
	return " 6"
}

// ownMark is what tells a frame that the director itself made from one that it passed on: IPv4's identification, IPv6's flow
// label.
func ownMark(f []byte) uint32 {
	if isIPv6(f) {
		return (*packet.IPv6)(f[packet.EthLen:]).FlowLabel()
	}
	return uint32((*packet.IPv4)(f[packet.EthLen:]).ID())
}

// blankID takes the identification, and what it does to the checksum, out of a frame that the director itself made, or its
// flow label.
func blankID(f []byte) []byte {
	b := bytes.Clone(f)
	if isIPv6(b) {
		b[packet.EthLen+1] &= 0xf0
		clear(b[packet.EthLen+2 : packet.EthLen+4])
		return b
	}
	if ip := (*packet.IPv4)(b[packet.EthLen:]); ip.ID() != 0 {
		ip.SetID(1)
		packet.FixIPv4Checksum(b[packet.EthLen:])
	}
	return b
}

// TestRecordedFrames gives forward every frame of the recordings that went anywhere, fragments aside, and wants what the
// kernel sent, byte by byte.
func TestRecordedFrames(t *testing.T) {
	total := map[string]int{}
	for _, name := range []string{
		"fwd-dr", "fwd-dr-mtu", "fwd-nat", "fwd-nat-mtu", "fwd-nat-icmpsend", "fwd-noservice", "fwd-noservice-mark",
		"fwd-noservice-mark2", "fwd-odd-dr", "fwd-odd-nat", "fwd-schedule-icmp", "fwd-tun", "fwd-tun-pmtu0", "fwd-tun-routed",
		"v6-dr", "v6-nat", "v6-noservice", "v6-tun",
	} {
		t.Run(name, func(t *testing.T) {
			tr := loadTrace(t, name)
			d := newDirector(t, tr)
			for i, s := range tr.Steps {
				d.shell(s.Sh)
				if s.In == "" || s.Pkt == "udpfrag" || s.Pkt == "raw" || len(s.Out) == 0 || s.Out[0].Hex == "" {
					continue
				}
				in, err := hex.DecodeString(s.In)
				if err != nil {
					t.Fatal(err)
				}
				if isIPv6(in) && s.Fwd == "tun" {
					continue // Tunnel's business
				}
				got := d.frames(&s, in)
				if len(got) != len(s.Out) {
					t.Errorf("step %d (%s to %s): %d frames, want %d", i, s.Pkt, s.To, len(got), len(s.Out))
					continue
				}
				for k, out := range s.Out {
					want, _ := hex.DecodeString(out.Hex)
					g := got[k][packet.VnetLen:]
					if ownMark(want) != ownMark(in) {
						g, want = blankID(g), blankID(want) // a packet of its own: each director counts for itself
					}
					if !bytes.Equal(g, want) {
						t.Errorf("step %d (%s to %s), frame %d:\n got %x\nwant %x", i, s.Pkt, s.To, k, g, want)
					}
					if !bytes.Equal(got[k][:packet.VnetLen], make([]byte, packet.VnetLen)) {
						t.Errorf("step %d: virtio-net header %x", i, got[k][:packet.VnetLen])
					}
				}
			}
			for k, n := range d.seen {
				total[k] += n
			}
		})
	}
	for _, k := range []string{"reset", "echo", "time exceeded", "unreachable 3/3", "unreachable 3/4", "dr", "nat in",
		"nat out", "error in", "error out", "split", "tunnel", "split outer", "echo6", "time exceeded 6", "unreachable 6", "too big 6",
		"nat in 6", "nat out 6", "error in 6"} {
		if total[k] == 0 {
			t.Errorf("the recordings gave no work of the kind %q", k)
		}
	}
	t.Logf("work done: %v", total)
}

// TestRecordedSilence wants no RST for what the kernel answered with none.
func TestRecordedSilence(t *testing.T) {
	n := 0
	for _, name := range []string{"fwd-noservice", "fwd-odd-dr", "fwd-odd-nat"} {
		for _, s := range loadTrace(t, name).Steps {
			if s.In == "" || !strings.HasPrefix(s.Pkt, "rst") || s.To != "drop" {
				continue
			}
			in, _ := hex.DecodeString(s.In)
			var p packet.Packet
			if packet.Decode(in, &p) != packet.NoFault {
				t.Fatal("fault")
			}
			if got := Reset(make([]byte, ReplyLen), &p); got != nil {
				t.Errorf("%s: Reset of a %s = %x", name, s.Pkt, got)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("the recordings hold no such step")
	}
}
