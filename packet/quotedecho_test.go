package packet

import "testing"

// echoQuotes are quotes of ICMP errors.
var echoQuotes = []struct {
	name, quote string
	ok          bool
	src, dst    string
	id          uint16
}{
	{"echo", "4500 0054 0001 4000 3f 01 0000 0a090032 0a010001 0800 0000 8123 0001", true, "10.9.0.50", "10.1.0.1", 0x8123},
	{"echo reply", "4500 0054 0001 4000 3f 01 0000 0a090032 0a010001 0000 0000 8123 0001", false, "", "", 0},
	{"cut short", "4500 0054 0001 4000 3f 01 0000 0a090032 0a010001 0800 0000 8123", false, "", "", 0},
	{"UDP", "4500 0054 0001 4000 3f 11 0000 0a090032 0a010001 0800 0000 8123 0001", false, "", "", 0},
	{"ICMPv6 over IPv4", "4500 0054 0001 4000 3f 3a 0000 0a090032 0a010001 8000 0000 8123 0001", false, "", "", 0},
	{"echo of IPv6", "60000000 0010 3a 3f 20010db8000900000000000000000050 20010db8000100000000000000000011 8000 0000 8123 0001", true,
		"2001:db8:9::50", "2001:db8:1::11", 0x8123},
	{"nothing", "", false, "", "", 0},
}

func TestDecodeQuotedEcho(t *testing.T) {
	for _, tt := range echoQuotes {
		f, ok := DecodeQuotedEcho(unhex(t, tt.quote))
		if ok != tt.ok || ok && (f.Src.String() != tt.src || f.Dst.String() != tt.dst || f.SrcPort != tt.id || f.DstPort != 0) {
			t.Errorf("%s: DecodeQuotedEcho = %+v, %v", tt.name, f, ok)
		}
	}
}

func FuzzDecodeQuotedEcho(f *testing.F) {
	for _, s := range echoQuotes {
		f.Add(unhex(f, s.quote))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		flow, ok := DecodeQuotedEcho(b)
		if !ok {
			return
		}
		if proto, dst, _, quoted := DecodeQuotedIP(b); !quoted || proto != flow.Proto || dst != flow.Dst || flow.Src.Is4() != dst.Is4() {
			t.Fatalf("DecodeQuotedEcho = %+v", flow)
		}
	})
}
