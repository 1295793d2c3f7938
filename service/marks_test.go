package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"uvs/packet"
)

// slowMark is the obvious twin of Marks.Of.
func slowMark(rules []MarkRule, f *packet.Flow, port int) uint32 {
	within := func(p netip.Prefix, a packet.Addr) bool { return !p.IsValid() || p.Contains(a.Netip()) }
	among := func(r PortRange, port uint16) bool { return r.Any() || r.First <= port && port <= r.Last }
	for _, r := range rules {
		hasPorts := f.Proto == packet.ProtoTCP || f.Proto == packet.ProtoUDP || f.Proto == packet.ProtoSCTP
		wantsPorts := !r.SrcPorts.Any() || !r.DstPorts.Any()
		if (r.Interface == AnyInterface || r.Interface == port) && (r.Proto == 0 || r.Proto == Proto(f.Proto)) &&
			(hasPorts || !wantsPorts) && within(r.Src, f.Src) && within(r.Dst, f.Dst) &&
			among(r.SrcPorts, f.SrcPort) && among(r.DstPorts, f.DstPort) {
			return r.Mark
		}
	}
	return 0
}

func mustMarks(t testing.TB, rules []MarkRule) *Marks {
	t.Helper()
	m, err := NewMarks(rules)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func flow(proto Proto, src, dst string) *packet.Flow {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return &packet.Flow{
		Src: packet.AddrFrom(s.Addr()), SrcPort: s.Port(), Dst: packet.AddrFrom(d.Addr()), DstPort: d.Port(), Proto: uint8(proto),
	}
}

func TestFirstMarkRuleDecides(t *testing.T) {
	pfx := netip.MustParsePrefix
	rules := []MarkRule{
		{Mark: 1, Interface: AnyInterface, Dst: pfx("192.0.2.1/32"), Proto: TCP, DstPorts: PortRange{443, 443}},
		{Mark: 2, Interface: AnyInterface, Dst: pfx("192.0.2.0/24"), DstPorts: PortRange{80, 443}},
		{Mark: 3, Interface: 1, Src: pfx("10.0.0.0/8")},
		{Mark: 4, Interface: AnyInterface, Dst: pfx("2001:db8::/32"), Proto: UDP},
		{Mark: 5, Interface: AnyInterface, Proto: SCTP, SrcPorts: PortRange{1, 1023}},
		{Mark: 6, Interface: 2},
		{Mark: 7, Interface: AnyInterface, Dst: pfx("::/0"), Proto: TCP},
	}
	m := mustMarks(t, rules)
	for _, c := range []struct {
		situation string
		flow      *packet.Flow
		port      int
		want      uint32
	}{
		{"host, protocol and port", flow(TCP, "10.1.1.1:4000", "192.0.2.1:443"), 0, 1},
		{"another protocol: the next rule", flow(UDP, "10.1.1.1:4000", "192.0.2.1:443"), 0, 2},
		{"another host of the network", flow(TCP, "10.1.1.1:4000", "192.0.2.2:443"), 0, 2},
		{"first port of a range", flow(TCP, "10.1.1.1:4000", "192.0.2.2:80"), 0, 2},
		{"below the range", flow(TCP, "10.1.1.1:4000", "192.0.2.2:79"), 0, 0},
		{"below the range, from the interface of a later rule", flow(TCP, "10.1.1.1:4000", "192.0.2.2:79"), 1, 3},
		{"above the range", flow(TCP, "11.1.1.1:4000", "192.0.2.2:444"), 1, 0},
		{"a protocol without ports never has one", flow(47, "10.1.1.1:0", "192.0.2.2:80"), 0, 0},
		{"but an interface", flow(47, "10.1.1.1:0", "192.0.2.2:80"), 2, 6},
		{"IPv6", flow(UDP, "[2001:db8::1]:1", "[2001:db8:7::1]:1"), 0, 4},
		{"IPv6, its default", flow(TCP, "[2001:db8::1]:1", "[2001:db8:7::1]:1"), 0, 7},
		{"IPv6's default isn't IPv4's", flow(TCP, "10.1.1.1:1", "198.51.100.1:1"), 0, 0},
		{"source ports", flow(SCTP, "198.51.100.1:1023", "198.51.100.1:9"), 0, 5},
		{"an interface that no rule names", flow(SCTP, "198.51.100.1:1024", "198.51.100.1:9"), 77, 0},
	} {
		if got := m.Of(c.flow, c.port); got != c.want {
			t.Errorf("%s: %d, want %d", c.situation, got, c.want)
		}
		if got := slowMark(rules, c.flow, c.port); got != c.want {
			t.Errorf("%s: the twin says %d, want %d", c.situation, got, c.want)
		}
	}
}

// ruleSource makes rules and packets of the bytes of a fuzz input, or of random ones: out of few values, so that they meet.
type ruleSource struct {
	random *rand.Rand
	bytes  []byte
}

func (s *ruleSource) n(below int) int {
	if s.random != nil {
		return s.random.IntN(below)
	}
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b) % below
}

func (s *ruleSource) addr(is6 bool) netip.Addr {
	if is6 {
		var b [16]byte
		binary.BigEndian.PutUint32(b[:], 0x20010db8)
		for i := s.n(3); i > 0; i-- {
			b[4+s.n(12)] = byte(s.n(4))
		}
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{10, byte(s.n(2)), byte(s.n(3)), byte(s.n(256))})
}

func (s *ruleSource) prefix(is6 bool) netip.Prefix {
	a := s.addr(is6)
	length := []int{0, 1, 7, 8, 9, 15, 16, 20, 24, 25, 28, 31, 32, 32, 32, 32}[s.n(16)]
	if is6 && s.n(2) == 0 {
		length = 128 - length
	}
	return netip.PrefixFrom(a, length)
}

func (s *ruleSource) ports() PortRange {
	switch s.n(4) {
	case 0:
		first := uint16(s.n(100))
		return PortRange{first, first + uint16(s.n(50))}
	case 1:
		p := uint16(s.n(100))
		return PortRange{p, p}
	case 2:
		return PortRange{uint16(s.n(256)) << 8, 65535}
	}
	return PortRange{}
}

func (s *ruleSource) proto() Proto { return []Proto{TCP, UDP, SCTP, 0}[s.n(4)] }

func (s *ruleSource) rule(mark int) MarkRule {
	r := MarkRule{Mark: uint32(mark), Interface: s.n(4) - 1, Proto: s.proto(), SrcPorts: s.ports(), DstPorts: s.ports()}
	switch is6 := s.n(3) == 0; s.n(4) {
	case 0:
		r.Src = s.prefix(is6)
	case 1:
		r.Dst = s.prefix(is6)
	case 2:
		r.Src, r.Dst = s.prefix(is6), s.prefix(is6)
	}
	return r
}

func (s *ruleSource) packet() (*packet.Flow, int) {
	is6 := s.n(3) == 0
	f := &packet.Flow{
		Src: packet.AddrFrom(s.addr(is6)), Dst: packet.AddrFrom(s.addr(is6)),
		SrcPort: uint16(s.n(200)), DstPort: uint16(s.n(200)), Proto: uint8(s.proto()),
	}
	if s.n(8) == 0 {
		f.Proto = 47
	}
	return f, s.n(5)
}

// near is a packet that meets most of what some rule asks.
func (s *ruleSource) near(rules []MarkRule) (*packet.Flow, int) {
	f, port := s.packet()
	r := &rules[s.n(len(rules))]
	if r.Interface != AnyInterface {
		port = r.Interface
	}
	if r.Proto != 0 {
		f.Proto = uint8(r.Proto)
	}
	if r.Src.IsValid() {
		f.Src = packet.AddrFrom(r.Src.Addr())
	}
	if r.Dst.IsValid() {
		f.Dst = packet.AddrFrom(r.Dst.Addr())
	}
	if f.Src.Is4() != f.Dst.Is4() {
		f.Src = f.Dst
	}
	f.SrcPort, f.DstPort = r.SrcPorts.First, r.DstPorts.Last
	switch s.n(8) {
	case 0:
		f.SrcPort--
	case 1:
		f.DstPort++
	case 2:
		port = s.n(5)
	case 3:
		f.Src = packet.AddrFrom(s.addr(!f.Src.Is4()))
	}
	return f, port
}

func TestMarksAgreeWithTheirTwin(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	s := &ruleSource{random: random}
	sizes := append(slices.Repeat([]int{1, 2, 3, 5, 10, 20}, 20), 63, 64, 65, 66, 128, 129, 700, 4097, 5000)
	met := 0
	for _, n := range sizes {
		var rules []MarkRule
		for i := range n {
			rules = append(rules, s.rule(i+1))
		}
		if n > 2 { // nothing catches all before the others have their say
			rules = slices.DeleteFunc(rules, func(r MarkRule) bool { return !r.Src.IsValid() && !r.Dst.IsValid() && r.DstPorts.Any() })
		}
		if len(rules) == 0 {
			continue
		}
		m := mustMarks(t, rules)
		for i := range 1000 {
			f, port := s.packet()
			if i%2 == 0 {
				f, port = s.near(rules)
			}
			got, want := m.Of(f, port), slowMark(rules, f, port)
			if got != want {
				t.Fatalf("%d rules: %+v on port %d: %d, want %d", n, f, port, got, want)
			}
			if want != 0 {
				met++
			}
		}
	}
	if share := float64(met) / float64(1000*len(sizes)); share < 0.1 || share > 0.9 {
		t.Errorf("%.2f of the packets met a rule: that tests only half of it", share)
	}
}

func FuzzMarks(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(uint8(seed*9), b)
	}
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		s := &ruleSource{bytes: b}
		var rules []MarkRule
		for i := range int(n)%100 + 1 {
			rules = append(rules, s.rule(i+1))
		}
		m := mustMarks(t, rules)
		for range 50 {
			p, port := s.near(rules)
			if got, want := m.Of(p, port), slowMark(rules, p, port); got != want {
				t.Fatalf("%+v on port %d: %d, want %d, by %+v", p, port, got, want, rules)
			}
			if len(s.bytes) == 0 {
				break
			}
		}
	})
}

func TestSenselessMarkRulesAreRefused(t *testing.T) {
	pfx := netip.MustParsePrefix
	good := MarkRule{Mark: 1, Interface: AnyInterface, Src: pfx("10.0.0.0/8"), Proto: TCP, DstPorts: PortRange{1, 2}}
	for name, spoil := range map[string]func(*MarkRule){
		"no mark":                     func(r *MarkRule) { r.Mark = 0 },
		"interface":                   func(r *MarkRule) { r.Interface = -2 },
		"two families":                func(r *MarkRule) { r.Dst = pfx("2001:db8::/32") },
		"mapped":                      func(r *MarkRule) { r.Src = netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 128) },
		"protocol":                    func(r *MarkRule) { r.Proto = 1 },
		"range ends before it begins": func(r *MarkRule) { r.DstPorts = PortRange{2, 1} },
	} {
		r := good
		spoil(&r)
		if _, err := NewMarks([]MarkRule{good, r}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: NewMarks = %v, want ErrInvalid", name, err)
		}
	}
	if _, err := NewMarks(slices.Repeat([]MarkRule{good}, MaxMarkRules+1)); !errors.Is(err, ErrRange) {
		t.Errorf("too many rules: %v, want ErrRange", err)
	}
	if m, err := NewMarks(nil); m != nil || err != nil {
		t.Errorf("NewMarks(nil) = %v, %v, want nil, nil", m, err)
	}
	m := mustMarks(t, slices.Repeat([]MarkRule{good}, MaxMarkRules))
	if got := m.Of(flow(TCP, "10.0.0.1:7", "192.0.2.1:2"), 0); got != 1 || len(m.Rules()) != MaxMarkRules {
		t.Errorf("as many rules as there may be: mark %d, want 1", got)
	}
}

func TestHostsOfMarkRulesAreOurs(t *testing.T) {
	pfx := netip.MustParsePrefix
	rules := []MarkRule{
		{Mark: 7, Interface: AnyInterface, Dst: pfx("192.0.2.1/32")},
		{Mark: 7, Interface: AnyInterface, Dst: pfx("192.0.2.2/31")},
		{Mark: 8, Interface: AnyInterface, Dst: pfx("192.0.2.4/32")},
		{Mark: 7, Interface: AnyInterface, Dst: pfx("2001:db8::1/128")},
	}
	vs := &VirtualService{Key: Key{Mark: 7, Addr: netip.MustParseAddrPort("0.0.0.0:0")}}
	table := NewTable([]*VirtualService{vs}, nil, 1, WithMarks(mustMarks(t, rules)))
	for _, c := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.2", false}, {"192.0.2.4", false}, {"2001:db8::1", false},
	} {
		if got := table.IsVIP(packet.AddrFrom(netip.MustParseAddr(c.addr))); got != c.want {
			t.Errorf("IsVIP(%s) = %v, want %v", c.addr, got, c.want)
		}
	}
	f := flow(TCP, "198.51.100.1:4000", "192.0.2.3:443")
	if got := table.Match(f, table.Mark(f, 3)); got != vs {
		t.Errorf("Match by mark = %v, want %v", got, vs)
	}
	if none := NewTable([]*VirtualService{vs}, nil, 1); none.Mark(f, 3) != 0 || none.Marks() != nil {
		t.Error("a table without rules gives marks")
	}
}

func TestMarkAllocatesNothing(t *testing.T) {
	rules := benchRules(1000)
	table := NewTable(nil, nil, 0, WithMarks(mustMarks(t, rules)))
	f := flow(TCP, "198.51.100.1:4000", "10.0.3.7:443")
	if n := testing.AllocsPerRun(100, func() { table.Mark(f, 0) }); n != 0 {
		t.Errorf("%v allocations per Mark, want 0", n)
	}
}

// benchRules are what an operator with many services has: hosts with ports, some networks of clients.
func benchRules(n int) []MarkRule {
	rules := make([]MarkRule, n)
	for i := range rules {
		host := i / 2
		rules[i] = MarkRule{
			Mark: uint32(host + 1), Interface: AnyInterface, Proto: TCP, DstPorts: PortRange{80, 80},
			Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(host >> 16), byte(host >> 8), byte(host)}), 32),
		}
		if i%2 == 1 {
			rules[i].DstPorts = PortRange{443, 443}
		}
		if i%10 == 9 {
			rules[i].Src = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i >> 8), byte(i), 0}), 24)
			rules[i].DstPorts = PortRange{uint16(i), uint16(i + 1000)}
		}
	}
	return rules
}

func BenchmarkMark(b *testing.B) {
	for _, n := range []int{0, 10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := NewTable(nil, nil, 0, WithMarks(mustMarks(b, benchRules(n))))
			random := rand.New(rand.NewPCG(1, 2))
			flows := make([]packet.Flow, 1024)
			for i := range flows {
				host := random.IntN(max(n/2, 1))
				flows[i] = packet.Flow{
					Src: packet.AddrFrom4(random.Uint32()), SrcPort: uint16(random.Uint32()),
					Dst: packet.AddrFrom4(10<<24 | uint32(host)), DstPort: []uint16{80, 443, 22}[i%3], Proto: packet.ProtoTCP,
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.Mark(&flows[i%1024], 0)
			}
		})
	}
}

func BenchmarkNewMarks(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		rules := benchRules(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustMarks(b, rules)
			}
		})
	}
}
