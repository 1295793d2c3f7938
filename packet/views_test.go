package packet

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestAddr(t *testing.T) {
	for _, tt := range []struct {
		in     string
		is4    bool
		masked map[int]string
	}{
		{"10.9.0.100", true, map[int]string{-1: "0.0.0.0", 0: "0.0.0.0", 1: "0.0.0.0", 8: "10.0.0.0", 31: "10.9.0.100", 32: "10.9.0.100", 99: "10.9.0.100"}},
		{"255.255.255.255", true, map[int]string{0: "0.0.0.0", 7: "254.0.0.0", 24: "255.255.255.0"}},
		{"0.0.0.0", true, map[int]string{16: "0.0.0.0"}},
		{"2001:db8:9::100", false, map[int]string{32: "2001:db8::", 48: "2001:db8:9::", 64: "2001:db8:9::", 120: "2001:db8:9::100", 128: "2001:db8:9::100"}},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, map[int]string{1: "8000::", 63: "ffff:ffff:ffff:fffe::", 65: "ffff:ffff:ffff:ffff:8000::"}},
	} {
		n := netip.MustParseAddr(tt.in)
		a := AddrFrom(n)
		if a.Is4() != tt.is4 || a.Netip() != n || a.String() != tt.in || a.IsZero() {
			t.Errorf("%s: Is4 %v, Netip %v, String %v", tt.in, a.Is4(), a.Netip(), a)
		}
		b := a.As16()
		if AddrFrom16(&b) != a {
			t.Errorf("%s: AddrFrom16(As16) = %v", tt.in, AddrFrom16(&b))
		}
		if tt.is4 && AddrFrom4(a.V4()) != a {
			t.Errorf("%s: AddrFrom4(V4) = %v", tt.in, AddrFrom4(a.V4()))
		}
		for bits, want := range tt.masked {
			if got := a.Masked(bits); got != addr(want) && !(got.IsZero() && want == "::") {
				t.Errorf("%s: Masked(%d) = %v, want %v", tt.in, bits, got, want)
			}
		}
	}
	if !AddrFrom(netip.Addr{}).IsZero() || (Addr{}).Netip().IsValid() || (Addr{}).Is4() {
		t.Error("no address and the zero Addr do not belong together")
	}
	if got := addr("2001:db8::1").Masked(0); !got.IsZero() {
		t.Errorf("Masked(0) = %v, want the zero Addr", got)
	}
	if got := addr("10.9.7.100").Mask4(0xff00ff00); got != addr("10.0.7.0") {
		t.Errorf("Mask4 with a hole = %v, want 10.0.7.0", got)
	}
	if hi, lo := addr("2001:db8::7").Words(); hi != 0x20010db8<<32 || lo != 7 {
		t.Errorf("Words() = %#x, %#x", hi, lo)
	}
}

// FuzzAddr compares masking with net/netip's.
func FuzzAddr(f *testing.F) {
	f.Add([]byte{10, 9, 0, 100}, 24)
	f.Add(bytes.Repeat([]byte{0xff}, 16), 65)
	f.Fuzz(func(t *testing.T, b []byte, bits int) {
		n, ok := netip.AddrFromSlice(b)
		if !ok || bits < 0 || bits > n.BitLen() || n.Is4In6() {
			return
		}
		want, err := n.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := AddrFrom(n).Masked(bits); got != AddrFrom(want.Addr()) {
			t.Errorf("%v masked to %d bits = %v, want %v", n, bits, got, want.Addr())
		}
	})
}

func TestEthAndMAC(t *testing.T) {
	b := make([]byte, EthLen)
	dst, src := MAC{2, 0, 0, 0, 1, 0xfa}, MAC{0, 0, 0x5e, 0, 1, 0x33}
	PutEth(b, dst, src, EtherIPv6)
	h, payload, ok := ParseEth(append(b, 1, 2))
	if !ok || h.Dst() != dst || h.Src() != src || h.Type() != EtherIPv6 || len(payload) != 2 {
		t.Errorf("ParseEth = %v %v %#x, %d bytes, %v", h.Dst(), h.Src(), h.Type(), len(payload), ok)
	}
	if got := src.String(); got != "00:00:5e:00:01:33" {
		t.Errorf("String() = %q", got)
	}
	if src.IsGroup() || !Broadcast.IsGroup() || !(MAC{1, 0, 0x5e}).IsGroup() {
		t.Error("IsGroup is wrong")
	}
	if _, _, ok := ParseEth(b[:13]); ok {
		t.Error("ParseEth of 13 bytes = true")
	}
}

func TestARP(t *testing.T) {
	_, b, _ := ParseEth(frame(t, "arp"))
	h, ok := ParseARP(b)
	if !ok || h.Op() != ARPRequest || h.Sender() != 0x0a0900fe || h.Target() != 0x0a090064 ||
		h.SenderMAC() != (MAC{2, 0, 0, 0, 9, 0xfe}) || h.TargetMAC() != (MAC{}) {
		t.Fatalf("ParseARP = %+v, %v", h, ok)
	}
	got := make([]byte, ARPLen)
	PutARP(got, ARPRequest, h.SenderMAC(), h.Sender(), h.TargetMAC(), h.Target())
	if !bytes.Equal(got, b) {
		t.Errorf("PutARP = %x, want %x", got, b)
	}
	for i := range 6 {
		spoilt := bytes.Clone(b)
		spoilt[i] ^= 0x80
		if _, ok := ParseARP(spoilt); ok {
			t.Errorf("ParseARP with byte %d spoilt = true", i)
		}
	}
	if _, ok := ParseARP(b[:27]); ok {
		t.Error("ParseARP of 27 bytes = true")
	}
}

func TestPutIPv4AgreesWithGopacket(t *testing.T) {
	b := make([]byte, IPv4Len+5)
	PutIPv4(b, len(b), Header4{TOS: 0xc0, ID: 0xabcd, DF: true, TTL: 17, Proto: ProtoUDP, Src: 0x0a090064, Dst: 0xc0000207})
	want := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(want, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.IPv4{Version: 4, TOS: 0xc0, Id: 0xabcd, Flags: layers.IPv4DontFragment, TTL: 17, Protocol: 17,
			SrcIP: []byte{10, 9, 0, 100}, DstIP: []byte{192, 0, 2, 7}}, gopacket.Payload(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want.Bytes()) {
		t.Errorf("PutIPv4 = %x\n   gopacket %x", b, want.Bytes())
	}
}

func TestIPv4SettersKeepTheChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	b := frame(t, "syn options")[EthLen:]
	h, _, ok := ParseIPv4(b)
	if !ok {
		t.Fatal("ParseIPv4 = false")
	}
	for i := range 100_000 {
		switch a := r.Uint32(); i % 3 {
		case 0:
			h.SetSrc(a)
		case 1:
			h.SetDst(a)
		default:
			if h.TTL() == 0 {
				h.SetTTL(uint8(a))
				FixIPv4Checksum(b)
			}
			if h.TTL() > 0 {
				h.DecTTL()
			}
		}
		if !IPv4ChecksumOK(b) {
			t.Fatalf("checksum wrong after step %d: %x", i, b[:24])
		}
	}
}

func TestIPv4Fields(t *testing.T) {
	b := make([]byte, 24)
	b[0] = 0x46
	h := (*IPv4)(b)
	h.SetTOS(0x2e)
	h.SetTotalLen(0x1234)
	h.SetID(0x5678)
	h.SetTTL(9)
	if h.HeaderLen() != 24 || h.TOS() != 0x2e || h.TotalLen() != 0x1234 || h.ID() != 0x5678 || h.TTL() != 9 {
		t.Errorf("fields: %x", b)
	}
	for _, tt := range []struct {
		df, mf   bool
		offset   int
		fragment bool
	}{{false, false, 0, false}, {true, false, 0, false}, {false, true, 0, true}, {false, false, 8, true}, {true, true, 65528, true}} {
		h.SetFrag(tt.df, tt.mf, tt.offset)
		if h.DF() != tt.df || h.MF() != tt.mf || h.FragOffset() != tt.offset || h.IsFragment() != tt.fragment {
			t.Errorf("SetFrag(%v, %v, %d): %x", tt.df, tt.mf, tt.offset, b[6:8])
		}
	}
}

func TestOptionsOfLaterFragments(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"record route goes", "\x07\x03\x04\x01", "\x01\x01\x01\x01"},
		{"security stays", "\x82\x04\xab\xcd", "\x82\x04\xab\xcd"},
		{"one of each", "\x44\x04\x05\x00\x94\x04\x00\x00", "\x01\x01\x01\x01\x94\x04\x00\x00"},
		{"behind the end nothing counts", "\x00\x07\x03\x04", "\x00\x07\x03\x04"},
		{"a length that lies stops it", "\x07\x09\x04\x01", "\x07\x09\x04\x01"},
		{"a length of 1 stops it", "\x01\x07\x01\x01", "\x01\x07\x01\x01"},
		{"a lone type stops it", "\x01\x01\x01\x07", "\x01\x01\x01\x07"},
	} {
		b := make([]byte, IPv4Len, 60)
		b[0] = 0x45 + byte(len(tt.in)/4)
		b = append(b, tt.in...)
		ClearUncopiedOptions(b)
		if got := string(b[IPv4Len:]); got != tt.want {
			t.Errorf("%s: %x, want %x", tt.name, got, tt.want)
		}
		ClearOptions(b)
		if got := b[IPv4Len:]; !bytes.Equal(got, bytes.Repeat([]byte{1}, len(got))) {
			t.Errorf("%s: ClearOptions leaves %x", tt.name, got)
		}
	}
}

func TestL4Fields(t *testing.T) {
	b := make([]byte, 60)
	ports := (*Ports)(b)
	ports.SetSrc(0x0102)
	ports.SetDst(0x0304)
	if ports.Src() != 0x0102 || ports.Dst() != 0x0304 {
		t.Errorf("ports: %x", b[:4])
	}
	tcp := (*TCP)(b)
	tcp.SetSeq(0x05060708)
	tcp.SetAck(0x090a0b0c)
	tcp.SetHeaderLen(60)
	tcp.SetFlags(TCPSyn | TCPCwr)
	tcp.SetChecksum(0x0f10)
	if tcp.SrcPort() != 0x0102 || tcp.DstPort() != 0x0304 || tcp.Seq() != 0x05060708 || tcp.Ack() != 0x090a0b0c ||
		tcp.HeaderLen() != 60 || tcp.Flags() != 0x82 || tcp.Checksum() != 0x0f10 {
		t.Errorf("TCP: %x", b[:20])
	}
	udp := (*UDP)(b)
	udp.SetLen(0x1112)
	udp.SetChecksum(0x1314)
	if udp.SrcPort() != 0x0102 || udp.DstPort() != 0x0304 || udp.Len() != 0x1112 || udp.Checksum() != 0x1314 {
		t.Errorf("UDP: %x", b[:8])
	}
	sctp := (*SCTP)(b)
	sctp.SetChecksum(0x01020304)
	if sctp.SrcPort() != 0x0102 || sctp.DstPort() != 0x0304 || sctp.Checksum() != 0x01020304 || b[8] != 4 {
		t.Errorf("SCTP: %x", b[:12])
	}
	icmp, quote, ok := ParseICMP(frame(t, "icmp error")[34:])
	if !ok || icmp.Type() != ICMPUnreachable || icmp.Code() != ICMPCodeFragNeeded || icmp.MTU() != 1400 ||
		icmp.Checksum() != 0x5709 || len(quote) != 28 || !icmp.IsError() || icmp.IsQuery() {
		t.Errorf("ParseICMP = %x, %d bytes, %v", icmp, len(quote), ok)
	}
	icmp.SetType(ICMPEcho, 3)
	icmp.SetRest(0x00020003)
	icmp.SetChecksum(7)
	if icmp.Type() != ICMPEcho || icmp.Code() != 3 || icmp.MTU() != 3 || icmp.Checksum() != 7 || icmp.IsError() || !icmp.IsQuery() {
		t.Errorf("ICMP: %x", icmp)
	}
	icmp.SetType(5, 0)
	if icmp.IsError() || icmp.IsQuery() {
		t.Error("a redirect is neither about a connection nor a query")
	}
	if _, _, ok := ParseICMP(b[:7]); ok {
		t.Error("ParseICMP of 7 bytes = true")
	}
	SetWord(b, 0xcafe)
	if b[0] != 0xca || b[1] != 0xfe {
		t.Errorf("SetWord: %x", b[:2])
	}
}

func TestVnetFields(t *testing.T) {
	var v Vnet
	v.SetFlags(VnetNeedsCsum)
	v.SetGSOType(GSOTCPv4 | GSOECN)
	v.SetHdrLen(54)
	v.SetGSOSize(1448)
	v.SetCsumStart(34)
	v.SetCsumOffset(16)
	if !v.NeedsCsum() || v.Flags() != 1 || v.GSOType() != 0x81 || v.HdrLen() != 54 || v.GSOSize() != 1448 ||
		v.CsumStart() != 34 || v.CsumOffset() != 16 {
		t.Errorf("fields: %x", v)
	}
	v.SetFlags(VnetDataValid)
	if v.NeedsCsum() {
		t.Error("NeedsCsum() with DATA_VALID alone")
	}
}

func TestFlowReverse(t *testing.T) {
	f := Flow{addr("192.0.2.7"), addr("10.9.0.100"), 40001, 80, ProtoTCP}
	want := Flow{addr("10.9.0.100"), addr("192.0.2.7"), 80, 40001, ProtoTCP}
	if f.Reverse() != want || f.Reverse().Reverse() != f {
		t.Errorf("Reverse() = %+v, want %+v", f.Reverse(), want)
	}
}
