package nexthop

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// routeMessages are bodies of RTM_NEWROUTE as a little-endian kernel sends them.
var routeMessages = []struct {
	name, body string
	want       kernelRoute
}{
	{"default via 192.0.2.254 dev 2 metric 100",
		"02000000" + "fe030001" + "00000000" + // AF_INET, /0, src /0, tos 0; table main, proto boot, scope universe, unicast; flags
			"08000f00" + "fe000000" + // RTA_TABLE main
			"08000600" + "64000000" + // RTA_PRIORITY 100
			"08000500" + "c00002fe" + // RTA_GATEWAY
			"08000400" + "02000000", // RTA_OIF 2
		kernelRoute{prefix: netip.MustParsePrefix("0.0.0.0/0"), table: unix.RT_TABLE_MAIN, priority: 100, proto: unix.RTPROT_BOOT,
			kind: unix.RTN_UNICAST, hops: []kernelHop{{index: 2, gateway: packet.AddrFrom4(0xc00002fe), weight: 1}}}},
	{"10.0.0.0/24 dev 3 src 10.0.0.1 mtu 1400, link down",
		"02180000" + "fe02fd01" + "10000000" + // flags linkdown
			"08000100" + "0a000000" + // RTA_DST
			"08000700" + "0a000001" + // RTA_PREFSRC
			"0c000800" + "08000200" + "78050000" + // RTA_METRICS { RTAX_MTU 1400 }
			"08000400" + "03000000",
		kernelRoute{prefix: netip.MustParsePrefix("10.0.0.0/24"), table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_KERNEL,
			kind: unix.RTN_UNICAST, mtu: 1400, source: packet.AddrFrom4(0x0a000001), hops: []kernelHop{{index: 3, weight: 1}}}},
	{"10.0.0.0/24 by two, the second dead",
		"02180000" + "fe030001" + "00000000" +
			"08000100" + "0a000000" +
			"24000900" + // RTA_MULTIPATH
			"10000002" + "02000000" + "08000500" + "c00002fe" + // rtnexthop len 16, weight 3, dev 2 { RTA_GATEWAY }
			"10000100" + "03000000" + "08000500" + "c0000201", // dead, weight 1, dev 3 { RTA_GATEWAY }
		kernelRoute{prefix: netip.MustParsePrefix("10.0.0.0/24"), table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_BOOT,
			kind: unix.RTN_UNICAST, hops: []kernelHop{
				{index: 2, gateway: packet.AddrFrom4(0xc00002fe), weight: 3},
				{index: 3, gateway: packet.AddrFrom4(0xc0000201), weight: 1, dead: true}}}},
	{"10.0.0.0/24 by a nexthop object that isn't spelled out",
		"02180000" + "fe030001" + "00000000" + "08000100" + "0a000000" + "08001e00" + "07000000", // RTA_NH_ID 7
		kernelRoute{prefix: netip.MustParsePrefix("10.0.0.0/24"), table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_BOOT,
			kind: unix.RTN_UNICAST, opaque: true}},
	{"blackhole 192.0.2.9 table local proto 137",
		"02200000" + "ff890006" + "00000000" + "08000100" + "c0000209",
		kernelRoute{prefix: netip.MustParsePrefix("192.0.2.9/32"), table: unix.RT_TABLE_LOCAL, proto: 137, kind: unix.RTN_BLACKHOLE}},
	{"10.0.0.0/24 via inet6 2001:db8::1 dev 2",
		"02180000" + "fe030001" + "00000000" + "08000100" + "0a000000" +
			"16001200" + "0a00" + "20010db8000000000000000000000001" + "0000" + // RTA_VIA, AF_INET6, padding
			"08000400" + "02000000",
		kernelRoute{prefix: netip.MustParsePrefix("10.0.0.0/24"), table: unix.RT_TABLE_MAIN, proto: unix.RTPROT_BOOT,
			kind: unix.RTN_UNICAST, hops: []kernelHop{{index: 2, weight: 1,
				gateway: packet.AddrFrom(netip.MustParseAddr("2001:db8::1"))}}}},
}

func TestParseRoute(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return // the messages are those of a little-endian kernel
	}
	for _, m := range routeMessages {
		got, ok := parseRoute(unhex(t, m.body))
		if !ok || !reflect.DeepEqual(got, m.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", m.name, got, ok, m.want)
		}
	}
}

func TestDefaultRules(t *testing.T) {
	table := func(priority, table uint32) kernelRule {
		return kernelRule{family: unix.AF_INET, priority: priority, table: table, plain: true}
	}
	usual := []kernelRule{table(0, unix.RT_TABLE_LOCAL), table(32767, unix.RT_TABLE_DEFAULT), table(32766, unix.RT_TABLE_MAIN)}
	marked := kernelRule{family: unix.AF_INET, priority: 100, table: unix.RT_TABLE_MAIN}
	ours := table(50, 137)
	ours.proto = 137
	six := kernelRule{family: unix.AF_INET6, priority: 5, table: 9, plain: true}
	for _, c := range []struct {
		name  string
		rules []kernelRule
		want  bool
	}{
		{"as the kernel makes them", usual, true},
		{"with one of our own", append([]kernelRule{ours}, usual...), true},
		{"with one of the other family", append([]kernelRule{six}, usual...), true},
		{"with a table before main", append([]kernelRule{table(100, 100)}, usual...), false},
		{"with one that looks at marks", append([]kernelRule{marked}, usual...), false},
		{"without table default", usual[:1], false},
	} {
		if got := defaultRules(c.rules, unix.AF_INET, 137); got != c.want {
			t.Errorf("%s: defaultRules = %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzParse feeds one body to every parser: none may panic, whatever the kernel of tomorrow sends.
func FuzzParse(f *testing.F) {
	for _, m := range routeMessages {
		f.Add(unhex(f, m.body))
	}
	f.Add(unhex(f, "02000000"+"02000000"+"02000000"+"08000100"+"0a000002"+"0a000200"+"025500000001"+"0000")) // neighbour 10.0.0.2
	f.Add(unhex(f, "00000100"+"02000000"+"43100100"+"00000000"+"09000300"+"65746830"+"00000000"))            // link eth0
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := parseRoute(b); ok && !k.prefix.IsValid() {
			t.Errorf("parseRoute gives the prefix %v", k.prefix)
		}
		parseLink(b)
		if a, ok := parseAddr(b); ok && !a.prefix.IsValid() {
			t.Errorf("parseAddr gives the prefix %v", a.prefix)
		}
		parseNeighbour(b)
		parseRule(b)
	})
}

func TestRIBFollowsRouteMessages(t *testing.T) {
	via := func(metric uint32, gateway uint32) kernelRoute {
		return kernelRoute{prefix: netip.MustParsePrefix("198.51.100.0/24"), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, priority: metric,
			hops: []kernelHop{{index: 2, gateway: packet.AddrFrom4(gateway), weight: 1}}}
	}
	now := func(r *rib) uint32 {
		if k := best(r.main[via(0, 0).prefix]); k != nil {
			return k.hops[0].gateway.V4()
		}
		return 0
	}
	r := newRIB(137)
	steps := []struct {
		name string
		do   func() bool
		ok   bool
		want uint32
	}{
		{"added", func() bool { return r.add(via(20, 1), 0) }, true, 1},
		{"told again", func() bool { return r.add(via(20, 1), 0) }, true, 1},
		{"a better metric", func() bool { return r.add(via(10, 2), 0) }, true, 2},
		{"the worse one replaced", func() bool { return r.add(via(20, 3), unix.NLM_F_REPLACE) }, true, 2},
		{"the better one removed", func() bool { return r.remove(via(10, 2)) }, true, 3},
		{"removed though unknown", func() bool { return r.remove(via(10, 2)) }, false, 3},
		{"another of equal rank", func() bool { return r.add(via(20, 4), 0) }, false, 3},
		{"removed", func() bool { return r.remove(via(20, 3)) }, true, 0},
		{"of a table that isn't mirrored", func() bool { k := via(1, 9); k.table = 100; return r.add(k, 0) }, true, 0},
		{"for one type of service", func() bool { k := via(1, 9); k.tos = 16; return r.add(k, 0) }, true, 0},
		{"of the guard", func() bool { k := via(1, 9); k.proto = 137; return r.add(k, 0) }, true, 0},
	}
	for _, s := range steps {
		if ok := s.do(); ok != s.ok {
			t.Errorf("%s: %v, want %v", s.name, ok, s.ok)
		}
		if got := now(r); got != s.want {
			t.Errorf("%s: by way of %d, want %d", s.name, got, s.want)
		}
	}
	dead := via(5, 7)
	dead.hops[0].dead = true
	r.add(via(20, 1), 0)
	r.add(dead, 0)
	if got := now(r); got != 1 {
		t.Errorf("a dead route before a live one: by way of %d, want 1", got)
	}
}
