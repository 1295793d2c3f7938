package sched

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"uvs/packet"
	"uvs/service"
)

var testKey = service.Key{Proto: service.TCP, Addr: netip.MustParseAddrPort("10.9.0.100:80")}

// server makes the real server 10.1.0.n:80.
func server(n int, weight int32, active, inactive int) *service.RealServer {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 80)
	rs := service.NewRealServer(testKey, addr, service.Route, weight)
	for range active {
		rs.Bind(true)
	}
	for range inactive {
		rs.Bind(false)
	}
	return rs
}

// overloaded makes rs one that takes no more connections.
func overloaded(rs *service.RealServer) *service.RealServer {
	rs.SetThresholds(1, 0)
	rs.Bind(false)
	return rs
}

type servers = []*service.RealServer

// request is a connection from 192.0.2.x, x derived from n, to 198.18.0.n.
func request(n int) *service.Request {
	return &service.Request{Flow: packet.Flow{
		Src: packet.AddrFrom4(0xc0000200 + uint32(n)*2654435761>>8), SrcPort: uint16(1024 + n*7),
		Dst: packet.AddrFrom4(0xc6120000 + uint32(n)), DstPort: 80, Proto: packet.ProtoTCP,
	}}
}

// prepared makes a scheduler for a list.
func prepared(t testing.TB, name string, flags service.SchedFlags, list servers) service.Scheduler {
	t.Helper()
	s, err := New(name, flags)
	if err != nil {
		t.Fatal(err)
	}
	s.Prepare(list)
	return s
}

func TestNewKnowsTheNamesOfIpvsadm(t *testing.T) {
	for _, name := range Names() {
		if s, err := New(name, 0); s == nil || err != nil {
			t.Errorf("New(%q) = %v, %v", name, s, err)
		}
	}
	if s, err := New("none", 0); s != nil || err != nil {
		t.Errorf(`New("none") = %v, %v, want nil, nil`, s, err)
	}
	for _, name := range []string{"", "nosuch", "RR", "averyveryverylongschedulername"} {
		if _, err := New(name, 0); !errors.Is(err, service.ErrNoScheduler) {
			t.Errorf("New(%q) fails with %v, want %v", name, err, service.ErrNoScheduler)
		}
	}
}

func TestFlagNames(t *testing.T) {
	for _, c := range []struct {
		scheduler string
		names     []string
		flags     service.SchedFlags
		back      []string
	}{
		{"sh", []string{"sh-fallback", "sh-port"}, 0x18, []string{"sh-fallback", "sh-port"}},
		{"sh", []string{"flag-1", "flag-2", "flag-3"}, 0x38, []string{"sh-fallback", "sh-port", "flag-3"}},
		{"mh", []string{"mh-port"}, 0x10, []string{"mh-port"}},
		{"rr", []string{"flag-2"}, 0x10, []string{"flag-2"}},
		{"rr", nil, 0, nil},
	} {
		flags, err := ParseFlags(c.scheduler, c.names)
		if err != nil || flags != c.flags {
			t.Errorf("ParseFlags(%q, %q) = %#x, %v, want %#x", c.scheduler, c.names, flags, err, c.flags)
		}
		if back := FlagNames(c.scheduler, flags); !slices.Equal(back, c.back) {
			t.Errorf("FlagNames(%q, %#x) = %q, want %q", c.scheduler, flags, back, c.back)
		}
	}
	for _, c := range [][2]string{{"rr", "sh-port"}, {"mh", "sh-fallback"}, {"sh", "nosuch"}} {
		if _, err := ParseFlags(c[0], c[1:]); !errors.Is(err, service.ErrInvalid) {
			t.Errorf("ParseFlags(%q, %q) fails with %v, want %v", c[0], c[1:], err, service.ErrInvalid)
		}
	}
}

// TestNobodyEligible holds for every scheduler: no server, or none that may take a connection, is nil and no panic.
func TestNobodyEligible(t *testing.T) {
	for _, name := range Names() {
		for _, c := range []struct {
			situation string
			list      servers
		}{
			{"no servers", nil},
			{"one quiesced", servers{server(1, 0, 0, 0)}},
			{"all quiesced", servers{server(1, 0, 0, 0), server(2, 0, 3, 1)}},
			{"one overloaded", servers{overloaded(server(1, 5, 0, 0))}},
			{"quiesced and overloaded", servers{overloaded(server(1, 5, 0, 0)), server(2, 0, 0, 0)}},
		} {
			for _, flags := range []service.SchedFlags{0, service.SchedFlag1, service.SchedFlag1 | service.SchedFlag2} {
				s := prepared(t, name, flags, c.list)
				for n := range 10 {
					if rs := s.Pick(request(n), c.list); rs != nil {
						t.Errorf("%s, flags %#x, %s: picked %v, want none", name, flags, c.situation, rs)
					}
				}
			}
		}
	}
}

// TestIneligibleArePassedOver holds for every scheduler that may choose: the one eligible server takes everything.
func TestIneligibleArePassedOver(t *testing.T) {
	good := server(3, 2, 0, 0)
	list := servers{server(1, 0, 0, 0), overloaded(server(2, 9, 0, 0)), good, overloaded(server(4, 1, 0, 0))}
	for _, name := range Names() {
		if name == "dh" {
			continue // never tries a second server
		}
		s := prepared(t, name, service.SchedFlag1, list)
		for n := range 100 {
			if rs := s.Pick(request(n), list); rs != good {
				t.Fatalf("%s: request %d went to %v, want %v", name, n, rs, good)
			}
		}
	}
}

func TestLeastSchedulers(t *testing.T) {
	for _, c := range []struct {
		scheduler, situation string
		list                 servers
		want                 int // index in list
	}{
		{"lc", "idle: the first of the list", servers{server(1, 1, 0, 0), server(2, 1, 0, 0)}, 0},
		{"lc", "least active", servers{server(1, 1, 2, 0), server(2, 1, 1, 0)}, 1},
		{"lc", "one active is more than 255 inactive", servers{server(1, 1, 1, 0), server(2, 1, 0, 255)}, 1},
		{"lc", "one active is as much as 256 inactive", servers{server(1, 1, 1, 0), server(2, 1, 0, 256)}, 0},
		{"lc", "weights don't count", servers{server(1, 1, 1, 0), server(2, 100, 2, 0)}, 0},
		{"wlc", "idle: the first of the list", servers{server(1, 1, 0, 0), server(2, 9, 0, 0)}, 0},
		{"wlc", "weights count", servers{server(1, 1, 1, 0), server(2, 3, 2, 0)}, 1},
		{"wlc", "tie", servers{server(1, 1, 1, 0), server(2, 2, 2, 0)}, 0},
		{"wlc", "quiesced first", servers{server(1, 0, 0, 0), server(2, 1, 5, 0)}, 1},
		{"wlc", "products beyond 32 bits", servers{server(1, 1<<31-1, 300, 0), server(2, 1<<31-2, 299, 0)}, 1},
		{"sed", "idle: the heaviest", servers{server(1, 1, 0, 0), server(2, 3, 0, 0), server(3, 2, 0, 0)}, 1},
		{"sed", "tie", servers{server(1, 2, 1, 0), server(2, 1, 0, 0)}, 0},
		{"sed", "inactive don't count", servers{server(1, 2, 0, 99), server(2, 1, 0, 0)}, 0},
		{"sed", "(active+1)/weight", servers{server(1, 1, 1, 0), server(2, 3, 4, 0)}, 1},
		{"nq", "the first idle one, not the heaviest", servers{server(1, 5, 1, 0), server(2, 1, 0, 0), server(3, 9, 0, 0)}, 1},
		{"nq", "all busy: as sed", servers{server(1, 1, 1, 0), server(2, 3, 2, 0)}, 1},
		{"nq", "idle but quiesced", servers{server(1, 0, 0, 0), server(2, 3, 2, 0)}, 1},
		{"fo", "the heaviest", servers{server(1, 2, 0, 0), server(2, 3, 99, 0), server(3, 1, 0, 0)}, 1},
		{"fo", "tie", servers{server(1, 2, 0, 0), server(2, 3, 0, 0), server(3, 3, 0, 0)}, 1},
		{"fo", "heaviest overloaded", servers{overloaded(server(1, 9, 0, 0)), server(2, 3, 0, 0), server(3, 4, 0, 0)}, 2},
		{"ovf", "the heaviest", servers{server(1, 2, 0, 0), server(2, 3, 3, 50), server(3, 1, 0, 0)}, 1},
		{"ovf", "the heaviest overflows", servers{server(1, 2, 0, 0), server(2, 3, 4, 0), server(3, 1, 0, 0)}, 0},
	} {
		s := prepared(t, c.scheduler, 0, c.list)
		if rs := s.Pick(request(1), c.list); rs != c.list[c.want] {
			t.Errorf("%s, %s: picked %v, want %v", c.scheduler, c.situation, rs, c.list[c.want])
		}
	}
	full := servers{server(1, 2, 3, 0), server(2, 3, 4, 0)}
	if rs := (ovf{}).Pick(nil, full); rs != nil {
		t.Errorf("ovf picked %v although all have more active connections than weight", rs)
	}
}

func TestTwosDraws(t *testing.T) {
	list := servers{server(1, 2, 1, 0), server(2, 3, 2, 0), server(3, 0, 0, 0), server(4, 5, 5, 0)} // 128, 170.6, -, 256 per weight
	for _, c := range []struct {
		draws [2]uint64
		want  int
	}{
		{[2]uint64{0, 0}, 0}, {[2]uint64{2, 2}, 0}, // 0 and the weight itself are the first's
		{[2]uint64{3, 5}, 1}, {[2]uint64{6, 10}, 3}, // the quiesced one has no ticket
		{[2]uint64{10, 3}, 1}, {[2]uint64{3, 10}, 1}, {[2]uint64{10, 0}, 0},
	} {
		draws := c.draws[:]
		s := &twos{random: func(n uint64) uint64 {
			if n != 11 {
				t.Errorf("draws from %d numbers, want 11", n)
			}
			d := draws[0]
			draws = draws[1:]
			return d
		}}
		if rs := s.Pick(nil, list); rs != list[c.want] {
			t.Errorf("draws %v: picked %v, want %v", c.draws, rs, list[c.want])
		}
	}
	tie := servers{server(1, 1, 1, 0), server(2, 1, 1, 0)}
	draws := []uint64{2, 1}
	s := &twos{random: func(uint64) uint64 { d := draws[0]; draws = draws[1:]; return d }}
	if rs := s.Pick(nil, tie); rs != tie[1] {
		t.Errorf("tie: picked %v, want the first drawn, %v", rs, tie[1])
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	list := make(servers, 50)
	for i := range list {
		list[i] = server(i+1, int32(i%7), i%3, i%5)
	}
	for _, name := range Names() {
		s := prepared(t, name, service.SchedFlag1|service.SchedFlag2, list)
		r := request(5)
		s.Pick(r, list) // lblc and lblcr remember a new destination
		if n := testing.AllocsPerRun(200, func() { s.Pick(r, list) }); n != 0 {
			t.Errorf("%s: %v allocations per decision, want 0", name, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, name := range Names() {
		for _, n := range []int{3, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				list := make(servers, n)
				for i := range list {
					list[i] = server(i+1, int32(1+i%10), i%3, i%5)
				}
				s := prepared(b, name, 0, list)
				requests := make([]*service.Request, 64)
				for i := range requests {
					requests[i] = request(i)
					s.Pick(requests[i], list)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					s.Pick(requests[i&63], list)
					i++
				}
			})
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	for _, name := range []string{"sh", "dh", "mh"} {
		for _, n := range []int{3, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				list := make(servers, n)
				for i := range list {
					list[i] = server(i+1, int32(1+i%10), 0, 0)
				}
				s := prepared(b, name, 0, list)
				b.ReportAllocs()
				for b.Loop() {
					s.Prepare(list)
				}
			})
		}
	}
}
