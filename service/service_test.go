package service

import (
	"net/netip"
	"testing"

	"uvs/packet"
)

func TestKeyString(t *testing.T) {
	for _, c := range []struct {
		key  Key
		want string
	}{
		{Key{Proto: TCP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}, "tcp 10.9.0.100:80"},
		{Key{Proto: UDP, Addr: netip.MustParseAddrPort("[2001:db8::1]:53")}, "udp [2001:db8::1]:53"},
		{Key{Mark: 7, Addr: netip.MustParseAddrPort("0.0.0.0:0")}, "fwmark 7"},
		{Key{Mark: 7, Addr: netip.MustParseAddrPort("[::]:0")}, "fwmark 7 (IPv6)"},
	} {
		if got := c.key.String(); got != c.want {
			t.Errorf("String() = %q, want %q", got, c.want)
		}
	}
}

// TestMatchFollowsTheKernelsOrder has one row for each step of ip_vs_service_find.
func TestMatchFollowsTheKernelsOrder(t *testing.T) {
	service := func(p Proto, addr string) *VirtualService {
		return &VirtualService{Key: Key{Proto: p, Addr: netip.MustParseAddrPort(addr)}}
	}
	mark := &VirtualService{Key: Key{Mark: 7, Addr: netip.MustParseAddrPort("0.0.0.0:0")}}
	mark6 := &VirtualService{Key: Key{Mark: 7, Addr: netip.MustParseAddrPort("[::]:0")}}
	http, dns := service(TCP, "10.9.0.100:80"), service(UDP, "10.9.0.100:53")
	ftp, all := service(TCP, "10.9.0.101:21"), service(TCP, "10.9.0.102:0")
	ftpAll := service(TCP, "10.9.0.101:0")
	http6 := service(TCP, "[2001:db8::1]:80")
	table := NewTable([]*VirtualService{mark, mark6, http, dns, ftp, all, ftpAll, http6}, new(ServerIndex), 3)
	for _, c := range []struct {
		situation string
		proto     Proto
		dst       string
		mark      uint32
		want      *VirtualService
	}{
		{"protocol, address and port", TCP, "10.9.0.100:80", 0, http},
		{"the other protocol", UDP, "10.9.0.100:80", 0, nil},
		{"UDP", UDP, "10.9.0.100:53", 0, dns},
		{"another address", TCP, "10.9.0.99:80", 0, nil},
		{"a mark goes before the address, for any protocol", UDP, "10.9.0.100:80", 7, mark},
		{"an unknown mark doesn't matter", TCP, "10.9.0.100:80", 8, http},
		{"the mark of the other family", TCP, "[2001:db8::9]:80", 7, mark6},
		{"FTP control", TCP, "10.9.0.101:21", 0, ftp},
		{"FTP active data", TCP, "10.9.0.101:20", 0, ftp},
		{"FTP passive data goes before port zero", TCP, "10.9.0.101:1024", 0, ftp},
		{"below the data ports: port zero", TCP, "10.9.0.101:1023", 0, ftpAll},
		{"port zero takes every port", TCP, "10.9.0.102:4711", 0, all},
		{"but not the other protocol", UDP, "10.9.0.102:4711", 0, nil},
		{"IPv6", TCP, "[2001:db8::1]:80", 0, http6},
	} {
		dst := netip.MustParseAddrPort(c.dst)
		f := &packet.Flow{Dst: packet.AddrFrom(dst.Addr()), DstPort: dst.Port(), Proto: uint8(c.proto)}
		if got := table.Match(f, c.mark); got != c.want {
			t.Errorf("%s: Match(%v %v, mark %d) = %v, want %v", c.situation, c.proto, c.dst, c.mark, got, c.want)
		}
	}
	for _, vs := range table.Services {
		if got := table.Service(vs.Key); got != vs {
			t.Errorf("Service(%v) = %v", vs.Key, got)
		}
	}
	if table.Empty() || !NewTable(nil, nil, 0).Empty() {
		t.Error("Empty is wrong")
	}
	if !table.IsVIP(packet.AddrFrom(http.Addr.Addr())) || table.IsVIP(packet.Addr{}) {
		t.Error("IsVIP is wrong")
	}
	n := 0
	table.VIPs(func(packet.Addr) bool { n++; return true })
	if n != 4 {
		t.Errorf("VIPs gives %d addresses, want 4", n)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	vs := &VirtualService{Key: Key{Proto: TCP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}}
	table := NewTable([]*VirtualService{vs}, nil, 0)
	f := &packet.Flow{Dst: packet.AddrFrom(vs.Addr.Addr()), DstPort: 80, Proto: packet.ProtoTCP}
	if n := testing.AllocsPerRun(100, func() { table.Match(f, 0) }); n != 0 {
		t.Errorf("%v allocations per Match, want 0", n)
	}
}

func newServer(n int) *RealServer {
	return NewRealServer(Key{}, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}), 80), Route, 1)
}

func TestThresholds(t *testing.T) {
	rs := newServer(1)
	check := func(situation string, overloaded bool) {
		t.Helper()
		if rs.Overloaded() != overloaded || rs.Eligible() == overloaded {
			t.Errorf("%s: Overloaded() = %v, Eligible() = %v", situation, rs.Overloaded(), rs.Eligible())
		}
	}
	rs.SetThresholds(4, 2)
	for range 3 {
		rs.Bind(true)
	}
	check("below the upper threshold", false)
	rs.Bind(false)
	check("at the upper threshold", true)
	rs.Unbind(false)
	rs.Unbind(true)
	check("at the lower threshold", true)
	rs.Unbind(true)
	check("below the lower threshold", false)

	rs.SetThresholds(4, 0)
	for range 3 {
		rs.Bind(false)
	}
	check("at the upper threshold, no lower one", true)
	rs.Unbind(false)
	check("at three quarters", true)
	rs.Unbind(false)
	check("below three quarters", false)

	rs.Bind(false)
	rs.Bind(false)
	check("at the upper threshold again", true)
	rs.SetThresholds(3, 0)
	check("lowering the upper threshold changes nothing", true)
	rs.SetThresholds(9, 0)
	check("raising it ends the overload", false)
	rs.SetThresholds(1, 0)
	rs.BindTemplate()
	check("templates don't count, edits don't look", false)
	rs.Bind(false)
	check("over", true)
	rs.SetThresholds(0, 0)
	check("no thresholds any more", false)
	if rs.Refs() != 6 {
		t.Errorf("Refs() = %d, want 6", rs.Refs())
	}
}

func TestStagedWeight(t *testing.T) {
	rs := newServer(1)
	rs.StageWeight(5)
	rs.StageWeight(0)
	if rs.Weight() != 1 || rs.StagedWeight() != 0 || rs.LastWeight() != 5 {
		t.Errorf("staged: weight %d, staged %d, last %d, want 1, 0, 5", rs.Weight(), rs.StagedWeight(), rs.LastWeight())
	}
	rs.CommitWeight()
	if rs.Weight() != 0 || rs.LastWeight() != 5 {
		t.Errorf("committed: weight %d, last %d, want 0, 5", rs.Weight(), rs.LastWeight())
	}
	rs.Readmit(0)
	if rs.LastWeight() != 0 {
		t.Errorf("readmitted: last %d, want 0", rs.LastWeight())
	}
}

func TestEncapIsKeptWhole(t *testing.T) {
	rs := newServer(1)
	if rs.Encap() != (Encap{}) {
		t.Errorf("Encap() = %+v of a new server", rs.Encap())
	}
	for _, e := range []Encap{{GUE, RemoteChecksum, 65535}, {GRE, FullChecksum, 0}, {}} {
		if rs.SetEncap(e); rs.Encap() != e {
			t.Errorf("Encap() = %+v, want %+v", rs.Encap(), e)
		}
	}
}

func TestServerIndexReusesSlots(t *testing.T) {
	x := new(ServerIndex)
	var list []*RealServer
	for i := range chunkSize + 10 {
		rs := newServer(i)
		if err := x.Add(rs); err != nil || rs.Index != uint32(i) {
			t.Fatalf("Add: index %d, %v, want %d", rs.Index, err, i)
		}
		list = append(list, rs)
	}
	for i, rs := range list {
		if x.At(uint32(i)) != rs {
			t.Fatalf("At(%d) = %v", i, x.At(uint32(i)))
		}
	}
	x.Remove(list[3])
	x.Remove(list[3]) // a second time does nothing
	if x.At(3) != nil {
		t.Errorf("At(3) = %v after Remove", x.At(3))
	}
	again, next := newServer(1), newServer(2)
	if err := x.Add(again); err != nil || again.Index != 3 {
		t.Errorf("Add: index %d, %v, want the free slot 3", again.Index, err)
	}
	x.Remove(list[3]) // not its slot any more
	if x.At(3) != again {
		t.Errorf("At(3) = %v, want the server added last", x.At(3))
	}
	if err := x.Add(next); err != nil || int(next.Index) != chunkSize+10 || x.Cap() != chunkSize+11 {
		t.Errorf("Add: index %d, %v, Cap() %d", next.Index, err, x.Cap())
	}
	if x.At(NoServer) != nil || x.At(maxChunks*chunkSize) != nil {
		t.Error("At beyond the last slot isn't nil")
	}
}
