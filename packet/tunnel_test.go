package packet

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// greSeeds are GRE packets: flags and version, Ethernet type, optional fields, payload.
var greSeeds = []struct {
	name, bytes string
	ok          bool
	header      int
}{
	{"plain", "0000 0800 4500", true, 4},
	{"checksum", "8000 86dd 997c 0000 6000", true, 8},
	{"nothing behind it", "0000 0800", true, 4},
	{"key", "2000 0800 00000001 4500", false, 0},
	{"sequence number", "1000 0800 00000001 4500", false, 0},
	{"routing", "4000 0800 0000 0000 4500", false, 0},
	{"version 1, as PPTP has it", "2081 880b 0004 0001 00000000", false, 0},
	{"checksum cut off", "8000 0800 0000 00", false, 0},
	{"cut short", "0000 08", false, 0},
	{"nothing", "", false, 0},
}

func TestGRE(t *testing.T) {
	for _, tt := range greSeeds {
		b := unhex(t, tt.bytes)
		h, payload, ok := ParseGRE(b)
		if ok != tt.ok || ok && (h.HeaderLen() != tt.header || len(payload) != len(b)-tt.header) {
			t.Errorf("%s: ParseGRE = %v, %x, %v", tt.name, h, payload, ok)
		}
	}
}

// FuzzGRE compares with gopacket, and writes again what was read.
func FuzzGRE(f *testing.F) {
	for _, s := range greSeeds {
		f.Add(unhex(f, s.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := ParseGRE(b)
		if !ok {
			return
		}
		g, _ := gopacket.NewPacket(b, layers.LayerTypeGRE, gopacket.NoCopy).Layer(layers.LayerTypeGRE).(*layers.GRE)
		if g == nil || uint16(g.Protocol) != h.Type() || g.ChecksumPresent != h.HasChecksum() || !bytes.Equal(g.LayerPayload(), payload) {
			t.Fatalf("gopacket reads %x as %+v", b, g)
		}
		again := make([]byte, h.HeaderLen())
		PutGRE(again, h.Type(), h.HasChecksum())
		if !h.HasChecksum() {
			if !bytes.Equal(again, b[:len(again)]) {
				t.Fatalf("written again %x is %x", b, again)
			}
			return
		}
		SetGREChecksum(again, Sum(payload, 0))
		if again = append(again, payload...); !GREChecksumOK(again) || slowSum(again, 0) != 0xffff {
			t.Fatalf("the checksum of %x is wrong", again)
		}
		reserved := b[6] == 0 && b[7] == 0
		if c := Word(b[4:]); reserved && GREChecksumOK(b) && c != 0xffff && c != 0 && !bytes.Equal(again, b) {
			t.Fatalf("written again %x is %x", b, again)
		}
		if got, want := GREChecksumOK(b), slowSum(b, 0) == 0xffff; got != want {
			t.Fatalf("GREChecksumOK(%x) = %v, want %v", b, got, want)
		}
	})
}

// gueSeeds are GUE packets: variant, control bit and length of options; protocol; flags; options; payload.
var gueSeeds = []struct {
	name, bytes string
	ok          bool
	want        GUE
	payload     int
}{
	{"IPv4", "00 04 0000 4500", true, GUE{Proto: 4}, 2},
	{"IPv6", "00 29 0000 6000", true, GUE{Proto: 41}, 2},
	{"remote checksum of the TCP segment behind 4 bytes", "02 04 0001 80000000 0004 0014" + strings.Repeat("00", 24), true, GUE{4, true, 4, 20}, 24},
	{"the same, padded", "03 04 0001 80000000 0004 0014 00000000" + strings.Repeat("00", 24), true, GUE{4, true, 4, 20}, 24},
	{"no private flag set", "01 04 0001 00000000 4500", true, GUE{Proto: 4}, 2},
	{"options without flags", "01 04 0000 01020304 4500", true, GUE{Proto: 4}, 2},
	{"remote checksum behind the payload", "02 04 0001 80000000 0000 0001 0000", false, GUE{}, 0},
	{"remote checksum before its start", "02 04 0001 80000000 0004 0002 0000000000000000", false, GUE{}, 0},
	{"remote checksum option cut off", "01 04 0001 80000000 0000 0000 0000", false, GUE{}, 0},
	{"another private flag", "02 04 0001 40000000 00000000 0000", false, GUE{}, 0},
	{"private flags missing", "00 04 0001", false, GUE{}, 0},
	{"another flag", "01 04 8000 00000000", false, GUE{}, 0},
	{"control message", "20 04 0000", false, GUE{}, 0},
	{"variant 1: an IPv4 packet", "45 00 0014", false, GUE{}, 0},
	{"options cut off", "01 04 0000 000000", false, GUE{}, 0},
	{"cut short", "00 04 00", false, GUE{}, 0},
	{"nothing", "", false, GUE{}, 0},
}

func TestGUE(t *testing.T) {
	for _, tt := range gueSeeds {
		g, payload, ok := ParseGUE(unhex(t, tt.bytes))
		if ok != tt.ok || ok && (g != tt.want || len(payload) != tt.payload) {
			t.Errorf("%s: ParseGUE = %+v, %x, %v", tt.name, g, payload, ok)
		}
	}
	b := make([]byte, 12)
	PutGUE(b, GUE{Proto: 41, Remote: true, Start: 40, Field: 56})
	if want := unhex(t, "02 29 0001 80000000 0028 0038"); !bytes.Equal(b, want) {
		t.Errorf("PutGUE wrote %x, want %x", b, want)
	}
}

// FuzzGUE writes again what was read, and wants the same to be read from that.
func FuzzGUE(f *testing.F) {
	for _, s := range gueSeeds {
		f.Add(unhex(f, s.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, payload, ok := ParseGUE(b)
		if !ok {
			return
		}
		if g.Remote && (g.Start > g.Field || g.Field+2 > len(payload)) {
			t.Fatalf("checksum at %d from %d in %d bytes", g.Field, g.Start, len(payload))
		}
		again := make([]byte, g.HeaderLen(), g.HeaderLen()+len(payload))
		PutGUE(again, g)
		g2, payload2, ok := ParseGUE(append(again, payload...))
		if !ok || g2 != g || !bytes.Equal(payload, payload2) {
			t.Fatalf("written again, %x reads %+v, %v", b, g2, ok)
		}
	})
}

func TestPutUDP(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, UDPLen)
	PutUDP(b, 50000, 6080, 1400)
	if want := unhex(t, "c350 17c0 0578 0000"); !bytes.Equal(b, want) {
		t.Errorf("PutUDP wrote %x, want %x", b, want)
	}
}

func TestDecodeQuotedIP(t *testing.T) {
	const src6, dst6 = "20010db8000100000000000000000001", "20010db8000100000000000000000011"
	for _, tt := range []struct {
		name, quote string
		ok          bool
		proto       uint8
		dst         string
		payload     string
	}{
		{"IPv4", "4500 0050 0001 0000 3f 04 0000 0a010001 0a01000b 4500", true, ProtoIPIP, "10.1.0.11", "4500"},
		{"IPv4 with options", "4600 0050 0001 0000 3f 2f 0000 0a010001 0a01000b 01010101 0000", true, ProtoGRE, "10.1.0.11", "0000"},
		{"first fragment", "4500 0050 0001 2000 3f 04 0000 0a010001 0a01000b 4500", true, ProtoIPIP, "10.1.0.11", "4500"},
		{"later fragment", "4500 0050 0001 0001 3f 04 0000 0a010001 0a01000b 4500", false, 0, "", ""},
		{"IPv4 options cut off", "4600 0050 0001 0000 3f 2f 0000 0a010001 0a01000b 0101", false, 0, "", ""},
		{"IPv4 header length lies", "4400 0050 0001 0000 3f 2f 0000 0a010001 0a01000b", false, 0, "", ""},
		{"IPv4 cut short", "4500 0050 0001 0000 3f 2f 0000 0a010001 0a0100", false, 0, "", ""},
		{"IPv6", "60000000 0050 29 3f" + src6 + dst6 + "6000", true, ProtoIPv6, "2001:db8:1::11", "6000"},
		{"IPv6 first fragment", "60000000 0050 2c 3f" + src6 + dst6 + "1100 0001 00000007 1234", true, ProtoUDP, "2001:db8:1::11", "1234"},
		{"IPv6 later fragment", "60000000 0050 2c 3f" + src6 + dst6 + "1100 0009 00000007 1234", false, 0, "", ""},
		{"IPv6 extension cut off", "60000000 0050 3c 3f" + src6 + dst6 + "2901 0000", false, 0, "", ""},
		{"IPv6 cut short", "60000000 0050 29 3f" + src6, false, 0, "", ""},
		{"neither", "50", false, 0, "", ""},
		{"nothing", "", false, 0, "", ""},
	} {
		proto, dst, payload, ok := DecodeQuotedIP(unhex(t, tt.quote))
		if ok != tt.ok || ok && (proto != tt.proto || dst.String() != tt.dst || !bytes.Equal(payload, unhex(t, tt.payload))) {
			t.Errorf("%s: DecodeQuotedIP = %d, %v, %x, %v", tt.name, proto, dst, payload, ok)
		}
	}
}
