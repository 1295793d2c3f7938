package nexthop

import (
	"net/netip"
	"testing"

	"uvs/packet"
)

func TestStaticAnswersAsItWasTold(t *testing.T) {
	var s Static
	if hop, status := s.Lookup(ip("10.0.0.2")); hop != nil || status != NoRoute || s.Generation() != 0 {
		t.Errorf("the zero Static: %v, %v, generation %d, want no route and 0", hop, status, s.Generation())
	}
	far, near, host := &Hop{MTU: 1}, &Hop{MTU: 2}, &Hop{MTU: 3}
	s.SetPrefix(netip.MustParsePrefix("0.0.0.0/0"), far, Ready)
	s.SetPrefix(netip.MustParsePrefix("10.0.0.9/24"), near, Ready)
	s.Set(ip("10.0.0.2"), host, Ready)
	s.Set(ip("10.0.0.3"), nil, Unreachable)
	for dst, want := range map[string]*Hop{"192.0.2.1": far, "10.0.0.1": near, "10.0.0.2": host, "10.0.0.3": nil, "2001:db8::1": nil} {
		if hop, _ := s.Lookup(ip(dst)); hop != want {
			t.Errorf("Lookup(%s) = %v, want %v", dst, hop, want)
		}
	}
	if got := s.Generation(); got != 4 {
		t.Errorf("Generation() = %d after four changes, want 4", got)
	}
	s.Resolve(ip("10.0.0.3"))
	if got := s.Asked(); len(got) != 1 || got[0] != ip("10.0.0.3") || s.Asked() != nil {
		t.Errorf("Asked() = %v, want 10.0.0.3 once", got)
	}
	s.HandleARP(0, new(packet.ARP))
	if got := s.Heard(); len(got) != 1 {
		t.Errorf("Heard() = %v, want one packet", got)
	}
	if n := testing.AllocsPerRun(100, func() { s.Lookup(ip("192.0.2.1")) }); n != 0 {
		t.Errorf("Lookup: %v allocations, want 0", n)
	}
}
