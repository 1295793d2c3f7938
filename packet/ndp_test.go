package packet

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Frames that Linux sent, by name. Spaces part Ethernet, IPv6, hop-by-hop header, ICMPv6 and options.
var ndpFrames = map[string]string{
	// :: > ff02::1:ff00:100 who has 2001:db8:9::100, nonce option
	"probe": "3333ff00010002000000010b86dd 6000000000203aff00000000000000000000000000000000ff0200000000000000000001ff000100 8700b2670000000020010db8000900000000000000000100 0e010b879729e7c4",
	// 2001:db8:9::fe > ff02::1:ff00:100 who has 2001:db8:9::100, source 02:00:00:00:09:fe
	"solicit": "3333ff0001000200000009fe86dd 6000000000203aff20010db80009000000000000000000feff0200000000000000000001ff000100 87000f1f0000000020010db8000900000000000000000100 01010200000009fe",
	// fe80::ff:fe00:10b > 2001:db8:9::fe, does it still live
	"verify": "0200000009fe02000000010b86dd 6000000000203afffe80000000000000000000fffe00010b20010db80009000000000000000000fe 8700188d0000000020010db80009000000000000000000fe 010102000000010b",
	// 2001:db8:9::100 > 2001:db8:9::fe, solicited and override, target 02:00:00:00:01:0b
	"advert": "0200000009fe02000000010b86dd 6000000000203aff20010db800090000000000000000010020010db80009000000000000000000fe 880086546000000020010db8000900000000000000000100 020102000000010b",
	// 2001:db8:9::fe > fe80::ff:fe00:10b, solicited, no option
	"advert without MAC": "02000000010b0200000009fe86dd 6000000000183aff20010db80009000000000000000000fefe80000000000000000000fffe00010b 8800dba04000000020010db80009000000000000000000fe",
	// fe80::ff:fe00:9fe > ff02::2
	"router solicit": "3333000000020200000009fe86dd 6000000000103afffe80000000000000000000fffe0009feff020000000000000000000000000002 8500673200000000 01010200000009fe",
	// :: > ff02::16, joins ff02::1:ff00:9fe
	"report": "3333000000160200000009fe86dd 6000000000240001 00000000000000000000000000000000ff020000000000000000000000000016 3a00050200000100 8f00658c00000001 04000000ff0200000000000000000001ff0009fe",
	// 2001:db8:9::100 > ff02::1, all groups, version 1, within 10 s; a bridge's, which had no link-local address yet
	"query from no link-local address": "33330000000102000000010b86dd 6000000000200001 20010db8000900000000000000000100ff020000000000000000000000000001 3a00050200000000 820028d727100000 00000000000000000000000000000000",
}

func ndpFrame(t testing.TB, name string) []byte {
	t.Helper()
	s, ok := ndpFrames[name]
	if !ok {
		t.Fatalf("no frame %q", name)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("frame %q: %v", name, err)
	}
	return b
}

func addr6(s string) Addr { return AddrFrom(netip.MustParseAddr(s)) }

// fix6 makes the ICMPv6 checksum of a frame right whose ICMPv6 message starts at an offset.
func fix6(b []byte, at int) []byte {
	ip := (*IPv6)(b[EthLen:])
	SetWord(b[at+2:], 0)
	SetWord(b[at+2:], ^Fold(Sum(b[at:], Pseudo6(ip.Src(), ip.Dst(), ProtoICMPv6, len(b)-at))))
	return b
}

// query is a query of version 2 for all groups within 10 s, made of the bridge's.
func query(t testing.TB) []byte {
	b := append(ndpFrame(t, "query from no link-local address"), 0, 0, 0, 0)
	(*IPv6)(b[EthLen:]).SetPayloadLen(len(b) - EthLen - IPv6Len)
	(*IPv6)(b[EthLen:]).SetSrc(addr6("fe80::ff:fe00:10b"))
	return fix6(b, EthLen+IPv6Len+8)
}

func decoded(t testing.TB, b []byte) *Packet {
	t.Helper()
	p := new(Packet)
	if fault := Decode(b, p); fault != NoFault {
		t.Fatalf("Decode of %x = %d", b, fault)
	}
	return p
}

func TestParseNDP(t *testing.T) {
	gw, vip, ll := addr6("2001:db8:9::fe"), addr6("2001:db8:9::100"), addr6("fe80::ff:fe00:10b")
	gwMAC, vipMAC := MAC{2, 0, 0, 0, 9, 0xfe}, MAC{2, 0, 0, 0, 1, 0x0b}
	for _, tt := range []struct {
		frame string
		want  NDP
		of    Addr
	}{
		{"probe", NDP{Type: ICMP6NeighbourSolicit, Dst: SolicitedNode(vip), Target: vip}, Addr{}},
		{"solicit", NDP{Type: ICMP6NeighbourSolicit, Src: gw, Dst: SolicitedNode(vip), Target: vip, MAC: gwMAC}, gw},
		{"verify", NDP{Type: ICMP6NeighbourSolicit, Src: ll, Dst: gw, Target: gw, MAC: vipMAC}, ll},
		{"advert", NDP{Type: ICMP6NeighbourAdvert, Flags: NDPSolicited | NDPOverride, Src: vip, Dst: gw, Target: vip, MAC: vipMAC}, vip},
		{"advert without MAC", NDP{Type: ICMP6NeighbourAdvert, Flags: NDPSolicited, Src: gw, Dst: ll, Target: gw}, Addr{}},
	} {
		p := decoded(t, ndpFrame(t, tt.frame))
		var n NDP
		if !p.IsNeighbourDiscovery() || !ParseNDP(p, &n) || n != tt.want {
			t.Errorf("%s: ParseNDP = %+v, want %+v", tt.frame, n, tt.want)
		}
		if a, mac, ok := n.Of(); ok != !tt.of.IsZero() || ok && (a != tt.of || mac != n.MAC) {
			t.Errorf("%s: Of() = %v, %v, %v, want %v", tt.frame, a, mac, ok, tt.of)
		}
		// What is built of it is what Linux built, but for options of other kinds.
		b := make([]byte, NDPLen+NDPMACLen)
		PutNDP(b, &n)
		if want := p.L4Bytes(); tt.frame != "probe" && !bytes.Equal(b[:len(want)], want) {
			t.Errorf("%s: PutNDP\n got %x\nwant %x", tt.frame, b, want)
		}
	}
	for _, name := range []string{"router solicit", "report"} {
		if p := decoded(t, ndpFrame(t, name)); !p.IsNeighbourDiscovery() || ParseNDP(p, new(NDP)) {
			t.Errorf("%s: want it known as neighbour discovery, and neither solicitation nor advertisement", name)
		}
	}
}

// TestInvalidNDPIsRefused goes through the rules of RFC 4861 sections 7.1.1 and 7.1.2 and RFC 6980, one broken each.
func TestInvalidNDPIsRefused(t *testing.T) {
	const ip, icmp, options = EthLen, EthLen + IPv6Len, EthLen + IPv6Len + NDPLen
	shorter := func(b []byte, n int) []byte {
		b = b[:len(b)-n]
		(*IPv6)(b[ip:]).SetPayloadLen(len(b) - icmp)
		return b
	}
	for _, tt := range []struct {
		name, frame string
		spoil       func(b []byte) []byte
	}{
		{"hop limit 254", "solicit", func(b []byte) []byte { b[ip+7] = 254; return b }},
		{"hop limit 254", "advert", func(b []byte) []byte { b[ip+7] = 254; return b }},
		{"code 1", "solicit", func(b []byte) []byte { b[icmp+1] = 1; return fix6(b, icmp) }},
		{"code 1", "advert", func(b []byte) []byte { b[icmp+1] = 1; return fix6(b, icmp) }},
		{"cut short", "solicit", func(b []byte) []byte { return fix6(shorter(b, 9), icmp) }},
		{"a group as target", "solicit", func(b []byte) []byte { b[icmp+8] = 0xff; return fix6(b, icmp) }},
		{"a group as target", "advert", func(b []byte) []byte { b[icmp+8] = 0xff; return fix6(b, icmp) }},
		{"option of length 0", "solicit", func(b []byte) []byte { b[options+1] = 0; return fix6(b, icmp) }},
		{"option longer than the packet", "solicit", func(b []byte) []byte { b[options+1] = 2; return fix6(b, icmp) }},
		{"option cut short", "advert", func(b []byte) []byte { return fix6(shorter(b, 4), icmp) }},
		{"a group as MAC", "advert", func(b []byte) []byte { b[options+2] = 3; return fix6(b, icmp) }},
		{"no MAC in its option", "solicit", func(b []byte) []byte { clear(b[options+2:]); return fix6(b, icmp) }},
		{"probe to a single address", "probe", func(b []byte) []byte {
			(*IPv6)(b[ip:]).SetDst(addr6("2001:db8:9::100"))
			return fix6(b, icmp)
		}},
		{"probe to another group", "probe", func(b []byte) []byte { (*IPv6)(b[ip:]).SetDst(AllNodes); return fix6(b, icmp) }},
		{"probe with a MAC", "probe", func(b []byte) []byte { b[options] = 1; b[options+2] &^= 1; return fix6(b, icmp) }},
		{"solicited advert to a group", "advert", func(b []byte) []byte { (*IPv6)(b[ip:]).SetDst(AllNodes); return fix6(b, icmp) }},
		{"in an atomic fragment", "solicit", func(b []byte) []byte {
			b = slices.Insert(b, icmp, 58, 0, 0, 0, 0, 0, 0, 1)
			(*IPv6)(b[ip:]).SetPayloadLen(len(b) - icmp)
			(*IPv6)(b[ip:]).SetNextHeader(44)
			return b
		}},
	} {
		b := tt.spoil(ndpFrame(t, tt.frame))
		if n := new(NDP); ParseNDP(decoded(t, b), n) {
			t.Errorf("%s, %s: ParseNDP takes it: %+v", tt.frame, tt.name, n)
		}
	}
	for name := range ndpFrames {
		b := ndpFrame(t, name)
		b[len(b)-1] ^= 0x40
		if ParseNDP(decoded(t, b), new(NDP)) {
			t.Errorf("%s with a wrong checksum: ParseNDP takes it", name)
		}
	}
}

func TestMLDQueriesAndReports(t *testing.T) {
	var q MLDQuery
	if p := decoded(t, query(t)); !ParseMLDQuery(p, &q) || q != (MLDQuery{MaxDelay: 10000}) {
		t.Errorf("ParseMLDQuery = %+v, want one for all groups within 10 s", q)
	}
	const hop, mld = EthLen + IPv6Len, EthLen + IPv6Len + 8
	version1 := query(t)[:mld+mldQuery1Len]
	(*IPv6)(version1[EthLen:]).SetPayloadLen(8 + mldQuery1Len)
	putAddr(version1[mld+8:], SolicitedNode(addr6("::1:2345")))
	if p := decoded(t, fix6(version1, mld)); !ParseMLDQuery(p, &q) || q != (MLDQuery{Version1: true, Group: addr6("ff02::1:ff01:2345"), MaxDelay: 10000}) {
		t.Errorf("ParseMLDQuery = %+v, want one of version 1 for a group", q)
	}
	long := query(t)
	SetWord(long[mld+4:], 0x8000|5<<12|3)
	if p := decoded(t, fix6(long, mld)); !ParseMLDQuery(p, &q) || q.MaxDelay != 0x1003<<8 {
		t.Errorf("ParseMLDQuery = %+v, want a delay of %d ms", q, 0x1003<<8)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"no link-local source": func([]byte) []byte { return ndpFrame(t, "query from no link-local address") },
		"a global source": func(b []byte) []byte {
			(*IPv6)(b[EthLen:]).SetSrc(addr6("2001:db8:9::100"))
			return fix6(b, mld)
		},
		"hop limit 2":     func(b []byte) []byte { b[EthLen+7] = 2; return b },
		"no router alert": func(b []byte) []byte { b[hop+2] = 1; return b },
		"alert of RSVP":   func(b []byte) []byte { b[hop+5] = 1; return b },
		"a host's group":  func(b []byte) []byte { b[mld+8] = 0x20; return fix6(b, mld) },
		"wrong checksum":  func(b []byte) []byte { b[mld+2]++; return b },
		"neither length": func(b []byte) []byte {
			b = b[:len(b)-2]
			(*IPv6)(b[EthLen:]).SetPayloadLen(len(b) - hop)
			return fix6(b, mld)
		},
	} {
		if ParseMLDQuery(decoded(t, spoil(query(t))), &q) {
			t.Errorf("%s: ParseMLDQuery takes it: %+v", name, q)
		}
	}

	b := make([]byte, MLDReportLen(1))
	PutMLDReport(b, MLDJoins, []Addr{addr6("ff02::1:ff00:9fe")})
	if want := ndpFrame(t, "report")[EthLen:]; !bytes.Equal(b, want) {
		t.Errorf("PutMLDReport\n got %x\nwant %x, as Linux", b, want)
	}
	b = make([]byte, MLDReport1Len)
	PutMLDReport1(b, addr6("ff02::1:ff00:9fe"))
	g := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.Default)
	r, ok := g.Layer(layers.LayerTypeMLDv1MulticastListenerReport).(*layers.MLDv1MulticastListenerReportMessage)
	if !ok || !r.MulticastAddress.Equal(addr6("ff02::1:ff00:9fe").Netip().AsSlice()) {
		t.Errorf("PutMLDReport1 wrote\n%v", g)
	}
	if p := decoded(t, append(make([]byte, 12), append([]byte{0x86, 0xdd}, b...)...)); Fold(Sum(p.L4Bytes(), p.Pseudo(ProtoICMPv6, len(p.L4Bytes())))) != 0xffff {
		t.Error("PutMLDReport1 wrote a wrong checksum")
	}
}

func TestGroupsOfAddresses(t *testing.T) {
	if got, want := SolicitedNode(addr6("2001:db8::abcd:1234:5678")), addr6("ff02::1:ff34:5678"); got != want {
		t.Errorf("SolicitedNode = %v, want %v", got, want)
	}
	if got, want := GroupMAC(addr6("ff02::1:ff34:5678")), (MAC{0x33, 0x33, 0xff, 0x34, 0x56, 0x78}); got != want {
		t.Errorf("GroupMAC = %v, want %v", got, want)
	}
	if AllNodes != addr6("ff02::1") || AllRouters != addr6("ff02::2") || MLDRouters != addr6("ff02::16") {
		t.Error("well-known groups are wrong")
	}
}

// FuzzNDP wants no panic and nothing written; what is taken is valid by a slow reading of the rules, and comes out of
// PutNDP as it went in.
func FuzzNDP(f *testing.F) {
	for name := range ndpFrames {
		f.Add(ndpFrame(f, name))
	}
	f.Add(query(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		var p Packet
		if Decode(b, &p) != NoFault {
			return
		}
		var q MLDQuery
		if ParseMLDQuery(&p, &q) && (p.TTL != 1 || !q.Group.IsZero() && !q.Group.Netip().IsMulticast() || !p.Src.Netip().IsLinkLocalUnicast()) {
			t.Fatalf("query taken: %+v", q)
		}
		var n NDP
		ok := ParseNDP(&p, &n)
		if !bytes.Equal(in, b) {
			t.Fatal("parsing wrote to the frame")
		}
		if !ok {
			return
		}
		m := p.L4Bytes()
		if p.TTL != 255 || m[1] != 0 || n.Target.Netip().IsMulticast() || len(m) < NDPLen || len(m)%8 != 0 || n.MAC.IsGroup() {
			t.Fatalf("taken: %+v", n)
		}
		if n.Src.IsZero() && n.Type == ICMP6NeighbourSolicit && n.MAC != (MAC{}) {
			t.Fatalf("probe with a MAC taken: %+v", n)
		}
		out := make([]byte, NDPLen+NDPMACLen)
		PutNDP(out, &n)
		eth := append(make([]byte, 12), 0x86, 0xdd)
		eth = append(eth, make([]byte, IPv6Len)...)
		size := NDPLen
		if n.MAC != (MAC{}) {
			size += NDPMACLen
		}
		PutIPv6(eth[EthLen:], size, Header6{NextHeader: ProtoICMPv6, HopLimit: 255, Src: n.Src, Dst: n.Dst})
		var back NDP
		if !ParseNDP(decoded(t, append(eth, out[:size]...)), &back) || back != n {
			t.Fatalf("written and read again: %+v, want %+v", back, n)
		}
	})
}

func TestNDPAllocatesNothing(t *testing.T) {
	p, q := decoded(t, ndpFrame(t, "solicit")), decoded(t, query(t))
	var n NDP
	var m MLDQuery
	b := make([]byte, NDPLen+NDPMACLen)
	if a := testing.AllocsPerRun(100, func() { ParseNDP(p, &n); ParseMLDQuery(q, &m); PutNDP(b, &n) }); a != 0 {
		t.Errorf("%v allocations, want none", a)
	}
}
